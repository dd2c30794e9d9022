"""Exported files predicted without MindSpore, by script and archive, as `scripts/predict.py` predicts them."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import PROJECT, call_here, randomise, reference, write_images

from src.config import load_config, parse_override
from src.tasks import SCHEMAS, create_task
from src.weights.files import save_weights

CONFIGS = {
    "classification": ("classification/digits.yaml", ["data.image_size=33", "data.eval_resize=40"]),
    "detection": ("detection/bccd.yaml", ["data.image_size=64", "inference.drawn_score=0.0", "inference.score=0.0"]),
    "segmentation": ("segmentation/camvid.yaml", ["data.image_size=[40,48]", "data.base_size=[64,40]"]),
}
SHARED = ["network.name=ghostnet_1x", "network.num_classes=3", "data.class_names=[one,two,three]"]
ENDINGS = {"ONNX": "onnx", "TFLITE": "tflite"}
PACKAGES = ("numpy", "PIL", "onnxruntime", "ai_edge_litert", "flatbuffers")
LIBRARIES = ("numpy.libs", "pillow.libs")  # beside these


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Images, and the archive."""
    root = tmp_path_factory.mktemp("predict_file")
    write_images(root / "data", {"images": {"a": 3}}, {"a": 90})
    result = call_here("scripts/pack_predictor.py", "predictor.pyz", cwd=root)
    assert result.returncode == 0, result.stderr
    return root


@pytest.fixture(scope="module")
def without_mindspore(folder):
    """An environment in which a Python without site-packages finds nothing but `PACKAGES`."""
    packages = folder / "packages"
    packages.mkdir()
    for name in PACKAGES:
        found = importlib.util.find_spec(name)
        if found is None:
            continue
        source = Path(found.origin).parent
        (packages / name).symlink_to(source)
        for library in LIBRARIES:
            if (source.parent / library).is_dir() and not (packages / library).exists():
                (packages / library).symlink_to(source.parent / library)
    return {**os.environ, "PYTHONPATH": str(packages)}


def call_without(environment, script, *arguments, cwd):
    """Run a script with a Python that has no MindSpore."""
    line = [sys.executable, "-S", str(script), *map(str, arguments)]
    return subprocess.run(line, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120, check=False)


def export(folder, task, file_format):
    """Export a random network; returns the file."""
    name, settings = CONFIGS[task]
    checkpoint, config = folder / f"{task}.ckpt", PROJECT / "configs" / name
    settings = [*SHARED, *settings, "runtime.compile_cache=false"]
    if not checkpoint.exists():
        overrides = [parse_override(text) for text in settings]
        network = create_task(load_config(config, SCHEMAS, overrides)).build_network()
        save_weights(randomise(network), checkpoint)
    arguments = ["--config", config, "--checkpoint_path", checkpoint, "--file_format", file_format]
    result = call_here("export.py", *arguments, "--file_name", task, *settings, cwd=folder)
    assert result.returncode == 0, result.stderr
    return folder / f"{task}.{ENDINGS[file_format]}"


@pytest.mark.parametrize("file_format", ENDINGS)
@pytest.mark.parametrize("task", CONFIGS)
def test_predictions_are_those_of_predict(folder, without_mindspore, tmp_path, task, file_format):
    reference("onnxruntime" if file_format == "ONNX" else "ai_edge_litert")
    file = export(folder, task, file_format)
    expected = call_here("scripts/predict.py", "data/images", "--checkpoint_path", file, cwd=folder)
    assert expected.returncode == 0, expected.stderr
    settings, loaded, *lines = expected.stdout.splitlines()
    assert len(lines) > 3
    files = ("--csv", tmp_path / "a.csv", "--json", tmp_path / "a.json", "--threads", 2)
    result = call_without(without_mindspore, "predictor.pyz", "data/images", "--file", file, *files, cwd=folder)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.splitlines() == lines
    content = json.loads((tmp_path / "a.json").read_text())
    assert [entry["image"] for entry in content] == [f"data/images/a/{number}.png" for number in range(3)]
    findings = sum(len(entry["predictions"]) for entry in content)
    assert len((tmp_path / "a.csv").read_text().splitlines()) == 1 + findings > 3
    drawn = tmp_path / "drawn"
    script = PROJECT / "scripts" / "predict_file.py"
    result = call_without(without_mindspore, script, "data/images", "--file", file, "--output_dir", drawn, cwd=folder)
    assert result.returncode == 0, result.stderr
    assert len(list(drawn.glob("*.png"))) == (0 if task == "classification" else 3)


