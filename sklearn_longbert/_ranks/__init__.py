"""Several processes, called ranks, that encode together: rank 0 leads, the others follow."""
