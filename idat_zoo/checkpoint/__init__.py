"""A checkpoint: a trained adapter with its head, as adapter_model.safetensors and config.json."""
