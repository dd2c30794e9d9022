"""What scripts/paper.py compares: the rows of the paper's tables, with published accuracies and their sources.

An accuracy stands here only where its source could be read; none of them was measured by this project.
"""

from typing import NamedTuple, Optional

ABSTRACT = "Tang et al., NeurIPS 2022, abstract"
RESULTS = "Tang et al., NeurIPS 2022, table 1"
GHOSTNET = "authors' code, ghostnet_pytorch/readme.md"
GHOSTNET_PAPER = "Han et al., CVPR 2020, as Papers with Code lists its results"
MOBILENETV3_PAPER = "Howard et al., ICCV 2019, table 3"
COORDINATE = "README of the coordinate attention authors' code"


class Row(NamedTuple):
    """A network to compare.

    Attributes:
        label: in the tables.
        name: of `src.networks.NETWORKS`.
        options: of the network, in which it differs from that variant.
        accuracy: published top-1 on ImageNet, percent; None where no source is at hand.
        source: of the accuracy.
        family: line of the drawings that it belongs to; "" for none.
    """

    label: str
    name: str
    options: dict = {}
    accuracy: Optional[float] = None
    source: str = ""
    family: str = ""


V1 = Row("GhostNet V1 1.0x", "ghostnet_1x", accuracy=73.98, source=GHOSTNET, family="GhostNet V1")
V2 = Row("GhostNetV2 1.0x", "ghostnetv2_1x", accuracy=75.3, source=ABSTRACT, family="GhostNetV2")
MOBILENETV2 = Row("MobileNetV2", "mobilenetv2_1x", accuracy=72.3, source=COORDINATE, family="MobileNetV2")
MOBILENETV3 = Row("MobileNetV3-Large", "mobilenetv3_large", {}, 75.2, MOBILENETV3_PAPER, "MobileNetV3")


def altered(label, **options) -> Row:
    """Give GhostNetV2 1.0x with other options."""
    return Row(label, V2.name, options)


TABLES = {
    # each a title and rows
    "sizes": (
        "Sizes and rivals (figure 1)",
        (
            Row("GhostNet V1 0.5x", V1.name, {"width": 0.5}, 66.2, GHOSTNET_PAPER),
            V1,
            Row("GhostNet V1 1.1x", "ghostnet_1_1x", accuracy=74.5, source=ABSTRACT, family=V1.family),
            Row("GhostNet V1 1.3x", "ghostnet_1_3x", {}, 75.7, GHOSTNET_PAPER, V1.family),
            Row("GhostNet V1 1.4x", "ghostnet_1_4x", family=V1.family),
            Row("GhostNet V1 1.7x", "ghostnet_1_7x", family=V1.family),
            Row("GhostNetV2 0.5x", V2.name, {"width": 0.5}, family=V2.family),
            V2,
            Row("GhostNetV2 1.3x", "ghostnetv2_1_3x", accuracy=76.9, source=RESULTS, family=V2.family),
            Row("GhostNetV2 1.6x", "ghostnetv2_1_6x", accuracy=77.8, source=RESULTS, family=V2.family),
            MOBILENETV2,
            MOBILENETV3,
        ),
    ),
    "attention": (
        "Attention in MobileNetV2",
        (
            MOBILENETV2,
            Row("+ SE", "mobilenetv2_se_1x", accuracy=73.5, source=COORDINATE, family=MOBILENETV2.family),
            Row("+ CBAM", "mobilenetv2_cbam_1x", accuracy=73.6, source=COORDINATE, family=MOBILENETV2.family),
            Row("+ coordinate attention", "mobilenetv2_ca_1x", {}, 74.3, COORDINATE, MOBILENETV2.family),
            Row("+ DFC attention", "mobilenetv2_dfc_1x"),
        ),
    ),
    "latency": (
        "Long-range attention in GhostNet: cost on paper and in practice",
        (
            V1,
            altered("+ self-attention of MobileViT", attention="self_attention"),
            altered("+ DFC attention (GhostNetV2)"),
            altered("+ DFC attention, no down-sampling", dfc_down_sampling="none"),
            altered("+ DFC attention, full length", dfc_kernel_size="full"),
            altered("+ full attention, not decoupled", dfc_kernel_size="full", dfc_axes="square"),
        ),
    ),
    "kernel_size": (
        "Kernel size of DFC attention, of the stages at stride 8, 16 and 32",
        (
            altered("3, 3, 3", dfc_kernel_size=3),
            altered("5, 5, 5"),
            altered("7, 7, 7", dfc_kernel_size=7),
            altered("7, 5, 5", dfc_kernel_size=[7, 5, 5]),
        ),
    ),
    "axes": (
        "Axes of DFC attention",
        (
            altered("rows, then columns"),
            altered("rows", dfc_axes="rows"),
            altered("columns", dfc_axes="columns"),
            altered("one square convolution", dfc_axes="square"),
        ),
    ),
    "stages": (
        "Stages with DFC attention",
        (
            V1,
            *[altered(f"stride {stride}", dfc_stages=[stride]) for stride in (8, 16, 32)],
            altered("all"),
        ),
    ),
    "gate": (
        "Gate of DFC attention",
        (
            altered("sigmoid"),
            altered("hard sigmoid", dfc_gate="hard_sigmoid"),
            altered("clip", dfc_gate="clip"),
            altered("ReLU", dfc_gate="relu"),
            altered("sigmoid after up-sampling", dfc_gate_position="after_up_sampling"),
        ),
    ),
    "resizing": (
        "Down-sampling and up-sampling of DFC attention",
        (
            altered("average pooling, nearest (authors' code)"),
            altered("max pooling, nearest", dfc_down_sampling="max_pool"),
            altered("max pooling, bilinear (paper)", dfc_down_sampling="max_pool", dfc_up_sampling="bilinear"),
            altered("bilinear, bilinear", dfc_down_sampling="bilinear", dfc_up_sampling="bilinear"),
            altered("average pooling, bicubic", dfc_up_sampling="bicubic"),
            altered("none", dfc_down_sampling="none"),
        ),
    ),
    "place": (
        "Ghost module with DFC attention",
        (
            V1,
            altered("the first (expressiveness)"),
            altered("the second (capacity)", dfc_target="capacity"),
            altered("both", dfc_target="both"),
        ),
    ),
}
