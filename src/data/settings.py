"""Settings of the input pipeline, which every task's `data` section has."""

from dataclasses import dataclass
from typing import Literal, Optional, Tuple

from src.data.images import IMAGENET_MEAN, IMAGENET_STD
from src.fields import bounded, changeable

MAX_INPUT_SIZE = 2**12  # pixels of a side that a network sees
MAX_IMAGE_SIZE = 2**14  # of one that is cropped
MAX_CLASSES = 1_000_000


@dataclass(frozen=True)
class PipelineSettings:
    """Class names, normalisation and workers.

    Attributes:
        class_names: in index order; empty where the data tell them.
        mean, std: of each channel, for values in [0, 1].
        workers: how many load images, at most one a processor core; None for that many, up to 16.
        exif_rotation: whether photographs are turned as their EXIF orientation says; `scripts/predict.py` does so.
        worker_processes: whether the workers are processes instead of threads, for the same pixels; auto takes
            processes for more than 4 workers, on Linux.
    """

    class_names: Tuple[str, ...] = bounded((), length=MAX_CLASSES)
    mean: Tuple[float, float, float] = bounded(IMAGENET_MEAN, 0.0, 1.0)
    std: Tuple[float, float, float] = bounded(IMAGENET_STD, 1e-6, 1.0)
    workers: Optional[int] = bounded(None, 1, 1024, may_change=True)
    exif_rotation: bool = False
    worker_processes: Literal["auto", True, False] = changeable("auto")

    @property
    def mean_colour(self):
        """8-bit colour that normalisation takes to about 0."""
        return tuple(round(255 * value) for value in self.mean)
