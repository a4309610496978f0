"""Explain which passages of a text decided: as numbers, as HTML and as a picture."""
