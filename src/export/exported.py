"""Exported files, MINDIR and ONNX, called like the network that they were made from."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Optional, Tuple

import mindspore
import numpy as np
from mindspore import Tensor, nn

from src.errors import UserError

ENDINGS = (".mindir", ".onnx")
SETTINGS = "settings"  # in a file's notes: the settings (YAML) that it was exported with
OUTPUTS = "outputs"  # in a file's notes: the names of its outputs
PROBABILITIES = "probabilities"  # the name of an output behind a softmax


@dataclass(frozen=True)
class ExportedFile:
    """An exported file, open.

    Attributes:
        run: function from float32 (N, C, H, W) to a list of arrays.
        input_shape, output_shape: of the input and the first output, None for a dimension that is open.
        notes: what export.py has left in the file.
    """

    run: Callable[[Any], list]
    input_shape: Tuple[Optional[int], ...]
    output_shape: Tuple[Optional[int], ...]
    notes: dict


def is_exported(path) -> bool:
    """Tell by its ending whether `path` names an exported file."""
    return Path(path).suffix.lower() in ENDINGS


def read_notes(path) -> dict:
    """Read what export.py noted in an exported file: {'settings': YAML, 'outputs': names}; {} for foreign files."""
    return (_read_onnx if Path(path).suffix.lower() == ".onnx" else _read_mindir)(_existing(path))[-1]


def open_exported(path) -> ExportedFile:
    """Open a MINDIR or ONNX file with one input.

    Raises:
        UserError: if it is missing or damaged, has several inputs, or its runtime is not installed.
    """
    path = _existing(path)
    if path.suffix.lower() == ".onnx":
        session, *described = _read_onnx(path)
        name = session.get_inputs()[0].name
        return ExportedFile(lambda images: session.run(None, {name: images}), *described)
    described = _read_mindir(path)
    return ExportedFile(_run_mindir(path), *described)


def _existing(path) -> Path:
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: {'is a folder' if path.is_dir() else 'no such file'}, expected an exported network")
    return path


def _read_onnx(path):
    """Open an ONNX file: (session, input shape, output shape, notes)."""
    try:
        import onnxruntime
    except ImportError:
        raise UserError(f"{path}: needs the package onnxruntime: pip install onnxruntime") from None
    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors have no base class of their own
        raise UserError(f"{path}: onnxruntime cannot read it: {str(error).splitlines()[0]}") from None
    shapes = [
        tuple(side if isinstance(side, int) else None for side in port.shape)
        for port in (_only_input(session.get_inputs(), path), session.get_outputs()[0])
    ]
    return (session, *shapes, dict(session.get_modelmeta().custom_metadata_map))


def _read_mindir(path):
    """Read a MINDIR file: (input shape, output shape, notes)."""
    from google.protobuf.message import DecodeError
    from mindspore.train import mind_ir_pb2

    model = mind_ir_pb2.ModelProto()
    try:
        model.ParseFromString(path.read_bytes())
    except DecodeError:
        raise UserError(f"{path}: is not a whole MINDIR file") from None
    graph = model.graph
    if not graph.output:
        raise UserError(f"{path}: is not a whole MINDIR file")
    output = graph.output[0]  # of several outputs, their tuple
    tensors = _only_input(graph.input, path).tensor[0], (output.tensor or output.attr_info.values[0].tensors)[0]
    shapes = [tuple(side if side >= 0 else None for side in tensor.dims) for tensor in tensors]
    notes = model.user_info
    if not hasattr(notes, "items"):  # older protobuf shows a map as the list of its entries
        notes = {entry.key: entry.value for entry in notes}
    return (*shapes, dict(notes))


def _only_input(inputs, path):
    if len(inputs) != 1:
        raise UserError(f"{path}: has {len(inputs)} inputs, a network for images has one")
    return inputs[0]


def _run_mindir(path):
    """Build the function from an array to the list of a MINDIR file's outputs."""
    try:
        cell = nn.GraphCell(mindspore.load(str(path)))
    except (RuntimeError, ValueError, TypeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"{path}: MindSpore cannot read it: {reason}") from None

    def run(images):
        outputs = cell(Tensor(images))
        return [output.asnumpy() for output in (outputs if isinstance(outputs, tuple) else (outputs,))]

    return run


class ExportedNetwork:
    """Stands in for a network in evaluation and prediction: Tensor (N, C, H, W) -> Tensor, or a tuple of them.

    A file with a fixed batch is run in pieces of that size, the last one filled up. Probabilities are turned
    into logits, their logarithms: the softmax of these gives the probabilities back.

    Attributes:
        input_size: (height, width) that the file was made for; None if any will do.
    """

    def __init__(self, path):
        self.file = open_exported(path)
        self.input_size = None if None in self.file.input_shape[2:] else self.file.input_shape[2:]
        self.is_probability = self.file.notes.get(OUTPUTS) == PROBABILITIES

    def set_train(self, mode=True):
        """Do nothing: a file is for evaluation."""
        return self

    def __call__(self, images):
        images = images.asnumpy()
        size = self.file.input_shape[0] or len(images)
        pieces = []
        for start in range(0, len(images), size):
            piece = images[start : start + size]
            filling = np.zeros((size - len(piece), *piece.shape[1:]), piece.dtype)
            pieces.append([y[: len(piece)] for y in self.file.run(np.concatenate((piece, filling)))])
        outputs = [np.concatenate(parts) for parts in zip(*pieces)]
        if self.is_probability:
            outputs = [np.log(np.maximum(y, np.finfo(y.dtype).tiny)) for y in outputs]
        outputs = tuple(Tensor(y) for y in outputs)
        return outputs if len(outputs) > 1 else outputs[0]


def show_sides(shape) -> str:
    """Put a shape in words: (3, 224, None) becomes '3x224x?'."""
    return "x".join("?" if side is None else str(side) for side in shape)
