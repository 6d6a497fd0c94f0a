"""The Hugging Face Hub: the only package that imports huggingface_hub, and only inside functions.

What is downloaded is data: JSON, TOML, CSV, Markdown and safetensors. Nothing of it is ever
executed.
"""
