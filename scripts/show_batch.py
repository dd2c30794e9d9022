"""Draw what the network sees: python scripts/show_batch.py --config FILE --data_url DIR

The images are those of a batch after decoding, cropping and all augmentation, brought back from normalised values to
colours: with the names of their classes, their boxes, or their masks as an overlay.
"""

import dataclasses
import itertools
import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src.command_line import DEFAULT_CONFIG, add_overrides, build_parser, read_config
from src.console import run
from src.detection.dataset import NO_OBJECT
from src.detection.drawing import draw_detections
from src.detection.transforms import whole_view
from src.drawing import add_fonts, escape, label_classes, palette, shorten_name, to_colours
from src.errors import UserError
from src.files import atomic_path, refuse_existing
from src.ranks import Ranks
from src.segmentation.drawing import OPACITY
from src.segmentation.transforms import IGNORED
from src.tasks import create_task

TITLE_LENGTH = 22  # characters that fit over an image of a class
TITLE_HEIGHT, LEGEND_LINE, LEGEND_COLUMNS = 0.2, 0.3, 6  # inches, and names in a line
DPI = 150
MOST = 32  # rows, and images in a row: the drawing then takes a gigabyte
# rows, columns, width of an image in inches
LAYOUTS = {"classification": (4, 8, 1.6), "detection": (2, 4, 3.2), "segmentation": (2, 4, 3.2)}
SMALLEST_SHARE = 0.05  # of a class in an image that is mixed of several, to be named


def parse_arguments():
    parser = build_parser(__doc__.splitlines()[0])
    size = "at most; of classification {} by default, else {}"
    parser.add_argument("--split", choices=("train", "val"), default="train", help="which images")
    parser.add_argument("--rows", type=int, metavar="N", help="rows of images " + size.format(4, 2))
    parser.add_argument("--columns", type=int, metavar="N", help="images in a row " + size.format(8, 4))
    parser.add_argument("--output", default="batch.png", metavar="FILE", help="drawing to write")
    parser.add_argument("--force", action="store_true", help="overwrite an existing file")
    add_overrides(parser)
    arguments = parser.parse_intermixed_args()
    arguments.config = arguments.config or str(DEFAULT_CONFIG)
    if any(number is not None and not 1 <= number <= MOST for number in (arguments.rows, arguments.columns)):
        parser.error(f"--rows and --columns must be at least 1 and at most {MOST}")
    return arguments


def read_samples(config, split, count):
    """Print the notes of a split, give the first `count` or fewer (image uint8 (H, W, 3), title) of it.

    Returns:
        The list of these, and {name: colour} for a legend, which may be empty.
    """
    if split == "val" or not getattr(config.augment, "mixes", False):
        # the images do not depend on the batch, and the smallest ones that the settings take are enough for any dataset
        smallest = 2 if config.task == "segmentation" else 1
        train = dataclasses.replace(config.train, batch_size=smallest, accumulation_steps=1)
        evaluation = dataclasses.replace(config.evaluation, batch_size=1)
        config = dataclasses.replace(config, train=train, evaluation=evaluation)
    task = create_task(config)
    dataset = task.build_dataset(split, Ranks())
    for line in dataset.notes:
        print(line)
    names = label_classes(tuple(dataset.class_names or task.class_names()))
    add_fonts(names)
    batches = dataset.pipeline().create_tuple_iterator(num_epochs=1, output_numpy=True)
    draw = {"classification": draw_classes, "detection": draw_boxes, "segmentation": draw_masks}[config.task]
    samples = (sample for columns in batches for sample in draw(columns, config, dataset, names))
    samples = list(itertools.islice(samples, count))
    shown = sorted(set().union(*(classes for _, _, classes in samples)))
    legend = {names[index]: palette(len(names))[index] / 255 for index in shown}
    return [(pixels, title) for pixels, title, _ in samples], legend


