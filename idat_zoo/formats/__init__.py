"""Trained adapters for those who do without idat-zoo: timm models, PEFT's LoRA, ONNX graphs."""
