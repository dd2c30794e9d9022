"""TFLite files: written operator by operator, read by LiteRT. They are NHWC, the arrays here NCHW."""

import os

import numpy as np

from src.errors import UserError
from src.export.exported_file import ExportedFile, check_inputs, guarded, reason, without_log

NOTE = "note:"  # the names of notes begin with it in a file's metadata, which others use as well


def write_tflite(describe, network, path, image_shape, batch, softmax, notes, weights_type) -> None:
    """Write a network without batch normalisation as its task's `describe` says."""
    from src.export.tflite_graph import build_tflite

    metadata = {NOTE + name: text for name, text in notes.items()}
    path.write_bytes(build_tflite(describe, network, image_shape, batch, softmax, metadata, weights_type))


def quantize_tflite(path, batches) -> None:
    """Quantize a float32 file to int8, see `src.export.tflite_int8.quantize`."""
    from src.export.tflite_int8 import quantize

    quantize(path, batches)


def open_tflite(path) -> ExportedFile:
    """Open a TFLite file; its maps (N, H, W, C) are taken and given as (N, C, H, W).

    Raises:
        UserError: if it is damaged, takes something else than images, or the package ai-edge-litert is missing.
    """
    interpreter = _start_interpreter(path)
    inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
    shapes = [_to_nchw(tuple(int(side) for side in port["shape"])) for port in (*inputs, *outputs)]
    check_inputs(path, shapes[: len(inputs)], [port["dtype"] == np.float32 for port in inputs])

    def run(images):
        interpreter.set_tensor(inputs[0]["index"], images.transpose(0, 2, 3, 1))  # (N, C, H, W) -> (N, H, W, C)
        interpreter.invoke()
        arrays = [interpreter.get_tensor(port["index"]) for port in outputs]
        return [y.transpose(0, 3, 1, 2) if y.ndim == 4 else y for y in arrays]  # (N, H, W, C) -> (N, C, H, W)

    return ExportedFile(guarded(run, path, "LiteRT"), shapes[0], shapes[len(inputs)], len(outputs), _notes(path))


def read_tflite_notes(path) -> dict:
    """Read {name: text} out of a TFLite file."""
    _start_interpreter(path)  # checks that the file is whole
    return _notes(path)


def _start_interpreter(path):
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        raise UserError(f"{path}: needs the package ai-edge-litert: pip install ai-edge-litert") from None
    try:
        with without_log():
            interpreter = Interpreter(model_path=str(path), num_threads=os.cpu_count())
            interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise UserError(f"{path}: LiteRT cannot read it: {reason(error)}") from None
    return interpreter


def _notes(path) -> dict:
    from ai_edge_litert.schema_py_generated import Model

    content = path.read_bytes()
    model, notes = Model.GetRootAs(content), {}
    for index in range(model.MetadataLength()):
        entry = model.Metadata(index)
        name, buffer = entry.Name().decode(), model.Buffers(entry.Buffer())
        if name.startswith(NOTE):
            start, size = buffer.Offset(), buffer.Size()  # 0 where the text is not behind the rest of the file
            text = content[start : start + size] if size else buffer.DataAsNumpy().tobytes()
            notes[name[len(NOTE) :]] = text.decode()
    return notes


def _to_nchw(shape) -> tuple:
    return (shape[0], shape[3], *shape[1:3]) if len(shape) == 4 else shape
