"""Weights: files of every kind that they come in, and the parameter names of other frameworks."""

from src.weights.files import load_weights, read_weights, save_weights, write_weights

__all__ = ["load_weights", "read_weights", "save_weights", "write_weights"]
