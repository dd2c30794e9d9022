"""Weights files: strict loading, atomic writing."""

import os
import signal
import subprocess
import sys
import time

import mindspore
import numpy as np
import pytest
from helpers import PROJECT, normal
from mindspore import Tensor, nn

from src.errors import UserError
from src.files import atomic_path, write_text
from src.networks import create_network
from src.weights import load_weights, read_weights, save_weights, write_weights


class Net(nn.Cell):
    def __init__(self, channels=4, more=False):
        super().__init__()
        self.conv = nn.Conv2d(3, channels, 3)
        self.bn = nn.BatchNorm2d(channels)
        self.more = nn.Dense(2, 2) if more else None


def randomise(network):
    for seed, parameter in enumerate(network.get_parameters()):
        parameter.set_data(Tensor(normal(*parameter.shape, seed=seed)))
    return network


@pytest.mark.parametrize("name", ["a.ckpt", "a.safetensors"])
def test_round_trip(tmp_path, name):
    network, other = randomise(Net()), Net()
    save_weights(network, tmp_path / "new" / name)
    load_weights(other, tmp_path / "new" / name)
    values = {p.name: p.asnumpy() for p in network.get_parameters()}
    assert set(values) == {
        "conv.weight",
        "bn.gamma",
        "bn.beta",
        "bn.moving_mean",
        "bn.moving_variance",
    }
    for parameter in other.get_parameters():
        assert np.array_equal(parameter.asnumpy(), values[parameter.name])
    assert os.listdir(tmp_path / "new") == [name]
    assert os.access(tmp_path / "new" / name, os.W_OK)
    assert read_weights(tmp_path / "new" / name).is_ours == name.endswith(".ckpt")


def test_reads_what_mindspore_itself_saves(tmp_path):
    network = randomise(Net())
    mindspore.save_checkpoint(network, str(tmp_path / "a.ckpt"), append_dict={"epoch_num": 3})
    file = read_weights(tmp_path / "a.ckpt")
    assert np.array_equal(file.weights["conv.weight"], network.conv.weight.asnumpy())
    assert not file.is_ours


@pytest.mark.parametrize(
    ("saved", "needed", "message"),
    [
        ({}, {"more": True}, "2 missing (more.weight, more.bias)"),
        ({"more": True}, {}, "2 unexpected (more.weight, more.bias)"),
        ({"channels": 5}, {}, "5 wrong shape (conv.weight is (5, 3, 3, 3), needs (4, 3, 3, 3), "),
    ],
)
def test_misfits_are_listed_and_nothing_is_loaded(tmp_path, saved, needed, message):
    save_weights(Net(**saved), tmp_path / "a.ckpt")
    network = randomise(Net(**needed))
    before = [p.asnumpy().copy() for p in network.get_parameters()]
    with pytest.raises(UserError) as error:
        load_weights(network, tmp_path / "a.ckpt")
    assert message in str(error.value) and "\n" not in str(error.value)
    assert all(np.array_equal(a, p.asnumpy()) for a, p in zip(before, network.get_parameters()))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "is a text file, not weights"),
        (b"\x00" * 1000, "is not a whole MindSpore checkpoint, nor another kind of weights file"),
        (b"\x89PNG\r\n\x1a\n" + bytes(range(256)), "is a PNG image, not weights"),
        (b"PK\x03\x04" + bytes(100), "is not a whole PyTorch checkpoint: "),
        (b"\x80\x02" + bytes(100), "is not a whole PyTorch checkpoint: "),
        (b"\x40\x00\x00\x00\x00\x00\x00\x00{" + b"x" * 100, "is not a whole safetensors file: "),
    ],
    ids=["empty", "text", "zeros", "image", "zip", "pickle", "safetensors"],
)
def test_files_that_are_no_weights(tmp_path, content, message):
    path = tmp_path / "a.ckpt"
    path.write_bytes(content)
    with pytest.raises(UserError) as error:
        load_weights(Net(), path)
    assert str(error.value).startswith(f"{path}: {message}")
    assert "\n" not in str(error.value)


def test_truncated_missing_and_folder(tmp_path):
    save_weights(Net(), tmp_path / "a.ckpt")
    content = (tmp_path / "a.ckpt").read_bytes()
    (tmp_path / "b.ckpt").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match="b.ckpt: "):
        load_weights(Net(), tmp_path / "b.ckpt")
    with pytest.raises(UserError, match="c.ckpt: no such file"):
        load_weights(Net(), tmp_path / "c.ckpt")
    with pytest.raises(UserError, match="is a folder"):
        load_weights(Net(), tmp_path)


