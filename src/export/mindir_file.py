"""Files that MindSpore writes by itself, MINDIR and AIR; MINDIR is also read."""

import shutil
import tempfile
from pathlib import Path

import mindspore
import numpy as np
from mindspore import Tensor, nn

from src.errors import UserError
from src.export.exported_file import ExportedFile, check_inputs, guarded, reason, without_log
from src.layers.arrays import ArrayNetwork


def write_mindspore(network, path, file_format, image_shape, batch, notes) -> None:
    """Write a network with MindSpore's exporter, `notes` into MINDIR only."""
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


def open_mindir(path) -> ExportedFile:
    """Open a MINDIR file.

    Raises:
        UserError: if it is damaged or takes something else than images.
    """
    described = _describe(path)
    return ExportedFile(guarded(_load(path), path, "MindSpore"), *described)


def read_mindir_notes(path) -> dict:
    """Read {name: text} out of a MINDIR file."""
    return _describe(path)[-1]


def _describe(path):
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
    check_inputs(path, shapes[:-1], [tensor.data_type == mind_ir_pb2.TensorProto.FLOAT for tensor in inputs])
    notes = model.user_info
    if not hasattr(notes, "items"):  # older protobuf shows a map as the list of its entries
        notes = {entry.key: entry.value for entry in notes}
    return shapes[0], shapes[-1], len(outputs), dict(notes)


def _load(path):
    """Build the function from an array to the list of a MINDIR file's outputs."""
    try:
        with without_log():
            return ArrayNetwork(nn.GraphCell(mindspore.load(str(path))))
    except (RuntimeError, ValueError, TypeError) as error:
        raise UserError(f"{path}: MindSpore cannot read it: {reason(error)}") from None
