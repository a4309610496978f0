"""From chunked documents to embeddings and logits, in passes that memory holds."""
