"""Image folders: order, labels, every image once, epochs that differ, and mistakes that are named."""

import io
import os

import mindspore.dataset as ds
import numpy as np
import pytest
from conftest import reference, shared_data
from mindspore.dataset import vision
from PIL import Image

from src.classification.augment import CenterCrop, MindSporeCenterCrop, TrainTransform
from src.classification.dataset import LoadSample, SkipBroken, find_split, list_samples
from src.errors import UserError
from src.images import find_images, load_image
from src.pipeline import build_batches
from src.samples import Samples

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.fixture
def folder(tmp_path):
    """Three classes of 3, 4 and 4 plain pictures whose grey level is 10 times their number."""
    number = 0
    for name, count in (("cat", 3), ("ant", 4), ("dog", 4)):
        for _ in range(count):
            path = tmp_path / "train" / name / f"{number:02d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (40, 50), 10 * number).save(path)
            number += 1
    return tmp_path / "train"


def read(dataset):
    """Numbers of the pictures and labels, batch by batch."""
    batches = dataset.create_tuple_iterator(num_epochs=1, output_numpy=True)
    mean, std = np.array(MEAN)[:, None, None], np.array(STD)[:, None, None]
    return [(np.round((images * std + mean) * 255).mean((1, 2, 3)) // 10, labels) for images, labels, _ in batches]


def batches_of(samples, load, batch_size, **options):
    return build_batches(samples, load, ["image", "label", "key"], batch_size, MEAN, STD, **options)


def build(folder, batch_size=4, shuffle=False, workers=2, **options):
    _, paths, labels = list_samples(folder)
    samples = Samples(labels, seed=5, shuffle=shuffle, **options)
    return batches_of(samples, LoadSample(paths, CenterCrop(40, 40), seed=5), batch_size, workers=workers)


def test_classes_are_sorted_and_images_counted_once(folder):
    names, paths, labels = list_samples(folder)
    assert names == ("ant", "cat", "dog")
    assert labels.tolist() == [0] * 4 + [1] * 3 + [2] * 4
    assert [path.name for path in paths[:5]] == ["03.png", "04.png", "05.png", "06.png", "00.png"]
    batches = read(build(folder))
    assert [len(labels) for _, labels in batches] == [4, 4, 3]
    assert np.concatenate([numbers for numbers, _ in batches]).tolist() == [3, 4, 5, 6, 0, 1, 2, 7, 8, 9, 10]
    assert np.concatenate([labels for _, labels in batches]).tolist() == labels.tolist()


def test_class_names_give_the_index(folder):
    names = ("dog", "bird", "cat", "ant")
    assert list_samples(folder, names)[0] == names
    assert list_samples(folder, names)[2].tolist() == [3] * 4 + [2] * 3 + [0] * 4


def test_epochs_shuffle_anew_and_repeat_from_the_seed(folder):
    def epochs(workers, first_epoch=0, count=3):
        dataset = build(folder, 11, shuffle=True, workers=workers, first_epoch=first_epoch)
        iterator = dataset.create_tuple_iterator(num_epochs=count, output_numpy=True)
        return [np.concatenate([labels for _, labels, _ in iterator]).tolist() for _ in range(count)]

    first = epochs(1)
    assert first[0] != first[1] != first[2]
    assert all(sorted(labels) == sorted(first[0]) for labels in first)
    assert epochs(3) == first
    assert epochs(2, first_epoch=1, count=2) == first[1:]  # as after a resume


def test_augmentation_depends_on_epoch_and_index_only(folder):
    _, paths, _ = list_samples(folder)
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (50, 40, 3), np.uint8)).save(paths[2])
    load = LoadSample(paths, TrainTransform(33, (0.2, 1.0), (0.75, 1.33), color_jitter=0.4), seed=3)
    keys = [(epoch, 2) for epoch in range(4)]
    results = [load(np.array(key), np.int32(0))[0] for key in keys]
    assert all(result.shape == (33, 33, 3) for result in results)
    assert len({result.tobytes() for result in results}) == 4
    again = [load(np.array(key), np.int32(0))[0] for key in keys[::-1]]
    assert all(np.array_equal(*pair) for pair in zip(again, results[::-1]))


def test_ranks_share_the_samples(folder):
    parts = [read(build(folder, 4, rank=rank, ranks=2)) for rank in (0, 1)]
    numbers = [np.concatenate([n for n, _ in part]).tolist() for part in parts]
    assert sorted(numbers[0] + numbers[1]) == list(range(11))


def indices(samples):
    return [int(key[1]) for key, _ in samples]


def test_passes_begin_where_they_should_and_have_their_length():
    labels = np.arange(20, dtype=np.int32)
    options = {"seed": 1, "shuffle": True, "rank": 1, "ranks": 3}
    whole = Samples(labels, **options)
    first, second = indices(whole), indices(whole)
    assert first != second and len(whole) == len(first) == 7  # of 7, 7 and 6
    short = Samples(labels, **options, first_epoch=0, skip=2, count=6)
    assert len(short) == 4
    assert indices(short) == first[2:6]
    assert indices(short) == second[:6]  # `skip` is for the first pass only
    epochs = [key[0] for key, label in Samples(labels, **options, first_epoch=5) if label == labels[key[1]]]
    assert epochs == [5] * 7


