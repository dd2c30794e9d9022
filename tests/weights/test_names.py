"""Weights of every published form: names, containers, and files that must be refused."""

import argparse
import os
import pickle
from collections import OrderedDict

import mindspore
import numpy as np
import pytest
from helpers import normal, random_timm, reference
from mindspore import Tensor

from src.errors import UserError
from src.networks import NETWORKS, create_network
from src.weights import load_weights, read_weights, save_weights
from src.weights.identity import Identity, identify
from src.weights.names import TIMM_NAMES, from_pytorch, from_pytorch_name, to_pytorch_names
from src.weights.torch_file import read_torch_file
from src.weights.unpickler import UnreadableFileError, UnsafePickleError

IDENTIFIED = ["ghostnetv2_1x", "ghostnetv2_nose_1x", "ghostnet_1x", "mobilenetv2_ca_1x", "mobilenetv3_large"]


@pytest.fixture(scope="module")
def timm_model():
    return random_timm("ghostnetv2_100")


def logits(model, x):
    with reference("torch").no_grad():
        return model(reference("torch").from_numpy(x)).numpy()


def scaled(state, factor):
    return OrderedDict((k, v * factor if v.is_floating_point() else v) for k, v in state.items())


def containers(model):
    """(file name, object to save, whether the older layout) of every published form, and a training state."""
    state = model.state_dict()
    wrapped = OrderedDict((f"module.{name}", value) for name, value in state.items())
    training = {
        "epoch": 449,
        "arch": "ghostnetv2",
        "args": argparse.Namespace(lr=0.064, model="ghostnetv2"),
        "optimizer": {"state": {0: {"square_avg": next(iter(state.values())).clone()}}, "param_groups": [{"lr": 0.1}]},
        "metric": np.float64(75.3),
        "state_dict": scaled(state, 0.5),
        "state_dict_ema": state,
    }
    return {
        "flat.pth": (state, False),
        "flat.bin": (wrapped, False),
        "legacy.pth.tar": ({"state_dict": wrapped, "epoch": 1}, True),
        "training.pth.tar": (training, False),
        "training_legacy.pth.tar": (training, True),
    }


NAMES = ("flat.pth", "flat.bin", "legacy.pth.tar", "training.pth.tar", "training_legacy.pth.tar")


@pytest.mark.parametrize("name", NAMES)
def test_pytorch_files_load_and_give_pytorchs_logits(timm_model, tmp_path, name):
    mindspore.set_context(mode=mindspore.PYNATIVE_MODE)
    content, legacy = containers(timm_model)[name]
    reference("torch").save(content, tmp_path / name, _use_new_zipfile_serialization=not legacy)
    network = create_network("ghostnetv2_1x")
    load_weights(network, tmp_path / name)
    x = normal(1, 3, 64, 64)
    assert np.abs(network.set_train(False)(Tensor(x)).asnumpy() - logits(timm_model, x)).max() < 1e-5


def test_safetensors_with_pytorchs_names_load(timm_model, tmp_path):
    from safetensors.torch import save_file

    save_file(timm_model.state_dict(), tmp_path / "a.safetensors")
    file = read_weights(tmp_path / "a.safetensors")
    assert file.entries == 764
    for name, value in timm_model.state_dict().items():
        if "num_batches" not in name:
            assert np.array_equal(file.weights[from_pytorch_name(name)], value.numpy())


def test_averaged_weights_are_preferred_and_can_be_declined(timm_model, tmp_path):
    content, _ = containers(timm_model)["training.pth.tar"]
    reference("torch").save(content, tmp_path / "a.pth.tar")
    ema, raw = (read_weights(tmp_path / "a.pth.tar", prefer) for prefer in ("ema", "raw"))
    assert ema.section == "state_dict_ema (--weights raw takes its state_dict)"
    assert raw.section == "state_dict (--weights ema takes its state_dict_ema)"
    assert np.array_equal(raw.weights["conv_head.bias"], 0.5 * ema.weights["conv_head.bias"])


