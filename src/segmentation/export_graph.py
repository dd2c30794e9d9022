"""What an exported segmenter computes, for the formats that are written operator by operator."""


def describe_segmenter(graph, image, network) -> dict:
    """Add what a folded `FullSizeLogits` computes.

    Args:
        graph: `src.export.graph.Graph`.
        image: its input, a map (N, 3, H, W).
        network: `FullSizeLogits` of `DeepLabV3`, from `fold_batch_norm`.

    Returns:
        {'logits': map (N, classes, H, W)}.
    """
    segmenter = network.network
    x = graph.backbone(image, segmenter.backbone)[-1]
    x = activated(graph, pyramid(graph, x, segmenter.aspp), segmenter.head.bottleneck, "bottleneck")
    logits = graph.convolution([x], segmenter.head.classifier, "classifier")
    return {"logits": graph.resize(logits, graph.size(image), "bilinear", "logits")}


def pyramid(graph, x, aspp) -> list:
    """Add `ASPP` up to the joint of its branches: a list of maps."""
    *spatial, pooling = aspp.branches
    maps = [activated(graph, [x], cell, f"aspp.{index}") for index, cell in enumerate(spatial)]
    pooled = activated(graph, [graph.global_mean(x)], pooling.project, "aspp.pooling")
    return [*maps, graph.expand(pooled, graph.size(x), "aspp.pooling.expand")]


def activated(graph, maps, cell, name):
    """Add a folded `ConvBnAct` that has a ReLU."""
    return graph.relu(graph.convolution(maps, cell.conv, name))
