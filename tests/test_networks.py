"""All networks by name: any size of input, as backbones of both other tasks, and their settings from outside."""

import mindspore
import numpy as np
import pytest
from helpers import PROJECT, normal, random_timm, randomise, reference
from mindspore import Tensor

from src.config import dump_config, load_config, parse_override
from src.errors import UserError
from src.networks import NETWORKS, create_network
from src.tasks import SCHEMAS, create_task
from src.weights import load_weights, save_weights

CONFIGS = {"classification": "digits", "detection": "bccd", "segmentation": "camvid"}
MOBILENETV2 = "network.name=mobilenetv2_1x"
KERNEL_SIZE = "network.dfc_kernel_size"


@pytest.fixture(autouse=True)
def pynative(graph_mode):
    mindspore.set_context(mode=mindspore.PYNATIVE_MODE)


def read_config(task, settings):
    """The configuration of a small dataset, with settings as on the command line, separated by blanks."""
    path = PROJECT / "configs" / task / f"{CONFIGS[task]}.yaml"
    return load_config(path, SCHEMAS, [parse_override(text) for text in settings.split()])


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_takes_any_size(name):
    network = randomise(create_network(name, num_classes=5))
    for size in ((33, 33), (65, 47)):
        logits = network(Tensor(normal(2, 3, *size))).asnumpy()
        assert logits.shape == (2, 5) and np.isfinite(logits).all()
        assert np.abs(logits[0] - logits[1]).max() > 0.02 * np.ptp(logits)  # it sees its input


@pytest.mark.parametrize("name", ["ghostnet_100", "ghostnetv2_100", "mobilenetv2_100", "mobilenetv3_large_100"])
def test_random_references_see_their_input(name):
    """Otherwise, what is compared with them would be offsets of the last layers."""
    model, torch = random_timm(name), reference("torch")
    with torch.no_grad():
        logits = model(torch.from_numpy(normal(2, 3, 64, 64))).numpy()
    assert np.abs(logits[0] - logits[1]).max() > 0.05 * np.ptp(logits)


@pytest.mark.parametrize(
    ("task", "settings", "sizes"),
    [
        # of a 65x47 input, rounded up: strides 32, 16 and 8
        ("detection", "", [(3, 2), (5, 3), (9, 6)]),
        ("segmentation", "network.output_stride=8", [(9, 6)]),
        ("segmentation", "network.output_stride=16", [(5, 3)]),
    ],
)
@pytest.mark.parametrize("name", ["mobilenetv2_1x", "mobilenetv3_large"])
def test_mobilenets_are_backbones(name, task, settings, sizes, tmp_path):
    config = read_config(task, f"network.name={name} {settings}")
    network = create_task(config).build_network().set_train(False)
    classifier = create_network(name, num_classes=5)
    save_weights(classifier, tmp_path / "a.ckpt")
    assert "its backbone alone is taken" in load_weights(network, tmp_path / "a.ckpt", finetune=True)
    weights = {parameter.name: parameter.asnumpy() for parameter in classifier.get_parameters()}
    for parameter in network.backbone.get_parameters():
        assert np.array_equal(parameter.asnumpy(), weights[parameter.name.removeprefix("backbone.")])
    outputs = network(Tensor(normal(1, 3, 65, 47)))
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    assert [output.shape[2:] for output in outputs] == sizes
    assert all(np.isfinite(output.asnumpy()).all() for output in outputs)


@pytest.mark.parametrize(
    "settings",
    [
        "network.name=mobilenetv2_dfc_1x network.dfc_blocks=[1,16]",
        f"network.name=ghostnetv2_1x {KERNEL_SIZE}=[3,4,[7,9]] network.width=0.5",
        f"network.name=ghostnetv2_1x {KERNEL_SIZE}=full network.dfc_stages=[8,32]",
        "network.name=mobilenetv2_ca_1x network.attention=none",
    ],
)
def test_settings_are_written_and_read_back(settings, tmp_path):
    config = read_config("classification", settings)
    (tmp_path / "a.yaml").write_text(dump_config(config))
    assert load_config(tmp_path / "a.yaml", SCHEMAS) == config
    logits = create_task(config).build_network().set_train(False)(Tensor(normal(1, 3, 33, 33)))
    assert np.isfinite(logits.asnumpy()).all()


@pytest.mark.parametrize(
    ("task", "settings", "message"),
    [
        ("classification", f"{KERNEL_SIZE}=[7,5]", f"{KERNEL_SIZE}: has 2 items, needs one for each stride of (8, "),
        ("classification", f"{KERNEL_SIZE}=[[1,2,3],5,5]", f"{KERNEL_SIZE}: [1, 2, 3] has 3 items, needs 2"),
        ("classification", f"{KERNEL_SIZE}=[full,5,5]", f"{KERNEL_SIZE}: 'full' is not one of a whole number, a list"),
        (
            "classification",
            f"{KERNEL_SIZE}=[[0,5],5,5]",
            f"{KERNEL_SIZE}: 0 is out of range: at least 1 and at most 255",
        ),
        ("classification", f"{KERNEL_SIZE}=0.5", f"{KERNEL_SIZE}: 0.5 is not one of full, a whole number"),
        ("classification", f"{KERNEL_SIZE}=null", f"{KERNEL_SIZE}: None is not one of full, a whole number"),
        (
            "classification",
            "network.width=0.001",
            "network.width: 0.001 is out of range: at least 0.01 and at most 10.0",
        ),
        ("classification", "network.width=wide", "network.width: 'wide' is not a number"),
        ("classification", "network.width=.nan", "network.width: nan is not a finite number"),
        ("classification", "network.attention=ca", "network.attention: 'ca' is not one of dfc, self_attention, none"),
        ("classification", "network.attention=no", "network.attention: False is not one of dfc, self_attention, se, "),
        (
            "classification",
            f"{MOBILENETV2} network.attention=self_attention",
            "network.attention: 'self_attention' is not one of none, se, cbam, ca, dfc",
        ),
        (
            "classification",
            "network.name=mobilenetv3_large network.attention=se",
            "network.attention: 'se' is not one ",
        ),
        ("classification", "network.dfc_stages=[64]", "network.dfc_stages: 64 is not one of 8, 16, 32"),
        (
            "classification",
            "network.dfc_stages=[8] network.dfc_blocks=[3]",
            "network.dfc_stages: and dfc_blocks cannot both be set",
        ),
        (
            "classification",
            "network.name=ghostnetv2_1x network.dfc_blocks=[16]",
            "network.dfc_blocks: 16 is out of range: at least 0 and at most 15",
        ),
        (
            "classification",
            f"{MOBILENETV2} network.attention=dfc network.dfc_blocks=[0]",
            "network.dfc_blocks: 0 is out of range: at least 1 and at most 16",
        ),
        (
            "classification",
            "network.name=mobilenetv2_ca_1x network.dfc_stages=[8]",
            "network.dfc_stages: has no effect with attention ca",
        ),
        ("detection", f"{MOBILENETV2} network.output_stride=8", "network.output_stride: 8 is not 32, which YOLOv3's"),
        ("segmentation", f"{MOBILENETV2} network.output_stride=4", "network.output_stride: 4 is not one of 8, 16, 32"),
    ],
)
def test_wrong_settings_say_so(task, settings, message):
    with pytest.raises(UserError) as error:
        read_config(task, settings)
    assert str(error.value).startswith(f"command line: {message}")
