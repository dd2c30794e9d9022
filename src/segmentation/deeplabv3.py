"""DeepLabV3: atrous spatial pyramid pooling on a dilated backbone, with an auxiliary head for training.

Source: Chen et al., "Rethinking Atrous Convolution for Semantic Image Segmentation", arXiv:1706.05587, sections 3.2
and 3.3; the auxiliary head is that of Zhao et al., "Pyramid Scene Parsing Network", CVPR 2017, section 3.3.

Differences from the first: a 3x3 instead of a 1x1 convolution behind the pyramid, and dilations of 12, 24 and 36 at
stride 8, as in the code that GhostNetV2 was measured with.
"""

from mindspore import nn, ops

from src.layers.blocks import ConvBnAct, build_convolution, global_mean, resize
from src.layers.dropout import Dropout

AUXILIARY_STAGE = 2  # of the backbone's maps: the one that has stride 16 without dilation


class ImagePooling(nn.Cell):
    """The image's mean at every position: (N, C, H, W) -> (N, out_channels, H, W)."""

    def __init__(self, in_channels, out_channels):
        super().__init__()
        self.project = ConvBnAct(in_channels, out_channels)

    def construct(self, x):
        mean = self.project(global_mean(x))  # (N, C, H, W) -> (N, out_channels, 1, 1)
        return ops.broadcast_to(mean, (-1, -1, *x.shape[2:]))  # what resizing one value comes to


class ASPP(nn.Cell):
    """Atrous spatial pyramid pooling: (N, C, H, W) -> (N, (2 + number of dilations) * out_channels, H, W).

    Args:
        in_channels: C.
        out_channels: of each branch: a 1x1 convolution, a 3x3 one for each dilation, and image pooling.
        dilations: of the 3x3 convolutions.
    """

    def __init__(self, in_channels, out_channels, dilations):
        super().__init__()
        spatial = [ConvBnAct(in_channels, out_channels, 3, dilation=dilation) for dilation in dilations]
        self.branches = nn.CellList(
            [ConvBnAct(in_channels, out_channels), *spatial, ImagePooling(in_channels, out_channels)]
        )

    def construct(self, x):
        maps = ()
        for branch in self.branches:
            maps += (branch(x),)
        return ops.concat(maps, 1)


class ClassifierHead(nn.Cell):
    """3x3 convolution, dropout and a 1x1 convolution: (N, C, H, W) -> logits (N, num_classes, H, W)."""

    def __init__(self, in_channels, channels, num_classes, dropout):
        super().__init__()
        self.bottleneck = ConvBnAct(in_channels, channels, 3)
        self.dropout = Dropout(dropout) if dropout > 0 else None
        self.classifier = build_convolution(channels, num_classes, has_bias=True)

    def construct(self, x):
        x = self.bottleneck(x)
        if self.dropout is not None:
            x = self.dropout(x)
        return self.classifier(x)


class DeepLabV3(nn.Cell):
    """Images float32 (N, 3, H, W) -> logits (N, num_classes, h, w) at the backbone's last stride.

    In training the result is a pair: these logits, and those of the auxiliary head (N, num_classes, h', w').
    The logits are small on purpose: who needs them at another size resizes them (`FullSizeLogits`, or in strips, see
    `segmenter.Segmenter`).

    Args:
        backbone: `GhostNetV2` with `features_only`.
        num_classes: classes of a pixel.
        channels: of each branch of the pyramid, and behind it.
        dilations: of the pyramid's 3x3 convolutions.
        auxiliary_channels: of the auxiliary head.
        dropout: probability of dropping a value before either classifier, in training.
    """

    def __init__(self, backbone, num_classes, channels, dilations, auxiliary_channels, dropout):
        super().__init__()
        self.backbone = backbone
        self.aspp = ASPP(backbone.feature_channels[-1], channels, dilations)
        self.head = ClassifierHead((2 + len(dilations)) * channels, channels, num_classes, dropout)
        self.auxiliary_head = ClassifierHead(
            backbone.feature_channels[AUXILIARY_STAGE], auxiliary_channels, num_classes, dropout
        )

    def construct(self, x):
        maps = self.backbone(x)
        logits = self.head(self.aspp(maps[-1]))
        if not self.training:
            return logits
        return logits, self.auxiliary_head(maps[AUXILIARY_STAGE])


class FullSizeLogits(nn.Cell):
    """A network whose logits are resized to its input: (N, 3, H, W) -> (N, num_classes, H, W), in evaluation."""

    def __init__(self, network):
        super().__init__(auto_prefix=False)  # the network's parameters keep their names
        self.network = network

    def construct(self, x):
        return resize(self.network(x), x.shape[2:], "bilinear")
