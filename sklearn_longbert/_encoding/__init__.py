"""From chunked documents to embeddings and logits, in passes that fit into memory."""
