"""The mean of checkpoints: its numbers, its metric, and what is refused."""

import json
import shutil

import numpy as np
import pytest
import yaml
from helpers import call_here, randomise, write_images
from training.tiny_network import TinyNetwork

from src.weights import read_weights, save_weights, write_weights

SCRIPT = "scripts/average_checkpoints.py"
SETTINGS = {
    "network": {"num_classes": 2},
    "data": {"path": "data", "image_size": 33, "eval_resize": 33, "workers": 1},
    "evaluation": {"batch_size": 4},
    "runtime": {"compile_cache": False, "graph_mode": False},
}


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    """A network of few layers in the place of all others."""
    monkeypatch.setattr(
        "src.classification.task.create_network", lambda name, num_classes, dropout, **_: TinyNetwork(num_classes, 0.0)
    )


def write_checkpoint(path, seed):
    network = TinyNetwork(2, 0.0)
    randomise(network, seed=seed)
    generator = np.random.default_rng(seed)
    for parameter in network.classifier.get_parameters():
        parameter.set_data(type(parameter.data)(generator.standard_normal(parameter.shape).astype(np.float32)))
    save_weights(network, path)


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A folder with data, and a run in it with three checkpoints."""
    root = tmp_path_factory.mktemp("average")
    counts = {"train": {"a": 1, "b": 1}, "val": {"a": 7, "b": 4}}
    write_images(root / "data", counts, {"a": 160, "b": 0})
    (root / "run").mkdir()
    (root / "run" / "config.yaml").write_text(yaml.safe_dump(SETTINGS))
    for epoch in (2, 9, 10):
        write_checkpoint(root / "run" / f"epoch_{epoch}.ckpt", epoch)
    write_checkpoint(root / "run" / "best.ckpt", 1)
    return root


@pytest.fixture
def folder(good, tmp_path):
    shutil.copytree(good, tmp_path, dirs_exist_ok=True)
    return tmp_path


def weights_of(folder, *names):
    return [read_weights(folder / name).weights for name in names]


def test_the_mean_of_a_run(folder):
    result = call_here(SCRIPT, "--run", "run", "--output", "run/mean.ckpt", cwd=folder)
    assert result.returncode == 0, result.stderr
    names = [f"run/epoch_{epoch}.ckpt" for epoch in (2, 9, 10)]
    (mean,), parts = weights_of(folder, "run/mean.ckpt"), weights_of(folder, *names)
    assert mean.keys() == parts[0].keys() and any("moving_variance" in name for name in mean)
    for name, value in mean.items():
        expected = sum(part[name].astype(np.longdouble) for part in parts) / 3
        assert value.dtype == np.float32 and np.array_equal(value, expected.astype(np.float32)), name
    told = dict(line.split(": top_1_accuracy ") for line in result.stdout.splitlines() if "top_1" in line)
    assert list(told) == [*names, "mean"]
    for name, path in (*zip(names, names), ("mean", "run/mean.ckpt")):
        call_here("eval.py", "--checkpoint_path", path, "--output", "result.json", cwd=folder)
        assert float(told[name]) == json.loads((folder / "result.json").read_text())["top_1_accuracy"]
    assert len(set(told.values())) > 1


def test_named_checkpoints_settings_and_force(folder):
    arguments = ("run/epoch_2.ckpt", "run/epoch_9.ckpt", "--output", "a.safetensors", "evaluation.batch_size=3")
    assert call_here(SCRIPT, *arguments, cwd=folder).returncode == 0
    (mean,), parts = weights_of(folder, "a.safetensors"), weights_of(folder, "run/epoch_2.ckpt", "run/epoch_9.ckpt")
    assert mean["classifier.bias"] == pytest.approx((parts[0]["classifier.bias"] + parts[1]["classifier.bias"]) / 2)
    again = call_here(SCRIPT, *arguments, cwd=folder)
    other = call_here(SCRIPT, *arguments[:3], "a.pth", cwd=folder)
    assert other.stderr == "error: --output a.pth: its ending must be one of .ckpt, .safetensors\n"
    assert other.returncode == 2 and not (folder / "a.pth").exists()
    assert again.stderr == "error: a.safetensors: exists; --force overwrites it\n" and again.returncode == 2
    assert call_here(SCRIPT, *arguments, "--force", cwd=folder).returncode == 0


def spoil(folder):
    weights = read_weights(folder / "run" / "epoch_9.ckpt").weights
    write_weights({name: value * np.nan for name, value in weights.items()}, folder / "nan.ckpt")
    write_weights({**weights, "more": np.zeros(1, np.float32)}, folder / "other.ckpt")
    (folder / "broken.ckpt").write_bytes((folder / "run" / "best.ckpt").read_bytes()[:500])
    (folder / "empty").mkdir()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run/epoch_2.ckpt",), "error: 1 checkpoint, a mean needs at least two\n"),
        (("--run", "empty"), "error: empty: has 0 of epoch_N.ckpt, of which train.keep_best keeps"),
        (("--run", "nowhere"), "error: nowhere: no such folder, --run takes that of a run\n"),
        (("--run", "run", "run/epoch_2.ckpt"), "error: either CHECKPOINT or --run is needed; "),
        ((), "error: either CHECKPOINT or --run is needed; "),
        (("run/epoch_2.ckpt", "no.ckpt"), "error: no.ckpt: no such file"),
        (("run/epoch_2.ckpt", "other.ckpt"), "error: other.ckpt: does not fit the network: 1 unexpected (more)"),
        (("run/epoch_2.ckpt", "broken.ckpt"), "error: broken.ckpt: "),
        (("run/epoch_2.ckpt", "nan.ckpt"), "error: nan.ckpt: its network gives nan or inf"),
    ],
)
def test_mistakes_end_in_one_line_and_write_nothing(folder, arguments, message):
    spoil(folder)
    result = call_here(SCRIPT, *arguments, "--output", "mean.ckpt", cwd=folder)
    assert result.stderr.startswith(message) and result.stderr.count("\n") == 1
    assert result.returncode == 2 and not (folder / "mean.ckpt").exists()
