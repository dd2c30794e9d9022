"""The porting script: both ways and back, exactly; its check against timm; and its refusals."""

import hashlib
import importlib
import json

import mindspore
import pytest
from helpers import call, call_here, random_timm, reference

from src.networks import create_network
from src.weights import save_weights

SCRIPT = "scripts/port_weights.py"


@pytest.fixture(scope="module")
def timm_model():
    return random_timm("ghostnetv2_100")


def read_back(path):
    """PyTorch's own reading of what was written for it."""
    if path.suffix == ".safetensors":
        return importlib.import_module("safetensors.torch").load_file(path)
    return reference("torch").load(path, weights_only=True)


@pytest.mark.parametrize(
    ("middle", "end", "call"),
    [("b.ckpt", "c.pth", call), ("b.safetensors", "c.safetensors", call_here)],
    ids=["ckpt and pth", "safetensors"],
)
def test_round_trip_is_exact(timm_model, tmp_path, middle, end, call):
    mindspore.set_context(mode=mindspore.PYNATIVE_MODE)
    torch = reference("torch")
    torch.save(timm_model.state_dict(), tmp_path / "a.pth.tar")
    result = call(SCRIPT, "--input", "a.pth.tar", "--output", middle, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "764 entries read, 642 written" in result.stdout
    assert float(result.stdout.split("logits differ by ")[1]) < 5e-5
    note = json.loads((tmp_path / f"{middle}.json").read_text())
    assert note["source_sha256"] == hashlib.sha256((tmp_path / "a.pth.tar").read_bytes()).hexdigest()
    assert note["source"] == "a.pth.tar"

    result = call_here(SCRIPT, "--input", middle, "--output", end, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "642 entries read, 764 written" in result.stdout
    back = read_back(tmp_path / end)
    assert back.keys() == timm_model.state_dict().keys()
    for name, value in timm_model.state_dict().items():
        assert "num_batches" in name or torch.equal(back[name], value), name


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        ("a.ckpt", "b.ckpt", "b.ckpt: the output is for PyTorch, its ending must be one of .pth, .pth.tar, .bin, "),
        ("a.ckpt", "there.pth", "there.pth: exists; --force overwrites it"),
        ("missing.pth", "b.ckpt", "missing.pth: no such file, expected a weights file"),
    ],
)
def test_mistakes_end_in_one_line(tmp_path, source, target, message):
    save_weights(create_network("ghostnetv2_nose_1x", num_classes=3), tmp_path / "a.ckpt")
    (tmp_path / "there.pth").write_text("mine")
    result = call_here(SCRIPT, "--input", source, "--output", target, cwd=tmp_path)
    assert result.returncode == 2
    assert result.stderr.startswith(f"error: {message}") and result.stderr.count("\n") == 1
    assert (tmp_path / "there.pth").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.ckpt", "there.pth"]
