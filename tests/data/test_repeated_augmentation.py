"""Repeated augmentation through the pipelines of all tasks: copies of an image differ, and a resume sees the same."""

import numpy as np
import pytest
from detection.coco_files import create, write_split
from helpers import PROJECT, are_equal, read_epochs, write_images
from PIL import Image

from src.classification.mixing import MixDraws, Mixing
from src.config import load_config
from src.ranks import Ranks
from src.tasks import SCHEMAS, create_task

COPIES = 3
AUGMENTATION = {"augment.policy": "rand-m9-mstd0.5", "augment.erase_probability": 0.5}


def load_task(name, **settings):
    values = {"data.workers": 2, "train.batch_size": 3, "train.repeated_augmentation": COPIES, **settings}
    config = PROJECT / "configs" / f"{name}.yaml"
    return create_task(load_config(config, SCHEMAS, [(key, value, "test") for key, value in values.items()]))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two classes of 12 images of noise."""
    root = tmp_path_factory.mktemp("classification")
    write_images(root, {"train": {"cat": 12, "dog": 12}, "val": {"cat": 1, "dog": 1}})
    return root


def classification(folder, rank=0, ranks=1, **settings):
    sizes = {"data.path": str(folder), "network.num_classes": 2, "data.image_size": 36, "data.eval_resize": 36}
    task = load_task("classification/digits", **{**sizes, **AUGMENTATION, **settings})
    return task.build_dataset("train", Ranks(rank, ranks))


def images_of(batches):
    return [image.tobytes() for images, *_ in batches for image in images]


def test_copies_differ_and_an_epoch_stays_as_long(folder):
    dataset = classification(folder)
    first, second = read_epochs(dataset.pipeline(epochs=2), 2)
    assert len(first) == len(second) == dataset.batches == 8
    assert len(set(images_of(first + second))) == 48
    assert all(len(set(labels.tolist())) == 1 for _, labels in first)  # a batch is the copies of one image
    plain = {"augment.policy": None, "augment.erase_probability": 0.0, "augment.flip": 0.0}
    crop = {"augment.crop_scale": [1.0, 1.0], "augment.crop_ratio": [1.0, 1.0]}
    same = read_epochs(classification(folder, **{**plain, **crop}).pipeline())[0]
    assert len(set(images_of(same))) == 8 and all(len(set(images_of([batch]))) == 1 for batch in same)


def test_processes_share_the_copies(folder):
    (whole,) = read_epochs(classification(folder).pipeline())
    parts = [read_epochs(classification(folder, rank, COPIES).pipeline())[0] for rank in range(COPIES)]
    assert [len(part) for part in parts] == [2] * COPIES
    together = [image for images in zip(*map(images_of, parts)) for image in images]
    assert together == images_of(whole)[: len(together)]


def test_a_resumed_run_sees_the_same(folder):
    dataset = classification(folder)
    first, second = read_epochs(dataset.pipeline(epochs=2), 2)
    other = classification(folder, **{"data.workers": 1})
    assert are_equal(first[5:], *read_epochs(other.pipeline(first_batch=5)))
    assert are_equal(second[1:], *read_epochs(other.pipeline(first_epoch=1, first_batch=1)))


def test_mixing_ends_with_its_epoch_for_all_copies():
    operation = Mixing(MixDraws(1.0, 0.0, None, 1.0, 0.5), 2, 4, 0.0, 0)

    def is_mixed(epoch, copy):
        images = np.random.default_rng(0).standard_normal((4, 3, 9, 9)).astype(np.float32)
        keys = np.array([(epoch + copy * 2**20, index) for index in range(4)])
        return not np.array_equal(operation(images.copy(), np.arange(4), keys)[0], images)

    assert [[is_mixed(epoch, copy) for copy in range(3)] for epoch in range(4)] == [[True] * 3] * 2 + [[False] * 3] * 2


def test_detection_has_it_too(tmp_path):
    write_split(tmp_path)
    settings = {"data.repeat": 2, "data.filter_empty_gt": False, "data.workers": 1, "train.batch_size": 3}
    datasets = [
        create(tmp_path, {**settings, "train.repeated_augmentation": copies}).build_dataset("train", Ranks())
        for copies in (1, COPIES)
    ]
    assert datasets[0].batches == datasets[1].batches == 2
    (batches,) = read_epochs(datasets[1].pipeline())
    assert len(set(images_of(batches))) == 6


def test_segmentation_has_it_too(tmp_path):
    for kind, pixels in (("images", np.arange(6000).reshape(50, 40, 3) % 251), ("annotations", np.ones((50, 40)))):
        for number in range(6):
            path = tmp_path / kind / "training" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(path)
    sizes = {"data.base_size": [50, 40], "data.crop_size": [48, 36], "network.num_classes": 2, "data.class_names": []}
    dataset = load_task("segmentation/camvid", **{"data.path": str(tmp_path)}, **sizes).build_dataset("train", Ranks())
    (batches,) = read_epochs(dataset.pipeline())
    assert len(batches) == 2 and len(set(images_of(batches))) == 6