def test_the_environment_has_no_mindspore(without_mindspore, tmp_path):
    (tmp_path / "a.py").write_text("import numpy, PIL\nimport mindspore\n")
    result = call_without(without_mindspore, tmp_path / "a.py", cwd=tmp_path)
    assert "No module named 'mindspore'" in result.stderr


def foreign(notes):
    """An ONNX file that takes images, with these notes."""
    onnx = reference("onnx")
    ports = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N", 3, 33, 33]) for name in ("image", "y")
    ]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["image"], ["y"])], "g", ports[:1], ports[1:])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=8)
    onnx.helper.set_model_props(model, notes)
    return model.SerializeToString()


NOTE = {"task": "classification", "class_names": ["a"], "mean": [0.5] * 3, "std": [0.5] * 3, "exif_rotation": False}
NOTE = {**NOTE, "image_size": 33, "eval_resize": 33, "interpolation": "bilinear", "eval_decoder": "pillow"}
DAMAGED = "its note on the preparation of images is damaged: "


@pytest.mark.parametrize(
    ("note", "message"),
    [
        (None, "does not say how to prepare images; export.py writes files that do"),
        ("{", f"{DAMAGED}JSONDecodeError"),
        ("[]", f"{DAMAGED}TypeError"),
        (json.dumps({**NOTE, "task": "tracking"}), f"{DAMAGED}KeyError"),
        (json.dumps({**NOTE, "colour": 1}), f"{DAMAGED}TypeError"),
        (json.dumps({**NOTE, "mean": "grey"}), f"{DAMAGED}mean: 'grey' is not a list"),
        (json.dumps({**NOTE, "image_size": "33"}), f"{DAMAGED}image_size: '33' is not a whole number"),
        (json.dumps({**NOTE, "eval_decoder": "mindspore"}), "data.eval_decoder: mindspore needs MindSpore"),
        (json.dumps({**NOTE, "class_names": ["a", "b"]}), "the network gives 3 classes, the settings say 2"),
    ],
)
def test_files_that_are_no_use(folder, tmp_path, note, message):
    (tmp_path / "a.onnx").write_bytes(foreign({} if note is None else {"prediction": note}))
    result = call_here("scripts/predict_file.py", folder / "data", "--file", "a.onnx", cwd=tmp_path)
    assert result.returncode == 2 and message in result.stderr and result.stderr.count("\n") == 1, result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing.png", "--file", "a.onnx"], "nothing.png: no such file or folder"),
        ([".", "--file", "b.onnx"], "b.onnx: no such file, expected an exported network"),
        ([".", "--file", "empty.onnx"], "empty.onnx: onnxruntime cannot read it"),
        ([".", "--file", "a.ckpt"], "a.ckpt: is no file of these endings: .onnx, .tflite"),
        ([".", "--file", "a.onnx", "--threads", "0"], "--threads 0 is out of range: at least 1 and at most 256"),
        ([".", "--file", "a.onnx", "--csv", "empty.onnx"], "empty.onnx: exists; a new file is needed for the results"),
        (["broken", "--file", "a.onnx"], "broken/a.png: is not a whole image"),
        (["."], "--file"),
    ],
)
def test_bad_input_ends_in_one_line(tmp_path, arguments, message):
    reference("onnxruntime")
    (tmp_path / "a.onnx").write_bytes(foreign({"prediction": json.dumps({**NOTE, "class_names": ["a", "b", "c"]})}))
    (tmp_path / "empty.onnx").touch()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.png").write_bytes(b"no image")
    result = call_here("scripts/predict_file.py", *arguments, cwd=tmp_path)
    assert result.returncode == 2 and message in result.stderr and result.stderr.count("\n") == 1, result.stderr
