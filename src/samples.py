"""The order in which a data set's samples are read, for every task: by epoch, by process, from any batch on."""

import numpy as np


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
