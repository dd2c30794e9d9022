"""A split of a dataset as a value: what a task knows of it once its files are listed."""

from dataclasses import dataclass
from typing import Any, Callable, Tuple

from src.data.sampler import EpochSampler
from src.errors import UserError
from src.ranks import Ranks


@dataclass(frozen=True)
class Dataset:
    """What `Task.build_dataset` returns.

    Attributes:
        sampler: `EpochSampler` of this process, of the first epoch.
        batch_size: samples in a batch of this process.
        build: function from an `EpochSampler` to a mindspore.dataset pipeline.
        records: what the index in a sample's key counts: files, or annotated images.
        class_names: what the data call the classes, in index order; () where the settings or an index say it.
        ranks: `Ranks` that share the dataset.
        notes: lines that a user should read, such as how many files were left out.
    """

    sampler: EpochSampler
    batch_size: int
    build: Callable
    records: Any
    class_names: Tuple[str, ...]
    ranks: Ranks
    notes: Tuple[str, ...] = ()

    @property
    def batches(self) -> int:
        """Number of batches of an epoch on this process."""
        return -(-len(self.sampler) // self.batch_size)

    def pipeline(self, first_epoch: int = 0, first_batch: int = 0, epochs: int = 1):
        """Build a mindspore.dataset pipeline, which gives the batches of all its epochs in one pass.

        Args:
            first_epoch: number of the epoch to begin with.
            first_batch: how many batches that epoch leaves out at its beginning.
            epochs: how many, the first one counted; more than one are for training, whose batches are all whole.

        Raises:
            UserError: if the epoch has no batch behind these.
        """
        if not 0 <= first_batch < self.batches:
            raise UserError(f"an epoch has {self.batches} batches, none behind {first_batch}")
        return self.build(self.sampler.starting_at(first_epoch, first_batch * self.batch_size, epochs))
