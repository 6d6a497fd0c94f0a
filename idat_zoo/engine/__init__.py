"""The training loop, and its schedule, number formats, memory estimates and resumable state."""
