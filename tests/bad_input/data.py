"""Images, annotations, labels and folders."""

CASES = {}
