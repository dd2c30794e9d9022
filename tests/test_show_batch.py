"""scripts/show_batch.py: images in their own colours, with the names, boxes and masks that belong to them."""

import io

import numpy as np
import pytest
from detection.coco_files import CONFIG as DETECTION
from detection.coco_files import SIZE, write_split
from helpers import PROJECT, call_here
from PIL import Image

from scripts.show_batch import draw, read_samples
from src.config import load_config
from src.drawing import palette
from src.tasks import SCHEMAS

COLORS = {"blue": (20, 40, 200), "red": (220, 30, 60), "green": (10, 150, 90)}
DIGITS = PROJECT / "configs" / "classification" / "digits.yaml"
CAMVID = PROJECT / "configs" / "segmentation" / "camvid.yaml"


@pytest.fixture
def folder(tmp_path):
    for split, count in (("train", 2), ("val", 1)):
        for name, color in COLORS.items():
            for number in range(count):
                path = tmp_path / "data" / split / name / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (50, 40), color).save(path)
    return tmp_path


def show(folder, *arguments):
    settings = ["--config", DIGITS, "--data_url", "data", "--num_classes", "3"]
    sizes = ["data.image_size=40", "data.eval_resize=40"]
    return call_here("scripts/show_batch.py", *settings, *arguments, *sizes, cwd=folder)


def settings(config, folder, **values):
    """The settings of a file with some changes, whose keys have __ for the point."""
    changes = {"data.path": str(folder), **{key.replace("__", "."): value for key, value in values.items()}}
    return load_config(config, SCHEMAS, [(key, value, "test") for key, value in changes.items()])


def count_pixels(pixels, color):
    return int((np.abs(np.asarray(pixels).astype(int) - color).max(2) <= 1).sum())


def colored_pixels(path):
    pixels = Image.open(path).convert("RGB")
    return {name: count_pixels(pixels, color) for name, color in COLORS.items()}


def test_names_are_drawn_as_they_are():
    figure = draw([(np.zeros((4, 4, 3), np.uint8), "$x^{$")], 1, 1.6, {"$x^{$": (1, 0, 0)})
    figure.savefig(io.BytesIO())  # between dollar signs matplotlib reads mathematics, and fails
    assert figure.axes[0].get_title() == r"\$x^{\$"


def test_images_are_drawn_in_their_colors(folder):
    result = show(folder, "--output", "train.png", "--columns", "3")
    assert (result.returncode, result.stdout) == (0, "wrote train.png: 6 images of train\n"), result.stderr
    counts = colored_pixels(folder / "train.png")
    assert min(counts.values()) > 40_000 and max(counts.values()) - min(counts.values()) < 2000  # two cells each
    assert Image.open(folder / "train.png").size == (720, 540)

    (folder / "val.png").write_text("mine")
    result = show(folder, "--output", "val.png", "--split", "val")
    assert (result.returncode, result.stderr) == (2, "error: val.png: exists; --force overwrites it\n")
    assert (folder / "val.png").read_text() == "mine"
    result = show(folder, "--output", "val.png", "--split", "val", "--force", "--rows", "1", "--columns", "2")
    assert (result.returncode, result.stdout) == (0, "wrote val.png: 2 images of val\n"), result.stderr
    counts = colored_pixels(folder / "val.png")
    assert counts["blue"] > 20_000 and counts["green"] > 20_000 and counts["red"] == 0  # in sorted order


def test_mixed_images_have_the_shares_of_their_classes(folder):
    values = {"network__num_classes": 3, "data__image_size": 40, "train__batch_size": 4, "loss__label_smoothing": 0.0}
    config = settings(DIGITS, folder / "data", augment__mixup=1.0, **values)
    samples, legend = read_samples(config, "train", 4)
    assert legend == {} and len(samples) == 4
    for pixels, title in samples:
        shares = dict(line.rsplit(" ", 1) for line in title.splitlines())
        shares = {name: float(share.rstrip("%")) / 100 for name, share in shares.items()}
        expected = sum(share * np.array(COLORS[name]) for name, share in shares.items())
        assert abs(sum(shares.values()) - 1) <= 0.06  # the smallest shares are not named
        assert np.abs(pixels - expected).max() <= 0.06 * 255
    assert any("\n" in title for _, title in samples)


def test_boxes_are_drawn_around_the_objects(tmp_path):
    """The boxes of the first image, [10, 5, 40, 35] and so on, times 64 / 60 for the input and 8 for the drawing."""
    for name in ("train2017", "val2017"):
        write_split(tmp_path, name)
    config = settings(DETECTION, tmp_path, network__num_classes=2, data__image_size=SIZE, data__repeat=1)
    samples, _ = read_samples(config, "val", 8)
    assert [title for _, title in samples] == ["objects: 2", "objects: 1", "objects: 0"]
    pixels, cat, dog = samples[0][0], *palette(2)
    scale = 8 * SIZE / 60
    assert pixels.shape == (8 * SIZE, 8 * SIZE, 3)
    left, top, right, bottom = (int(scale * edge) for edge in (10, 5, 30, 35))
    for row, column in ((bottom, left + 60), (top + 150, left), (bottom - 20, right)):
        assert (np.abs(pixels[row - 2 : row + 3, column - 2 : column + 3] - dog.astype(int)).max(2) == 0).any()
    assert (pixels[int(scale * 15) - 2 : int(scale * 15) + 3, int(scale * 50.5)] == cat).all(1).any()

    samples, _ = read_samples(config, "train", 2)
    assert all(count_pixels(pixels, cat) + count_pixels(pixels, dog) > 500 for pixels, _ in samples)


def test_masks_are_drawn_over_the_images(tmp_path):
    """Classes are 1, the left third, and 3, the right one; what lies between has none."""
    image, mask = np.full((48, 60, 3), (200, 100, 40), np.uint8), np.zeros((48, 60), np.uint8)
    mask[:, :20], mask[:, 40:] = 1, 3
    for split in ("training", "validation"):
        for kind, content in (("images", image), ("annotations", mask)):
            (tmp_path / kind / split).mkdir(parents=True)
            for number in range(2):
                Image.fromarray(content).save(tmp_path / kind / split / f"{number}.png")
    values = {"network__num_classes": 3, "data__class_names": ["sky", "sea", "land"], "data__base_size": [60, 48]}
    values.update(augment__ratio=[1.0, 1.0], augment__flip=0.0, augment__photometric=False)
    config = settings(CAMVID, tmp_path, data__crop_size=[48, 60], **values)
    for split in ("train", "val"):
        (sample,), legend = read_samples(config, split, 1)
        pixels, title = sample
        assert title == "" and list(legend) == ["sky", "land"]
        assert np.array_equal(legend["land"], palette(3)[2] / 255)
        assert np.array_equal(pixels[:, 20:40], image[:, 20:40])
        for index, columns in ((0, slice(0, 20)), (2, slice(40, 60))):
            expected = 0.45 * image[0, 0] + 0.55 * palette(3)[index]
            assert np.abs(pixels[:, columns] - expected).max() <= 0.5
