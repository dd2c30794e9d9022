"""Exported files, MINDIR and ONNX, called like the network that they were made from."""

import dataclasses
import os
import re
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Optional, Tuple

import mindspore
import numpy as np
from mindspore import Tensor, nn

from src.errors import UserError, shorten

ENDINGS = (".mindir", ".onnx")
SETTINGS = "settings"  # in a file's notes: the settings (YAML) that it was exported with
OUTPUTS = "outputs"  # in a file's notes: the names of its outputs
PROBABILITIES = "probabilities"  # the name of an output behind a softmax
REASON_LENGTH = 300  # characters of a library's text


@dataclass(frozen=True)
class ExportedFile:
    """An exported file, open.

    Attributes:
        run: function from float32 (N, C, H, W) to a list of arrays.
        input_shape, output_shape: of the input and the first output, None for a dimension that is open.
        output_count: how many outputs there are.
        notes: what export.py has left in the file.
    """

    run: Callable[[Any], list]
    input_shape: Tuple[Optional[int], ...]
    output_shape: Tuple[Optional[int], ...]
    output_count: int
    notes: dict


def with_image_size(config, size):
    """Give settings whose `data.image_size` is the (height, width) of a file's input, where they can say it."""
    data = config.data
    if isinstance(data.image_size, tuple):
        return dataclasses.replace(config, data=dataclasses.replace(data, image_size=size))
    if size[0] != size[1]:
        return config
    changes = {"image_size": size[0]}
    if hasattr(data, "eval_resize"):  # is never smaller
        changes["eval_resize"] = max(size[0], data.eval_resize)
    return dataclasses.replace(config, data=dataclasses.replace(data, **changes))


def is_exported(path) -> bool:
    """Tell by its ending whether `path` names an exported file."""
    return Path(path).suffix.lower() in ENDINGS


def read_notes(path) -> dict:
    """Read what export.py noted in an exported file: {'settings': YAML, 'outputs': names}; {} for foreign files."""
    return (_read_onnx if Path(path).suffix.lower() == ".onnx" else _read_mindir)(_existing(path))[-1]


def open_exported(path) -> ExportedFile:
    """Open a MINDIR or ONNX file of a network for images, which has one input.

    Raises:
        UserError: if it is missing or damaged, takes something else, or its runtime is not installed. `run` raises it,
            too, if the runtime cannot compute the network.
    """
    path = _existing(path)
    if path.suffix.lower() == ".onnx":
        session, *described = _read_onnx(path)
        name = session.get_inputs()[0].name
        run, runtime = (lambda images: session.run(None, {name: images})), "onnxruntime"
    else:
        described = _read_mindir(path)
        run, runtime = _run_mindir(path), "MindSpore"

    def run_or_say_why(images):
        try:
            return run(images)
        except Exception as error:  # onnxruntime's errors have no base class of their own
            raise UserError(f"{path}: {runtime} cannot run it: {_reason(error)}") from None

    return ExportedFile(run_or_say_why, *described)


def _existing(path) -> Path:
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: {'is a folder' if path.is_dir() else 'no such file'}, expected an exported network")
    return path


def _read_onnx(path):
    """Open an ONNX file: (session, input shape, output shape, outputs, notes)."""
    try:
        import onnxruntime
    except ImportError:
        raise UserError(f"{path}: needs the package onnxruntime: pip install onnxruntime") from None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # fatal ones; what it has to say about a file is in its errors
    try:
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"], enable_fallback=0
        )
    except Exception as error:  # onnxruntime's errors have no base class of their own
        raise UserError(f"{path}: onnxruntime cannot read it: {_reason(error)}") from None
    inputs, outputs = session.get_inputs(), session.get_outputs()
    shapes = [tuple(side if isinstance(side, int) else None for side in port.shape) for port in (*inputs, *outputs)]
    _check_inputs(path, shapes[: len(inputs)], [port.type for port in inputs], "tensor(float)")
    return session, shapes[0], shapes[1], len(outputs), dict(session.get_modelmeta().custom_metadata_map)


def _read_mindir(path):
    """Read a MINDIR file: (input shape, output shape, outputs, notes)."""
    from google.protobuf.message import DecodeError
    from mindspore.train import mind_ir_pb2

    model = mind_ir_pb2.ModelProto()
    try:
        model.ParseFromString(path.read_bytes())
        inputs = [port.tensor[0] for port in model.graph.input]
        output = model.graph.output[0]  # of several outputs, their tuple
        outputs = output.tensor or [value.tensors[0] for value in output.attr_info.values]
        shapes = [tuple(side if side >= 0 else None for side in tensor.dims) for tensor in (*inputs, outputs[0])]
    except (DecodeError, IndexError, UnicodeDecodeError):
        raise UserError(f"{path}: is not a whole MINDIR file") from None
    _check_inputs(path, shapes[:-1], [tensor.data_type for tensor in inputs], mind_ir_pb2.TensorProto.FLOAT)
    notes = model.user_info
    if not hasattr(notes, "items"):  # older protobuf shows a map as the list of its entries
        notes = {entry.key: entry.value for entry in notes}
    return shapes[0], shapes[-1], len(outputs), dict(notes)


def _check_inputs(path, shapes, types, float32) -> None:
    if len(shapes) != 1:
        raise UserError(f"{path}: has {len(shapes)} inputs, a network for images has one")
    if len(shapes[0]) != 4 or types[0] != float32:
        kind = "float32" if types[0] == float32 else "no float32"
        raise UserError(f"{path}: takes {kind} {show_sides(shapes[0])}, a network for images float32 (N, C, H, W)")


def _reason(error) -> str:
    """Take the words out of a library's error, without where in its source they stand."""
    lines = [line.strip("- ") for line in str(error).splitlines() if re.search(r"\w", line)]
    text = " ".join(lines).partition("C++ Call Stack")[0]
    text = re.sub(r".* failed:(/\S+ [\w:]+\(.*?\) )?", "", text).strip()
    return shorten(text or type(error).__name__, REASON_LENGTH)


def _run_mindir(path):
    """Build the function from an array to the list of a MINDIR file's outputs."""
    try:
        with _without_log():
            cell = nn.GraphCell(mindspore.load(str(path)))
    except (RuntimeError, ValueError, TypeError) as error:
        raise UserError(f"{path}: MindSpore cannot read it: {_reason(error)}") from None

    def run(images):
        outputs = cell(Tensor(images))
        return [output.asnumpy() for output in (outputs if isinstance(outputs, tuple) else (outputs,))]

    return run


@contextmanager
def _without_log():
    """Keep what MindSpore's C++ code writes to standard error away: it is in the error as well."""
    sys.stderr.flush()
    kept, sink = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(sink)


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
