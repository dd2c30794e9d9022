"""A TFLite file from a list of operators; TensorFlow has no part in it."""

from dataclasses import dataclass
from typing import Optional, Tuple

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

SCHEMA_VERSION = 3
FILE_IDENTIFIER = b"TFL3"
ALIGNMENT = 16  # bytes, of the arrays in the file
SIGNATURE = "serving_default"
ACTIVATIONS = {  # operators that others can take over
    "RELU": schema.ActivationFunctionType.RELU,
    "RELU6": schema.ActivationFunctionType.RELU6,
}
FUSING = ("CONV_2D", "DEPTHWISE_CONV_2D", "ADD")  # those that can
WEIGHTED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")  # their second input is a weight
TYPES = {
    np.float32: schema.TensorType.FLOAT32,
    np.float16: schema.TensorType.FLOAT16,
    np.int32: schema.TensorType.INT32,
}
OPERATORS = {
    # name: its options in the schema, its version
    "ADD": ("AddOptions", 1),
    "AVERAGE_POOL_2D": ("Pool2DOptions", 1),
    "BATCH_MATMUL": ("BatchMatMulOptions", 1),
    "CONCATENATION": ("ConcatenationOptions", 1),
    "CONV_2D": ("Conv2DOptions", 1),
    "DEPTHWISE_CONV_2D": ("DepthwiseConv2DOptions", 2),  # the first with dilation
    "DEQUANTIZE": ("DequantizeOptions", 3),  # the first from float16
    "EXP": ("ExpOptions", 1),
    "FULLY_CONNECTED": ("FullyConnectedOptions", 5),  # the first that keeps leading axes
    "HARD_SWISH": ("HardSwishOptions", 1),
    "LEAKY_RELU": ("LeakyReluOptions", 1),
    "LOGISTIC": (None, 1),
    "MAX_POOL_2D": ("Pool2DOptions", 1),
    "MEAN": ("ReducerOptions", 1),
    "MINIMUM": ("MaximumMinimumOptions", 1),
    "MUL": ("MulOptions", 1),
    "PAD": ("PadOptions", 1),
    "REDUCE_MAX": ("ReducerOptions", 1),
    "RELU": (None, 1),
    "RELU6": (None, 1),
    "RESHAPE": ("ReshapeOptions", 1),
    "RESIZE_BILINEAR": ("ResizeBilinearOptions", 3),  # the first with half-pixel centres
    "SLICE": ("SliceOptions", 1),
    "SOFTMAX": ("SoftmaxOptions", 1),
    "SUB": ("SubOptions", 1),
    "TRANSPOSE": ("TransposeOptions", 1),
}


@dataclass(eq=False)
class Tensor:
    """A tensor of the graph, a constant if it has an array."""

    name: str
    shape: Tuple[int, ...]
    array: Optional[np.ndarray] = None

    @property
    def type(self):
        """The numpy type of the values."""
        return np.float32 if self.array is None else self.array.dtype.type


@dataclass(eq=False)
class Node:
    """An operator with one output."""

    operator: str
    inputs: list
    output: Tensor
    options: dict


class Buffer(schema.BufferT):
    """An array in the file, aligned; the generated class puts it anywhere."""

    def Pack(self, builder):  # noqa: N802
        data = self.data.tobytes()
        builder.StartVector(1, len(data), ALIGNMENT)
        builder.head -= len(data)
        builder.Bytes[builder.head : builder.head + len(data)] = data
        vector = builder.EndVector()
        schema.BufferStart(builder)
        schema.BufferAddData(builder, vector)
        return schema.BufferEnd(builder)


class TFLiteBuilder:
    """Collects operators; each method adds one and returns its output."""

    def __init__(self):
        self.nodes = []

    def constant(self, name, array) -> Tensor:
        """Make a constant tensor of float32 or int32."""
        return Tensor(name, array.shape, array)

    def node(self, operator, inputs, shape, name, **options) -> Tensor:
        """Add an operator; the options are named as in the schema."""
        output = Tensor(name, tuple(int(side) for side in shape))
        self.nodes.append(Node(operator, list(inputs), output, options))
        return output

    def build(self, image, outputs, metadata, weights_type) -> bytes:
        """Build the file.

        Args:
            image: the input.
            outputs: {name to show: tensor}.
            metadata: {name: text}.
            weights_type: 'float32', or 'float16' for weights that are read back to float32.
        """
        for name, tensor in outputs.items():
            tensor.name = name
        nodes = fuse_activations(self.nodes, outputs.values())
        if weights_type == "float16":
            nodes = [*halve_weights(nodes), *nodes]
        return Serialiser(nodes, image, list(outputs.values())).serialise(metadata)