def draw_classes(columns, config, dataset, names):
    """Give (image, its class, classes of the legend) of a batch of classification."""
    images, labels = columns[:2]
    for pixels, label in zip(to_colours(images, config.data.mean, config.data.std), labels):
        if labels.ndim == 1:
            title = shorten_name(names[label], TITLE_LENGTH)
        else:  # shares of the classes
            best = [index for index in np.argsort(-label, kind="stable")[:2] if label[index] >= SMALLEST_SHARE]
            title = "\n".join(f"{shorten_name(names[index], TITLE_LENGTH - 5)} {label[index]:.0%}" for index in best)
        yield pixels, title, ()


def draw_boxes(columns, config, dataset, names):
    """Give (image with boxes, number of objects, classes of the legend: none) of a batch of detection."""
    images, *others = columns
    if len(others) == 2:  # in training; the boxes of evaluation are with the annotations
        objects = [(boxes[labels != NO_OBJECT], labels[labels != NO_OBJECT]) for boxes, labels in zip(*others)]
    else:
        annotated = [dataset.records.images[index] for index in others[0][:, 1]]
        objects = [item.objects() for item in annotated]
        views = [whole_view(item.width, item.height, config.data.image_size) for item in annotated]
        objects = [(view.to_input(boxes), labels) for view, (boxes, labels) in zip(views, objects)]
    colours = palette(len(names))
    scale = max(1, round(LAYOUTS["detection"][2] * DPI / config.data.image_size))  # so that the texts are sharp
    for pixels, (boxes, labels) in zip(to_colours(images, config.data.mean, config.data.std), objects):
        image = Image.fromarray(pixels)
        image = image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)
        draw_detections(image, boxes * scale, [names[label] for label in labels], colours[labels])
        yield np.asarray(image), f"objects: {len(labels)}", ()


def draw_masks(columns, config, dataset, names):
    """Give (image under its mask, no title, its classes) of a batch of segmentation; ignored pixels have no colour."""
    images, labels = columns[:2]
    if labels.ndim == 2:  # evaluation has single images as they are stored
        images, labels = images[None], labels[None]
    else:
        images = to_colours(images, config.data.mean, config.data.std)
    colours = palette(len(names))
    for pixels, mask in zip(images, labels):
        known = mask != IGNORED
        mixed = pixels.copy()
        mixed[known] = np.rint((1 - OPACITY) * pixels[known] + OPACITY * colours[mask[known]])
        yield mixed, "", set(np.unique(mask[known]).tolist())


def draw(samples, columns, width, legend):
    """A figure of the images with their titles, `columns` of a width in inches in a row, and a legend below them."""
    rows = -(-len(samples) // columns)
    largest = max(pixels.shape[0] / pixels.shape[1] for pixels, _ in samples)
    heights = [width * largest + TITLE_HEIGHT] * rows
    if legend:
        heights.append(LEGEND_LINE * -(-len(legend) // LEGEND_COLUMNS))
    figure = Figure(figsize=(columns * width, sum(heights)), layout="constrained")
    grid = figure.add_gridspec(len(heights), columns, height_ratios=heights)
    for place in range(rows * columns):
        axis = figure.add_subplot(grid[place // columns, place % columns])
        axis.set_axis_off()
        if place < len(samples):
            axis.imshow(samples[place][0])
            axis.set_title(escape(samples[place][1]), fontsize=7)
    if legend:
        axis = figure.add_subplot(grid[-1, :])
        axis.set_axis_off()
        patches = [Patch(color=colour, label=escape(name)) for name, colour in legend.items()]
        axis.legend(handles=patches, ncol=LEGEND_COLUMNS, loc="center", fontsize=8, frameon=False)
    return figure


def main():
    arguments = parse_arguments()
    path = Path(arguments.output)
    if path.suffix.lower() != ".png":
        raise UserError(f"--output {path}: the drawing is a PNG file, its ending must be .png")
    refuse_existing(path, arguments.force)
    config = read_config(arguments)
    rows, columns, width = LAYOUTS[config.task]
    rows, columns = arguments.rows or rows, arguments.columns or columns
    samples, legend = read_samples(config, arguments.split, rows * columns)
    figure = draw(samples, columns, width, legend)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=DPI, format="png")
    print(f"wrote {path}: {len(samples)} images of {arguments.split}")


if __name__ == "__main__":
    run(main)
