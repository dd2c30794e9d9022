"""`evaluation.crop_mode` and `evaluation.flip`, in evaluation, prediction and exported files."""

import json
import shutil

import mindspore
import numpy as np
import pytest
from helpers import PROJECT, call_here, randomise, reference, write_images
from mindspore import nn
from PIL import Image

from src.classification.center_crop import CROP_MODES
from src.classification.metrics import ClassificationMetrics
from src.config import check_same_settings, load_config
from src.data.images import load_image, normalise
from src.errors import UserError
from src.export.exported import read_notes
from src.inference.loading import load_network
from src.predictors import PREDICTION, build_predictor, dump_options
from src.ranks import Ranks
from src.tasks import SCHEMAS, create_task
from src.weights import save_weights

CONFIG = PROJECT / "configs" / "classification" / "digits.yaml"
FILES = {"MINDIR": "mindir", "ONNX": "onnx", "TFLITE": "tflite"}
SIZES = {"image_size": 33, "eval_resize": 33}


def configure(**settings):
    values = {"network.name": "ghostnet_1x", "network.num_classes": 2, "evaluation.batch_size": 3}
    values.update({f"data.{key}": value for key, value in SIZES.items()})
    values.update({key.replace("__", "."): value for key, value in settings.items()})
    return load_config(CONFIG, SCHEMAS, [(key, value, "test") for key, value in values.items()])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Weights, images of the network's size, and their mirror images."""
    root = tmp_path_factory.mktemp("evaluation")
    write_images(root / "data", {"val": {"a": 3, "b": 2}}, size=(33, 33))
    shutil.copytree(root / "data", root / "mirrored")
    for path in (root / "mirrored").rglob("*.png"):
        Image.open(path).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(path)
    mindspore.set_seed(0)
    save_weights(randomise(create_task(configure()).build_network()), root / "a.ckpt")
    return root


def export(folder, ending):
    """Export the weights, once; returns the file."""
    file = folder / f"a.{ending}"
    if not file.exists():
        (file_format,) = (name for name in FILES if FILES[name] == ending)
        settings = [f"data.{key}={value}" for key, value in SIZES.items()]
        settings += ["network.name=ghostnet_1x", "data.class_names=[a,b]", "evaluation.crop_mode=squash"]
        arguments = ["--config", CONFIG, "--checkpoint_path", "a.ckpt", "--file_format", file_format]
        arguments += ["--file_name", "a", "--num_classes", 2]
        result = call_here("export.py", *arguments, *settings, cwd=folder)
        assert result.returncode == 0, result.stderr
    return file


def evaluate(folder, data, network, flip, monkeypatch):
    """The logits of the images, and the result."""
    task = create_task(configure(data__path=str(folder / data), evaluation__flip=flip))
    logits, update = np.full((5, 2), np.nan), ClassificationMetrics.update

    def record(metrics, indices, values, labels):
        logits[indices] = values
        update(metrics, indices, values, labels)

    monkeypatch.setattr(ClassificationMetrics, "update", record)
    result = task.evaluate(network, task.build_dataset("val", Ranks()))
    monkeypatch.undo()
    return logits, result


@pytest.mark.parametrize("ending", ["", *FILES.values()])
def test_flip_is_the_mean_of_two_evaluations(folder, ending, monkeypatch):
    if ending in ("onnx", "tflite"):
        reference("onnxruntime" if ending == "onnx" else "ai_edge_litert")
    if ending:
        network, _ = load_network(create_task(configure()), export(folder, ending), "ema")
    else:
        network = nn.SequentialCell(nn.Flatten(), nn.Dense(3 * 33 * 33, 2))
    plain, mirrored = (evaluate(folder, data, network, False, monkeypatch)[0] for data in ("data", "mirrored"))
    both, result = evaluate(folder, "data", network, True, monkeypatch)
    change = np.abs(plain - mirrored).max()
    assert np.isfinite(both).all() and change > 1e-4 * np.abs(plain).max()
    assert np.abs(both - (plain + mirrored) / 2).max() <= 0.01 * change
    labels = np.array([0, 0, 0, 1, 1])
    assert result["images"] == 5 and result["top_1_accuracy"] == np.mean(both.argmax(1) == labels)
    again, result_again = evaluate(folder, "mirrored", network, True, monkeypatch)
    assert np.abs(again - both).max() <= 0.01 * change
    assert result_again["loss"] == pytest.approx(result["loss"], rel=1e-5)


