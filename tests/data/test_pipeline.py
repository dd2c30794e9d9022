"""The pipeline of all tasks: order, columns and short batches, in threads and processes, and how far it runs ahead."""

import gc
import multiprocessing
import os
import time

import numpy as np
import pytest
from bad_input.case import CLASSIFICATION, DETECTION, SEGMENTATION, write_good_inputs
from helpers import PROJECT, call_here

from src.config import load_config, parse_override
from src.console import run
from src.data.images import IMAGENET_MEAN, IMAGENET_STD, normalise
from src.data.pipeline import PREFETCHED, BufferPool, build_batches, build_pipeline, choose_workers
from src.data.sampler import evaluation_sampler
from src.data.settings import PipelineSettings
from src.ranks import Ranks
from src.tasks import SCHEMAS

MEAN, STD = (0.5, 0.25, 0.0), (0.5, 0.25, 1.0)
COUNT, BATCH = 11, 4
COLUMNS = ["image", "entry", "key"]


def in_order(entries):
    return evaluation_sampler(np.asarray(entries), "test", Ranks())


def load(key, entry):
    """An image of one grey level, ten times its number, and what was given."""
    return np.full((5, 6, 3), 10 * key[1], np.uint8), entry, key


def add_to_entries(images, entries, keys):
    return images, entries + images[:, 2, 0, 0], keys


@pytest.mark.parametrize("options", [{"workers": 1}, {"workers": 2}, {"worker_processes": True}], ids=str)
def test_batches(options):
    sampler = in_order(np.arange(COUNT, dtype=np.float32)).starting_at(3, 0, 1)
    settings = PipelineSettings(mean=MEAN, std=STD, **options)
    dataset = build_batches(sampler, load, COLUMNS, BATCH, settings, [add_to_entries])
    assert dataset.get_dataset_size() == 3
    for _ in range(2):
        batches = list(dataset.create_tuple_iterator(num_epochs=1, output_numpy=True))
        assert [len(images) for images, _, _ in batches] == [4, 4, 3]
        images, entries, keys = (np.concatenate(column) for column in zip(*batches))
        assert keys.tolist() == [[3, index] for index in range(COUNT)]
        assert images.shape == (COUNT, 3, 5, 6) and images.dtype == np.float32
        levels = 10 * np.arange(COUNT) / 255
        for channel, (mean, std) in enumerate(zip(MEAN, STD)):
            expected = np.broadcast_to(((levels - mean) / std)[:, None, None], (COUNT, 5, 6))
            assert np.abs(images[:, channel] - expected).max() < 1e-6
        assert np.abs(entries - (np.arange(COUNT) + levels)).max() < 1e-6  # behind normalisation


@pytest.mark.parametrize(
    ("cores", "platform", "settings", "expected"),
    [
        (4, "linux", {}, (4, False)),
        (5, "linux", {}, (5, True)),
        (5, "darwin", {}, (5, False)),
        (5, "win32", {}, (5, False)),
        (192, "linux", {}, (16, True)),
        (192, "linux", {"workers": 4}, (4, False)),
        (192, "linux", {"workers": 100}, (100, True)),
        (8, "linux", {"workers": 100}, (8, True)),
        (8, "linux", {"worker_processes": False}, (8, False)),
        (2, "linux", {"worker_processes": True}, (2, True)),
        (None, "linux", {}, (1, False)),
    ],
)
def test_many_workers_are_processes(monkeypatch, cores, platform, settings, expected):
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    monkeypatch.setattr("sys.platform", platform)
    assert choose_workers(PipelineSettings(**settings)) == expected


@pytest.mark.parametrize(("text", "value"), [("auto", "auto"), ("true", True), ("false", False)])
def test_worker_processes_in_settings(text, value):
    config = PROJECT / "configs" / "classification" / "digits.yaml"
    overrides = [parse_override(f"data.worker_processes={text}")]
    assert load_config(config, SCHEMAS).data.worker_processes == "auto"
    assert load_config(config, SCHEMAS, overrides).data.worker_processes == value


def test_single_samples_keep_their_sizes():
    def load_row(key, entry):
        return np.zeros((entry + 1, 2)), key

    dataset = build_pipeline(in_order(range(5)), load_row, ["image", "key"], PipelineSettings(workers=2))
    assert dataset.get_dataset_size() == 5
    rows = dataset.create_tuple_iterator(num_epochs=1, output_numpy=True)
    assert [image.shape for image, _ in rows] == [(1, 2), (2, 2), (3, 2), (4, 2), (5, 2)]


class Failing:
    """Fails on one sample."""

    def source(self, key, entry):
        return f"file\n{entry:.0f}.png"

    def __call__(self, key, entry):
        if entry == 5:
            raise ValueError("two\nlines")
        return load(key, entry)


