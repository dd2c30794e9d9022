"""What an exported classifier computes, for the formats that are written operator by operator."""

from src.mobilenetv2 import MobileNetV2
from src.mobilenetv3 import MobileNetV3


def describe_classifier(graph, image, network) -> dict:
    """Add what a folded `GhostNetV2`, `MobileNetV2` or `MobileNetV3` computes.

    Args:
        graph: `src.export.graph.Graph`.
        image: its input, a map (N, 3, H, W).
        network: the classifier, from `fold_batch_norm`.

    Returns:
        {'logits': (N, classes)}.
    """
    x = graph.backbone(image, network)[-1]
    if isinstance(network, MobileNetV2):
        x = graph.global_mean(graph.relu6(graph.convolution([x], network.conv_head, "conv_head")))
    elif isinstance(network, MobileNetV3):
        x = graph.hard_swish(graph.convolution([graph.global_mean(x)], network.conv_head, "conv_head"))
    else:
        x = graph.relu(graph.convolution([x], network.blocks[-1].conv, "last"))
        x = graph.relu(graph.convolution([graph.global_mean(x)], network.conv_head, "conv_head"))
    return {"logits": graph.dense(x, network.classifier, "classifier")}
