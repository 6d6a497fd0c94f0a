"""Frozen timm backbones, the walk through them, and the networks that adapters make of them."""
