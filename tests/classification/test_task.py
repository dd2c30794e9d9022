"""The datasets as the task builds them: bit for bit the same however they are read, and of the right length."""

import io

import numpy as np
import pytest
from helpers import PROJECT, are_equal, call_here, read_epochs, write_images
from mindspore import Tensor, nn
from PIL import Image

from src.classification.settings import AugmentSettings
from src.config import load_config
from src.errors import UserError
from src.inference.prediction import predict_images
from src.layers.arrays import ArrayNetwork
from src.ranks import Ranks
from src.settings import with_class_names
from src.tasks import SCHEMAS, create_task

CONFIG = PROJECT / "configs" / "classification" / "digits.yaml"
BATCH = 3
RECIPE = {
    "augment.crop_scale": [0.08, 1.0],
    "augment.flip": 0.5,
    "augment.interpolation": "random",
    "augment.policy": "rand-m9-mstd0.5",
    "augment.erase_probability": 0.5,
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Data of 12 + 13 training images and 2 validation images."""
    folder = tmp_path_factory.mktemp("data")
    write_images(folder, {"train": {"cat": 12, "dog": 13}, "val": {"cat": 1, "dog": 1}}, size=(70, 60))
    return folder


def configure(root, **settings):
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
    return load_config(CONFIG, SCHEMAS, overrides)


def build(root, split="train", ranks=None, **settings):
    """The dataset of a split, of a task of its own."""
    return create_task(configure(root, **settings)).build_dataset(split, ranks or Ranks())


def read(pipeline, epochs=1):
    """`read_epochs`, of as many batches as the pipeline says."""
    size, batches = pipeline.get_dataset_size(), read_epochs(pipeline, epochs)
    assert sum(map(len, batches)) == size
    return batches


@pytest.fixture(scope="module")
def three_epochs(root):
    return read(build(root).pipeline(epochs=3), 3)


def test_images_differ_by_epoch(three_epochs):
    assert all(len(epoch) == 8 for epoch in three_epochs)  # 25 images, the last is left out
    images = np.concatenate([images for epoch in three_epochs for images, _ in epoch])
    assert images.shape == (72, 3, 48, 48) and images.dtype == np.float32
    assert len({image.tobytes() for image in images}) == 72


@pytest.mark.parametrize("settings", [{"data__workers": 1}, {"data__worker_processes": True}], ids=["1", "processes"])
def test_workers_do_not_matter(root, three_epochs, settings):
    epochs = read(build(root, **settings).pipeline(epochs=3), 3)
    assert all(are_equal(*pair) for pair in zip(epochs, three_epochs))


def test_a_resumed_run_sees_the_same(root, three_epochs):
    dataset = build(root)
    (rest,) = read(dataset.pipeline(first_epoch=1, first_batch=5))
    assert are_equal(rest, three_epochs[1][5:])
    (following,) = read(dataset.pipeline(first_epoch=2))
    assert are_equal(following, three_epochs[2])


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_task_holds_nothing_of_a_dataset(root, split):
    task = create_task(configure(root))
    before = dict(vars(task))
    first, second = (task.build_dataset(split, Ranks()) for _ in range(2))
    whole = read(first.pipeline())[0]
    assert vars(task) == before
    assert all(vars(task)[name] is value for name, value in before.items())
    for name in ("batch_size", "batches", "records", "class_names", "ranks", "notes"):
        assert getattr(first, name) == getattr(second, name), name
    assert first.sampler.entries.tolist() == second.sampler.entries.tolist()
    assert are_equal(read(second.pipeline())[0], whole)
    assert are_equal(read(first.pipeline())[0], whole)  # a second time


def test_validation_gives_each_image_with_its_key(root):
    dataset = build(root, "val")
    assert [path.relative_to(root / "val").as_posix() for path in dataset.records] == ["cat/0.png", "dog/0.png"]
    ((batch,),) = read(dataset.pipeline())
    images, labels, keys = batch
    assert images.shape == (2, 3, 48, 48) and labels.dtype == np.int32 and labels.tolist() == [0, 1]
    assert keys.tolist() == [[0, 0], [0, 1]]


def test_erasing_leaves_the_rest_of_the_image_as_it_is(root, three_epochs):
    plain = read(build(root, augment__erase_probability=0.0).pipeline(epochs=3), 3)
    images = np.concatenate([images for epoch in plain for images, _ in epoch])
    erased = np.concatenate([images for epoch in three_epochs for images, _ in epoch])
    shares = (images != erased).all(1).mean((1, 2))
    assert 0.3 < (shares > 0).mean() < 0.7
    assert shares.max() < 0.36 and shares[shares > 0].min() > 0.015


def test_processes_batches_together_are_one_larger_batch(root):
    settings = {"augment__erase_probability": 1.0}
    parts = [read(build(root, ranks=Ranks(rank, 2), **settings).pipeline())[0] for rank in (0, 1)]
    (whole,) = read(build(root, train__batch_size=6, **settings).pipeline())
    assert len(parts[0]) == len(parts[1]) == len(whole) == 4
    for large, *small in zip(whole, *parts):
        for column in (0, 1):
            assert np.array_equal(large[column][0::2], small[0][column])
            assert np.array_equal(large[column][1::2], small[1][column])


def test_an_epoch_is_of_whole_updates(root):
    dataset = build(root, ranks=Ranks(2, 3), train__accumulation_steps=2)
    assert dataset.batches == dataset.pipeline().get_dataset_size() == 2
    with pytest.raises(UserError, match=f"^{root / 'train'}: has 25 images, too few for one update of 30"):
        build(root, ranks=Ranks(1, 2), train__accumulation_steps=5)
    with pytest.raises(UserError, match=f"^{root / 'val'}: has 2 images, too few"):
        build(root, "val", Ranks(0, 3))


def test_class_names_of_training_are_those_of_a_validation_that_lacks_one(tmp_path):
    write_images(tmp_path, {"train": {"ant": 3, "bee": 3, "cow": 3}, "val": {"cow": 2, "ant": 1}})
    settings = {"network__num_classes": 3}
    train = build(tmp_path, **settings)
    assert train.class_names == ("ant", "bee", "cow")
    with pytest.raises(UserError, match="val: has 2 classes, the network 3; --num_classes 2 builds one that fits"):
        build(tmp_path, "val", **settings)
    config = configure(tmp_path, **settings)
    assert with_class_names(config, ()) is config
    task = create_task(with_class_names(config, train.class_names))
    val = task.build_dataset("val", Ranks())
    assert val.class_names == task.class_names() == train.class_names
    assert [path.parent.name for path in val.records] == ["ant", "cow", "cow"]
    assert [labels.tolist() for _, labels, _ in read(val.pipeline())[0]] == [[0, 2, 2]]


def test_with_class_names_changes_nothing_else(root):
    config = configure(root)
    named = with_class_names(config, ["a", "b"])
    assert named.data.class_names == ("a", "b") and config.data.class_names == ()
    assert named == configure(root, data__class_names=["a", "b"])


def test_other_files_below_a_class_folder_are_counted_in_one_line(tmp_path):
    write_images(tmp_path, {"train": {"cat": 3, "dog": 3}})
    assert build(tmp_path).notes == ()
    (tmp_path / "train" / "dog" / "deep").mkdir()
    for name in ("cat/a.txt", "cat/b.gif", "dog/deep/c.csv", "cat/.hidden", "dog/.DS_Store", "dog/deep/.d.png"):
        (tmp_path / "train" / name).write_text("x")
    dataset = build(tmp_path)
    assert len(dataset.records) == 6
    (line,) = dataset.notes
    assert line.startswith(f"{tmp_path / 'train'}: 3 other files are left out; ")


def test_a_broken_image_is_named_once_a_run_and_never_passes_in_evaluation(tmp_path, capfd):
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 70, 3), np.uint8)).save(buffer, "JPEG")
    for split in ("train", "val"):
        for name, size in (("cat", None), ("dog", 500)):
            path = tmp_path / split / name / "a.jpg"
            path.parent.mkdir(parents=True)
            path.write_bytes(buffer.getvalue()[:size])
    with pytest.raises(RuntimeError, match=r"UserError: .*dog/a.jpg: is not a whole image"):
        read(build(tmp_path, train__batch_size=1).pipeline())
    skipping = {"train__batch_size": 1, "data__broken_images": "skip"}
    dataset = build(tmp_path, **skipping)
    capfd.readouterr()
    for first_epoch in (0, 1):
        for epoch in read(dataset.pipeline(first_epoch, epochs=2), 2):
            assert [labels.tolist() for _, labels in epoch] == [[0], [0]]
    errors = capfd.readouterr().err
    assert errors.count("warning: ") == errors.count("dog/a.jpg: is not a whole image: ") == 1
    with pytest.raises(RuntimeError, match=r"UserError: .*val/dog/a.jpg: is not a whole image"):
        read(build(tmp_path, "val", **skipping).pipeline())


def test_rand_augment_interpolates_like_the_crop(root):
    for settings, expected in (
        ({}, "random"),
        ({"augment__interpolation": "bicubic"}, "bicubic"),
        ({"augment__interpolation": None}, "bilinear"),  # data.interpolation of digits.yaml
    ):
        transform = create_task(configure(root, **settings)).build_transform(training=True)
        assert (transform.interpolation, transform.policy.interpolation) == (expected, expected)
        assert transform.policy.fill == (124, 116, 104)
    plain = create_task(configure(root, augment__policy=None))
    assert plain.build_transform(training=True).policy is None


def test_settings_that_contradict_each_other():
    with pytest.raises(UserError, match=r"^color_jitter: must be 0 with a policy, not 0.4$"):
        AugmentSettings(policy="rand-m9", color_jitter=0.4)
    with pytest.raises(UserError, match=r"^policy: 'rand-x1': part 'x1' is none of "):
        AugmentSettings(policy="rand-x1")


class Seen(nn.Cell):
    """Keeps its input, and gives logits of two classes."""

    def __call__(self, images):
        self.images = images.asnumpy()
        return Tensor(np.zeros((1, 2), np.float32))


@pytest.mark.parametrize("exif_rotation", [False, True])
def test_prediction_turns_photographs_as_the_settings_say(root, tmp_path, exif_rotation):
    """EXIF's orientation 3 is upside down."""
    exif = Image.Exif()
    exif[0x0112] = 3
    pixels = np.random.default_rng(0).integers(0, 256, (48, 48, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "stored.png", exif=exif)
    Image.fromarray(pixels[::-1, ::-1] if exif_rotation else pixels).save(tmp_path / "expected.png")
    task, network = create_task(configure(root, data__exif_rotation=exif_rotation)), Seen()
    predictor = task.build_predictor(ArrayNetwork(network))
    (prediction,), stored = list(predict_images(predictor, [tmp_path / "stored.png"])), network.images
    list(predict_images(predictor, [tmp_path / "expected.png"]))
    assert np.array_equal(stored, network.images) and prediction.lines[0] == str(tmp_path / "stored.png")


@pytest.mark.parametrize(("settings", "expected"), [([], True), (["data.exif_rotation=false"], False)])
def test_the_command_turns_photographs_unless_told_not(tmp_path, monkeypatch, settings, expected):
    def stop(config):
        raise UserError(f"exif_rotation is {config.data.exif_rotation}")

    monkeypatch.setattr("scripts.predict.create_task", stop)
    (tmp_path / "a.png").touch()
    done = call_here(
        "scripts/predict.py", "a.png", "--checkpoint_path", "weights.ckpt", "--config", CONFIG, *settings, cwd=tmp_path
    )
    assert done.stderr == f"error: exif_rotation is {expected}\n"
