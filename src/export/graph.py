"""How a network is described to the formats that are written operator by operator, once for all of them.

A task says what its exported network computes, in terms of `Graph`; a format is a class with these methods. Feature
maps and rows are the format's own objects: a description only passes them on.
"""

from typing import Any, Protocol


class Graph(Protocol):
    """Adds operators to a file; each method returns the new feature map (N, C, H, W), unless it says otherwise.

    The layout is the format's own; axes are named as in MindSpore. Names are unique, and those of weights begin with
    them.
    """

    def backbone(self, image, network) -> list:
        """Add a folded `GhostNetV2` up to its last bottleneck: the maps that `GhostNetV2.features` gives."""

    def convolution(self, maps, convolution, name) -> Any:
        """Add a folded nn.Conv2d, dense or depthwise, of any dilation, over maps that are joined along channels."""

    def relu(self, x) -> Any:
        """Add max(x, 0)."""

    def leaky_relu(self, x, slope) -> Any:
        """Add max(x, slope * x)."""

    def global_mean(self, x) -> Any:
        """Add the mean over height and width: (N, C, 1, 1)."""

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
        """Join rows along their axis 1 or 2."""

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
        """Add the product of rows with others of their shape, or with an array that broadcasts to it."""

    def add(self, rows, other, name) -> Any:
        """Add the sum of rows and others of their shape, or an array that broadcasts to it."""

    def subtract(self, rows, other, name) -> Any:
        """Add the difference of rows and others of their shape."""

    def softmax(self, logits) -> Any:
        """Add the softmax over the classes of logits (N, classes) or (N, classes, H, W)."""
