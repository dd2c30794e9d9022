"""Image folders: order, labels, every image once, epochs that differ, and mistakes that are named."""

import io
import os

import mindspore.dataset as ds
import numpy as np
import pytest
from helpers import read_epochs, reference, shared_data
from mindspore.dataset import vision
from PIL import Image

from src.classification.center_crop import CenterCrop
from src.classification.dataset import LoadImage, SkipBroken, find_split, list_class_folders
from src.classification.transforms import ClassificationAugmentation, MindSporeCenterCrop
from src.data.images import IMAGENET_MEAN, IMAGENET_STD, find_images
from src.data.pipeline import build_batches
from src.data.sampler import EpochSampler, evaluation_sampler
from src.data.settings import PipelineSettings
from src.errors import UserError
from src.ranks import Ranks

CROP = CenterCrop(40, 40, "bilinear", "center", IMAGENET_MEAN)


@pytest.fixture
def folder(tmp_path):
    """Three classes of 3, 4 and 4 plain images whose grey level is 10 times their number."""
    number = 0
    for name, count in (("cat", 3), ("ant", 4), ("dog", 4)):
        for _ in range(count):
            path = tmp_path / "train" / name / f"{number:02d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (40, 50), 10 * number).save(path)
            number += 1
    return tmp_path / "train"


