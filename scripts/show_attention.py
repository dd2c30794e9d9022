"""Draw the gates of DFC attention: python scripts/show_attention.py IMAGE... --checkpoint_path FILE --output_dir DIR

Each image gives a drawing with a row for each block with attention: the image as the network sees it, the attention
behind each of its depthwise convolutions, and the gate that the features are multiplied with, as in the figures of
Tang et al., "GhostNetV2: Enhance Cheap Operation with Long-Range Attention", NeurIPS 2022. Difference: the maps lie
over the image, and all of them are stretched to its size, as the network stretches the gate.
"""

import os
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src.command_line import add_weights, build_parser, parse_images, read_config, start_runtime
from src.console import run
from src.data.images import list_images
from src.dfc_attention import DFCAttention
from src.errors import UserError, quote
from src.export.exported import is_exported
from src.files import atomic_path
from src.inference.finite import FiniteNetwork
from src.inference.prediction import DrawingFolder
from src.layers.arrays import ArrayNetwork
from src.tasks import create_task
from src.weights import load_weights

MODULES = {"ghost1.short_conv": "first Ghost module", "ghost2.short_conv": "second Ghost module"}
MAX_ROWS = 100  # of a drawing
OPACITY, BLACK = 0.65, -0.7  # of the maps over the image; below 0: the image is lightened, for colours like the bar's
DPI, FONT_SIZE = 100, 9  # pixels an inch, points
# of a drawing, in inches: longer side of an image; least height and width of its cell, for label and title; edges
SIDE, LEAST_CELL, GAP = 2.0, (1.1, 1.6), 0.12
LEFT, TOP, BOTTOM, BAR_BOTTOM, BAR_HEIGHT = 1.7, 0.5, 0.5, 0.25, 0.13
BAR_SHARE = 0.84  # of the width, which leaves room for the numbers at both ends


class Attention(NamedTuple):
    """`cell`, a `DFCAttention`, the number of the bottleneck that it is in, and what it gates there, in words."""

    cell: Any
    block: int
    gated: str

    @property
    def steps(self):
        """The depthwise convolutions, in the order of their use."""
        return list(self.cell.cell_list)[1:]

    @property
    def cells(self):
        """What gives the maps to draw: the steps, and the whole, for the gate."""
        return [*self.steps, self.cell]

    @property
    def channels(self):
        """Number of the gated channels."""
        return self.steps[-1].conv.out_channels


class RecordingNetwork(ArrayNetwork):
    """`ArrayNetwork` that keeps its first input since `clear`, and what `cells` inside it gave for that.

    Attributes:
        images: float32 (1, 3, H, W); None before a call.
        outputs: {cell: float32 (C, h, w)}.
    """

    def __init__(self, network, cells):
        super().__init__(network)
        self.clear()
        for cell in cells:
            cell.register_forward_hook(self._keep)

    def clear(self) -> None:
        """Forget what was kept."""
        self.images, self.outputs = None, {}

    def __call__(self, images):
        if self.images is None:  # later inputs are the same image at other scales, or mirrored
            self.images = images
        return super().__call__(images)

    def _keep(self, cell, inputs, output) -> None:
        self.outputs.setdefault(cell, output.asnumpy()[0])


def parse_arguments():
    parser = build_parser(__doc__.splitlines()[0])
    add_weights(parser)
    parser.add_argument("--blocks", nargs="+", type=int, metavar="N", help="to draw; default: all with attention")
    parser.add_argument("--channels", nargs="+", type=int, metavar="N", help="to draw; default: the mean of all")
    parser.add_argument("--output_dir", required=True, metavar="DIR", help="folder for the drawings; new files")
    return parse_images(parser)


def find_attention(backbone) -> list:
    """List the `Attention`s of a backbone; its blocks are numbered through, whether they stand in stages or not."""
    stages = [getattr(stage, "cell_list", [stage]) for stage in getattr(backbone, "blocks", ())]
    return [
        Attention(cell, number, MODULES.get(name, "expanded features"))
        for number, block in enumerate(block for stage in stages for block in stage)
        for name, cell in block.cells_and_names()
        if isinstance(cell, DFCAttention)
    ]


