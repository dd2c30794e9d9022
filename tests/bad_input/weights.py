"""Weights files, exported files and checkpoints of runs."""

CASES = {}
