"""Stages and layers of parameters, against timm's groups."""

import pytest
from helpers import reference

from src.detection.yolov3 import YOLOv3
from src.networks import create_network
from src.segmentation.deeplabv3 import DeepLabV3
from src.settings import OptimizerSettings
from src.stages import choose_backbone, number_layers, stage_of
from src.training.finetuning import choose_frozen, rate_factors
from src.weights.names import TIMM_NAMES, to_pytorch_names


def build_detector(backbone):
    return YOLOv3(backbone, 3, 16)


def build_segmenter(backbone):
    return DeepLabV3(backbone, 3, 16, (2, 3), 16, 0.0)


def names_of(name, **options):
    return [parameter.name for parameter in create_network(name, 10, **options).get_parameters()]


@pytest.mark.parametrize("name", ["ghostnetv2_1x", "ghostnet_1x", "mobilenetv2_1x", "mobilenetv3_large"])
def test_layer_decay_is_timms(name):
    timm = reference("timm")
    from timm.optim import param_groups_layer_decay

    model = timm.create_model(TIMM_NAMES[name], num_classes=10)
    groups = param_groups_layer_decay(model, layer_decay=0.7)
    expected = {id(parameter): group["lr_scale"] for group in groups for parameter in group["params"]}
    expected = {name: expected[id(parameter)] for name, parameter in model.named_parameters()}
    ours = names_of(name)
    factors = rate_factors(ours, OptimizerSettings(layer_decay=0.7))
    theirs = {their: factors.get(our, 1.0) for our, their in to_pytorch_names(ours).items() if their in expected}
    assert len(theirs) == len(expected)
    assert theirs == pytest.approx(expected)
    assert len(set(factors.values())) > 15


@pytest.mark.parametrize("name", ["ghostnetv2_1x", "ghostnet_1x", "mobilenetv2_1x", "mobilenetv3_large"])
def test_a_stage_is_told_by_the_stride_of_its_maps(name):
    """The maps of `features` are those of the last blocks of strides 4 to 32."""
    network = create_network(name, features_only=True)
    assert network.feature_strides == (4, 8, 16, 32)
    stages = {}
    for parameter in network.get_parameters():
        if parameter.name.endswith("ghost2.primary_conv.conv.weight"):  # half of a block's channels
            stages[stage_of(parameter.name)] = 2 * parameter.shape[0]
        elif parameter.name.endswith(("conv_pwl.weight", "blocks.6.0.conv.weight")):
            stages[stage_of(parameter.name)] = parameter.shape[0]
    assert [stages[stage] for stage in (2, 3, 4, 5)] == list(network.feature_channels)
    assert stage_of("conv_stem.weight") == stage_of("bn1.gamma") == stage_of("backbone.bn1.beta") == 0
    assert stage_of("classifier.bias") is stage_of("conv_head.weight") is stage_of("head.blocks.weight") is None


def test_the_backbone_is_all_but_the_last_layer():
    names = names_of("ghostnetv2_1x")
    assert set(names) - choose_backbone(names) == {"classifier.weight", "classifier.bias"}
    names = ["backbone.conv_stem.weight", "classifier.weight", "head.0.weight"]
    assert choose_backbone(names) == {"backbone.conv_stem.weight"}
    layers = number_layers([*names, "backbone.blocks.0.ghost1.primary_conv.bn.gamma"])
    assert list(layers.values()) == [0, 2, 2, 1]


@pytest.mark.parametrize(("name", "blocks"), [("ghostnetv2_1x", 16), ("mobilenetv2_1x", 17), ("mobilenetv3_large", 16)])
@pytest.mark.parametrize("build", [build_detector, build_segmenter])
def test_all_behind_a_backbone_is_its_head(name, blocks, build):
    """A detector's own blocks are no stages and no layers of the backbone."""
    network = build(create_network(name, features_only=True))
    names = {parameter.name for parameter in network.get_parameters()}
    inside = {name for name in names if name.startswith("backbone.")}
    assert len(names - inside) > 30
    assert choose_frozen(names, 5) == choose_frozen(names, "backbone") == inside
    assert choose_frozen(names, 2) < inside
    layers = number_layers(names)
    assert {layers[name] for name in inside} == set(range(blocks + 1))
    assert {layers[name] for name in names - inside} == {blocks + 1}
    assert rate_factors(names, OptimizerSettings(layer_decay=0.7, backbone_rate=0.1)).keys() == inside


def test_both_factors_multiply():
    names = ["backbone.conv_stem.weight", "backbone.blocks.0.dw.conv.weight", "head.weight"]
    factors = rate_factors(names, OptimizerSettings(layer_decay=0.5, backbone_rate=0.1))
    assert factors == pytest.approx({names[0]: 0.025, names[1]: 0.05})
