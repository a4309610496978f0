"""Targets: their checks, losses, predictions and linear probes."""