@pytest.mark.parametrize("crop_mode", CROP_MODES)
def test_prediction_and_evaluation_crop_alike(tmp_path, crop_mode):
    write_images(tmp_path, {"val": {"a": 1, "b": 1}}, size=(80, 50))
    settings = {"evaluation__crop_mode": crop_mode, "evaluation__flip": True, "data__class_names": ["a", "b"]}
    task = create_task(configure(data__path=str(tmp_path), data__eval_resize=40, **settings))
    dataset = task.build_dataset("val", Ranks())
    ((images, _, _),) = dataset.pipeline().create_tuple_iterator(num_epochs=1, output_numpy=True)
    notes = {PREDICTION: dump_options("classification", task.prediction_options())}
    for predictor in (task.build_predictor(None), build_predictor(None, notes, "a.onnx", {})):
        for path, expected in zip(dataset.records, images):
            assert np.array_equal(predictor.prepare(path)[0], expected)
    boxes = {"center": (64, 40), "squash": (40, 40), "border": (40, 25)}
    scaled = load_image(dataset.records[0]).resize(boxes[crop_mode], Image.Resampling.BILINEAR)
    centre = np.asarray(scaled)[scaled.height // 2, scaled.width // 2]
    data = task.config.data
    assert np.allclose(normalise(centre[None, None, None], data.mean, data.std)[0, :, 0, 0], images[0][:, 16, 16])


def test_files_of_before_are_cropped_as_before(folder):
    options = json.loads(dump_options("classification", create_task(configure()).prediction_options()))
    assert options.pop("crop_mode") == "center" and "flip" not in options
    path = next((folder / "data").rglob("*.png"))
    prepared = [
        build_predictor(None, {PREDICTION: json.dumps(content)}, "a.onnx", {}).prepare(path)
        for content in (options, {**options, "crop_mode": "center"}, {**options, "crop_mode": "border"})
    ]
    assert np.array_equal(prepared[0], prepared[1])
    with pytest.raises(UserError, match=r"is damaged: crop_mode: 'sqash' is not one of center, squash, border"):
        build_predictor(None, {PREDICTION: json.dumps({**options, "crop_mode": "sqash"})}, "a.onnx", {})


def test_an_exported_file_notes_the_crop(folder):
    reference("onnx")
    notes = read_notes(export(folder, "onnx"))
    assert json.loads(notes[PREDICTION])["crop_mode"] == "squash"


def test_they_may_change_when_a_run_is_resumed():
    changes = check_same_settings(configure(), configure(evaluation__crop_mode="border", evaluation__flip=True))
    assert changes == ["evaluation.crop_mode: 'center' -> 'border'", "evaluation.flip: False -> True"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"data__eval_decoder": "mindspore", "evaluation__crop_mode": "squash"},
            "evaluation.crop_mode: must be center with data.eval_decoder mindspore, not squash",
        ),
        ({"evaluation__crop_mode": "sqash"}, "evaluation.crop_mode: 'sqash' is not one of center, squash, border"),
        ({"evaluation__flip": 1}, "evaluation.flip: 1 is not true or false"),
        ({"augment__vertical_flip": 1.1}, "augment.vertical_flip: 1.1 is out of range"),
        ({"augment__grayscale": -0.1}, "augment.grayscale: -0.1 is out of range"),
        ({"augment__gaussian_blur": float("inf")}, "augment.gaussian_blur: inf is not a finite number"),
    ],
)
def test_wrong_settings_end_in_one_line(settings, message):
    with pytest.raises(UserError) as error:
        configure(**settings)
    assert message in str(error.value) and "\n" not in str(error.value)
