"""Baselines: models of raw texts, on whose logits the encoder builds."""