class TestBrokenPictures:
    """`SkipBroken` on the fixture's pictures, of which some are overwritten."""

    def read(self, folder, broken, passes=1, **options):
        _, paths, labels = list_samples(folder)
        for number in broken:
            paths[number].write_bytes(b"no picture")
        load = LoadSample(paths, CenterCrop(40, 40), 0, SkipBroken(paths, labels))
        dataset = batches_of(Samples(labels), load, 11, **options)
        iterator = dataset.create_tuple_iterator(num_epochs=passes, output_numpy=True)
        mean, std = np.array(MEAN)[:, None, None], np.array(STD)[:, None, None]
        for _ in range(passes):
            ((images, found, keys),) = iterator
            levels = (np.round((images * std + mean) * 255).mean((1, 2, 3)) // 10).astype(int)
        numbers = [int(path.stem) for path in paths]
        return [numbers.index(level) for level in levels], found.tolist(), labels.tolist(), keys[:, 1].tolist(), paths

    @pytest.mark.parametrize("processes", [False, True], ids=["threads", "processes"])
    def test_the_next_one_takes_the_place_with_its_label(self, folder, capfd, processes):
        options = {"passes": 3, "workers": 2, "processes": processes}
        found, labels, truth, keys, paths = self.read(folder, (3, 9, 10), **options)
        assert found == [0, 1, 2, 4, 4, 5, 6, 7, 8, 0, 0]  # behind the last comes the first
        assert labels == [truth[index] for index in found] and labels[3] == 1 and truth[3] == 0
        assert keys == list(range(11))
        lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("warning: ")]
        assert sorted(lines) == sorted(  # once each, in three epochs
            f"warning: {paths[index]}: is not a whole image: unknown format; {paths[(index + 1) % 11]} takes its place"
            for index in (3, 9, 10)
        )

    def test_too_many_in_a_row_are_an_error(self, folder, capfd):
        with pytest.raises(RuntimeError, match=r"UserError: .*png: is the last of 50 images in a row that are not"):
            self.read(folder, range(11))
        assert capfd.readouterr().err.count("takes its place") == 11


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
        list_samples(folder, ("ant", "cat", "dogs"))
    (folder / "empty").mkdir()
    (folder / "empty" / ".hidden.png").write_bytes(b"")
    with pytest.raises(UserError, match="empty: holds no images"):
        list_samples(folder)
    (tmp_path / "bare").mkdir()
    with pytest.raises(UserError, match="bare: holds no class folders"):
        list_samples(tmp_path / "bare")


@pytest.mark.parametrize("content", [b"", b"no picture", "truncated"], ids=["empty", "text", "truncated"])
def test_a_broken_image_is_named_through_the_pipeline(folder, content):
    path = folder / "cat" / "01.png"
    if content == "truncated":
        buffer = io.BytesIO()
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 40), np.uint8)).save(buffer, "PNG")
        content = buffer.getvalue()[:700]
    path.write_bytes(content)
    with pytest.raises(RuntimeError, match=f"UserError: {path}: is not a whole image: "):
        read(build(folder))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr", "I;16", "F"])
def test_any_mode_becomes_rgb(tmp_path, mode):
    path = tmp_path / ("a.jpg" if mode in ("CMYK", "YCbCr") else "a.tiff" if mode == "F" else "a.png")
    if mode == "I;16":
        Image.fromarray(np.full((5, 4), 40000, np.uint16)).save(path)
    else:
        Image.new("RGB", (4, 5), "red").convert("L" if mode == "F" else "RGB").convert(mode).save(path)
    image = load_image(path)
    assert image.mode == "RGB" and image.size == (4, 5)


def test_find_images(folder):
    assert find_images(folder / "cat" / "00.png") == [folder / "cat" / "00.png"]
    (folder / "cat" / "notes.txt").write_text("x")
    assert [path.name for path in find_images(folder / "cat")] == ["00.png", "01.png", "02.png"]
    with pytest.raises(UserError, match="no such file or folder"):
        find_images(folder / "cow")


@pytest.fixture
def photographs(tmp_path):
    """The 100 sample pictures, grey, EXIF-rotated and tiny ones among them, and a CMYK JPEG."""
    cmyk = tmp_path / "cmyk.jpg"
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (300, 260, 4), np.uint8), "CMYK").save(cmyk, quality=95)
    return [*find_images(shared_data("imagenet_samples") / "val"), cmyk]


def images_of(paths, transform):
    dataset = batches_of(Samples(np.zeros(len(paths), np.int32)), LoadSample(paths, transform, seed=0), 16)
    batches = dataset.create_tuple_iterator(num_epochs=1, output_numpy=True)
    return np.concatenate([images for images, _, _ in batches])


def test_evaluation_sees_what_timm_sees(photographs):
    timm_data = reference("timm.data")
    timm_transform = timm_data.create_transform((3, 224, 224), interpolation="bicubic", crop_pct=0.875)
    images = images_of(photographs, CenterCrop(224, 256))
    assert len(images) == len(photographs) == 101
    for path, image in zip(photographs, images):
        with Image.open(path) as picture:
            expected = timm_transform(picture.convert("RGB")).numpy()
        assert np.abs(image - expected).max() < 1e-5, path


def test_mindspores_evaluation_is_that_of_its_own_pipeline(photographs):
    paths = [os.fspath(path) for path in photographs[:100]]
    dataset = ds.GeneratorDataset([(np.fromfile(path, np.uint8),) for path in paths], ["image"], shuffle=False)
    resize, crop = vision.Resize(256, vision.Inter.LINEAR), vision.CenterCrop(224)
    normalise = vision.Normalize([255 * value for value in MEAN], [255 * value for value in STD])
    dataset = dataset.map([vision.Decode(), resize, crop, normalise, vision.HWC2CHW()], "image")
    expected = np.stack([image for (image,) in dataset.create_tuple_iterator(num_epochs=1, output_numpy=True)])
    images = images_of(paths, MindSporeCenterCrop(224, 256, "bilinear"))
    assert np.abs(images - expected).max() < 1e-5
    exact = images_of(paths, CenterCrop(224, 256, "bilinear"))
    assert 0.005 < np.abs(images - exact).mean() < 0.2
