"""Trained adapters that ship, so that a first `idat eval` works at once."""
