"""Write scikit-learn's 1,797 handwritten digits as an image folder: python scripts/make_demo_data.py data/digits

The result is train/<digit>/*.png and val/<digit>/*.png: 1,437 and 360 grey pictures of 8x8 pixels, of the
UCI "Optical Recognition of Handwritten Digits" test set, split at random with a fixed seed.
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


def write_digits(folder: Path) -> None:
    """Write all pictures below `folder`."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    is_val = np.zeros(len(digits.images), bool)
    is_val[np.random.default_rng(SEED).permutation(len(digits.images))[:VAL_IMAGES]] = True
    for index, (pixels, label) in enumerate(zip(digits.images, digits.target)):
        path = folder / ("val" if is_val[index] else "train") / str(label) / f"{index:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((pixels * 255 / WHITE).round().astype(np.uint8)).save(path)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", default=Path("data/digits"), help="folder to make")
    folder = parser.parse_args().folder
    if folder.exists():
        print(f"{folder}: is there already")
        return
    temporary = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    write_digits(temporary)
    temporary.rename(folder)
    print(f"wrote {folder}")


if __name__ == "__main__":
    run(main)
