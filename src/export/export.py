"""Export of a trained network to a file that runs without this project."""

import importlib.util
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Optional, Tuple

import mindspore
import numpy as np
from mindspore import Tensor, nn
from PIL import Image
from scipy.special import softmax as softmax_of

from src.errors import UserError
from src.export.exported import OUTPUTS, PROBABILITIES, open_exported
from src.export.folding import fold_batch_norm
from src.files import atomic_path
from src.ghostnetv2 import MIN_INPUT_SIZE

FILE_FORMATS = ("MINDIR", "ONNX", "AIR")
TOLERANCE = 1e-4  # of the outputs' range
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


def export(network, path, file_format, image_shape, batch=1, softmax=False, fold=True, notes=None):
    """Write `network` to `path`, load the file back and compare its outputs on random input.

    Args:
        network: nn.Cell from float32 (N, *image_shape) to one tensor or a tuple of them; stays as it is.
        path: file to write; it appears only once the check has passed.
        file_format: one of `FILE_FORMATS`.
        image_shape: (channels, height, width).
        batch: images in a call; None for any number.
        softmax: end in probabilities.
        fold: fold batch normalisation into the convolutions; ONNX files always do.
        notes: {name: text} to keep in the file.

    Returns:
        Largest difference between the file's and the network's outputs; None where it could not be loaded here.

    Raises:
        UserError: if this is not possible here, or the file disagrees with the network.
    """
    check_possible(file_format, image_shape, fold)
    notes = {**(notes or {}), **({OUTPUTS: PROBABILITIES} if softmax else {})}
    network.set_train(False)
    shipped = fold_batch_norm(network) if fold else network
    with atomic_path(path, f".{file_format.lower()}") as temporary:
        if file_format == "ONNX":
            write_onnx(shipped, temporary, image_shape, batch, softmax, notes)
        else:
            shipped = WithSoftmax(shipped).set_train(False) if softmax else shipped
            write_mindspore(shipped, temporary, file_format, image_shape, batch, notes)
        if file_format == "AIR" or (file_format == "ONNX" and not importlib.util.find_spec("onnxruntime")):
            return None
        return compare_file(network, temporary, path, image_shape, batch, softmax)


def check_possible(file_format, image_shape, fold) -> None:
    """Raise `UserError` if an export cannot be made here."""
    device = mindspore.get_context("device_target")
    if file_format == "AIR" and device != "Ascend":
        raise UserError(f"--file_format AIR: needs an Ascend device, this is {device}; MINDIR and ONNX are possible")
    height, width = image_shape[1:]
    if min(height, width) < MIN_INPUT_SIZE:
        raise UserError(f"images of {height}x{width} pixels are too small: at least {MIN_INPUT_SIZE} each way")
    if file_format != "ONNX":
        return
    if not fold:
        raise UserError("--file_format ONNX: always has batch normalisation folded; --fold_bn false is for MINDIR")
    if not importlib.util.find_spec("onnx"):
        raise UserError("--file_format ONNX: needs the package onnx: pip install onnx")


def write_onnx(network, path, image_shape, batch, softmax, notes) -> None:
    """Write a folded `GhostNetV2` as ONNX."""
    import onnx

    from src.export.onnx_graph import build_onnx

    model = build_onnx(network, image_shape, batch, softmax)
    onnx.helper.set_model_props(model, notes)
    onnx.save(model, str(path))


def write_mindspore(network, path, file_format, image_shape, batch, notes) -> None:
    """Write a network with MindSpore's exporter."""
    example = Tensor(shape=[batch, *image_shape], dtype=mindspore.float32)
    if batch is not None:
        example = Tensor(np.zeros((batch, *image_shape), np.float32))
    with tempfile.TemporaryDirectory() as folder:  # MindSpore refuses names with blanks and other characters
        file = Path(folder) / f"network{path.suffix}"
        mindspore.export(network, example, file_name=str(file), file_format=file_format)
        shutil.copyfile(file, path)
    if file_format == "MINDIR":
        _add_notes(path, notes)


def _add_notes(path, notes) -> None:
    """Put {name: text} into a MINDIR file."""
    from mindspore.train import mind_ir_pb2

    model = mind_ir_pb2.ModelProto()
    model.ParseFromString(path.read_bytes())
    if hasattr(model.user_info, "update"):
        model.user_info.update(notes)
    else:  # older protobuf shows a map as the list of its entries
        for key, value in notes.items():
            model.user_info.add(key=key, value=value)
    path.write_bytes(model.SerializeToString())


def compare_file(network, file, path, image_shape, batch, softmax) -> float:
    """Compute the largest difference between `network` and the exported `file`, over random images and several batches.

    Raises:
        UserError: see `compare_outputs`.
    """
    run = open_exported(file).run
    generator = np.random.default_rng(0)
    count = OPEN_BATCH if batch is None else batch
    differences = []
    for _ in range(2):
        images = np.stack([draw_image(image_shape, generator) for _ in range(count)])
        expected = run_by_operator(network, images)
        if softmax:
            expected = [softmax_of(expected[0], axis=1)]
        for size in {1, count} if batch is None else {count}:
            part = [output[:size] for output in expected]
            differences.append(compare_outputs(part, run(images[:size]), path))
    return max(differences)


def draw_image(image_shape, generator):
    """Draw smooth random colours (C, H, W), normalised like an image.

    White noise is like no image: trained networks answer it with extreme values, in which errors of rounding grow by
    orders of magnitude.
    """
    channels, height, width = image_shape
    cells = generator.standard_normal((channels, -(-height // CELL), -(-width // CELL))).astype(np.float32)
    size = (width, height)
    return np.stack([np.asarray(Image.fromarray(plane).resize(size, Image.Resampling.BILINEAR)) for plane in cells])


def compare_outputs(expected, actual, path) -> float:
    """Compute the largest difference between two lists of arrays.

    Raises:
        UserError: if it is more than `TOLERANCE` of the range of an array's expected values, or shapes differ.
    """
    shapes, wanted = [y.shape for y in actual], [y.shape for y in expected]
    if shapes != wanted:
        raise UserError(f"{path}: not written: the exported network gives {shapes}, the original {wanted}")
    differences = []
    for ours, theirs in zip(expected, actual):
        difference = float(np.abs(ours - theirs).max())
        if not difference <= TOLERANCE * max(float(np.ptp(ours)), float(np.abs(ours).max())):  # nan fails too
            raise UserError(f"{path}: not written: the exported network differs from the original by {difference:.3g}")
        differences.append(difference)
    return max(differences)


def run_by_operator(network, images) -> list:
    """Compute the outputs of `network` as arrays, without the compiler that exports go through (PyNative)."""
    mode = mindspore.get_context("mode")
    mindspore.set_context(mode=mindspore.PYNATIVE_MODE)
    try:
        outputs = network(Tensor(images))
        return [output.asnumpy() for output in (outputs if isinstance(outputs, tuple) else (outputs,))]
    finally:
        mindspore.set_context(mode=mode)
