"""Draw what the network sees: python scripts/show_batch.py --config FILE --data_url DIR

The images are those of a batch after decoding, cropping and all augmentation, with their class names, brought
back from normalised values to colours.
"""

import dataclasses
import itertools
import sys
import textwrap
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src.command_line import DEFAULT_CONFIG, add_overrides, build_parser, read_config
from src.console import run
from src.errors import UserError
from src.files import atomic_path, refuse_existing
from src.ranks import Ranks
from src.tasks import create_task

TITLE_LENGTH = 22  # characters that fit over an image
CELL = (1.6, 1.8)  # width and height of an image and its title in inches


def parse_arguments():
    parser = build_parser(__doc__.splitlines()[0])
    parser.add_argument("--split", choices=("train", "val"), default="train", help="which images")
    parser.add_argument("--rows", type=int, default=4, metavar="N", help="rows of images at most")
    parser.add_argument("--columns", type=int, default=8, metavar="N", help="images in a row")
    parser.add_argument("--output", default="batch.png", metavar="FILE", help="drawing to write")
    parser.add_argument("--force", action="store_true", help="overwrite an existing file")
    add_overrides(parser)
    arguments = parser.parse_intermixed_args()
    arguments.config = arguments.config or str(DEFAULT_CONFIG)
    if min(arguments.rows, arguments.columns) < 1:
        parser.error("--rows and --columns must be at least 1")
    return arguments


def read_samples(config, split, count):
    """Print the notes of a split, give the first `count` or fewer (colours (H, W, 3) in [0, 1], class name) of it."""
    # the images do not depend on the batch, and batches of one are enough for any dataset
    train = dataclasses.replace(config.train, batch_size=1, accumulation_steps=1)
    evaluation = dataclasses.replace(config.evaluation, batch_size=1)
    task = create_task(dataclasses.replace(config, train=train, evaluation=evaluation))
    dataset = task.build_dataset(split, Ranks())
    for line in dataset.notes:
        print(line)
    names = dataset.class_names or task.class_names()
    batches = dataset.pipeline().create_tuple_iterator(num_epochs=1, output_numpy=True)
    for images, labels, *_ in itertools.islice(batches, count):
        pixels = images[0].transpose(1, 2, 0) * config.data.std + config.data.mean  # (3, H, W) -> (H, W, 3)
        yield np.clip(pixels, 0, 1), names[labels[0]]


def draw(samples, columns):
    """A figure of the images with their titles, `columns` in a row."""
    rows = -(-len(samples) // columns)
    figure = Figure(figsize=(columns * CELL[0], rows * CELL[1]), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes:
        axis.set_axis_off()
    for axis, (pixels, name) in zip(axes, samples):
        axis.imshow(pixels)
        first_name = name.split(",")[0]  # ImageNet's classes have several
        axis.set_title(textwrap.shorten(first_name, TITLE_LENGTH, placeholder="..."), fontsize=7)
    return figure


def main():
    arguments = parse_arguments()
    path = Path(arguments.output)
    if path.suffix.lower() != ".png":
        raise UserError(f"--output {path}: the drawing is a PNG file, its ending must be .png")
    refuse_existing(path, arguments.force)
    config = read_config(arguments)
    if config.task != "classification":
        raise UserError(f"task: {config.task} has no classes to show, only classification has")
    samples = list(read_samples(config, arguments.split, arguments.rows * arguments.columns))
    figure = draw(samples, arguments.columns)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=150, format="png")
    print(f"wrote {path}: {len(samples)} images of {arguments.split}")


if __name__ == "__main__":
    run(main)
