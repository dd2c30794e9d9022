"""From samples to batches, for every task: worker threads or processes that load whole batches.

A batch is one row of MindSpore's pipeline: decoding is Python calling Pillow, which lets other threads run, and rows
of single images cost more in queues and in waiting for the interpreter than in work.
"""

import gc
import os
import sys
import weakref
from itertools import islice

import mindspore.dataset as ds
import numpy as np

from src.data.images import normalise
from src.errors import UserError

PREFETCHED = 2  # batches that each worker may be ahead of the network; MindSpore's own 16 are gigabytes
MOST_WORKERS = 16  # unless more are asked for: enough for a device, while others may share the cores and the memory
# Threads share one interpreter. With the ImageNet recipe, and cores enough, 4 load 4 times as fast as one, 8 load 5 to
# 7 times and 16 no faster than 8; processes do not wait for each other, but take a quarter more time for an image.
MOST_THREADS = 4

if hasattr(os, "register_at_fork"):
    # A process that collects the garbage it was born with, old iterators, crashes. And a signal to a whole group, as
    # `timeout` sends it, must not reach the workers: without them the run could not end in order.
    os.register_at_fork(before=gc.freeze, after_in_parent=gc.unfreeze, after_in_child=lambda: os.setpgid(0, 0))


class Batches:
    """Source of batches from an `EpochSampler`; the last of a pass may be short.

    Each is (keys int64 (B, 2), entries (B, ...)).
    """

    def __init__(self, sampler, size):
        self.sampler, self.size = sampler, size

    def __len__(self):
        return -(-len(self.sampler) // self.size)

    def __iter__(self):
        samples = iter(self.sampler)
        while rows := list(islice(samples, self.size)):
            yield tuple(np.stack(column) for column in zip(*rows))


class BufferPool:
    """Arrays whose memory serves again once nobody holds them, nor a view of them.

    A batch is too large for the C library to keep: each time, the kernel would have to clear its pages anew.
    """

    def __init__(self):
        self.unused = []

    def array(self, shape, dtype):
        """Give an array with any content."""
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        try:
            block = self.unused.pop()
        except IndexError:  # rather than a test before: another thread could take the last one in between
            block = b""
        if len(block) < size:
            block = bytearray(size)
        array = np.frombuffer(block, dtype, int(np.prod(shape)))  # the base of all its views, as `block` is no array
        weakref.finalize(array, self.unused.append, block).atexit = False
        return array.reshape(shape)


class NamedErrors:
    """An operation of a worker whose errors are told in one line; MindSpore would show its own call stack.

    Args:
        operation: function of columns. Its method `source`, if it has one, names the file that they come from; else the
            line begins with the operation's name.
    """

    def __init__(self, operation):
        self.operation = operation

    def __call__(self, *columns):
        try:
            return self.operation(*columns)
        except UserError:
            raise
        except Exception as error:
            source = getattr(self.operation, "source", lambda *_: type(self.operation).__name__)
            reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            raise UserError(f"{source(*columns)}: {reason}") from error


class LoadBatch:
    """Pipeline operation: (keys, entries) -> each column of `load`, stacked."""

    def __init__(self, load):
        self.load, self.buffers = load, BufferPool()

    def __call__(self, keys, entries):
        images, *others = zip(*map(self.load, keys, entries))
        batch = self.buffers.array((len(images), *images[0].shape), images[0].dtype)
        return (np.stack(images, out=batch), *map(np.stack, others))


class Normalise:
    """Pipeline operation: (images uint8 (B, H, W, 3), other columns) -> (images float32 (B, 3, H, W), the others)."""

    def __init__(self, mean, std):
        self.mean, self.std, self.buffers = mean, std, BufferPool()

    def __call__(self, images, *others):
        count, height, width, channels = images.shape
        batch = self.buffers.array((count, channels, height, width), np.float32)
        return (normalise(images, self.mean, self.std, batch), *others)


def build_batches(sampler, load, columns, batch_size, settings, batch_transforms=()):
    """Build a pipeline of batches, the first column of which is the image, float32 (B, 3, H, W), normalised.

    Args:
        sampler: `EpochSampler`. The last batch may be short.
        load: (key, entry) -> (image uint8 (H, W, 3) of fixed size, other columns); see `NamedErrors` for `source`.
        columns: names of what `load` gives.
        batch_size: of this process.
        settings: `PipelineSettings`.
        batch_transforms: operations on the batch's columns, behind normalisation.
    """
    transforms = [Normalise(settings.mean, settings.std), *batch_transforms]
    return build_pipeline(Batches(sampler, batch_size), LoadBatch(NamedErrors(load)), columns, settings, transforms)


def choose_workers(settings):
    """Tell how many workers there are, and whether they are processes."""
    workers = min(settings.workers or MOST_WORKERS, os.cpu_count() or 1)  # MindSpore refuses more than there are cores
    if settings.worker_processes != "auto":
        return workers, settings.worker_processes
    return workers, workers > MOST_THREADS and sys.platform == "linux"  # Windows cannot fork, macOS not safely


def build_pipeline(source, load, columns, settings, batch_transforms=()):
    """Build a pipeline of `columns`.

    Args:
        source: gives (key, entry): `EpochSampler` or `Batches`.
        load: (key, entry) -> columns.
        columns: names of what `load` gives.
        settings: `PipelineSettings`.
        batch_transforms: operations on all columns that follow `load`. Behind processes they run in a thread, so that
            bytes are sent to it and not floats.
    """
    workers, processes = choose_workers(settings)
    ds.config.set_prefetch_size(PREFETCHED)
    dataset = ds.GeneratorDataset(source, ["key", "entry"], shuffle=False, num_parallel_workers=1)
    load, *batch_transforms = map(NamedErrors, (load, *batch_transforms))
    operations = [load] if processes else [load, *batch_transforms]
    dataset = dataset.map(
        operations, ["key", "entry"], columns, num_parallel_workers=workers, python_multiprocessing=processes
    )
    if processes and batch_transforms:
        dataset = dataset.map(batch_transforms, columns, columns, num_parallel_workers=workers)
    return dataset
