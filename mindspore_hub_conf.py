"""The entry point of MindSpore Hub: `create_network(name, num_classes=1000, **options)`, names as in `network.name`."""

from src.networks import create_network

__all__ = ["create_network"]
