"""Frozen timm backbones, the walk through them, and networks made of backbone, adapter, head."""
