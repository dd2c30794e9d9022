"""ONNX files: written by the package onnx, read by ONNX Runtime."""

from src.errors import UserError
from src.export.exported_file import ExportedFile, check_inputs, guarded, reason


def write_onnx(describe, network, path, image_shape, batch, softmax, notes, weights_type) -> None:
    """Write a network without batch normalisation as its task's `describe` says."""
    import onnx

    from src.export.onnx_float16 import halve_weights
    from src.export.onnx_graph import build_onnx

    # what is quantized, and how, is chosen by operators: they must not depend on the batch
    model = build_onnx(describe, network, image_shape, batch, softmax, by_batch=weights_type != "int8")
    if weights_type == "float16":
        halve_weights(model.graph)
    onnx.helper.set_model_props(model, notes)
    onnx.save(model, str(path))


def quantize_onnx(path, batches) -> None:
    """Quantize a float32 file to int8, see `src.export.onnx_int8.quantize`."""
    from src.export.onnx_int8 import quantize

    quantize(path, batches)


def open_onnx(path) -> ExportedFile:
    """Open an ONNX file.

    Raises:
        UserError: if it is damaged, takes something else than images, or the package onnxruntime is missing.
    """
    session = _start_session(path)
    inputs, outputs = session.get_inputs(), session.get_outputs()
    shapes = [tuple(side if isinstance(side, int) else None for side in port.shape) for port in (*inputs, *outputs)]
    check_inputs(path, shapes[: len(inputs)], [port.type == "tensor(float)" for port in inputs])
    run = guarded(lambda images: session.run(None, {inputs[0].name: images}), path, "onnxruntime")
    return ExportedFile(run, shapes[0], shapes[1], len(outputs), _notes(session))


def read_onnx_notes(path) -> dict:
    """Read {name: text} out of an ONNX file."""
    return _notes(_start_session(path))


def _start_session(path):
    try:
        import onnxruntime
    except ImportError:
        raise UserError(f"{path}: needs the package onnxruntime: pip install onnxruntime") from None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # fatal ones; what it has to say about a file is in its errors
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"], enable_fallback=0)
    except Exception as error:  # onnxruntime's errors have no base class of their own
        raise UserError(f"{path}: onnxruntime cannot read it: {reason(error)}") from None


def _notes(session) -> dict:
    return dict(session.get_modelmeta().custom_metadata_map)
