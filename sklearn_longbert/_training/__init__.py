"""The skorch net, and the parts of training around it."""
