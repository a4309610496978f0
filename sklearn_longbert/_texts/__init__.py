"""From the caller's texts to chunked documents."""
