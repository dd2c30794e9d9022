"""The pipelines: fixed shapes, the right boxes, the same however they are run, every image once in evaluation."""

import dataclasses

import numpy as np
import pytest
from detection.coco_files import CLASSES, SIZE, content, create, write_and_read, write_split
from helpers import are_equal, read_epochs
from PIL import Image

from src.detection.dataset import NO_OBJECT, LoadEvaluationImage, check_box_counts
from src.errors import UserError
from src.ranks import Ranks

BATCH, IMAGES, REPEAT, MAX_BOXES = 2, 3, 4, 5
ALONE = Ranks()


def training(root, ranks=ALONE, **data):
    values = {"repeat": REPEAT, "max_boxes": MAX_BOXES, "workers": 2, "filter_empty_gt": False, **data}
    task = create(root, {f"data.{key}": value for key, value in values.items()})
    return task.build_dataset("train", ranks)


def test_training_batches(root):
    dataset = training(root)
    (batches,) = read_epochs(dataset.pipeline())
    assert len(batches) == dataset.batches == dataset.pipeline().get_dataset_size() == IMAGES * REPEAT // BATCH
    for images, boxes, labels in batches:
        assert (images.shape, images.dtype) == ((BATCH, 3, SIZE, SIZE), np.float32)
        assert (boxes.shape, boxes.dtype) == ((BATCH, MAX_BOXES, 4), np.float32)
        assert (labels.shape, labels.dtype) == ((BATCH, MAX_BOXES), np.int32)
        empty = labels == NO_OBJECT
        assert (boxes[empty] == 0).all() and (boxes[~empty][:, 2:] > boxes[~empty][:, :2]).all()
        assert (np.diff(empty.astype(int), axis=1) >= 0).all()  # objects first
    labels = np.concatenate([labels for _, _, labels in batches])
    assert (labels == NO_OBJECT).all(1).any() and (labels >= 0).any()  # one image is background


def test_every_pipeline_of_a_dataset_gives_the_same(root):
    """Also one from within an epoch, and with another number of workers; repetitions in an epoch differ."""
    dataset = training(root)
    first, second = read_epochs(dataset.pipeline(epochs=2), 2)
    assert not are_equal(first, second)
    images = np.concatenate([images for images, _, _ in first])
    assert len({image.tobytes() for image in images}) > IMAGES * REPEAT - 3
    assert are_equal(first, *read_epochs(dataset.pipeline()))
    assert are_equal(second, *read_epochs(dataset.pipeline(first_epoch=1)))
    assert are_equal(second[2:], *read_epochs(training(root, workers=1).pipeline(first_epoch=1, first_batch=2)))


def test_processes_share_an_epoch(root):
    parts = [read_epochs(training(root, Ranks(rank, 2)).pipeline())[0] for rank in range(2)]
    assert [len(part) for part in parts] == [3, 3]
    together = {image.tobytes() for part in parts for images, _, _ in part for image in images}
    (whole,) = read_epochs(training(root).pipeline())
    assert together == {image.tobytes() for images, _, _ in whole for image in images}


def test_lengths_and_too_few_images(root):
    assert training(root, repeat=5).batches == 7  # of 15 images
    assert training(root, Ranks(1, 2), repeat=5).batches == 3
    with pytest.raises(UserError, match="has 3 images, too few for one update of 4: on each of 2 devices"):
        training(root, Ranks(0, 2), repeat=1)
    with pytest.raises(UserError, match="has 3 images, too few for one on each of 4 devices"):
        create(root).build_dataset("val", Ranks(0, 4))


@pytest.mark.parametrize("count", [1, 2])
def test_evaluation_sees_every_image_once(root, count):
    keys = []
    for rank in range(count):
        dataset = create(root).build_dataset("val", Ranks(rank, count))
        assert dataset.class_names == CLASSES and [image.id for image in dataset.records.images] == [7, 3, 90]
        for images, batch_keys in read_epochs(dataset.pipeline())[0]:
            assert images.shape[1:] == (3, SIZE, SIZE)
            keys += batch_keys[:, 1].tolist()
    assert sorted(keys) == [0, 1, 2]


def test_padding_becomes_nothing_behind_normalisation(root):
    images, _ = read_epochs(create(root).build_dataset("val", ALONE).pipeline())[0][0]
    assert images.shape == (2, 3, SIZE, SIZE)
    wide, tall = images  # of 60x40 and 40x50 pixels
    assert np.abs(wide[:, 43:]).max() < 0.01 < np.abs(wide[:, :43]).mean()
    assert np.abs(tall[:, :, 51:]).max() < 0.01 < np.abs(tall[:, :, :51]).mean()


def test_images_without_annotations_are_left_out_where_asked(root, tmp_path):
    """MMDetection's rule: an image with nothing but a crowd stays."""
    assert training(root).notes == () and len(training(root).sampler) == IMAGES * REPEAT
    described = content()
    described["annotations"] = described["annotations"][1:]
    described["annotations"][0]["iscrowd"] = 1
    write_split(tmp_path, described=described)
    dataset = training(tmp_path, filter_empty_gt=True)
    assert len(dataset.sampler) == 2 * REPEAT and set(dataset.sampler.entries.tolist()) == {0, 1}
    (note,) = dataset.notes
    assert "1 of 3 images have no annotations and are left out" in note
    assert all(labels.shape == (BATCH, MAX_BOXES) for _, _, labels in read_epochs(dataset.pipeline())[0])
    validation = create(root, {"data.filter_empty_gt": True}).build_dataset("val", ALONE)
    assert len(validation.sampler) == IMAGES and validation.notes == ()


def test_too_many_boxes_are_named(root, tmp_path):
    annotations = write_and_read(tmp_path)
    check_box_counts(annotations, 2)
    with pytest.raises(UserError, match=r"images id 7 has 2 boxes, data\.max_boxes is 1") as error:
        check_box_counts(annotations, 1)
    assert str(error.value).startswith(str(annotations.path))
    with pytest.raises(UserError, match=r"data\.max_boxes is 1"):
        training(root, max_boxes=1)


def test_an_image_of_another_size_is_named(tmp_path):
    described = content()
    described["images"][0]["width"] = 61
    image = write_and_read(tmp_path, described=described).images[0]
    load = LoadEvaluationImage([image], SIZE, (124, 116, 104), False)
    with pytest.raises(UserError, match=r"a\.png: is 60x40, its annotations say 61x40"):
        load(np.array((0, 0)), 0)


@pytest.mark.parametrize("exif_rotation", [False, True])
def test_annotations_are_those_of_the_turned_image_or_of_the_stored_one(tmp_path, exif_rotation):
    """EXIF's orientation 6 shows the stored left edge on top."""
    described = content()
    described["images"][0].update(width=40, height=60)
    turned = write_and_read(tmp_path, described=described).images[0]
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = np.zeros((40, 60, 3), np.uint8)
    stored[:, :10] = 255
    Image.fromarray(stored).save(turned.path, exif=exif)
    as_stored = dataclasses.replace(turned, width=60, height=40)
    right, wrong = (turned, as_stored) if exif_rotation else (as_stored, turned)
    pixels, _ = LoadEvaluationImage([right], 60, (0, 0, 0), exif_rotation)(np.array((0, 0)), 0)
    edge = pixels[:10, :40] if exif_rotation else pixels[:40, :10]
    assert (edge == 255).all() and pixels.sum() == edge.sum()
    with pytest.raises(UserError, match=r"a\.png: is \d+x\d+, its annotations say"):
        LoadEvaluationImage([wrong], 60, (0, 0, 0), exif_rotation)(np.array((0, 0)), 0)