def test_half_precision_and_views_become_plain_float_arrays(tmp_path):
    torch = reference("torch")
    base = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    tensors = {
        "half": base.half(),
        "bfloat": base.bfloat16(),
        "transposed": base.t(),
        "slice": base[1:3, ::2],
        "scalar": torch.tensor(7),
        "empty": torch.zeros(0, 3),
        "parameter": torch.nn.Parameter(base),
    }
    for legacy in (False, True):
        torch.save(tensors, tmp_path / "a.pth", _use_new_zipfile_serialization=not legacy)
        (section,) = read_torch_file(tmp_path / "a.pth")
        for name, tensor in tensors.items():
            assert section.arrays[name].shape == tuple(tensor.shape), name
            assert np.array_equal(section.arrays[name].astype(np.float32), tensor.detach().float().numpy()), name


@pytest.mark.parametrize("name", TIMM_NAMES)
def test_names_map_one_to_one(name):
    timm = reference("timm")
    theirs = [key for key in timm.create_model(TIMM_NAMES[name]).state_dict() if "num_batches" not in key]
    ours = [parameter.name for parameter in create_network(name).get_parameters()]
    assert set(from_pytorch(dict.fromkeys(theirs))) == set(ours)
    assert set(to_pytorch_names(ours).values()) == set(theirs)


@pytest.mark.parametrize("name", ["blocks.99.0.conv_dw.weight", "fc.weight", "blocks.1.0.ghost3.primary_conv.0.weight"])
def test_foreign_names_are_no_names(name):
    with pytest.raises(KeyError):
        from_pytorch_name(name)


def shapes(network):
    return {parameter.name: parameter.shape for parameter in network.get_parameters()}


@pytest.mark.parametrize("variant", NETWORKS)
def test_identify(variant):
    assert identify(shapes(create_network(variant, num_classes=9))) == Identity(variant, None, 9)
    assert identify(shapes(create_network(variant, features_only=True))) == Identity(variant, None, None)


@pytest.mark.parametrize(
    ("variant", "attention", "width", "words"),
    [
        ("ghostnetv2_1x", "self_attention", None, "ghostnetv2_1x with attention self_attention"),
        ("ghostnetv2_1_3x", "self_attention", None, "ghostnetv2_1_3x with attention self_attention"),
        ("ghostnetv2_1x", "self_attention", 0.5, "ghostnetv2_1x at width 0.5 with attention self_attention"),
        ("ghostnetv2_nose_1x", "none", None, "ghostnetv2_nose_1x with attention none"),
    ],
)
def test_identify_an_attention_that_is_not_the_variants_own(variant, attention, width, words):
    options = {"attention": attention, "width": width}
    found = identify(shapes(create_network(variant, 9, **options)))
    assert found == Identity(variant, width, 9, attention)
    assert str(found) == f"{words} for 9 classes"
    width = "" if width is None else f" network.width={width:g}"
    assert found.settings == f"network.name={variant}{width} network.attention={attention}"


def test_self_attention_is_named_where_it_does_not_fit(tmp_path):
    save_weights(create_network("ghostnetv2_1x", 3, attention="self_attention"), tmp_path / "a.ckpt")
    with pytest.raises(UserError) as error:
        load_weights(create_network("ghostnetv2_1x", 3), tmp_path / "a.ckpt")
    message = "holds ghostnetv2_1x with attention self_attention for 3 classes, the network is ghostnetv2_1x for 3 "
    message += "classes; network.name=ghostnetv2_1x network.attention=self_attention builds that one; "
    assert message in str(error.value)


@pytest.mark.parametrize("variant", IDENTIFIED)
@pytest.mark.parametrize("width", [0.35, 0.5, 0.75, 1.15, 2.0])
def test_identify_other_widths(variant, width):
    found = identify(shapes(create_network(variant, 9, width=width)))
    assert (found.variant, found.num_classes) == (variant, 9)
    assert shapes(create_network(variant, 9, width=found.width)) == shapes(create_network(variant, 9, width=width))
    assert str(found).startswith(f"{variant} at width ")


