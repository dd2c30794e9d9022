"""Post-training quantization of a TFLite file to int8, by the package ai-edge-quantizer."""

import io
import re
import warnings
from contextlib import redirect_stderr, redirect_stdout

from ai_edge_litert import schema_py_generated as schema
from ai_edge_quantizer import qtyping, quantizer, recipe

from src.export.tflite_builder import SIGNATURE, WEIGHTED


def quantize(path, batches) -> None:
    """Quantize a float32 file in place: weights per channel, maps per tensor with the ranges that `batches` give.

    The input and the outputs stay float32, and so does all that stands behind the last layers with weights, such as
    the decoding of boxes: 256 values are too few for it.

    Args:
        path: of the file.
        batches: float32 (count, N, C, H, W), normalised images.
    """
    content = path.read_bytes()
    model = schema.ModelT.InitFromPackedBuf(content)
    process = quantizer.Quantizer(content, recipe.static_wi8_ai8())
    kinds = qtyping.TFLOperationName
    for kind in (kinds.INPUT, kinds.OUTPUT):
        process.update_quantization_recipe(".*", kind, algorithm_key="no_quantize")
    for name in outputs_behind_weights(model):
        process.update_quantization_recipe(f"^{re.escape(name)};", kinds.ALL_SUPPORTED, algorithm_key="no_quantize")
    feeds = [{"image": batch.transpose(0, 2, 3, 1)} for batch in batches]  # (N, C, H, W) -> (N, H, W, C)
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):  # its progress
        warnings.simplefilter("ignore")
        result = process.quantize(process.calibrate({SIGNATURE: feeds}))
    path.write_bytes(result.quantized_model)


def outputs_behind_weights(model) -> list:
    """Name the outputs of the operators of a `ModelT` from which no layer with weights is reached."""
    graph, codes = model.subgraphs[0], [code.builtinCode for code in model.operatorCodes]
    weighted = {getattr(schema.BuiltinOperator, name) for name in WEIGHTED}
    needed, names = set(), []
    for operator in reversed(graph.operators):
        if codes[operator.opcodeIndex] in weighted or needed & set(operator.outputs):
            needed.update(operator.inputs)
        else:
            names += [graph.tensors[index].name.decode() for index in operator.outputs]
    return names