def test_a_failed_write_leaves_the_old_file(tmp_path):
    write_text(tmp_path / "a.txt", "old")
    with pytest.raises(RuntimeError), atomic_path(tmp_path / "a.txt") as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert (tmp_path / "a.txt").read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


KILLED = """
import sys
from mindspore import nn
from src.weights import save_weights
network = nn.Dense(1000, 1000)
while True:
    save_weights(network, sys.argv[1])
    print("saved", flush=True)
"""


def test_a_kill_at_any_moment_leaves_a_whole_file(tmp_path):
    path = tmp_path / "a.ckpt"
    for delay in (0.0, 0.013, 0.031, 0.047):
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(path)], cwd=PROJECT, stdout=subprocess.PIPE, text=True
        )
        process.stdout.readline()
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        assert read_weights(path).weights["weight"].shape == (1000, 1000)


FULL_DISK = """
import resource, sys
sys.path.insert(0, sys.argv[1])
import numpy as np
from src.errors import UserError
from src.files import write_text
from src.weights import write_weights
limit = 2_000_000
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
for write, path in ((write_weights, "a.ckpt"), (write_weights, "a.safetensors"), (write_text, "a.txt")):
    content = "x" * 3_000_000 if write is write_text else {"a": np.ones(1_000_000, np.float32)}
    try:
        write(content, path) if write is write_weights else write(path, content)
    except UserError as error:
        print(error)
"""


def test_a_full_disk_leaves_the_old_file_whole(tmp_path):
    names = ("a.ckpt", "a.safetensors", "a.txt")
    for name in names[:2]:
        write_weights({"a": np.full(3, 7, np.float32)}, tmp_path / name)
    (tmp_path / names[2]).write_text("old")
    before = {name: (tmp_path / name).read_bytes() for name in names}
    command = [sys.executable, "-c", FULL_DISK, str(PROJECT)]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.stderr == ""  # MindSpore's log has no part in it
    lines = [line for line in result.stdout.splitlines() if "cannot be written" in line]
    assert [line.split(":")[0] for line in lines] == list(names), result.stdout + result.stderr
    assert all(line.endswith("; the one from before is whole") for line in lines), lines
    assert before == {path.name: path.read_bytes() for path in tmp_path.iterdir()}


def test_a_runs_checkpoint_gives_averaged_or_plain_weights(tmp_path):
    network = Net()
    plain = {parameter.name: parameter.asnumpy() for parameter in network.get_parameters()}
    averaged = {f"ema.{name}": value + 1 for name, value in plain.items()}
    write_weights({**plain, **averaged, "state.global_step": np.array([3], np.int32)}, tmp_path / "last.ckpt")
    assert "moving average" in load_weights(network, tmp_path / "last.ckpt")
    assert np.array_equal(network.conv.weight.asnumpy(), plain["conv.weight"] + 1)
    assert "plain weights" in load_weights(network, tmp_path / "last.ckpt", "raw")
    assert np.array_equal(network.conv.weight.asnumpy(), plain["conv.weight"])


class WithBackbone(nn.Cell):
    """A backbone and something else."""

    def __init__(self):
        super().__init__()
        self.backbone = create_network("ghostnet_1x", features_only=True)
        self.neck = nn.Conv2d(160, 4, 1)


def test_backbone_from_a_classifier(tmp_path):
    classifier = create_network("ghostnet_1x", num_classes=3)
    save_weights(classifier, tmp_path / "classifier.ckpt")
    network = WithBackbone()
    before = network.neck.weight.asnumpy().copy()
    assert "backbone alone" in load_weights(network, tmp_path / "classifier.ckpt", finetune=True)
    theirs = {p.name: p.asnumpy() for p in classifier.get_parameters()}
    for parameter in network.backbone.get_parameters():
        np.testing.assert_array_equal(parameter.asnumpy(), theirs[parameter.name.removeprefix("backbone.")])
    np.testing.assert_array_equal(network.neck.weight.asnumpy(), before)
    save_weights(network, tmp_path / "whole.ckpt")
    assert "a network on ghostnet_1x" in load_weights(WithBackbone(), tmp_path / "whole.ckpt", finetune=True)
    for name in ("ghostnetv2_1x", "ghostnetv2_1_3x"):
        save_weights(create_network(name), tmp_path / f"{name}.ckpt")
        with pytest.raises(UserError, match="backbone: .*unexpected"):
            load_weights(network, tmp_path / f"{name}.ckpt", finetune=True)
