"""Fitted estimators and checkpoints in folders."""
