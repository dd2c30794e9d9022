"""The order in which a data set's samples are read, for every task: by epoch, by process, from any batch on."""

import numpy as np

from src.errors import UserError


class Samples:
    """Endless source of (key, label), key = (epoch, index); each pass over it is the next epoch.

    Args:
        labels: (N, ...), an entry a sample, such as its class.
        seed: of the order of each epoch.
        shuffle: whether the order is random.
        rank, ranks: this process takes every `ranks`-th sample, beginning at `rank`.
        first_epoch: number of the first pass.
        skip: how many of this process's samples the first pass leaves out at its beginning.
        count: how many each process takes of its samples before that; None: all, which may differ by one.
    """

    def __init__(self, labels, seed=0, shuffle=False, rank=0, ranks=1, first_epoch=0, skip=0, count=None):
        self.labels, self.seed, self.shuffle = labels, seed, shuffle
        self.rank, self.ranks = rank, ranks
        self.next_epoch = self.first_epoch = first_epoch
        self.skip = skip
        self.count = len(range(rank, len(labels), ranks)) if count is None else count

    def __len__(self):
        """Length of the first pass."""
        return self.count - self.skip

    def __iter__(self):
        epoch = self.next_epoch
        self.next_epoch += 1
        order = np.arange(len(self.labels))
        if self.shuffle:
            np.random.default_rng((self.seed, epoch)).shuffle(order)
        skip = self.skip if epoch == self.first_epoch else 0
        for index in order[self.rank :: self.ranks][skip : self.count]:
            yield np.array((epoch, index), np.int64), self.labels[index]


def evaluation_samples(entries, source, runtime):
    """`Samples` in order, every one on one process.

    Args:
        entries: see `Samples.labels`.
        source: what the entries come from, for messages.
        runtime: `Runtime`.

    Raises:
        UserError: if there are fewer than processes.
    """
    if len(entries) < runtime.ranks:
        raise UserError(f"{source}: has {len(entries)} images, too few for one on each of {runtime.ranks} devices")
    return Samples(entries, rank=runtime.rank, ranks=runtime.ranks)


def training_samples(entries, source, train, seed, runtime, first_epoch=0, first_step=0):
    """`Samples` in random order, of whole updates: every process has the same number of them.

    Args:
        entries: see `Samples.labels`.
        source: what the entries come from, for messages.
        train: `TrainSettings`.
        seed: of the run.
        runtime: `Runtime`.
        first_epoch, first_step: number of the first epoch, and how many of this process's batches it leaves out.

    Raises:
        UserError: if there are too few for one update, or none behind `first_step`.
    """
    update = train.accumulation_steps * train.batch_size
    count = len(entries) // runtime.ranks // update * update
    if count == 0:
        raise UserError(
            f"{source}: has {len(entries)} images, too few for one update of {update * runtime.ranks}: on each of "
            f"{runtime.ranks} devices train.accumulation_steps {train.accumulation_steps} x train.batch_size "
            f"{train.batch_size}"
        )
    skip = first_step * train.batch_size
    if not 0 <= skip < count:
        raise UserError(f"{source}: an epoch has {count // train.batch_size} batches, none behind {first_step}")
    order = {"seed": seed, "shuffle": True, "rank": runtime.rank, "ranks": runtime.ranks}
    return Samples(entries, **order, first_epoch=first_epoch, skip=skip, count=count)