def levels(images):
    """A tenth of the grey level of each normalised image: its number in the fixture."""
    mean, std = (np.array(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    return (np.round((images * std + mean) * 255).mean((1, 2, 3)) // 10).astype(int).tolist()


def read(pipeline):
    """Numbers of the images and labels, batch by batch."""
    batches = pipeline.create_tuple_iterator(num_epochs=1, output_numpy=True)
    return [(levels(images), labels.tolist()) for images, labels, _ in batches]


def batches_of(sampler, load, batch_size, **settings):
    return build_batches(sampler, load, ["image", "label", "key"], batch_size, PipelineSettings(**settings))


def build(folder, rank=0, count=1):
    _, paths, labels, _ = list_class_folders(folder, ())
    sampler = evaluation_sampler(labels, folder, Ranks(rank, count))
    return batches_of(sampler, LoadImage(paths, CROP, 5, None, False), 4, workers=2)


def test_classes_are_sorted_and_images_counted_once(folder):
    names, paths, labels, others = list_class_folders(folder, ())
    assert names == ("ant", "cat", "dog") and others == 0
    assert labels.tolist() == [0] * 4 + [1] * 3 + [2] * 4
    assert [path.name for path in paths[:5]] == ["03.png", "04.png", "05.png", "06.png", "00.png"]
    batches = read(build(folder))
    assert [len(labels) for _, labels in batches] == [4, 4, 3]
    assert sum((numbers for numbers, _ in batches), []) == [3, 4, 5, 6, 0, 1, 2, 7, 8, 9, 10]
    assert sum((labels for _, labels in batches), []) == labels.tolist()


def test_class_names_give_the_index(folder):
    names = ("dog", "bird", "cat", "ant")
    found, _, labels, _ = list_class_folders(folder, names)
    assert found == names and labels.tolist() == [3] * 4 + [2] * 3 + [0] * 4


def test_epochs_shuffle_anew_and_repeat_from_the_seed(folder):
    _, paths, labels, _ = list_class_folders(folder, ())

    def epochs(workers, first_epoch=0, count=3):
        sampler = EpochSampler(labels, seed=5, shuffle=True, rank=0, ranks=1, first_epoch=first_epoch, epochs=count)
        pipeline = batches_of(sampler, LoadImage(paths, CROP, 5, None, False), 11, workers=workers)
        return [[levels(images) for images, _, _ in epoch] for epoch in read_epochs(pipeline, count)]

    first = epochs(1)
    assert first[0] != first[1] != first[2]
    assert all(sorted(numbers) == list(range(11)) for (numbers,) in first)
    assert epochs(3) == first
    assert epochs(2, first_epoch=1, count=2) == first[1:]  # as after a resume


def test_augmentation_depends_on_epoch_and_index_only(folder):
    _, paths, _, _ = list_class_folders(folder, ())
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (50, 40, 3), np.uint8)).save(paths[2])
    augmentation = ClassificationAugmentation(33, (0.2, 1.0), (0.75, 1.33), 0.5, 0.0, 0.4, 0.0, 0.0, "bilinear", None)
    load = LoadImage(paths, augmentation, 3, None, False)
    keys = [(epoch, 2) for epoch in range(4)]
    results = [load(np.array(key), np.int32(0))[0] for key in keys]
    assert all(result.shape == (33, 33, 3) for result in results)
    assert len({result.tobytes() for result in results}) == 4
    again = [load(np.array(key), np.int32(0))[0] for key in keys[::-1]]
    assert all(np.array_equal(*pair) for pair in zip(again, results[::-1]))


def test_ranks_share_the_samples(folder):
    parts = [read(build(folder, rank, 2)) for rank in (0, 1)]
    numbers = [number for part in parts for batch, _ in part for number in batch]
    assert sorted(numbers) == list(range(11))


class TestBrokenImages:
    """`SkipBroken` on the fixture's images, of which some are overwritten."""

    def read(self, folder, broken, passes=1, **settings):
        """What three lists say of each sample: place of the image that came, its label, its key; then the files."""
        _, paths, labels, _ = list_class_folders(folder, ())
        for number in broken:
            paths[number].write_bytes(b"no image")
        load = LoadImage(paths, CROP, 0, SkipBroken(paths, labels, False), False)
        pipeline = batches_of(evaluation_sampler(labels, folder, Ranks()), load, 11, **settings)
        iterator = pipeline.create_tuple_iterator(num_epochs=passes, output_numpy=True)
        for _ in range(passes):
            ((images, found, keys),) = iterator
        numbers = [int(path.stem) for path in paths]
        return [numbers.index(level) for level in levels(images)], found.tolist(), keys[:, 1].tolist(), paths

    @pytest.mark.parametrize("processes", [False, True], ids=["threads", "processes"])
    def test_the_next_one_takes_the_place_with_its_label(self, folder, capfd, processes):
        truth = list_class_folders(folder, ())[2].tolist()
        settings = {"workers": 2, "worker_processes": processes}
        found, labels, keys, paths = self.read(folder, (3, 9, 10), passes=3, **settings)
        assert found == [0, 1, 2, 4, 4, 5, 6, 7, 8, 0, 0]  # behind the last comes the first
        assert labels == [truth[index] for index in found] and labels[3] == 1 and truth[3] == 0
        assert keys == list(range(11))
        lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("warning: ")]
        assert sorted(lines) == sorted(  # once each, in three epochs
            f"warning: {paths[index]}: is not a whole image: unknown format; {paths[(index + 1) % 11]} takes its place"
            for index in (3, 9, 10)
        )

    def test_too_many_in_a_row_are_an_error(self, folder, capfd):
        with pytest.raises(RuntimeError, match=r"UserError: .*png: is the last of 11 images in a row that are not"):
            self.read(folder, range(11))
        assert capfd.readouterr().err.count("takes its place") == 11

    def test_a_warning_is_one_line_whatever_the_names(self, tmp_path, capfd):
        paths = [tmp_path / "a\nb.png", tmp_path / "c\nd.png"]
        paths[0].write_bytes(b"no image")
        Image.new("RGB", (40, 40)).save(paths[1])
        assert SkipBroken(paths, [5, 6], False)(0, 5)[1] == 6
        error = capfd.readouterr().err
        assert error.count("\n") == 1 and "a\\nb.png: is not a whole" in error and "c\\nd.png takes" in error


