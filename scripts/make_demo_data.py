"""Write scikit-learn's 1,797 handwritten digits as a dataset: python scripts/make_demo_data.py data/digits

They are grey images of 8x8 pixels, of the UCI "Optical Recognition of Handwritten Digits" test set, split at random
with a fixed seed into 1,437 for training and 360 for validation. The layout depends on the task:

- classification: train/<digit>/*.png and val/<digit>/*.png;
- detection: COCO's, 200 and 50 images with up to 5 enlarged digits on each;
- segmentation: ADE20K's, 119 and 30 canvases of 12 digits each, whose squares are the classes 1 (digit 0) to 10.
"""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src.console import Parser, run
from src.files import TEMPORARY, unwritable

WHITE = 16  # grey levels in the data are 0 to 16
VAL_IMAGES = 360
SEED = 0
CLASSES = 10
DETECTION_IMAGES = {"train2017": 200, "val2017": 50}
CANVAS = (128, 96)  # width and height in pixels
MAX_DIGITS = 5
DIGIT_SIDES = (20, 41)  # range of an enlarged digit's side in pixels, the second excluded
PLACING_ATTEMPTS = 20
GRID = (3, 4)  # rows and columns of digits on a canvas for segmentation
CELL, CELL_SIDES = 40, (26, 41)  # pixels of its cells; range of a digit's side, the second excluded


def load_split_digits():
    """Images uint8 (N, 8, 8), their digits (N,), and bool (N,): whether each is for validation."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    is_val = np.zeros(len(digits.images), bool)
    is_val[np.random.default_rng(SEED).permutation(len(digits.images))[:VAL_IMAGES]] = True
    return (digits.images * 255 / WHITE).round().astype(np.uint8), digits.target, is_val


def write_digits(folder: Path) -> None:
    """Write all images below `folder`, a folder a class."""
    for index, (pixels, label, is_val) in enumerate(zip(*load_split_digits())):
        path = folder / ("val" if is_val else "train") / str(label) / f"{index:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)


def write_detection(folder: Path) -> None:
    """Write images with several digits below `folder`, in COCO's layout."""
    images, labels, is_val = load_split_digits()
    categories = [{"id": digit + 1, "name": str(digit)} for digit in range(CLASSES)]
    generator = np.random.default_rng(SEED)
    for name, count in DETECTION_IMAGES.items():
        (folder / name).mkdir()
        chosen = np.flatnonzero(is_val == (name == "val2017"))
        content = {"images": [], "annotations": [], "categories": categories}
        for number in range(1, count + 1):
            canvas = Image.new("L", CANVAS)
            for index, box in place_digits(generator, chosen):
                left, top, side, _ = box
                canvas.paste(Image.fromarray(images[index]).resize((side, side), Image.Resampling.BICUBIC), (left, top))
                entry = {"image_id": number, "category_id": int(labels[index]) + 1, "bbox": box, "area": side * side}
                content["annotations"].append({"id": len(content["annotations"]) + 1, **entry, "iscrowd": 0})
            file = f"{number:04d}.png"
            canvas.save(folder / name / file)
            content["images"].append({"id": number, "file_name": file, "width": CANVAS[0], "height": CANVAS[1]})
        path = folder / "annotations" / f"instances_{name}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content))


def place_digits(generator, indices) -> list:
    """(index, [left, top, side, side]) of up to `MAX_DIGITS` digits that do not overlap, from `indices`."""
    placed = []
    for _ in range(generator.integers(MAX_DIGITS + 1)):
        for _ in range(PLACING_ATTEMPTS):
            side = int(generator.integers(*DIGIT_SIDES))
            left, top = (int(generator.integers(length - side + 1)) for length in CANVAS)
            box = [left, top, side, side]
            if not any(overlap(box, other) for _, other in placed):
                placed.append((int(generator.choice(indices)), box))
                break
    return placed


def overlap(box, other) -> bool:
    """Whether two boxes (left, top, width, height) have pixels in common."""
    (left, top, width, height), (x, y, w, h) = box, other
    return left < x + w and x < left + width and top < y + h and y < top + height


def write_segmentation(folder: Path) -> None:
    """Write canvases of digits and their masks below `folder`; the digits that do not fill one are left out."""
    images, digits, is_val = load_split_digits()
    count = GRID[0] * GRID[1]
    for split, chosen in (("training", ~is_val), ("validation", is_val)):
        indices = np.flatnonzero(chosen)
        for number in range(len(indices) // count):
            part = indices[number * count : (number + 1) * count]
            canvas, mask = draw_canvas(images[part], digits[part], np.random.default_rng((SEED, int(part[0]))))
            for kind, content in (("images", canvas), ("annotations", mask)):
                path = folder / kind / split / f"{number:03d}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(content).save(path)


def draw_canvas(images, digits, generator):
    """Grey canvas and mask, uint8 (H, W): each digit in a cell of `GRID`, at a random size and place."""
    canvas, mask = np.zeros((2, GRID[0] * CELL, GRID[1] * CELL), np.uint8)
    for place, (pixels, digit) in enumerate(zip(images, digits)):
        side = int(generator.integers(*CELL_SIDES))
        top, left = CELL * np.array(divmod(place, GRID[1])) + generator.integers(0, CELL - side + 1, 2)
        square = slice(top, top + side), slice(left, left + side)
        canvas[square] = Image.fromarray(pixels).resize((side, side), Image.Resampling.BILINEAR)
        mask[square] = digit + 1
    return canvas, mask


WRITERS = {"classification": write_digits, "detection": write_detection, "segmentation": write_segmentation}


def main():
    parser = Parser(__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", default=Path("data/digits"), help="folder to make")
    parser.add_argument("--task", choices=WRITERS, default="classification", help="what the dataset is for")
    arguments = parser.parse_args()
    folder = arguments.folder
    if folder.is_dir():
        print(f"{folder}: is there already")
        return
    temporary = folder.with_name(folder.name + TEMPORARY)
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        WRITERS[arguments.task](temporary)
        temporary.rename(folder)
    except OSError as error:
        raise unwritable(folder, error) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    print(f"wrote {folder}")


if __name__ == "__main__":
    run(main)
