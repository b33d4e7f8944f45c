"""Training the tiny models from scratch: tokenizer, curriculum, trainer, checkpoints."""
