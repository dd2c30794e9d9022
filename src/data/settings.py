"""Settings of the input pipeline, which every task's `data` section has."""

from dataclasses import dataclass
from typing import Optional, Tuple

from src.data.images import IMAGENET_MEAN, IMAGENET_STD
from src.fields import bounded, changeable


@dataclass(frozen=True)
class PipelineSettings:
    """Class names, normalisation and workers.

    Attributes:
        class_names: in index order; empty where the data tell them.
        mean, std: of each channel, for values in [0, 1].
        workers: how many load images, at most one a processor core; None for that many.
        worker_processes: whether the workers are processes instead of threads, for the same pixels.
    """

    class_names: Tuple[str, ...] = ()
    mean: Tuple[float, float, float] = bounded(IMAGENET_MEAN, 0.0, 1.0)
    std: Tuple[float, float, float] = bounded(IMAGENET_STD, 1e-6, 1.0)
    workers: Optional[int] = bounded(None, 1, may_change=True)
    worker_processes: bool = changeable(False)

    @property
    def mean_colour(self):
        """8-bit colour that normalisation takes to about 0."""
        return tuple(round(255 * value) for value in self.mean)
