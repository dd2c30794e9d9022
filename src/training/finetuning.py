"""What fine-tuning changes of a network that was trained before: parts that stay as they are, and slower layers."""

from mindspore import nn

from src.stages import choose_backbone, number_layers, stage_of

RUNNING_STATISTICS = ("moving_mean", "moving_variance")


def freeze(network, freeze) -> None:
    """Exclude the first parts of a network from training; their batch normalisation keeps its statistics, too.

    Args:
        network: is changed in place, before the optimizer is built.
        freeze: 'none'; 'stem'; the number of stages behind it, see `src.stages.stage_of`; or 'backbone', which is all
            of a classifier but its last layer.
    """
    frozen = choose_frozen([parameter.name for parameter in network.get_parameters()], freeze)
    for parameter in network.get_parameters():
        if parameter.name in frozen:
            parameter.requires_grad = False
    for _, cell in network.cells_and_names():
        if isinstance(cell, nn.BatchNorm2d) and cell.gamma.name in frozen:
            cell.use_batch_statistics = False


def choose_frozen(names, freeze) -> set:
    """Choose which of a network's parameters `freeze` means."""
    if freeze == "none":
        return set()
    if freeze == "backbone":
        return choose_backbone(names)
    last = 0 if freeze == "stem" else freeze
    stages = {name: stage_of(name) for name in choose_backbone(names)}  # a detector's head has blocks as well
    return {name for name, stage in stages.items() if stage is not None and stage <= last}


def describe_frozen(network, freeze) -> list:
    """Put what is frozen and what is trained into a line, with counts of parameters; none if nothing is frozen."""
    if freeze == "none":
        return []
    counts = {True: 0, False: 0}
    for parameter in network.get_parameters():
        if not parameter.name.endswith(RUNNING_STATISTICS):
            counts[parameter.requires_grad] += parameter.size
    parts = {"stem": "the stem", "backbone": "the backbone"}.get(freeze, f"the stem and stages 1 to {freeze}")
    return [f"frozen: {parts}, {counts[False]:,} parameters; trained: {counts[True]:,}"]


def rate_factors(names, settings) -> dict:
    """Compute the factors on the learning rate of each parameter that has one other than 1.

    Layer decay is timm's (`param_groups_layer_decay`), after Bao et al., "BEiT", ICLR 2022: the last layer has the
    whole learning rate, each one in front of it `layer_decay` times that of the next.

    Args:
        names: of all parameters of the network.
        settings: `OptimizerSettings`.
    """
    names = list(names)
    backbone, layers = choose_backbone(names), number_layers(names)
    last = max(layers.values())
    factors = {
        name: settings.layer_decay ** (last - layers[name]) * (settings.backbone_rate if name in backbone else 1.0)
        for name in names
    }
    return {name: factor for name, factor in factors.items() if factor != 1.0}
