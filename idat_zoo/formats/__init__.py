"""Trained adapters in the formats of other libraries: timm models, PEFT's folders, ONNX graphs."""
