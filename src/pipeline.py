"""From `Samples` to batches, for every task: worker threads or processes that load whole batches.

A batch is one row of MindSpore's pipeline: decoding is Python calling Pillow, which lets other threads run, and rows
of single pictures cost more in queues and in waiting for the interpreter than in work.
"""

import os
from itertools import islice

import mindspore.dataset as ds
import numpy as np

from src.images import normalise

PREFETCHED = 2  # batches that each worker may be ahead of the network; MindSpore's own 16 are gigabytes


class Batches:
    """Endless source of (keys int64 (B, 2), entries (B, ...)) from `Samples`; the last of a pass may be short."""

    def __init__(self, samples, size):
        self.samples, self.size = samples, size

    def __len__(self):
        return -(-len(self.samples) // self.size)

    def __iter__(self):
        samples = iter(self.samples)
        while rows := list(islice(samples, self.size)):
            yield tuple(np.stack(column) for column in zip(*rows))


class LoadBatch:
    """Pipeline operation: (keys, entries) -> each column of `load`, stacked."""

    def __init__(self, load):
        self.load = load

    def __call__(self, keys, entries):
        return tuple(np.stack(column) for column in zip(*map(self.load, keys, entries)))


class Normalise:
    """Pipeline operation: (images uint8 (B, H, W, 3), other columns) -> (images float32 (B, 3, H, W), the others)."""

    def __init__(self, mean, std):
        self.mean, self.std = mean, std

    def __call__(self, images, *others):
        return (normalise(images, self.mean, self.std), *others)


def build_batches(samples, load, columns, batch_size, mean, std, finish=(), workers=None, processes=False):
    """Pipeline of batches, the first column of which is the image, float32 (B, 3, H, W), normalised.

    Args:
        samples: `Samples`. The last batch of an epoch may be short.
        load: (key, entry) -> (image uint8 (H, W, 3) of fixed size, other columns).
        columns: names of what `load` gives.
        batch_size: of this process.
        mean, std: of each channel, for values in [0, 1].
        finish: operations on the batch's columns, behind normalisation.
        workers, processes: see `build_pipeline`.
    """
    finish = [Normalise(mean, std), *finish]
    return build_pipeline(Batches(samples, batch_size), LoadBatch(load), columns, finish, workers, processes)


def build_pipeline(source, load, columns, finish=(), workers=None, processes=False):
    """Pipeline of `columns`.

    Args:
        source: gives (key, entry): `Samples` or `Batches`.
        load: (key, entry) -> columns.
        columns: names of what `load` gives.
        finish: operations on all columns that follow `load`. Behind processes they run in a thread, so that bytes
            are sent to it and not floats.
        workers: how many load, at most one a processor core; None: just that.
        processes: whether processes load instead of threads.
    """
    cores = os.cpu_count() or 1  # MindSpore refuses more workers than that
    workers = min(workers or cores, cores)
    ds.config.set_prefetch_size(PREFETCHED)
    dataset = ds.GeneratorDataset(source, ["key", "entry"], shuffle=False, num_parallel_workers=1)
    operations = [load] if processes else [load, *finish]
    dataset = dataset.map(
        operations, ["key", "entry"], columns, num_parallel_workers=workers, python_multiprocessing=processes
    )
    if processes and finish:
        dataset = dataset.map(list(finish), columns, columns, num_parallel_workers=workers)
    return dataset
