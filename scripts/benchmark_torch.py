"""The detector and the segmenter in PyTorch on timm's backbone, for the plain ONNX files of scripts/benchmark.py.

Modules are copies of this project's cells: their sizes, strides and weights, in evaluation mode.
"""

import timm
import torch
from mindspore import nn as cells
from torch import nn
from torch.nn import functional

from src.detection.yolov3 import BOX_OUTPUTS, MAX_LOG_GROWTH
from src.weights.names import TIMM_NAMES, to_pytorch_name

SLOPE = 0.1  # of LeakyReLU


class Backbone(nn.Module):
    """timm's network up to its last bottleneck: images (N, 3, H, W) -> the maps at the ends of the stages.

    Args:
        name: of the variant.
        network: `GhostNetV2` with `features_only`.
    """

    def __init__(self, name, network):
        super().__init__()
        model = timm.create_model(TIMM_NAMES[name])
        parameters = {value.name.removeprefix("backbone."): value for value in network.get_parameters()}
        weights = {to_pytorch_name(key): as_tensor(value) for key, value in parameters.items()}
        missing, unexpected = model.load_state_dict(weights, strict=False)
        others = [key for key in missing if not key.endswith("num_batches_tracked")]
        if unexpected or not all(key.startswith(("blocks.9", "conv_head", "classifier")) for key in others):
            raise RuntimeError(f"{name}: weights do not fit timm's: {unexpected} {others}")
        modules = dict(model.named_modules())
        for key, cell in network.cells_and_names():
            if isinstance(cell, cells.Conv2d):  # dilation in place of strides is no option of timm's
                copy_geometry(cell, modules[to_pytorch_name(f"{key}.weight").rpartition(".")[0]])
        self.stem = nn.Sequential(model.conv_stem, model.bn1, model.act1)
        self.blocks = nn.ModuleList([block for stage in model.blocks[:-1] for block in stage])
        self.stage_ends = network.stage_ends

    def forward(self, x):
        x, maps = self.stem(x), []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in self.stage_ends:
                maps.append(x)
        return maps


class Detector(nn.Module):
    """`WithDecoding` of `YOLOv3`: images (N, 3, size, size) -> boxes, objectness, class scores."""

    def __init__(self, name, cell):
        super().__init__()
        network = cell.network
        self.backbone = Backbone(name, network.backbone)
        for key in ("laterals", "blocks", "heads"):
            setattr(self, key, nn.ModuleList([copy_layers(layers) for layers in getattr(network, key)]))
        for key in ("corners", "sizes", "strides"):
            self.register_buffer(key, torch.from_numpy(getattr(cell, key).asnumpy()))

    def forward(self, x):
        maps = self.backbone(x)[::-1]
        rows, features = [], None
        for scale, (block, head) in enumerate(zip(self.blocks, self.heads)):
            finer = maps[scale]
            if scale:
                carried = functional.interpolate(self.laterals[scale - 1](features), list(map(int, finer.shape[2:])))
                finer = torch.cat((carried, finer), 1)
            features = block(finer)
            raw = head(features)
            rows.append(raw.permute(0, 2, 3, 1).reshape(raw.shape[0], -1, raw.shape[1] // 3))
        rows = torch.cat(rows, 1)
        centres = self.corners + rows[..., :2].sigmoid() * self.strides
        halves = 0.5 * self.sizes * rows[..., 2:4].clamp(max=MAX_LOG_GROWTH).exp()
        scores = rows[..., BOX_OUTPUTS - 1 :].sigmoid()
        return torch.cat((centres - halves, centres + halves), -1), scores[..., 0], scores[..., 1:]


class Segmenter(nn.Module):
    """`FullSizeLogits` of `DeepLabV3`: images (N, 3, H, W) -> logits (N, classes, H, W)."""

    def __init__(self, name, cell):
        super().__init__()
        network = cell.network
        self.backbone = Backbone(name, network.backbone)
        *spatial, pooling = network.aspp.branches
        self.branches = nn.ModuleList([copy_layers(branch) for branch in spatial])
        self.pooling = copy_layers(pooling.project)
        self.head = nn.Sequential(copy_layers(network.head.bottleneck), copy_layers(network.head.classifier))

    def forward(self, x):
        y = self.backbone(x)[-1]
        pooled = self.pooling(functional.adaptive_avg_pool2d(y, 1)).expand(-1, -1, *y.shape[2:])
        y = self.head(torch.cat([*[branch(y) for branch in self.branches], pooled], 1))
        return functional.interpolate(y, x.shape[2:], mode="bilinear", align_corners=False)


def as_tensor(parameter):
    return torch.from_numpy(parameter.asnumpy().copy())


def copy_geometry(cell, convolution) -> None:
    """Give a torch convolution the stride, dilation and padding of an nn.Conv2d of MindSpore."""
    convolution.stride, convolution.dilation = cell.stride, cell.dilation
    convolution.padding = cell.padding[::2] if cell.padding else (0, 0)  # of top, bottom, left, right


def copy_layers(cell) -> nn.Module:
    """Copy a convolution, one with batch normalisation and activation, or several of these in a row."""
    if isinstance(cell, cells.SequentialCell):
        return nn.Sequential(*map(copy_layers, cell.cell_list))
    if not isinstance(cell, cells.Conv2d):
        activation = nn.ReLU() if hasattr(cell, "relu") else nn.LeakyReLU(SLOPE)
        return nn.Sequential(copy_layers(cell.conv), copy_batch_norm(cell.bn), activation)
    convolution = nn.Conv2d(cell.in_channels, cell.out_channels, cell.kernel_size, bias=cell.has_bias)
    copy_geometry(cell, convolution)
    convolution.weight.data = as_tensor(cell.weight)
    if cell.has_bias:
        convolution.bias.data = as_tensor(cell.bias)
    return convolution


def copy_batch_norm(cell) -> nn.BatchNorm2d:
    """Copy an nn.BatchNorm2d of MindSpore."""
    copy = nn.BatchNorm2d(cell.num_features, eps=cell.eps)
    copy.weight.data, copy.bias.data = as_tensor(cell.gamma), as_tensor(cell.beta)
    copy.running_mean.data, copy.running_var.data = as_tensor(cell.moving_mean), as_tensor(cell.moving_variance)
    return copy


MODULES = {"detection": Detector, "segmentation": Segmenter}


def build_torch(task, name, cell):
    """Build the module of a task's export cell, whose backbone is the variant `name`."""
    return MODULES[task](name, cell).eval()