@pytest.mark.parametrize("options", [{"workers": 2}, {"worker_processes": True}], ids=str)
@pytest.mark.parametrize("build", ["batches", "rows", "transform"])
def test_an_error_in_a_worker_is_one_line(options, build, capsys):
    sampler, settings = in_order(np.arange(COUNT, dtype=np.float32)), PipelineSettings(**options)

    def fail(*columns):
        raise ZeroDivisionError

    if build == "rows":
        dataset = build_pipeline(sampler, Failing(), COLUMNS, settings)
    else:
        load_one, transforms = (Failing(), []) if build == "batches" else (load, [fail])
        dataset = build_batches(sampler, load_one, COLUMNS, BATCH, settings, transforms)
    with pytest.raises(SystemExit) as end:
        run(lambda: list(dataset.create_tuple_iterator(num_epochs=1)))
    expected = "file\\n5.png: ValueError: two\\nlines" if build != "transform" else "function: ZeroDivisionError"
    assert end.value.code == 2 and capsys.readouterr().err == f"error: {expected}\n"


def test_processes_do_not_collect_the_garbage_of_the_main_one():
    """Iterators of pipelines that are over would be among it, and their end in another process is a crash."""
    main, collected = os.getpid(), multiprocessing.Value("i", 0)

    class Garbage:
        def __init__(self):
            self.itself = self

        def __del__(self):
            collected.value += os.getpid() != main

    def collect(key, entry):
        gc.collect()
        return load(key, entry)

    gc.disable()
    try:
        Garbage()
        settings = PipelineSettings(workers=1, worker_processes=True)
        dataset = build_batches(in_order(range(COUNT)), collect, COLUMNS, BATCH, settings)
        assert len(list(dataset.create_tuple_iterator(num_epochs=1))) == 3
    finally:
        gc.enable()
    assert collected.value == 0 and gc.get_freeze_count() == 0


def test_processes_do_not_get_the_signals_of_the_main_one():
    """`timeout` signals a whole process group: a run can only end in order while its workers live."""

    def group(key, entry):
        return np.zeros((2, 3, 3), np.uint8), np.int64(os.getpgid(0)), key

    settings = PipelineSettings(workers=2, worker_processes=True)
    dataset = build_batches(in_order(range(COUNT)), group, COLUMNS, BATCH, settings)
    groups = {int(i) for row in dataset.create_tuple_iterator(num_epochs=1, output_numpy=True) for i in row[1]}
    assert groups and os.getpgid(0) not in groups


def test_workers_are_few_batches_ahead():
    loaded = multiprocessing.Value("i", 0)

    def count(key, entry):
        with loaded.get_lock():
            loaded.value += 1
        return load(key, entry)

    dataset = build_batches(in_order(range(400)), count, COLUMNS, 4, PipelineSettings(workers=2))
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
    mean, std = (np.array(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    expected = (np.arange(256).reshape(16, 16) / 255 - mean) / std
    result = normalise(pixels, IMAGENET_MEAN, IMAGENET_STD)
    assert result.dtype == np.float32 and np.abs(result[0] - expected).max() < 1e-6


@pytest.mark.parametrize("as_numpy", [True, False], ids=["arrays", "tensors"])
def test_batches_that_are_kept_stay_as_they_are(as_numpy):
    def read(mean, output_numpy):
        settings = PipelineSettings(mean=(mean,) * 3, std=(1.0,) * 3, workers=2)
        dataset = build_batches(in_order(range(50)), load, COLUMNS, 2, settings)
        return list(dataset.create_tuple_iterator(num_epochs=1, output_numpy=output_numpy))

    views = [images[1:, :, 2] for images, _, _ in read(0.0, as_numpy)]
    gc.collect()
    read(1.0, True)
    levels = [float((view if as_numpy else view.asnumpy()).mean()) for view in views]
    assert np.abs(np.array(levels) - (10 * np.arange(1, 50, 2) % 256) / 255).max() < 1e-6


def test_memory_serves_again_when_nobody_holds_it():
    pool = BufferPool()
    first = pool.array((4, 3), np.float32)
    address, view = first.ctypes.data, first[2:].reshape(-1)[1:]
    del first
    view[:] = 7
    second = pool.array((4, 3), np.float32)
    second[:] = 1
    assert second.ctypes.data != address and (view == 7).all()
    del view
    third = pool.array((2, 5), np.float32)  # smaller
    assert third.ctypes.data == address and third.shape == (2, 5) and third.flags.writeable
    del second, third
    assert pool.array((20, 3), np.float32).nbytes == 240  # larger than any block


@pytest.mark.parametrize("config", [CLASSIFICATION, DETECTION, SEGMENTATION])
def test_a_broken_image_is_named_before_anything_is_compiled(tmp_path, monkeypatch, config):
    write_good_inputs(tmp_path)
    for path in tmp_path.rglob("train*/**/*.png"):
        path.write_text("no image")
    monkeypatch.setattr("src.training.step.TrainStep.__call__", lambda *_: pytest.fail("the step was called"))
    done = call_here("train.py", "--config", config, cwd=tmp_path)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert ".png: is not a whole image: unknown format" in done.stderr
