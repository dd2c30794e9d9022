"""Mean IoU, accuracies and IoU per class, from one confusion matrix over all pixels of all images.

A class that is neither in the masks nor predicted has no IoU, and one that is not in the masks no accuracy: nan, and
left out of the mean. One that is predicted but nowhere in the masks has an IoU of 0.
"""

import numpy as np

from src.errors import UserError
from src.files import write_csv


class ConfusionMatrix:
    """Counts of pixels: row the true class, column the predicted one.

    Attributes:
        counts: int64 (num_classes, num_classes).
        images: int64 (1,), how many are counted.
    """

    def __init__(self, num_classes):
        self.counts = np.zeros((num_classes, num_classes), np.int64)
        self.images = np.zeros(1, np.int64)

    def update(self, classes, labels):
        """Count an image: predicted `classes` and true `labels`, (H, W); labels that are no class do not count."""
        size = len(self.counts)
        counted = labels < size
        pairs = labels[counted].astype(np.int64) * size + classes[counted]
        self.counts += np.bincount(pairs, minlength=size * size).reshape(size, size)
        self.images += 1

    def gather(self, ranks):
        """Add the counts of all processes of `Ranks` up."""
        self.counts, self.images = ranks.sum(self.counts), ranks.sum(self.images)

    def iou(self):
        """Compute the intersection over union of each class, float (num_classes,); nan: see the module."""
        hits = self.counts.diagonal()
        return _divide(hits, self.counts.sum(0) + self.counts.sum(1) - hits)

    def accuracy(self):
        """Compute the share of each class's pixels that are predicted as it, (num_classes,); nan: see the module."""
        return _divide(self.counts.diagonal(), self.counts.sum(1))

    def result(self) -> dict:
        """Give {'mean_iou', 'pixel_accuracy', 'mean_accuracy': in [0, 1], 'images': count}.

        Raises:
            UserError: if no pixel has a class.
        """
        if not self.counts.any():
            raise UserError("no pixel of the evaluated masks has a class, all are 0 (other)")
        return {
            "mean_iou": float(np.nanmean(self.iou())),
            "pixel_accuracy": float(self.counts.trace() / self.counts.sum()),
            "mean_accuracy": float(np.nanmean(self.accuracy())),
            "images": int(self.images[0]),
        }

    def write_report(self, path, names):
        """Write a CSV with a row for each class: its name, true and predicted pixels, IoU and accuracy."""
        columns = (names, self.counts.sum(1), self.counts.sum(0), self.iou(), self.accuracy())
        write_csv(path, [("class", "pixels", "predicted_pixels", "iou", "accuracy"), *zip(*columns)])


def _divide(part, whole):
    return np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)
