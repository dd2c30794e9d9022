"""Decoupled fully connected (DFC) attention: long-range context for the price of two depthwise convolutions.

Source: Tang et al., "GhostNetV2: Enhance Cheap Operation with Long-Range Attention", NeurIPS 2022, section 3.2. The
paper describes max pooling and bilinear resizing; the authors' code, which the defaults of `DFCOptions` follow, has
average pooling and nearest.
"""

from mindspore import nn, ops

from src.layers.blocks import ConvBnAct, resize


class Clip(nn.Cell):
    """min(max(x, 0), 1), of any shape."""

    def construct(self, x):
        return ops.clamp(x, 0.0, 1.0)


class DFCAttention(nn.SequentialCell):
    """Attention along rows, then columns: the gates of a Ghost module's features.

    The input is halved, projected, aggregated by a 1 x k and a k x 1 depthwise convolution, squashed and
    resized to the features that it gates.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the features to gate.
        options: `DFCOptions`.
        dilation: dilation of the depthwise convolutions, in pixels of the halved map.
        kernel_size: (height, width) of the depthwise convolutions.

    Attributes:
        halving, gate_kind, up_sampling: the options, for descriptions of exported files.
        gate_first: whether the gate comes before the up-sampling.

    Input: (N, in_channels, H, W) and the target (height, width). Output: (N, out_channels, height, width).
    """

    def __init__(self, in_channels, out_channels, options, dilation, kernel_size):
        height, width = kernel_size
        kernels = {
            "rows_and_columns": ((1, width), (height, 1)),
            "rows": ((1, width),),
            "columns": ((height, 1),),
            "square": ((height, width),),
        }
        steps = [ConvBnAct(in_channels, out_channels, relu=False)]
        for kernel in kernels[options.dfc_axes]:
            steps.append(
                ConvBnAct(out_channels, out_channels, kernel, dilation=dilation, groups=out_channels, relu=False)
            )
        super().__init__(steps)
        pools = {"avg_pool": nn.AvgPool2d(2, 2), "max_pool": nn.MaxPool2d(2, 2)}
        gates = {"sigmoid": nn.Sigmoid(), "hard_sigmoid": nn.HSigmoid(), "clip": Clip(), "relu": nn.ReLU()}
        self.halving, self.up_sampling = options.dfc_down_sampling, options.dfc_up_sampling
        self.gate_kind = options.dfc_gate
        self.pool = pools.get(self.halving)
        self.gate = gates.get(self.gate_kind)
        self.gate_first = options.dfc_gate_position == "before_up_sampling"

    def construct(self, x, size):
        attention = self.halve(x)
        for cell in self.cell_list:
            attention = cell(attention)
        if self.gate is not None and self.gate_first:
            attention = self.gate(attention)
        if self.halving != "none":
            attention = resize(attention, size, self.up_sampling)
        if self.gate is not None and not self.gate_first:
            attention = self.gate(attention)
        return attention

    def multiply_adds(self, input_shape) -> int:
        """Count what resizing multiplies, for an input (N, C, H, W): matrices if bicubic, 4 a value if bilinear."""
        batch, in_channels, height, width = input_shape
        small_height, small_width = height // 2, width // 2
        channels, counted = self.cell_list[0].conv.out_channels, 0
        if self.halving == "bilinear":
            counted += 4 * batch * in_channels * small_height * small_width
        if self.halving != "none" and self.up_sampling == "bicubic":
            counted += batch * channels * height * small_width * (small_height + width)
        elif self.halving != "none" and self.up_sampling != "nearest":
            counted += 4 * batch * channels * height * width
        return counted

    def halve(self, x):
        """Halve height and width, rounding down: (N, C, H, W) -> (N, C, H // 2, W // 2)."""
        if self.pool is not None:
            return self.pool(x)
        if self.halving == "bilinear":
            return resize(x, (x.shape[2] // 2, x.shape[3] // 2), "bilinear")
        return x
