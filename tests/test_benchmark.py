"""The benchmark: its figures from given times, its table, and one small run."""

import argparse
import json
import re
import subprocess
import sys

import pytest
from helpers import PROJECT, call, call_here, reference
from PIL import Image

from scripts import benchmark, benchmark_pipeline
from src.config import load_config, parse_override
from src.tasks import SCHEMAS

SCRIPT = "scripts/benchmark.py"
CONFIG = PROJECT / "configs" / "classification" / "digits.yaml"


def test_summary_is_over_all_calls_of_all_processes():
    costs = ({"until_answer": 1.0, "peak_mb": 90.0}, {"until_answer": 3.0, "peak_mb": 100.0})
    results = [{"seconds": [0.004, 0.001, 0.002], **costs[0]}, {"seconds": [0.003, 0.100], **costs[1]}]
    figures = {"ms": 3.0, "low": 2.0, "high": 4.0, "runs": 5, "until_answer": 2.0, "peak_mb": 95.0}
    assert benchmark.summarise(results) == figures
    assert benchmark.summarise([{"seconds": [1]}, {"failed": "why"}]) == {"failed": "why"}


def test_difference_is_a_share_of_the_range():
    assert benchmark.difference([{"output": [0.0, 1.0, 4.5]}], [0.0, 1.0, 4.0]) == 0.125
    assert benchmark.difference([{"failed": "why"}], [0.0, 1.0]) is None


def test_measurements_alternate_and_failed_ones_drop_out(monkeypatch):
    calls = []

    def call(kind, name, options):
        calls.append(name)
        return {"failed": "no"} if name == "b" else {"seconds": [1.0]}

    monkeypatch.setattr(benchmark, "call", call)
    results = benchmark.race("infer", [("x", "a", {}), ("y", "b", {}), ("z", "c", {})], 3)
    assert calls == ["a", "b", "c", "a", "c", "a", "c"]
    assert [len(results[key]) for key in "xyz"] == [3, 1, 3]


def test_table_gives_ratios_to_timm():
    def figures(ms):
        return {1: {"ms": ms, "low": ms, "high": ms, "runs": 1, "difference": 1e-7, "file_mb": 25.0}}

    rows = {"mindspore": figures(40.0), "onnx": figures(2.0), "timm": figures(20.0), "timm_onnx": figures(3.0)}
    rows["openvino"] = {1: {"failed": "broken | pipe", "file_mb": 1.0, "difference": None}}
    arguments = argparse.Namespace(batch_sizes=[1], threads=2, image_size=224)
    result = {"network": "ghostnetv2_1x", "parameters": 6156908, "multiply_adds": 167e6, "rows": rows}
    text = "\n".join(benchmark.show_network(result, arguments, "infer"))
    assert "| MindSpore, graph mode | 25.0 | 40.00 | 40.00 to 40.00 | 25 | 0.50 |  |" in text
    assert "| ONNX Runtime, this project's file | 25.0 | 2.00 | 2.00 to 2.00 | 500 | 10.00 | 1e-07 |" in text
    assert "ratio to ONNX Runtime, timm's file: 1.50 at batch 1." in text
    assert "broken / pipe" in text
    assert len({line.count("|") for line in text.splitlines() if line.startswith("|")}) == 1


def test_table_without_timm_and_mindspore():
    figures = {1: {"ms": 4.0, "low": 4.0, "high": 4.0, "runs": 1, "difference": 0.0, "file_mb": 25.0}}
    arguments = argparse.Namespace(batch_sizes=[1], threads=None, image_size=224)
    failed = {1: {"failed": "why", "difference": None, "file_mb": 25.0}}
    for rows in ({"onnx": figures, "timm_onnx": figures}, {"onnx": figures, "timm": failed}):
        result = {"network": "ghostnetv2_1x", "parameters": 1, "multiply_adds": 1, "rows": rows}
        text = "\n".join(benchmark.show_network(result, arguments, "infer"))
        assert "this project's file | 25.0 | 4.00 | 4.00 to 4.00 | 250 | " in text


