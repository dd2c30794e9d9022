"""The classes in an image and their shares of it. Needs no MindSpore."""

from dataclasses import dataclass
from typing import Tuple

import numpy as np

from src.data.images import load_image
from src.errors import quote
from src.inference.prediction import Prediction, PredictionOptions
from src.segmentation.drawing import draw_overlay
from src.segmentation.segmenter import Segmenter

SMALLEST_SHARE = 1e-3  # of an image, for a class to be listed


@dataclass(frozen=True)
class SegmentationOptions(PredictionOptions):
    """What a prediction depends on besides the network, see `src.segmentation.settings`."""

    base_size: Tuple[int, int]
    size_multiple: int
    scales: Tuple[float, ...]
    flip: bool


class SegmentationPredictor:
    """Image files -> the classes in them.

    Args:
        network: images float32 (N, 3, H, W) -> [logits (N, classes, h, w)], see `Segmenter`.
        options: `SegmentationOptions`.
    """

    def __init__(self, network, options):
        self.options, self.segment = options, Segmenter(network, len(options.class_names), options, options)

    def prepare(self, path):
        """Load an image: uint8 (H, W, 3)."""
        return np.asarray(load_image(path, exif_rotation=self.options.exif_rotation))

    def predict(self, path, image, draws):
        """Find the classes of the pixels of an image: a `Prediction`, drawn as a colour overlay with a legend."""
        classes, names = self.segment(image), self.options.class_names
        shares = np.bincount(classes.ravel(), minlength=len(names)) / classes.size
        shown = [int(i) for i in np.argsort(-shares, kind="stable") if shares[i] >= SMALLEST_SHARE]
        findings = [{"class": names[index], "index": index, "share": float(shares[index])} for index in shown]
        lines = (f"  {finding['share']:7.2%}  {finding['class']}" for finding in findings)
        drawing = draw_overlay(image, classes, shown, names) if draws else None
        return Prediction(path, findings, (quote(path), *lines), drawing)
