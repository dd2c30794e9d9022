"""A network of few layers with all that matters to training and to graphs: batch normalisation, attention, dropout."""

from mindspore import nn

from src.architecture import DFCOptions
from src.dfc_attention import DFCAttention
from src.ghostnetv2 import GhostModule
from src.layers.dropout import Dropout


class TinyNetwork(nn.Cell):
    """Images (N, 3, H, W) -> logits (N, classes); the options are those of `DFCOptions`."""

    def __init__(self, num_classes, dropout, **options):
        super().__init__()
        options = DFCOptions(**options)
        attention = DFCAttention(3, 8, options, 1, options.kernel_size(8, 8))
        self.ghost = GhostModule(3, 8, True, 1, attention)
        self.dropout = Dropout(dropout)
        self.classifier = nn.Dense(8, num_classes)

    def construct(self, x):
        return self.classifier(self.dropout(self.ghost(x).mean((2, 3))))