def timm_transform_of(folder, monkeypatch, split, *overrides):
    """What timm's loader does with an image of a benchmark of some settings, in words, and the lines on the rest."""
    data = reference("timm.data")
    config = load_config(CONFIG, SCHEMAS, [parse_override(item) for item in overrides])
    path = folder / "a.png"
    Image.new("RGB", (80, 70), "red").save(path)
    loaders, create = [], data.create_loader

    def create_and_note(*arguments, **options):
        loaders.append(create(*arguments, **options))
        return loaders[-1]

    monkeypatch.setattr(data, "create_loader", create_and_note)
    batches = benchmark_pipeline.timm_batches(config, [path] * 4, split, "timm", {"batch": 2, "workers": 0})
    assert [tuple(images.shape) for images in batches] == [(2, 3, 64, 64)] * 2
    return repr(loaders[-1].dataset.transform), benchmark_pipeline.describe_left_out(config)


def test_timm_gets_all_of_the_augmentation_that_it_has(tmp_path, monkeypatch):
    plain, notes = timm_transform_of(tmp_path, monkeypatch, "train")
    assert notes == [] and not any(word in plain for word in ("Vertical", "Jitter", "Gray", "Blur", "Augment"))
    probabilities = ("vertical_flip=0.21", "grayscale=0.22", "gaussian_blur=0.23")
    settings = [f"augment.{item}" for item in (*probabilities, "color_jitter=0.24")]
    steps, notes = timm_transform_of(tmp_path, monkeypatch, "train", *settings)
    assert "RandomVerticalFlip(p=0.21)" in steps and "RandomGrayscale(p=0.22)" in steps and notes == []
    assert re.search(r"RandomApply\(\s*p=0.23\s*GaussianBlur\(kernel_size=\(23, 23\)", steps)
    assert "ColorJitter(brightness=(0.76, 1.24), contrast=(0.76, 1.24), saturation=(0.76, 1.24), hue=None)" in steps
    for policy, word in (
        ("rand-m9-mstd0.5", "RandAugment("),
        ("original-mstd0.5", "AutoAugment("),
        ("v0r", "AutoAugment("),
    ):
        steps, notes = timm_transform_of(tmp_path, monkeypatch, "train", f"augment.policy={policy}")
        assert word in steps and notes == []
    steps, _ = timm_transform_of(tmp_path, monkeypatch, "val", "evaluation.crop_mode=squash", "data.eval_resize=72")
    assert "Resize(size=(72, 72)" in steps


def test_what_a_pipeline_goes_without_is_named(tmp_path, monkeypatch):
    settings = ("augment.policy=trivial", "augment.cutmix=1")
    steps, notes = timm_transform_of(tmp_path, monkeypatch, "train", *settings)
    assert "Augment" not in steps
    assert notes == [
        "left out of timm's pipeline, which does not have it: augment.policy=trivial",
        "left out of all pipelines: mixup and CutMix, which mix whole batches",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--pipeline"], "--pipeline: needs --data_url"),
        (["--rounds", "0"], "--rounds 0 is out of range"),
        (["--json", "there.json"], "there.json: exists"),
    ],
)
def test_wrong_arguments(tmp_path, arguments, message):
    (tmp_path / "there.json").touch()
    process = call_here(SCRIPT, *arguments, cwd=tmp_path)
    assert process.returncode == 2 and message in process.stderr and process.stderr.count("\n") == 1


@pytest.mark.slow
def test_small_run(tmp_path):
    for module in ("timm", "onnxruntime", "ai_edge_litert"):
        reference(module)
    arguments = ["--rounds", "1", "--runs", "5", "--batch_sizes", "2", "--image_size", "64", "--json", "report.json"]
    runtimes = ("mindspore", "mindir", "onnx", "onnx_any", "litert", "timm", "timm_onnx", "timm_onnx_any")
    process = call(SCRIPT, *arguments, "--runtimes", *runtimes, cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    (result,) = json.loads((tmp_path / "report.json").read_text())["results"]
    assert result["parameters"] == 6156908 and result["rows"].keys() == set(runtimes)
    for name, figures in result["rows"].items():
        assert figures["2"]["ms"] > 0 and figures["2"]["difference"] < 1e-5, name


def test_the_others_run_without_this_projects_environment():
    command = "import os, sys; before = set(os.environ); sys.path.insert(0, sys.argv[1]); import benchmark; "
    command += "print(set(os.environ) - before, set(benchmark.ENVIRONMENT) - before)"
    environment = {"PATH": "/usr/bin:/bin"}
    process = subprocess.run(
        [sys.executable, "-c", command, str(PROJECT / "scripts")],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    ours, theirs = process.stdout.strip().split("} ")
    assert "PILLOW_BLOCKS_MAX" in ours and theirs == "set()"
