"""Save and load fitted estimators in folders, and load checkpoints."""
