"""Find and load pretrained encoders and tokenizers, and choose where they compute."""