def fuse_activations(nodes, outputs) -> list:
    """Merge each activation into the node before it, where that can do it and nothing else reads its output."""
    readers, producers, merged = {}, {node.output: node for node in nodes}, []
    for tensor in (*(tensor for node in nodes for tensor in node.inputs), *outputs):
        readers[tensor] = readers.get(tensor, 0) + 1
    for node in nodes:
        before = producers.get(node.inputs[0])
        fuses = before and before.operator in FUSING and "fusedActivationFunction" not in before.options
        if node.operator in ACTIVATIONS and fuses and readers[before.output] == 1:
            before.options["fusedActivationFunction"] = ACTIVATIONS[node.operator]
            before.output = node.output
            producers[node.output] = before
        else:
            merged.append(node)
    return merged


def halve_weights(nodes) -> list:
    """Store weights as float16, each read back to float32 by a node of its own; returns these nodes."""
    readers = []
    for node in nodes:
        if node.operator in WEIGHTED:
            weight = node.inputs[1]
            half = Tensor(f"{weight.name}.float16", weight.shape, weight.array.astype(np.float16))
            node.inputs[1] = Tensor(weight.name, weight.shape)
            readers.append(Node("DEQUANTIZE", [half], node.inputs[1], {}))
    return readers


class Serialiser:
    """Writes nodes as a TFLite file; tensors, arrays and kinds of operators are numbered as they come."""

    def __init__(self, nodes, image, outputs):
        self.nodes, self.image, self.outputs = nodes, image, outputs
        self.buffers = [schema.BufferT()]  # the first is that of all tensors without an array
        self.tensors, self.numbers, self.codes = [], {}, {}

    def serialise(self, metadata) -> bytes:
        """Give the file's bytes."""
        graph = schema.SubGraphT()
        graph.inputs = [self.number(self.image)]
        graph.operators = [self.operator(node) for node in self.nodes]
        graph.outputs = [self.number(tensor) for tensor in self.outputs]
        graph.tensors = self.tensors
        model = schema.ModelT()
        model.version, model.subgraphs = SCHEMA_VERSION, [graph]
        model.operatorCodes = [operator_code(name) for name in self.codes]
        model.signatureDefs = [self.signature()]
        model.metadata = [self.metadata(name, text) for name, text in metadata.items()]
        model.buffers = self.buffers
        builder = flatbuffers.Builder(sum(buffer.data.nbytes for buffer in self.buffers[1:]) + 2**20)
        builder.Finish(model.Pack(builder), FILE_IDENTIFIER)
        return bytes(builder.Output())

    def store(self, array) -> int:
        """Put an array into the file, unless an equal one is there; returns its number."""
        for number, buffer in enumerate(self.buffers[1:], 1):
            if buffer.data.dtype == array.dtype and np.array_equal(buffer.data, array):
                return number
        buffer = Buffer()
        buffer.data = array
        self.buffers.append(buffer)
        return len(self.buffers) - 1

    def number(self, tensor) -> int:
        """Give the number of a tensor, which is described on its first use."""
        if tensor not in self.numbers:
            entry = schema.TensorT()
            entry.name, entry.shape, entry.type = tensor.name, list(tensor.shape), TYPES[tensor.type]
            entry.buffer = 0 if tensor.array is None else self.store(tensor.array)
            self.numbers[tensor] = len(self.tensors)
            self.tensors.append(entry)
        return self.numbers[tensor]

    def operator(self, node):
        """Describe a node."""
        entry = schema.OperatorT()
        entry.opcodeIndex = self.codes.setdefault(node.operator, len(self.codes))
        entry.inputs = [self.number(tensor) for tensor in node.inputs]
        entry.outputs = [self.number(node.output)]
        kind = OPERATORS[node.operator][0]
        if kind:
            entry.builtinOptionsType = getattr(schema.BuiltinOptions, kind)
            entry.builtinOptions = getattr(schema, f"{kind}T")()
            vars(entry.builtinOptions).update(node.options)
        return entry

    def signature(self):
        """Name the input and the outputs for other tools."""
        entry = schema.SignatureDefT()
        entry.signatureKey = SIGNATURE
        entry.inputs, entry.outputs = ([self.port(x) for x in group] for group in ([self.image], self.outputs))
        return entry

    def port(self, tensor):
        """Name an input or output."""
        entry = schema.TensorMapT()
        entry.name, entry.tensorIndex = tensor.name, self.number(tensor)
        return entry

    def metadata(self, name, text):
        """Store a text under a name."""
        entry = schema.MetadataT()
        entry.name, entry.buffer = name, self.store(np.frombuffer(text.encode(), np.uint8))
        return entry


def operator_code(name):
    """Describe a kind of operator."""
    entry = schema.OperatorCodeT()
    entry.builtinCode = getattr(schema.BuiltinOperator, name)
    entry.deprecatedBuiltinCode = min(entry.builtinCode, 127)  # all that fits what old readers look at
    entry.version = OPERATORS[name][1]
    return entry