def choose_attention(attentions, blocks, channels) -> list:
    """Choose the `Attention`s of some blocks, None for all.

    Raises:
        UserError: if there is none at all, or in one of the blocks, or one has not all of the channels.
    """
    if not attentions:
        raise UserError("the network has no DFC attention, see network.name, network.attention and network.dfc_blocks")
    numbers = sorted({attention.block for attention in attentions})
    others = sorted(set(blocks or ()) - set(numbers))
    if others:
        raise UserError(f"--blocks: no DFC attention in {join(others)}; blocks with it: {join(numbers)}")
    chosen = [attention for attention in attentions if blocks is None or attention.block in blocks]
    for attention in chosen:
        last = attention.channels - 1
        if any(not 0 <= channel <= last for channel in channels or ()):
            raise UserError(f"--channels {join(channels)}: block {attention.block} has channels 0 to {last}")
    rows = len(chosen) * len(channels or [None])
    if rows > MAX_ROWS:
        raise UserError(f"--blocks and --channels: ask for {rows} rows, a drawing has {MAX_ROWS} at most")
    return chosen


def join(values) -> str:
    """List numbers or texts."""
    return ", ".join(map(str, values))


def build_rows(attentions, channels, outputs, image_size) -> list:
    """Build the rows of an image: its label, and its maps float32 (h, w), first behind each step and last the gate.

    Args:
        attentions: list of `Attention`.
        channels: to show, a row each; None for the mean of all.
        outputs: of the cells, see `RecordingNetwork`.
        image_size: (height, width) of the network's input.
    """
    rows = []
    for attention in attentions:
        maps = [outputs[cell] for cell in attention.cells]
        label = describe(attention, maps, image_size)
        if channels is None:
            rows.append((f"{label}\nmean of {attention.channels} channels", [values.mean(0) for values in maps]))
        for channel in channels or ():
            chosen = [values[channel] for values in maps]
            rows.append((f"{label}\nchannel {channel} of {attention.channels}", chosen))
    return rows


