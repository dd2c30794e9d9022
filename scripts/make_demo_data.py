"""Write scikit-learn's 1,797 handwritten digits as a data set: python scripts/make_demo_data.py data/digits

The digits are those of the UCI "Optical Recognition of Handwritten Digits" test set, 8x8 pixels, split at random with
a fixed seed into 1,437 and 360. The result is, for

- classification: an image folder, train/<digit>/*.png and val/<digit>/*.png;
- segmentation: ADE20K's layout, 119 and 30 canvases of 12 digits each, whose squares are the classes 1 (digit 0) to 10.
"""

import argparse
import shutil
import sys
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src.command_line import run

WHITE = 16  # grey levels in the data are 0 to 16
VAL_IMAGES = 360
SEED = 0
GRID = (3, 4)  # rows and columns of a canvas
CELL, SIDES = 40, (26, 40)  # pixels of its cells, and of the digits in them


def write_digits(folder: Path) -> None:
    """Write all pictures below `folder`."""
    for index, (pixels, label, is_val) in enumerate(zip(*load_split_digits())):
        path = folder / ("val" if is_val else "train") / str(label) / f"{index:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)


def load_split_digits():
    """(grey pictures uint8 (N, 8, 8), their digits (N,), whether they are for validation (N,))."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    is_val = np.zeros(len(digits.images), bool)
    is_val[np.random.default_rng(SEED).permutation(len(digits.images))[:VAL_IMAGES]] = True
    return (digits.images * 255 / WHITE).round().astype(np.uint8), digits.target, is_val


def write_canvases(folder: Path) -> None:
    """Write canvases of digits and their masks below `folder`; the digits that do not fill one are left out."""
    pictures, digits, is_val = load_split_digits()
    count = GRID[0] * GRID[1]
    for split, chosen in (("training", ~is_val), ("validation", is_val)):
        indices = np.flatnonzero(chosen)
        for number in range(len(indices) // count):
            part = indices[number * count : (number + 1) * count]
            canvas, mask = draw_canvas(pictures[part], digits[part], np.random.default_rng((SEED, int(part[0]))))
            for kind, content in (("images", canvas), ("annotations", mask)):
                path = folder / kind / split / f"{number:03d}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(content).save(path)


def draw_canvas(pictures, digits, generator):
    """Grey canvas and mask, uint8 (H, W): each digit in a cell of `GRID`, at a random size and place."""
    canvas, mask = np.zeros((2, GRID[0] * CELL, GRID[1] * CELL), np.uint8)
    for place, (pixels, digit) in enumerate(zip(pictures, digits)):
        side = int(generator.integers(SIDES[0], SIDES[1] + 1))
        top, left = CELL * np.array(divmod(place, GRID[1])) + generator.integers(0, CELL - side + 1, 2)
        square = slice(top, top + side), slice(left, left + side)
        canvas[square] = Image.fromarray(pixels).resize((side, side), Image.Resampling.BILINEAR)
        mask[square] = digit + 1
    return canvas, mask


WRITERS = {"classification": write_digits, "segmentation": write_canvases}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", default=Path("data/digits"), help="folder to make")
    parser.add_argument("--task", choices=WRITERS, default="classification", help="what the data set is for")
    arguments = parser.parse_args()
    folder = arguments.folder
    if folder.exists():
        print(f"{folder}: is there already")
        return
    temporary = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    WRITERS[arguments.task](temporary)
    temporary.rename(folder)
    print(f"wrote {folder}")


if __name__ == "__main__":
    run(main)
