"""All networks that serve as classifiers and as backbones, by name."""

from src import ghostnetv2, mobilenetv2, mobilenetv3
from src.architecture import IMAGENET_CLASSES, VARIANTS, NetworkOptions, complete_options

FAMILIES = (
    # variants, options, network
    (VARIANTS, NetworkOptions, ghostnetv2.GhostNetV2),
    (mobilenetv2.VARIANTS, mobilenetv2.MobileNetV2Options, mobilenetv2.MobileNetV2),
    (mobilenetv3.VARIANTS, mobilenetv3.MobileNetV3Options, mobilenetv3.MobileNetV3),
)
NETWORKS = {name: own for variants, _, _ in FAMILIES for name, own in variants.items()}
BUILDERS = {name: builders for variants, *builders in FAMILIES for name in variants}  # of options and network


def choose_options(name, **options):
    """Give the options of a network, of the class that its family has.

    Args:
        name: of `NETWORKS`.
        options: those that differ from the variant's; None leaves one as the variant has it.

    Raises:
        UserError: if `name` is no network, or an option is outside its choices or range.
    """
    completed = complete_options(name, NETWORKS, options)
    return BUILDERS[name][0](**completed)


def create_network(name, num_classes=IMAGENET_CLASSES, **options):
    """Build a network: nn.Cell, float32 (N, 3, H, W) -> logits (N, num_classes), see `choose_options`."""
    chosen = choose_options(name, **options)
    return BUILDERS[name][1](num_classes, chosen)