def test_identify_something_else():
    assert identify({"conv1.weight": (64, 3, 7, 7)}) is None


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (("ghostnetv2_1_3x", 1000), "holds ghostnetv2_1x for 1000 classes, the network is ghostnetv2_1_3x for 1000 "),
        (("ghostnet_1x", 1000), " unexpected (blocks.2.ghost1.short_conv.0.conv.weight"),
        (("ghostnetv2_1x", 10), "--finetune keeps the rest and starts a new classifier; 2 wrong shape (classifier."),
    ],
)
def test_a_file_for_another_network_is_named(timm_model, tmp_path, network, message):
    reference("torch").save(timm_model.state_dict(), tmp_path / "a.pth")
    with pytest.raises(UserError) as error:
        load_weights(create_network(*network), tmp_path / "a.pth")
    assert message in str(error.value)


def test_finetune_keeps_the_backbone_and_the_new_classifier(timm_model, tmp_path):
    reference("torch").save(timm_model.state_dict(), tmp_path / "a.pth")
    network = create_network("ghostnetv2_1x", num_classes=10)
    classifier = network.classifier.weight.asnumpy().copy()
    message = load_weights(network, tmp_path / "a.pth", finetune=True)
    assert "a new one starts" in message
    assert np.array_equal(network.classifier.weight.asnumpy(), classifier)
    assert np.array_equal(network.conv_head.weight.asnumpy(), timm_model.conv_head.weight.detach().numpy())


@pytest.fixture(scope="module")
def network():
    """A network that no test loads anything into."""
    return create_network("ghostnet_1x")


class Payload:
    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


@pytest.mark.parametrize("layout", ["zip", "legacy", "plain"])
@pytest.mark.parametrize("function", [os.system, eval, exec], ids=["system", "eval", "exec"])
def test_a_malicious_file_is_refused_and_does_not_run(network, tmp_path, layout, function):
    mark, path = tmp_path / "executed", tmp_path / "a.pth"
    code = f"touch {mark}" if function is os.system else f"open({str(mark)!r}, 'w')"
    content = {"state_dict": {"weight": Payload(function, code)}}
    if layout == "plain":
        path.write_bytes(pickle.dumps(content, protocol=2))
    else:
        reference("torch").save(content, path, _use_new_zipfile_serialization=layout == "zip")
    with pytest.raises(UserError, match="is refused: it would call|is not a whole PyTorch checkpoint"):
        load_weights(network, path)
    assert not mark.exists()
    if layout != "plain":  # the payload does work where pickles are run
        with pytest.raises(UnsafePickleError, match="nothing of it was run"):
            read_torch_file(path)
    pickle.loads(pickle.dumps(Payload(function, code)))
    assert mark.exists()


@pytest.mark.filterwarnings("ignore:TypedStorage")
def test_a_pickle_cannot_reach_beyond_a_storage(tmp_path):
    """Sizes and strides that point outside the data, or at negative places."""
    torch = reference("torch")
    storage = torch.storage.TypedStorage([0.0, 1.0, 2.0, 3.0], dtype=torch.float32)

    class Forged:
        def __init__(self, *arguments):
            self.arguments = arguments

        def __reduce__(self):
            return torch._utils._rebuild_tensor_v2, self.arguments

    for offset, size, stride in (
        (0, (5,), (1,)),
        (2, (3,), (1,)),
        (0, (2,), (10**9,)),
        (0, (2,), (-1,)),
        (-1, (1,), (1,)),
    ):
        torch.save({"x": Forged(storage, offset, size, stride, False, OrderedDict())}, tmp_path / "a.pth")
        with pytest.raises(UnreadableFileError):
            read_torch_file(tmp_path / "a.pth")


@pytest.mark.parametrize("legacy", [False, True])
def test_truncated_files_are_named_at_every_length(timm_model, network, tmp_path, legacy):
    path = tmp_path / "a.pth"
    reference("torch").save(timm_model.state_dict(), path, _use_new_zipfile_serialization=not legacy)
    content = path.read_bytes()
    for share in (0.001, 0.1, 0.5, 0.99, 0.99999):
        path.write_bytes(content[: int(share * len(content))])
        with pytest.raises(UserError, match="is not a whole PyTorch checkpoint: "):
            load_weights(network, path)
