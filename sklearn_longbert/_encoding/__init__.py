"""Turn chunked documents into embeddings and logits, in passes that fit into memory."""
