"""The pipelines: fixed shapes, the right boxes, the same however they are run, every picture once in evaluation."""

from types import SimpleNamespace

import numpy as np
import pytest

from detection.coco_files import content, write_split
from src.detection.annotations import read_annotations
from src.detection.dataset import NO_OBJECT, LoadEvaluation, LoadTraining, check_box_counts
from src.detection.transforms import TrainTransform
from src.errors import UserError
from src.images import IMAGENET_MEAN, IMAGENET_STD
from src.pipeline import build_batches
from src.runtime import Runtime
from src.samples import Samples, training_samples

SIZE, MAX_BOXES, BATCH, REPEAT = 64, 4, 2, 4
FILL = (124, 116, 104)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    root = tmp_path_factory.mktemp("coco")
    write_split(root)
    return read_annotations(root, "train").pictures


def training(pictures, rank=0, ranks=1, first_epoch=0, first_step=0, workers=2):
    settings = SimpleNamespace(batch_size=BATCH, accumulation_steps=1)
    numbers = np.tile(np.arange(len(pictures)), REPEAT)
    runtime = Runtime("CPU", rank, ranks)
    samples = training_samples(numbers, "data", settings, 1, runtime, first_epoch, first_step)
    load = LoadTraining(pictures, TrainTransform(SIZE, FILL), MAX_BOXES, seed=1)
    columns = ["image", "boxes", "labels"]
    return build_batches(samples, load, columns, BATCH, IMAGENET_MEAN, IMAGENET_STD, workers=workers)


def read(dataset, epochs=1):
    iterator = dataset.create_tuple_iterator(num_epochs=epochs, output_numpy=True)
    return [list(map(tuple, iterator)) for _ in range(epochs)]


def same(batches, others):
    assert len(batches) == len(others) > 0
    return all(np.array_equal(a, b) for batch, other in zip(batches, others) for a, b in zip(batch, other))


def test_training_batches(pictures):
    dataset = training(pictures)
    (batches,) = read(dataset)
    assert len(batches) == dataset.get_dataset_size() == 3 * REPEAT // BATCH
    for images, boxes, labels in batches:
        assert (images.shape, images.dtype) == ((BATCH, 3, SIZE, SIZE), np.float32)
        assert (boxes.shape, boxes.dtype) == ((BATCH, MAX_BOXES, 4), np.float32)
        assert (labels.shape, labels.dtype) == ((BATCH, MAX_BOXES), np.int32)
        empty = labels == NO_OBJECT
        assert (boxes[empty] == 0).all() and (boxes[~empty][:, 2:] > boxes[~empty][:, :2]).all()
        assert (np.diff(empty.astype(int), axis=1) >= 0).all()  # objects first
    labels = np.concatenate([labels for _, _, labels in batches])
    assert (labels == NO_OBJECT).all(1).any() and (labels >= 0).any()  # one picture is background


def test_repetitions_of_an_epoch_differ_and_resuming_goes_on(pictures):
    first, second = read(training(pictures), 2)
    assert not same(first, second)
    images = np.concatenate([images for images, _, _ in first])
    assert len({image.tobytes() for image in images}) > 3 * REPEAT - 3  # of three pictures
    assert same(second, read(training(pictures, first_epoch=1))[0])
    assert same(second[2:], read(training(pictures, first_epoch=1, first_step=2, workers=1))[0])


def test_processes_share_an_epoch(pictures):
    parts = [read(training(pictures, rank, 2))[0] for rank in range(2)]
    assert [len(part) for part in parts] == [3, 3]
    together = {image.tobytes() for part in parts for images, _, _ in part for image in images}
    assert together == {image.tobytes() for images, _, _ in read(training(pictures))[0] for image in images}


def test_evaluation_sees_every_picture_once(pictures):
    for ranks in (1, 2):
        keys = []
        for rank in range(ranks):
            samples = Samples(np.arange(len(pictures)), rank=rank, ranks=ranks)
            load = LoadEvaluation(pictures, SIZE, FILL)
            dataset = build_batches(samples, load, ["image", "key"], BATCH, IMAGENET_MEAN, IMAGENET_STD)
            for images, batch_keys in read(dataset)[0]:
                assert images.shape[1:] == (3, SIZE, SIZE)
                keys += batch_keys[:, 1].tolist()
        assert sorted(keys) == [0, 1, 2]


def test_too_many_boxes_are_named(pictures, tmp_path):
    path = write_split(tmp_path)
    check_box_counts(read_annotations(tmp_path, "train"), 2)
    with pytest.raises(UserError, match=r"images id 7 has 2 boxes, data\.max_boxes is 1") as error:
        check_box_counts(read_annotations(tmp_path, "train"), 1)
    assert str(error.value).startswith(str(path))


def test_a_picture_of_another_size_is_named(tmp_path):
    described = content()
    described["images"][0]["width"] = 61
    write_split(tmp_path, described=described)
    picture = read_annotations(tmp_path, "train").pictures[0]
    load = LoadEvaluation([picture], SIZE, FILL)
    with pytest.raises(UserError, match=r"a\.png: is 60x40, its annotations say 61x40"):
        load(np.array((0, 0)), 0)
