"""Top-1 and top-5 accuracy and mean cross-entropy, over every sample exactly once, on all processes together."""

import numpy as np
from scipy.special import log_softmax

from src.files import write_csv

TOP = 5


class ClassificationMetrics:
    """A record of each of `count` samples; each process fills in its own, `gather` brings them together.

    Attributes:
        best: int (count, TOP), the classes in falling order of their logits; -1 where there are fewer.
        labels: int (count,).
        loss, confidence: float (count,), cross-entropy and the probability of the best class.
    """

    def __init__(self, count):
        self.best = np.zeros((count, TOP), np.int64)
        self.labels = np.zeros(count, np.int64)
        self.loss = np.zeros(count)
        self.confidence = np.zeros(count)
        self.seen = np.zeros(count, np.int64)

    def update(self, indices, logits, labels):
        """Record logits (N, classes) and labels (N,) of the samples `indices` (N,)."""
        logits = np.asarray(logits, np.float64)
        best = np.argsort(-logits, axis=1, kind="stable")[:, :TOP]  # equal logits in index order
        self.best[indices] = -1
        self.best[indices, : best.shape[1]] = best
        self.labels[indices] = labels
        log_probabilities = log_softmax(logits, axis=1)
        self.loss[indices] = -log_probabilities[np.arange(len(labels)), labels]
        self.confidence[indices] = np.exp(log_probabilities.max(axis=1))
        np.add.at(self.seen, indices, 1)

    def gather(self, ranks):
        """Sum the records of all processes of `Ranks`, each of which holds zeros for the others' samples."""
        for name in ("best", "labels", "loss", "confidence", "seen"):
            setattr(self, name, ranks.sum(getattr(self, name)))
        if not (self.seen == 1).all():
            raise RuntimeError(f"{int((self.seen != 1).sum())} images were not evaluated exactly once")

    def result(self) -> dict:
        """Give {'top_1_accuracy', 'top_5_accuracy': shares in [0, 1], 'loss': mean, 'images': count}."""
        hits = self.best == self.labels[:, None]
        return {
            "top_1_accuracy": float(hits[:, 0].mean()),
            "top_5_accuracy": float(hits.any(axis=1).mean()),
            "loss": float(self.loss.mean()),
            "images": len(self.labels),
        }

    def confusion(self, num_classes: int):
        """Count (classes, classes): samples of the class of each row that the class of each column was found for."""
        counts = np.bincount(self.labels * num_classes + self.best[:, 0], minlength=num_classes**2)
        return counts.reshape(num_classes, num_classes)

    def write_reports(self, folder, files, names):
        """Write `per_class.csv` and `predictions.csv` into `folder`.

        Args:
            folder: pathlib.Path.
            files: path of each sample.
            names: of the classes, in index order.
        """
        hits = self.best == self.labels[:, None]
        rows = [("class", "images", "top_1_accuracy", "top_5_accuracy")]
        for index in np.unique(self.labels):
            chosen = hits[self.labels == index]
            rows.append((names[index], len(chosen), chosen[:, 0].mean(), chosen.any(axis=1).mean()))
        write_csv(folder / "per_class.csv", rows)
        rows = [("image", "label", *(f"top_{place + 1}" for place in range(TOP)), "confidence", "loss")]
        for file, label, best, confidence, loss in zip(files, self.labels, self.best, self.confidence, self.loss):
            predicted = (names[index] if index >= 0 else "" for index in best)
            rows.append((file, names[label], *predicted, f"{confidence:.6f}", f"{loss:.6f}"))
        write_csv(folder / "predictions.csv", rows)
