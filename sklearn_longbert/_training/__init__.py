"""The skorch net, and what happens around the batches of a fit."""