def test_split_folders(folder, tmp_path):
    assert find_split(tmp_path, "train") == folder
    assert find_split(folder, "val") == folder  # class folders without splits
    with pytest.raises(UserError, match="has no folder 'val'"):
        find_split(tmp_path, "val")
    with pytest.raises(UserError, match="nowhere: no such folder; --data_url"):
        find_split(tmp_path / "nowhere", "val")
    with pytest.raises(UserError, match="has no folder 'train'"):
        find_split(folder, "train")


def test_wrong_folders_are_named(folder, tmp_path):
    with pytest.raises(UserError, match=r"dog: is no class of this network \(did you mean 'dogs'\?\)"):
        list_class_folders(folder, ("ant", "cat", "dogs"))
    (folder / "empty").mkdir()
    (folder / "empty" / ".hidden.png").write_bytes(b"")
    with pytest.raises(UserError, match="empty: holds no images"):
        list_class_folders(folder, ())
    (tmp_path / "bare").mkdir()
    with pytest.raises(UserError, match="bare: holds no class folders"):
        list_class_folders(tmp_path / "bare", ())


@pytest.mark.parametrize("content", [b"", b"no image", "truncated"], ids=["empty", "text", "truncated"])
def test_a_broken_image_is_named_through_the_pipeline(folder, content):
    path = folder / "cat" / "01.png"
    if content == "truncated":
        buffer = io.BytesIO()
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 40), np.uint8)).save(buffer, "PNG")
        content = buffer.getvalue()[:700]
    path.write_bytes(content)
    with pytest.raises(RuntimeError, match=f"UserError: {path}: is not a whole image: "):
        read(build(folder))


@pytest.fixture
def photographs(tmp_path):
    """The 100 sample images, grey, EXIF-rotated and tiny ones among them, and a CMYK JPEG."""
    cmyk = tmp_path / "cmyk.jpg"
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (300, 260, 4), np.uint8), "CMYK").save(cmyk, quality=95)
    return [*find_images(shared_data("imagenet_samples") / "val")[0], cmyk]


def images_of(paths, transform):
    sampler = evaluation_sampler(np.zeros(len(paths), np.int32), "test", Ranks())
    pipeline = batches_of(sampler, LoadImage(paths, transform, 0, None, False), 16)
    batches = pipeline.create_tuple_iterator(num_epochs=1, output_numpy=True)
    return np.concatenate([images for images, _, _ in batches])


def test_evaluation_sees_what_timm_sees(photographs):
    timm_data = reference("timm.data")
    timm_transform = timm_data.create_transform((3, 224, 224), interpolation="bicubic", crop_pct=0.875)
    images = images_of(photographs, CenterCrop(224, 256, "bicubic", "center", IMAGENET_MEAN))
    assert len(images) == len(photographs) == 101
    for path, image in zip(photographs, images):
        with Image.open(path) as file:
            expected = timm_transform(file.convert("RGB")).numpy()
        assert np.abs(image - expected).max() < 1e-5, path


def test_mindspores_evaluation_is_that_of_its_own_pipeline(photographs):
    paths = [os.fspath(path) for path in photographs[:100]]
    dataset = ds.GeneratorDataset([(np.fromfile(path, np.uint8),) for path in paths], ["image"], shuffle=False)
    resize, crop = vision.Resize(256, vision.Inter.LINEAR), vision.CenterCrop(224)
    normalise = vision.Normalize(*([255 * value for value in values] for values in (IMAGENET_MEAN, IMAGENET_STD)))
    dataset = dataset.map([vision.Decode(), resize, crop, normalise, vision.HWC2CHW()], "image")
    expected = np.stack([image for (image,) in dataset.create_tuple_iterator(num_epochs=1, output_numpy=True)])
    images = images_of(paths, MindSporeCenterCrop(224, 256, "bilinear"))
    assert np.abs(images - expected).max() < 1e-5
    exact = images_of(paths, CenterCrop(224, 256, "bilinear", "center", IMAGENET_MEAN))
    assert 0.005 < np.abs(images - exact).mean() < 0.2
