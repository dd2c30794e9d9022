"""The pipeline of all tasks: order, columns and short batches, in threads and processes, and how far it runs ahead."""

import gc
import multiprocessing
import time

import numpy as np
import pytest

from src.images import normalise
from src.pipeline import PREFETCHED, Memory, build_batches, build_pipeline
from src.samples import Samples

MEAN, STD = (0.5, 0.25, 0.0), (0.5, 0.25, 1.0)
COUNT, BATCH = 11, 4


def load(key, entry):
    """A picture of one grey level, ten times its number, and what was given."""
    return np.full((5, 6, 3), 10 * key[1], np.uint8), entry, key


def add_to_entries(images, entries, keys):
    return images, entries + images[:, 2, 0, 0], keys


@pytest.mark.parametrize("options", [{"workers": 1}, {"workers": 2}, {"processes": True}], ids=str)
def test_batches(options):
    samples = Samples(np.arange(COUNT, dtype=np.float32), first_epoch=3)
    dataset = build_batches(samples, load, ["image", "entry", "key"], BATCH, MEAN, STD, [add_to_entries], **options)
    assert dataset.get_dataset_size() == 3
    iterator = dataset.create_tuple_iterator(num_epochs=2, output_numpy=True)
    for epoch in (3, 4):
        batches = list(iterator)
        assert [len(images) for images, _, _ in batches] == [4, 4, 3]
        images, entries, keys = (np.concatenate(column) for column in zip(*batches))
        assert keys.tolist() == [[epoch, index] for index in range(COUNT)]
        assert images.shape == (COUNT, 3, 5, 6) and images.dtype == np.float32
        levels = 10 * np.arange(COUNT) / 255
        for channel, (mean, std) in enumerate(zip(MEAN, STD)):
            expected = np.broadcast_to(((levels - mean) / std)[:, None, None], (COUNT, 5, 6))
            assert np.abs(images[:, channel] - expected).max() < 1e-6
        assert np.abs(entries - (np.arange(COUNT) + levels)).max() < 1e-6  # behind normalisation


def test_single_samples_keep_their_sizes():
    samples = Samples(np.arange(5))
    dataset = build_pipeline(samples, lambda key, entry: (np.zeros((entry + 1, 2)), key), ["image", "key"], workers=2)
    assert dataset.get_dataset_size() == 5
    rows = dataset.create_tuple_iterator(num_epochs=1, output_numpy=True)
    assert [image.shape for image, _ in rows] == [(1, 2), (2, 2), (3, 2), (4, 2), (5, 2)]


def test_workers_are_few_batches_ahead():
    loaded = multiprocessing.Value("i", 0)

    def count(key, entry):
        with loaded.get_lock():
            loaded.value += 1
        return load(key, entry)

    dataset = build_batches(Samples(np.arange(400)), count, ["image", "entry", "key"], 4, MEAN, STD, workers=2)
    iterator = dataset.create_tuple_iterator(num_epochs=1, output_numpy=True)
    next(iterator)
    before = -1
    while before != loaded.value:
        before = loaded.value
        time.sleep(0.5)
    # batches in each worker's queue and hands, and a few on their way; MindSpore's default of 16 gives 52
    assert 2 <= loaded.value // 4 <= 2 * (PREFETCHED + 1) + 6


def test_normalisation_of_every_level():
    pixels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, axis=3)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    expected = (np.arange(256).reshape(16, 16) / 255 - np.array(mean)[:, None, None]) / np.array(std)[:, None, None]
    result = normalise(pixels, mean, std)
    assert result.dtype == np.float32 and np.abs(result[0] - expected).max() < 1e-6


@pytest.mark.parametrize("as_numpy", [True, False], ids=["arrays", "tensors"])
def test_batches_that_are_kept_stay_as_they_are(as_numpy):
    dataset = build_batches(Samples(np.arange(50)), load, ["image", "entry", "key"], 2, (0, 0, 0), (1, 1, 1), workers=2)
    batches = list(dataset.create_tuple_iterator(num_epochs=1, output_numpy=as_numpy))
    views = [images[1:, :, 2] for images, _, _ in batches]
    del dataset, batches
    gc.collect()
    again = build_batches(Samples(np.arange(50)), load, ["image", "entry", "key"], 2, (9, 9, 9), (1, 1, 1), workers=2)
    list(again.create_tuple_iterator(num_epochs=1, output_numpy=True))
    levels = [float((view if as_numpy else view.asnumpy()).mean()) for view in views]
    assert np.abs(np.array(levels) - (10 * np.arange(1, 50, 2) % 256) / 255).max() < 1e-6


def test_memory_serves_again_when_nobody_holds_it():
    memory = Memory()
    first = memory.array((4, 3), np.float32)
    address, view = first.ctypes.data, first[2:].reshape(-1)[1:]
    del first
    view[:] = 7
    second = memory.array((4, 3), np.float32)
    second[:] = 1
    assert second.ctypes.data != address and (view == 7).all()
    del view
    third = memory.array((2, 5), np.float32)  # smaller
    assert third.ctypes.data == address and third.shape == (2, 5) and third.flags.writeable
    del second, third
    assert memory.array((20, 3), np.float32).nbytes == 240  # larger than any block
