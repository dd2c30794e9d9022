"""scripts/show_batch.py: the drawing holds the images in their own colours."""

import numpy as np
import pytest
from helpers import PROJECT, call_here
from PIL import Image

COLORS = {"blue": (20, 40, 200), "red": (220, 30, 60), "green": (10, 150, 90)}
CONFIG = PROJECT / "configs" / "classification" / "digits.yaml"


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
    settings = ["--config", CONFIG, "--data_url", "data", "--num_classes", "3"]
    sizes = ["data.image_size=40", "data.eval_resize=40"]
    return call_here("scripts/show_batch.py", *settings, *arguments, *sizes, cwd=folder)


def colored_pixels(path):
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    return {name: int((np.abs(pixels - color).max(2) <= 1).sum()) for name, color in COLORS.items()}


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
