"""Turn the caller's texts into chunked documents."""
