"""The most probable classes of an image. Needs no MindSpore."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from src.classification.center_crop import CROP_MODES, CenterCrop
from src.data.images import load_image, normalise
from src.errors import UserError, quote
from src.inference.prediction import Prediction, PredictionOptions, softmax

TOP = 5  # classes of an image


@dataclass(frozen=True)
class ClassificationOptions(PredictionOptions):
    """What a prediction depends on besides the network, see `src.classification.settings`."""

    image_size: int
    eval_resize: int
    interpolation: str
    eval_decoder: str
    crop_mode: Literal[CROP_MODES] = "center"  # files that do not say it were made for this


class ClassificationPredictor:
    """Image files -> their most probable classes.

    Args:
        network: images float32 (N, 3, H, W) -> [logits (N, classes)].
        options: `ClassificationOptions`.
        transform: PIL image -> uint8 (size, size, 3); None for `CenterCrop`.

    Raises:
        UserError: without a transform, if the options ask for one that only MindSpore has.
    """

    def __init__(self, network, options, transform=None):
        if transform is None:
            if options.eval_decoder != "pillow":
                raise UserError(f"data.eval_decoder: {options.eval_decoder} needs MindSpore: scripts/predict.py has it")
            sizes = options.image_size, options.eval_resize
            transform = CenterCrop(*sizes, options.interpolation, options.crop_mode, options.mean)
        self.network, self.options, self.transform = network, options, transform

    def prepare(self, path):
        """Load an image: float32 (1, 3, size, size)."""
        options = self.options
        pixels = np.asarray(self.transform(load_image(path, exif_rotation=options.exif_rotation)))
        return normalise(pixels[None], options.mean, options.std)

    def predict(self, path, batch, draws):
        """Find the classes of what `prepare` gives: a `Prediction`; there is nothing to draw."""
        probabilities = softmax(self.network(batch)[0][0].astype(np.float64), 0)
        names = self.options.class_names
        if len(probabilities) != len(names):
            raise UserError(f"the network gives {len(probabilities)} classes, the settings say {len(names)}")
        findings = [
            {"class": names[index], "index": int(index), "probability": float(probabilities[index])}
            for index in np.argsort(-probabilities, kind="stable")[:TOP]
        ]
        lines = (f"  {finding['probability']:7.2%}  {finding['class']}" for finding in findings)
        return Prediction(path, findings, (quote(path), *lines))
