"""The training pipeline as the task builds it: bit for bit the same however it is run, and of the right length."""

import io

import numpy as np
import pytest
from conftest import PROJECT
from PIL import Image

from src.classification.settings import AugmentSettings
from src.config import load_config
from src.errors import UserError
from src.runtime import Runtime
from src.tasks import SCHEMAS, create_task

BATCH = 3
RECIPE = {
    "augment.crop_scale": [0.08, 1.0],
    "augment.flip": 0.5,
    "augment.interpolation": "random",
    "augment.rand_augment": "rand-m9-mstd0.5",
    "augment.erase_probability": 0.5,
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Data of 12 + 13 photographs-like training pictures and 2 validation pictures."""
    folder, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for split, counts in (("train", (12, 13)), ("val", (1, 1))):
        for name, count in zip(("cat", "dog"), counts):
            for number in range(count):
                path = folder / split / name / f"{number:02d}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                small = Image.fromarray(rng.integers(0, 256, (6, 7, 3), np.uint8))
                small.resize((70, 60), Image.Resampling.BICUBIC).save(path)
    return folder


def task(root, **settings):
    values = {
        "data.path": str(root),
        "network.num_classes": 2,
        "data.image_size": 48,
        "data.eval_resize": 48,
        "data.workers": 2,
        "train.batch_size": BATCH,
        **RECIPE,
        **{key.replace("__", "."): value for key, value in settings.items()},
    }
    overrides = [(key, value, "test") for key, value in values.items()]
    return create_task(load_config(PROJECT / "configs" / "classification" / "digits.yaml", SCHEMAS, overrides))


def read(dataset, epochs=1):
    """[[(images, labels) of each batch] of each epoch], whose number must be what the dataset says."""
    size, iterator = dataset.get_dataset_size(), dataset.create_tuple_iterator(num_epochs=epochs, output_numpy=True)
    batches = [[(images, labels) for images, labels in iterator] for _ in range(epochs)]
    assert [len(epoch) for epoch in batches] == [size] * epochs
    return batches


def equal(batches, others):
    return len(batches) == len(others) and all(
        np.array_equal(a, b) for batch, other in zip(batches, others) for a, b in zip(batch, other)
    )


@pytest.fixture(scope="module")
def three_epochs(root):
    return read(task(root).build_dataset("train", Runtime("CPU")), 3)


def test_pictures_differ_by_epoch(three_epochs):
    assert all(len(epoch) == 8 for epoch in three_epochs)  # 25 pictures, the last is left out
    images = np.concatenate([images for epoch in three_epochs for images, _ in epoch])
    assert images.shape == (72, 3, 48, 48) and images.dtype == np.float32
    assert len({image.tobytes() for image in images}) == 72


@pytest.mark.parametrize("settings", [{"data__workers": 1}, {"data__worker_processes": True}], ids=["1", "processes"])
def test_workers_do_not_matter(root, three_epochs, settings):
    epochs = read(task(root, **settings).build_dataset("train", Runtime("CPU")), 3)
    assert all(equal(*pair) for pair in zip(epochs, three_epochs))


def test_a_resumed_run_sees_the_same(root, three_epochs):
    runtime = Runtime("CPU")
    (rest,) = read(task(root).build_dataset("train", runtime, first_epoch=1, first_step=5))
    assert equal(rest, three_epochs[1][5:])
    (following,) = read(task(root).build_dataset("train", runtime, first_epoch=2))
    assert equal(following, three_epochs[2])


def test_erasing_leaves_the_rest_of_the_picture_as_it_is(root, three_epochs):
    plain = read(task(root, augment__erase_probability=0.0).build_dataset("train", Runtime("CPU")), 3)
    images = np.concatenate([images for epoch in plain for images, _ in epoch])
    erased = np.concatenate([images for epoch in three_epochs for images, _ in epoch])
    shares = (images != erased).all(1).mean((1, 2))
    assert 0.3 < (shares > 0).mean() < 0.7
    assert shares.max() < 0.36 and shares[shares > 0].min() > 0.015


def test_processes_batches_together_are_one_larger_batch(root):
    parts = [
        read(task(root, augment__erase_probability=1.0).build_dataset("train", Runtime("CPU", rank, 2)))[0]
        for rank in (0, 1)
    ]
    whole = read(
        task(root, augment__erase_probability=1.0, train__batch_size=6).build_dataset("train", Runtime("CPU"))
    )[0]
    assert len(parts[0]) == len(parts[1]) == len(whole) == 4
    for large, *small in zip(whole, *parts):
        for column in (0, 1):
            assert np.array_equal(large[column][0::2], small[0][column])
            assert np.array_equal(large[column][1::2], small[1][column])


@pytest.mark.parametrize(
    ("ranks", "accumulation_steps", "batches"), [(1, 1, 8), (2, 1, 4), (3, 1, 2), (1, 3, 6), (2, 2, 4), (3, 2, 2)]
)
def test_every_process_has_whole_updates(root, ranks, accumulation_steps, batches):
    for rank in range(ranks):
        dataset = task(root, train__accumulation_steps=accumulation_steps).build_dataset(
            "train", Runtime("CPU", rank, ranks)
        )
        assert dataset.get_dataset_size() == batches
    assert len(read(dataset, 2)[1]) == batches


def test_too_few_pictures_for_an_update(root):
    message = (
        "train: has 25 images, too few for one update of 30: on each of 2 devices "
        "train.accumulation_steps 5 x train.batch_size 3"
    )
    with pytest.raises(UserError, match=message):
        task(root, train__accumulation_steps=5).build_dataset("train", Runtime("CPU", 1, 2))
    with pytest.raises(UserError, match="has 2 images, too few for one on each of 3 devices"):
        task(root).build_dataset("val", Runtime("CPU", 0, 3))
    with pytest.raises(UserError, match="train: an epoch has 8 batches, none behind 8"):
        task(root).build_dataset("train", Runtime("CPU"), first_step=8)


def test_a_broken_picture_is_named_once_a_run_and_never_passes_in_evaluation(root, tmp_path, capfd):
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 70, 3), np.uint8)).save(buffer, "JPEG")
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            path = tmp_path / split / name / "a.jpg"
            path.parent.mkdir(parents=True)
            path.write_bytes(buffer.getvalue())
    for split in ("train", "val"):
        (tmp_path / split / "dog" / "a.jpg").write_bytes(buffer.getvalue()[:500])
    broken = task(tmp_path, train__batch_size=1)
    with pytest.raises(RuntimeError, match=r"UserError: .*dog/a.jpg: is not a whole image"):
        read(broken.build_dataset("train", Runtime("CPU")))
    skipping = task(tmp_path, train__batch_size=1, data__broken_images="skip")
    capfd.readouterr()
    for first_epoch in (0, 1):
        for epoch in read(skipping.build_dataset("train", Runtime("CPU"), first_epoch), 2):
            assert [labels.tolist() for _, labels in epoch] == [[0], [0]]
    errors = capfd.readouterr().err
    assert errors.count("warning: ") == errors.count("dog/a.jpg: is not a whole image: ") == 1
    with pytest.raises(RuntimeError, match=r"UserError: .*val/dog/a.jpg: is not a whole image"):
        list(skipping.build_dataset("val", Runtime("CPU")).create_tuple_iterator(num_epochs=1, output_numpy=True))


def test_rand_augment_interpolates_like_the_crop(root):
    for settings, expected in (
        ({}, "random"),
        ({"augment__interpolation": "bicubic"}, "bicubic"),
        ({"augment__interpolation": None}, "bilinear"),  # data.interpolation of digits.yaml
    ):
        transform = task(root, **settings).build_transform(training=True)
        assert (transform.interpolation, transform.rand_augment.interpolation) == (expected, expected)
        assert transform.rand_augment.fill == (124, 116, 104)
    assert task(root, augment__rand_augment=None).build_transform(training=True).rand_augment is None


def test_settings_that_contradict_each_other():
    with pytest.raises(UserError, match=r"^color_jitter: must be 0 with rand_augment, not 0.4$"):
        AugmentSettings(rand_augment="rand-m9", color_jitter=0.4)
    with pytest.raises(UserError, match=r"^rand_augment: 'rand-x1': part 'x1' is none of "):
        AugmentSettings(rand_augment="rand-x1")
