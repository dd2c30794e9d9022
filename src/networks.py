"""All networks that serve as classifiers and as backbones, by name."""

from src import ghostnetv2, mobilenetv2
from src.architecture import IMAGENET_CLASSES, VARIANTS, NetworkOptions, complete_options

NETWORKS = {**VARIANTS, **mobilenetv2.VARIANTS}


def choose_options(name, **options):
    """Give the options of a network: `NetworkOptions` or `MobileNetV2Options`.

    Args:
        name: of `NETWORKS`.
        options: those that differ from the variant's; None leaves one as the variant has it.

    Raises:
        UserError: if `name` is no network, or an option is outside its choices or range.
    """
    build = NetworkOptions if name in VARIANTS else mobilenetv2.MobileNetV2Options
    return build(**complete_options(name, NETWORKS, options))


def create_network(name, num_classes=IMAGENET_CLASSES, **options):
    """Build a network: nn.Cell, float32 (N, 3, H, W) -> logits (N, num_classes), see `choose_options`."""
    build = ghostnetv2.GhostNetV2 if name in VARIANTS else mobilenetv2.MobileNetV2
    return build(num_classes, choose_options(name, **options))