def describe(attention, maps, image_size) -> str:
    """Put an `Attention` in words, with the stride of what it gates, and the sizes of its maps (C, h, w)."""
    kernels = [f"{height}x{width}" for height, width in (step.conv.kernel_size for step in attention.steps)]
    sizes = [f"{height}x{width}" for _, height, width in (values.shape for values in maps)]
    stride = 1
    while -(-image_size[0] // stride) > maps[-1].shape[1]:  # each halving of the network rounds up
        stride *= 2
    head = f"block {attention.block}, stride {stride}\n{attention.gated}\nkernels {join(kernels)}"
    return f"{head}\nattention {sizes[0]}\nfeatures {sizes[-1]}"


def describe_step(kernel_size) -> str:
    """Put in words what a depthwise convolution of (height, width) works along."""
    height, width = kernel_size
    axes = "both axes" if height == width else "rows" if height == 1 else "columns"
    return f"attention after the\nstep along {axes}"


def choose_scale(maps, is_gate, unit) -> dict:
    """Choose colours of a column, for `imshow`: gates from 0 to 1 if `unit`, else over their range; others around 0."""
    if not is_gate:
        limit = max(np.abs(values).max() for values in maps)
        return {"cmap": "RdBu_r", "vmin": -limit, "vmax": limit}
    low, high = (0, 1) if unit else (min(map(np.min, maps)), max(map(np.max, maps)))
    return {"cmap": "viridis", "vmin": low, "vmax": high}


def draw(image, rows, titles, unit):
    """Draw the figure of an image.

    Args:
        image: colours (H, W, 3) in [0, 1].
        rows: from `build_rows`.
        titles: of the columns of maps, the last of them that of the gates.
        unit: see `choose_scale`.
    """
    labels, maps_of_rows = zip(*rows)
    figure, axes = build_axes(image.shape[:2], labels, ["image as the\nnetwork sees it", *titles])
    grey, height = image.mean(2), figure.get_figheight()
    for axis in axes[:, 0]:
        axis.imshow(image)
    for title, cells, maps in zip(titles, axes[:, 1:].T, zip(*maps_of_rows)):
        scale = choose_scale(maps, title == titles[-1], unit)
        for axis, values in zip(cells, maps):
            drawn = draw_map(axis, grey, values, scale)
        box = cells[-1].get_position(original=True).expanded(BAR_SHARE, 1)
        bar_axis = figure.add_axes((box.x0, BAR_BOTTOM / height, box.width, BAR_HEIGHT / height))
        figure.colorbar(drawn, cax=bar_axis, orientation="horizontal")
        bar_axis.tick_params(labelsize=FONT_SIZE - 1)
        bar_axis.locator_params(nbins=4)
    return figure


def build_axes(image_size, labels, titles):
    """Build a figure with labels and titles, and its axes (rows, columns), each of which has room for the image."""
    scale = SIDE / max(image_size)
    height, width = (max(side * scale, least) for side, least in zip(image_size, LEAST_CELL))
    figure_height = TOP + len(labels) * (height + GAP) - GAP + BOTTOM
    figure_width = LEFT + len(titles) * (width + GAP)
    figure = Figure(figsize=(figure_width, figure_height))
    sides = {"left": LEFT / figure_width, "right": 1 - GAP / figure_width}
    sides.update(bottom=BOTTOM / figure_height, top=1 - TOP / figure_height, wspace=GAP / width, hspace=GAP / height)
    axes = figure.subplots(len(labels), len(titles), squeeze=False, gridspec_kw=sides)
    for axis in axes.ravel():
        axis.set_axis_off()
    for axis, title in zip(axes[0], titles):
        axis.set_title(title, fontsize=FONT_SIZE)
    for axis, label in zip(axes[:, 0], labels):
        box = axis.get_position(original=True)
        figure.text(GAP / figure_width, (box.y0 + box.y1) / 2, label, va="center", fontsize=FONT_SIZE)
    return figure, axes


def draw_map(axis, grey, values, scale):
    """Draw a map (h, w) over a grey image (H, W) in the colours of `choose_scale`; give what `colorbar` takes."""
    height, width = grey.shape
    extent = (-0.5, width - 0.5, height - 0.5, -0.5)  # of the image, whose pixels have their centres at whole numbers
    axis.imshow(grey, cmap="gray", vmin=BLACK, vmax=1)
    return axis.imshow(values, extent=extent, interpolation="nearest", alpha=OPACITY, **scale)


def main():
    arguments = parse_arguments()
    checkpoint, channels = arguments.checkpoint_path, arguments.channels
    if is_exported(checkpoint):
        raise UserError(f"{checkpoint}: an exported file does not show its attention, a checkpoint does")
    arguments.overrides.append("runtime.graph_mode=false")  # only PyNative mode calls hooks
    config = read_config(arguments, checkpoint)
    paths, notes = list_images(arguments.images)
    folder = DrawingFolder(arguments.output_dir)
    drawings = {folder.choose(path): path for path in paths}
    for drawing in filter(os.path.exists, drawings):
        raise UserError(f"{drawing}: exists; drawings are new files, --output_dir names another folder")
    start_runtime(config, training=False)
    task = create_task(config)
    network = task.build_network()
    attentions = find_attention(getattr(network, "backbone", network))
    attentions = choose_attention(attentions, arguments.blocks, channels)
    for line in (load_weights(network, checkpoint, arguments.weights), *notes):
        print(line)
    network = FiniteNetwork(task.build_evaluation_network(network), checkpoint)
    recorder = RecordingNetwork(network, [cell for attention in attentions for cell in attention.cells])
    predictor = task.build_predictor(recorder)
    titles = [*(describe_step(step.conv.kernel_size) for step in attentions[0].steps), "gate,\nas it is applied"]
    # the mean of many gates varies by hundredths, a channel's own from 0 to 1
    unit = channels is not None and config.network.dfc_gate != "none"
    for drawing, path in drawings.items():
        recorder.clear()
        predictor.predict(path, predictor.prepare(path), draws=False)
        image = recorder.images[0].transpose(1, 2, 0) * config.data.std + config.data.mean  # (3, H, W) -> (H, W, 3)
        rows = build_rows(attentions, channels, recorder.outputs, image.shape[:2])
        with atomic_path(drawing) as temporary:
            draw(np.clip(image, 0, 1), rows, titles, unit).savefig(temporary, dpi=DPI, format="png")
        print(f"{quote(path)}\n  drawn: {quote(drawing)}")


if __name__ == "__main__":
    run(main)
