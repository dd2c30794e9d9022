"""The order in which a dataset's samples are read, for every task: by epoch, by process, from any batch on."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from src.errors import UserError

EPOCHS_PER_COPY = 2**20  # distance of the epochs of two copies, more than any run has


def epoch_of(number: int) -> int:
    """Give the epoch that the first number of a key stands for, whichever copy of the image it is of."""
    return number % EPOCHS_PER_COPY


@dataclass(eq=False)
class EpochSampler:
    """Source of (key, entry), where key is (epoch, index); each pass over it gives the same.

    With repeated augmentation (Hoffer et al., "Augment Your Batch", CVPR 2020) each sample of the order stands there
    several times in a row before the processes share it, as in timm's `RepeatAugSampler`. The n-th further copy has a
    key with (epoch + n * EPOCHS_PER_COPY, index), and so random numbers of its own.

    Attributes:
        entries: (N, ...), an entry a sample, such as its class.
        seed: of the order of each epoch.
        shuffle: whether the order is random.
        rank, ranks: this process takes every `ranks`-th sample, beginning at `rank`.
        count: how many each process takes; None: all of its own, which may differ by one between processes.
        first_epoch: number of the epoch that a pass begins with.
        skip: how many of this process's samples that epoch leaves out at its beginning.
        epochs: how many a pass goes through.
        copies: of each sample; 1: no repeated augmentation.
    """

    entries: Any
    seed: int
    shuffle: bool
    rank: int
    ranks: int
    count: Any = None
    first_epoch: int = 0
    skip: int = 0
    epochs: int = 1
    copies: int = 1

    def __post_init__(self):
        if self.count is None:
            self.count = len(range(self.rank, len(self.entries), self.ranks))

    def starting_at(self, epoch: int, skip: int, epochs: int):
        """Make a sampler of some epochs from one on, without that one's first `skip` samples."""
        return dataclasses.replace(self, first_epoch=epoch, skip=skip, epochs=epochs)

    def __len__(self):
        """Count the samples of a pass."""
        return self.epochs * self.count - self.skip

    def __iter__(self):
        for epoch in range(self.first_epoch, self.first_epoch + self.epochs):
            order = np.arange(len(self.entries))
            if self.shuffle:
                np.random.default_rng((self.seed, epoch)).shuffle(order)
            skip = self.skip if epoch == self.first_epoch else 0
            for place in range(self.rank, len(order) * self.copies, self.ranks)[skip : self.count]:
                index, copy = order[place // self.copies], place % self.copies
                yield np.array((epoch + copy * EPOCHS_PER_COPY, index), np.int64), self.entries[index]


def evaluation_sampler(entries, source, ranks) -> EpochSampler:
    """Build a sampler in order, with every sample on one process.

    Args:
        entries: see `EpochSampler`.
        source: what the entries come from, for messages.
        ranks: `Ranks`.

    Raises:
        UserError: if there are fewer samples than processes.
    """
    if len(entries) < ranks.count:
        raise UserError(f"{source}: has {len(entries)} images, too few for one on each of {ranks.count} devices")
    return EpochSampler(entries, seed=0, shuffle=False, rank=ranks.rank, ranks=ranks.count)


def training_sampler(entries, source, train, seed, ranks) -> EpochSampler:
    """Build a sampler in random order, of whole updates: every process has the same number of them.

    Args:
        entries: see `EpochSampler`.
        source: what the entries come from, for messages.
        train: `TrainSettings`.
        seed: of the run.
        ranks: `Ranks`.

    Raises:
        UserError: if there are too few samples for one update.
    """
    update = train.accumulation_steps * train.batch_size
    count = len(entries) // ranks.count // update * update
    if count == 0:
        raise UserError(
            f"{source}: has {len(entries)} images, too few for one update of {update * ranks.count}: on each of "
            f"{ranks.count} devices train.accumulation_steps {train.accumulation_steps} x train.batch_size "
            f"{train.batch_size}"
        )
    return EpochSampler(
        entries, seed, shuffle=True, rank=ranks.rank, ranks=ranks.count, count=count, copies=train.repeated_augmentation
    )
