"""Top-1 and top-5 accuracy and mean cross-entropy, over every sample exactly once."""

import numpy as np

TOP = 5


class ClassificationMetrics:
    """Sums over batches of logits (N, classes) and labels (N,); `result` divides once, at the end."""

    def __init__(self):
        self.count = self.top_1 = self.top_5 = 0
        self.loss = 0.0

    def update(self, logits, labels):
        logits = np.asarray(logits, np.float64)
        rows = np.arange(len(labels))
        # best first; equal logits in index order
        best = np.argsort(-logits, axis=1, kind="stable")[:, :TOP]
        hits = best == np.asarray(labels)[:, None]
        shifted = logits - logits.max(axis=1, keepdims=True)
        log_probability = shifted[rows, labels] - np.log(np.exp(shifted).sum(axis=1))
        self.count += len(labels)
        self.top_1 += int(hits[:, 0].sum())
        self.top_5 += int(hits.any(axis=1).sum())
        self.loss -= float(log_probability.sum())

    def result(self) -> dict:
        """{'top_1_accuracy', 'top_5_accuracy': shares in [0, 1], 'loss': mean, 'images': count}."""
        return {
            "top_1_accuracy": self.top_1 / self.count,
            "top_5_accuracy": self.top_5 / self.count,
            "loss": self.loss / self.count,
            "images": self.count,
        }
