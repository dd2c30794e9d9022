"""Draw where a classifier is wrong: python scripts/show_errors.py --checkpoint_path FILE --data_url DIR

`errors.png` has the validation images with the highest loss, as the network sees them, `confusion.png` the confusion
matrix. The pairs of classes that are confused most often are printed.
"""

import sys
from pathlib import Path

import numpy as np
from matplotlib.colors import Normalize, PowerNorm
from matplotlib.figure import Figure

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src.command_line import add_overrides, add_weights, build_parser, read_config, start_runtime
from src.console import run
from src.data.images import load_image
from src.drawing import add_fonts, escape, label_classes, shorten_name
from src.errors import UserError
from src.files import atomic_path, refuse_existing
from src.inference.loading import cache_graphs, load_network
from src.tasks import create_task

ERRORS, CONFUSION = "errors.png", "confusion.png"
COLUMNS, CELL = 8, (1.8, 2.3)  # images in a row; width and height of one and its title in inches
TITLE_LENGTH = 22  # characters of a line over an image
PAIRS = 10
MOST_ERRORS = 1000  # images, 43,000 pixels high; matplotlib ends at 65,536
MOST_NUMBERS, MOST_NAMES = 20, 40  # classes whose matrix has its counts in the cells, and names at its sides
MOST_CELLS = 250  # rows of a matrix whose cells can still be seen
FAINT_EXPONENT = 0.4  # of shares in a matrix of many classes, where no pair has many


def parse_arguments():
    parser = build_parser(__doc__.splitlines()[0])
    add_weights(parser)
    parser.add_argument("--output_dir", default=".", metavar="DIR", help=f"folder for {ERRORS} and {CONFUSION}")
    parser.add_argument("--count", type=int, default=32, metavar="N", help="images with the highest loss at most")
    parser.add_argument("--force", action="store_true", help="overwrite existing files")
    add_overrides(parser)
    arguments = parser.parse_intermixed_args()
    if not 1 <= arguments.count <= MOST_ERRORS:
        parser.error(f"--count must be at least 1 and at most {MOST_ERRORS}")
    return arguments


def shorten(name):
    """The name of a class, no longer than there is room for."""
    return shorten_name(name, TITLE_LENGTH)


def confused_pairs(counts):
    """List the most confused pairs of a matrix, [(true class, predicted class, count), ...], the largest first."""
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:PAIRS]
    pairs = [(*divmod(int(place), len(counts)), int(wrong.flat[place])) for place in order]
    return [pair for pair in pairs if pair[2] > 0]


def describe_pairs(counts, names):
    """The most confused pairs, a line each."""
    totals = counts.sum(axis=1)
    return [
        f"{count:6} of {totals[true]} {shorten(names[true])!r} taken for {shorten(names[predicted])!r} "
        f"({count / totals[true]:.1%})"
        for true, predicted, count in confused_pairs(counts)
    ]


