"""How a network is described to the formats that are written operator by operator, once for all of them.

A task says what its exported network computes, in terms of `Graph`; a format is a class with these methods. Feature
maps and arrays, rows of predictions among these, are the format's own objects: a description only passes them on.
"""

from typing import Any, Protocol


class Graph(Protocol):
    """Adds operators to a file; each method returns the new feature map (N, C, H, W), unless it says otherwise.

    The layout of a map is the format's own, that of an array is the one written here; axes are named as in MindSpore.
    Names are unique, and those of weights begin with them; equal weights are stored once, under the first name.
    """

    def backbone(self, image, network) -> list:
        """Add a folded `GhostNetV2` or `MobileNet` as far as the maps that its `features` gives, these."""

    def dfc_attention(self, x, dfc, features, name) -> Any:
        """Add the product of features with the gates that a folded `DFCAttention` gives for the map `x`."""

    def convolution(self, maps, convolution, name) -> Any:
        """Add a folded nn.Conv2d, dense or depthwise, of any dilation, over maps that are joined along channels."""

    def project(self, maps, convolution, name, like=None) -> Any:
        """Add a folded 1x1 nn.Conv2d over a feature in one or more maps.

        A format may keep a feature in several maps: the output holds the channels of the map `like`; None: all.
        """

    def relu(self, x) -> Any:
        """Add max(x, 0)."""

    def relu6(self, x) -> Any:
        """Add min(max(x, 0), 6)."""

    def hard_swish(self, x) -> Any:
        """Add x * min(max(x + 3, 0), 6) / 6."""

    def hard_sigmoid(self, x) -> Any:
        """Add min(max(x + 3, 0), 6) / 6."""

    def leaky_relu(self, x, slope) -> Any:
        """Add max(x, slope * x)."""

    def global_mean(self, x) -> Any:
        """Add the mean over height and width: (N, C, 1, 1)."""

    def mean(self, x, axes, name) -> Any:
        """Add the mean of a map over one of the axes 1, 2 and 3, or over (2, 3), which stay with length 1."""

    def amax(self, x, axes, name) -> Any:
        """Add the maximum of a map over such axes."""

    def average_pool(self, x, name) -> Any:
        """Add the mean of 2x2 pixels; an odd last row or column is left out."""

    def resize(self, x, size, mode, name) -> Any:
        """Add `src.layers.blocks.resize` to (height, width)."""

    def expand(self, x, size, name) -> Any:
        """Repeat a single pixel: (N, C, 1, 1) -> (N, C, *size)."""

    def size(self, x) -> tuple:
        """Give (height, width) of a map."""

    def dense(self, x, dense, name) -> Any:
        """Add an nn.Dense on (N, C, 1, 1): logits (N, classes)."""

    def rows(self, x, columns, name) -> Any:
        """Lay a map out by place: (N, K * columns, H, W) -> rows (N, H * W * K, columns)."""

    def join(self, rows, axis, name) -> Any:
        """Join arrays along an axis but the first."""

    def columns(self, rows, start, stop, name) -> Any:
        """Take columns start to stop of rows (N, A, columns)."""

    def squeeze(self, rows, name) -> Any:
        """Drop the last axis of (N, A, 1): (N, A)."""

    def sigmoid(self, x) -> Any:
        """Add the logistic function of rows or of a map."""

    def exp(self, rows, name) -> Any:
        """Add e to the power of rows."""

    def minimum(self, rows, limit, name) -> Any:
        """Add the smaller of rows and of a number."""

    def multiply(self, rows, other, name) -> Any:
        """Add the product of an array with another of its shape, or with a numpy array that broadcasts to it.

        Of two maps, the second has the shape of the first, or length 1 along the channels, or along rows or columns.
        """

    def add(self, rows, other, name) -> Any:
        """Add the sum of two maps or arrays of one shape, or of an array and a numpy array that broadcasts to it."""

    def subtract(self, rows, other, name) -> Any:
        """Add the difference of rows and others of their shape."""

    def softmax(self, logits) -> Any:
        """Add the softmax over the channels of a map, or over the last axis of an array."""

    def array(self, x, name) -> Any:
        """Lay a map out as an array (N, C, H, W)."""

    def map(self, array, name) -> Any:
        """Make a map of an array (N, C, H, W)."""

    def view(self, array, shape, name) -> Any:
        """Lay the values of each image out anew: (N, ...) -> (N, *shape)."""

    def transpose(self, array, order, name) -> Any:
        """Put the axes of an array in another order; the first stays."""

    def narrow(self, array, axis, start, length, name) -> Any:
        """Take the part of an array that begins at a place of an axis."""

    def matmul(self, array, other, name) -> Any:
        """Add the products of matrices: (N, K, I, J) x (N, K, J, L) -> (N, K, I, L)."""


def choose_gate(graph, kind):
    """Give the method of a format that adds a gate of DFC attention, of a `kind` as in `DFCOptions`."""
    gates = {"sigmoid": graph.sigmoid, "hard_sigmoid": graph.hard_sigmoid, "clip": graph.clip, "relu": graph.relu}
    return gates.get(kind, lambda x: x)
