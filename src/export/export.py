"""Export of a trained network to a file that runs without this project."""

import importlib.util
from dataclasses import dataclass
from typing import Optional, Tuple

import mindspore
import numpy as np
from mindspore import nn
from PIL import Image
from scipy.special import softmax as softmax_of

from src.architecture import MIN_INPUT_SIZE
from src.errors import UserError
from src.export.exported import OUTPUTS, PROBABILITIES, FileNetwork, open_exported
from src.export.folding import fold_batch_norm
from src.export.mindir_file import write_mindspore
from src.export.onnx_file import quantize_onnx, write_onnx
from src.export.tflite_file import quantize_tflite, write_tflite
from src.files import atomic_path
from src.layers.arrays import ArrayNetwork

FILE_FORMATS = ("MINDIR", "ONNX", "TFLITE", "AIR")
PACKAGES = {  # of the formats that are written operator by operator: name to import and to install, runtime
    "ONNX": ("onnx", "onnx", "onnxruntime"),
    "TFLITE": ("ai_edge_litert", "ai-edge-litert", "ai_edge_litert"),
}
QUANTIZERS = {  # of the formats that have int8: the function, name to import and to install
    "ONNX": (quantize_onnx, "onnxruntime", "onnxruntime"),
    "TFLITE": (quantize_tflite, "ai_edge_quantizer", "ai-edge-quantizer"),
}
TOLERANCES = {  # by the type of the weights, of the outputs' range
    "float32": 1e-4,
    "float16": 5e-3,  # has 11 bits: networks with random weights differ by 2e-4
    "int8": 0.5,  # shows a broken file alone: scores of trained detectors differ by 0.2; eval.py tells what is lost
}
WEIGHTS_TYPES = tuple(TOLERANCES)
CELL = 8  # pixels between the random colours of an image to compare on
OPEN_BATCH = 3  # images that a file for any number of them is checked with, besides one


@dataclass(frozen=True)
class ExportSignature:
    """What the exported file of a task takes and gives.

    Attributes:
        input_name: of the only input.
        input_shape: of it, (channels, height, width).
        output_names: in order.
        output_rank: number of dimensions of the first.
        logit_classes: number of classes, if the only output is logits (N, classes, ...); else None.
        has_fixed_size: whether the network is built for one size of the input.
    """

    input_name: str
    input_shape: Tuple[int, int, int]
    output_names: Tuple[str, ...]
    output_rank: int
    logit_classes: Optional[int]
    has_fixed_size: bool


class WithSoftmax(nn.Cell):
    """A classifier that ends in probabilities: (N, ...) -> (N, classes)."""

    def __init__(self, network):
        super().__init__(auto_prefix=False)  # the network's parameters keep their names
        self.network = network
        self.softmax = nn.Softmax(axis=1)

    def construct(self, x):
        return self.softmax(self.network(x))


def export(
    network,
    path,
    file_format,
    image_shape,
    batch=1,
    softmax=False,
    fold=True,
    notes=None,
    describe=None,
    weights_type="float32",
    calibrate=None,
):
    """Write `network` to `path`, load the file back and compare its outputs on random input.

    Args:
        network: nn.Cell from float32 (N, *image_shape) to one tensor or a tuple of them; in evaluation afterwards.
        path: file to write; it appears only once the check has passed.
        file_format: one of `FILE_FORMATS`.
        image_shape: (channels, height, width).
        batch: images in a call; None for any number.
        softmax: end in probabilities.
        fold: fold batch normalisation into the convolutions; files of `PACKAGES` always do.
        notes: {name: text} to keep in the file.
        describe: function that the formats of `PACKAGES` need, see `src.export.graph`.
        weights_type: of a file of `PACKAGES`, one of `WEIGHTS_TYPES`.
        calibrate: function that 'int8' needs, from the `FileNetwork` of a float32 file to images (count, C, H, W).

    Returns:
        Largest difference between the file's and the network's outputs; None where it could not be loaded here.

    Raises:
        UserError: if this is not possible here, or the file disagrees with the network.
    """
    check_possible(file_format, image_shape, batch, fold, weights_type)
    notes = {**(notes or {}), **({OUTPUTS: PROBABILITIES} if softmax else {})}
    shipped = fold_batch_norm(network.set_train(False)) if fold else network.set_train(False)
    with atomic_path(path, f".{file_format.lower()}") as temporary:
        write_file(shipped, temporary, file_format, image_shape, batch, softmax, notes, describe, weights_type)
        if weights_type == "int8":
            images = quantize(temporary, file_format, calibrate)
        else:
            images = draw_images(image_shape, batch)
        is_readable = file_format not in PACKAGES or importlib.util.find_spec(PACKAGES[file_format][2])
        if file_format == "AIR" or not is_readable:
            return None
        return compare_file(network, temporary, path, images, batch, softmax, TOLERANCES[weights_type])


def write_file(network, path, file_format, image_shape, batch, softmax, notes, describe, weights_type) -> None:
    """Write a file of any format, see `export`; for 'int8' one that is still to be quantized."""
    if file_format == "ONNX":
        write_onnx(describe, network, path, image_shape, batch, softmax, notes, weights_type)
    elif file_format == "TFLITE":
        write_tflite(describe, network, path, image_shape, batch, softmax, notes, weights_type)
    else:
        network = WithSoftmax(network).set_train(False) if softmax else network
        write_mindspore(network, path, file_format, image_shape, batch, notes)