def draw_errors(metrics, chosen, images, names):
    """A figure of images with their classes, the predicted ones, confidence and loss; wrong ones have red titles.

    Args:
        metrics: `ClassificationMetrics`.
        chosen: indices of the images, in order.
        images: uint8 (H, W, 3), of these.
        names: of the classes.
    """
    rows = -(-len(chosen) // COLUMNS)
    figure = Figure(figsize=(COLUMNS * CELL[0], rows * CELL[1]), layout="constrained")
    axes = figure.subplots(rows, COLUMNS, squeeze=False).ravel()
    for axis in axes:
        axis.set_axis_off()
    for axis, index, pixels in zip(axes, chosen, images):
        true, predicted = metrics.labels[index], metrics.best[index, 0]
        axis.imshow(pixels)
        title = f"{shorten(names[true])}\n→ {shorten(names[predicted])}\n"
        title += f"{metrics.confidence[index]:.0%}, loss {metrics.loss[index]:.2f}"
        axis.set_title(escape(title), fontsize=7, color="black" if true == predicted else "firebrick")
    return figure


def pool(shares):
    """A matrix of `MOST_CELLS` rows at most: each cell has the largest value of a square block of the whole one."""
    block = -(-len(shares) // MOST_CELLS)
    padded = np.pad(shares, (0, -len(shares) % block))
    cells = len(padded) // block
    return padded.reshape(cells, block, cells, block).max(axis=(1, 3))


def draw_confusion(counts, names):
    """A figure of a confusion matrix, each row in shares of its class, with the most confused pairs as text."""
    number = len(counts)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    has_names = number <= MOST_NAMES
    side = max(5.0, 0.3 * number) if has_names else 8.0
    figure = Figure(figsize=(side + 5.5, side + 0.5), layout="constrained")
    axis, text = figure.subplots(1, 2, gridspec_kw={"width_ratios": (side, 4.5)})
    extent = (-0.5, number - 0.5, number - 0.5, -0.5)
    norm = Normalize(0, 1) if has_names else PowerNorm(FAINT_EXPONENT, 0, 1)
    drawn = axis.imshow(pool(shares), cmap="Blues", norm=norm, extent=extent, interpolation="nearest")
    axis.set(xlabel="predicted class", ylabel="true class")
    if has_names:
        labels = [escape(shorten(name)) for name in names]
        axis.set_xticks(range(number), labels, rotation=90, fontsize=8)
        axis.set_yticks(range(number), labels, fontsize=8)
    if number <= MOST_NUMBERS:
        for row, column in zip(*np.nonzero(counts)):
            color = "white" if shares[row, column] > 0.5 else "black"
            axis.text(column, row, counts[row, column], ha="center", va="center", fontsize=7, color=color)
    figure.colorbar(drawn, ax=axis, shrink=0.6, label="share of the true class")
    text.set_axis_off()
    lines = ["most confused:", *describe_pairs(counts, names)] if confused_pairs(counts) else ["nothing is confused"]
    text.text(0, 1, escape("\n".join(lines)), va="top", fontsize=8, transform=text.transAxes)
    return figure


def main():
    arguments = parse_arguments()
    paths = [Path(arguments.output_dir) / name for name in (ERRORS, CONFUSION)]
    for path in paths:
        refuse_existing(path, arguments.force)
    config = read_config(arguments, arguments.checkpoint_path)
    if config.task != "classification":
        raise UserError(f"task: {config.task} has no classes of whole images to confuse, only classification has")
    runtime = start_runtime(config, training=False)
    task = create_task(config)
    network, loaded = load_network(task, arguments.checkpoint_path, arguments.weights)
    dataset = task.build_dataset("val", runtime.ranks)
    metrics, _ = task.measure(cache_graphs(network, config, runtime.device_target), dataset)
    if not runtime.ranks.is_main:
        return
    for message in [loaded, *dataset.notes]:
        print(message)
    names = task.class_names() if config.data.class_index == "imagenet" else dataset.class_names
    counts = metrics.confusion(len(names))
    chosen = np.argsort(-metrics.loss, kind="stable")[: arguments.count]
    transform, rotates = task.build_transform(training=False), config.data.exif_rotation
    images = [np.asarray(transform(load_image(dataset.records[i], exif_rotation=rotates))) for i in chosen]
    drawn = label_classes(tuple(names))
    add_fonts(drawn)
    figures = draw_errors(metrics, chosen, images, drawn), draw_confusion(counts, drawn)
    for path, figure in zip(paths, figures):
        with atomic_path(path) as temporary:
            figure.savefig(temporary, dpi=150, format="png")
    print(f"top-1 accuracy {metrics.result()['top_1_accuracy']:.2%} of {len(metrics.labels)} images; most confused:")
    print("\n".join(describe_pairs(counts, names)) or "  none")
    print(f"wrote {paths[0]} and {paths[1]}")


if __name__ == "__main__":
    run(main)
