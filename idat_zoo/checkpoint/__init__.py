"""A published adapter: adapter_model.safetensors and config.json, written and read with checks."""