def quantize(path, file_format, calibrate):
    """Quantize a file to int8 and give images to compare it on: colours that no image has leave its ranges."""
    network = FileNetwork(path)
    images = calibrate(network)
    batch = network.file.input_shape[0] or OPEN_BATCH
    quantize_file, _, _ = QUANTIZERS[file_format]
    quantize_file(path, split_batches(images, batch))
    return images[np.arange(2 * batch) % len(images)]


def split_batches(images, size):
    """Lay images (count, ...) out as batches (count, size, ...), the last filled up with the first images."""
    places = np.arange(-(-len(images) // size) * size) % len(images)
    return images[places].reshape(-1, size, *images.shape[1:])


def check_possible(file_format, image_shape, batch, fold, weights_type) -> None:
    """Raise `UserError` if an export cannot be made here."""
    device = mindspore.get_context("device_target")
    if file_format == "AIR" and device != "Ascend":
        raise UserError(f"--file_format AIR: needs an Ascend device, this is {device}; the other formats are possible")
    height, width = image_shape[1:]
    if min(height, width) < MIN_INPUT_SIZE:
        raise UserError(f"images of {height}x{width} pixels are too small: at least {MIN_INPUT_SIZE} each way")
    if weights_type != "float32" and file_format not in PACKAGES:
        raise UserError(
            f"--weights_type {weights_type}: is for {' and '.join(PACKAGES)}, {file_format} has float32 alone"
        )
    if file_format not in PACKAGES:
        return
    if not fold:
        raise UserError(
            f"--file_format {file_format}: always has batch normalisation folded; --fold_bn false is for MINDIR"
        )
    if batch is None and file_format == "TFLITE":
        raise UserError("--dynamic_batch: TFLITE files have a fixed batch, which --batch_size sets")
    module, package, _ = PACKAGES[file_format]
    if not importlib.util.find_spec(module):
        raise UserError(f"--file_format {file_format}: needs the package {package}: pip install {package}")
    _, module, package = QUANTIZERS[file_format]
    if weights_type == "int8" and not importlib.util.find_spec(module):
        raise UserError(f"--weights_type int8: needs the package {package}: pip install {package}")


def compare_file(network, file, path, images, batch, softmax, tolerance) -> float:
    """Compute the largest difference between `network` and the exported `file`, over images and several batches.

    Args:
        network: see `export`.
        file: that is there.
        path: of it in messages.
        images: float32 (2 * N, C, H, W), N being the batch.
        batch, softmax: see `export`.
        tolerance: see `compare_outputs`.

    Raises:
        UserError: see `compare_outputs`.
    """
    run = open_exported(file).run
    count = len(images) // 2
    differences = []
    for part in (images[:count], images[count:]):
        expected = run_by_operator(network, part)
        if softmax:
            expected = [softmax_of(expected[0], axis=1)]
        for size in {1, count} if batch is None else {count}:
            wanted = [output[:size] for output in expected]
            differences.append(compare_outputs(wanted, run(part[:size]), path, tolerance))
    return max(differences)


def draw_images(image_shape, batch):
    """Draw images for `compare_file`."""
    generator = np.random.default_rng(0)
    return np.stack([draw_image(image_shape, generator) for _ in range(2 * (batch or OPEN_BATCH))])


def draw_image(image_shape, generator):
    """Draw smooth random colours (C, H, W), normalised like an image.

    White noise is like no image: trained networks answer it with extreme values, in which errors of rounding grow by
    orders of magnitude.
    """
    channels, height, width = image_shape
    cells = generator.standard_normal((channels, -(-height // CELL), -(-width // CELL))).astype(np.float32)
    size = (width, height)
    return np.stack([np.asarray(Image.fromarray(plane).resize(size, Image.Resampling.BILINEAR)) for plane in cells])


def compare_outputs(expected, actual, path, tolerance) -> float:
    """Compute the largest difference between two lists of arrays.

    Raises:
        UserError: if it is more than `tolerance` times the range of an array's expected values, or shapes differ.
    """
    shapes, wanted = [y.shape for y in actual], [y.shape for y in expected]
    if shapes != wanted:
        raise UserError(f"{path}: not written: the exported network gives {shapes}, the original {wanted}")
    differences = []
    for ours, theirs in zip(expected, actual):
        difference = float(np.abs(ours - theirs).max())
        if not difference <= tolerance * max(float(np.ptp(ours)), float(np.abs(ours).max())):  # nan fails too
            raise UserError(f"{path}: not written: the exported network differs from the original by {difference:.3g}")
        differences.append(difference)
    return max(differences)


def run_by_operator(network, images) -> list:
    """Compute the outputs of `network` as arrays, without the compiler that exports go through (PyNative)."""
    mode = mindspore.get_context("mode")
    mindspore.set_context(mode=mindspore.PYNATIVE_MODE)
    try:
        return ArrayNetwork(network)(images)
    finally:
        mindspore.set_context(mode=mode)
