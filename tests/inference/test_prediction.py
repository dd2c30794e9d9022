"""Predictions in order, their files for programs, and modules that must do without MindSpore."""

import csv
import json
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from helpers import PROJECT
from scipy import special

from src.errors import UserError
from src.inference.prediction import Prediction, ResultFiles, predict_images, softmax

BLOCKED = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"scipy", "matplotlib", "yaml", "tqdm", "safetensors", "pycocotools", "torch"}:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Blocked())
sys.modules["mindspore"] = None
"""


class Slow:
    """A predictor that notes which thread prepares what; the first images take longest."""

    def __init__(self):
        self.threads, self.most, self.now = set(), 0, 0

    def prepare(self, path):
        if path == "broken":
            raise UserError("broken: is not a whole image")
        self.now += 1
        self.most = max(self.most, self.now)
        self.threads.add(threading.get_ident())
        time.sleep(0.02 / (1 + int(path)))
        return int(path)

    def predict(self, path, number, draws):
        self.now -= 1
        return Prediction(path, [{"class": "a", "index": number}], (path,))


@pytest.mark.parametrize("threads", [1, 3])
def test_predictions_come_in_order_and_not_all_are_loaded_at_once(threads):
    predictor, paths = Slow(), [str(number) for number in range(20)]
    predictions = list(predict_images(predictor, paths, threads=threads))
    assert [prediction.path for prediction in predictions] == paths
    assert [prediction.findings[0]["index"] for prediction in predictions] == list(range(20))
    assert len(predictor.threads) <= threads and predictor.most <= 2 * threads
    assert threading.get_ident() not in predictor.threads


def test_images_before_a_broken_one_are_told():
    predictions = predict_images(Slow(), ["0", "1", "broken", "3"], threads=2)
    assert [next(predictions).path for _ in range(2)] == ["0", "1"]
    with pytest.raises(UserError, match="^broken: "):
        next(predictions)


def test_files_for_programs(tmp_path):
    results = ResultFiles(tmp_path / "a.csv", tmp_path / "a.json")
    found = [{"class": "é, \n", "index": 1, "score": 0.5, "box": [1.0, 2.0, 3.5, 4.0]}]
    for prediction in (Prediction("a.png", found, ()), Prediction("b.png", [], ())):
        results.add(prediction)
    results.write()
    rows = list(csv.reader((tmp_path / "a.csv").open(newline="", encoding="utf-8")))
    assert rows == [
        ["image", "class", "index", "score", "x1", "y1", "x2", "y2"],
        ["a.png", "é, \n", "1", "0.5", "1.0", "2.0", "3.5", "4.0"],
    ]
    content = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    assert content == [{"image": "a.png", "predictions": found}, {"image": "b.png", "predictions": []}]
    with pytest.raises(UserError, match=r"a\.json: exists; a new file is needed for the results"):
        ResultFiles(None, tmp_path / "a.json")


def test_without_findings_there_is_a_header(tmp_path):
    results = ResultFiles(tmp_path / "a.csv", None)
    results.add(Prediction("a.png", [], ()))
    results.write()
    assert (tmp_path / "a.csv").read_text() == "image\n"


def test_softmax_equals_scipys():
    logits = np.random.default_rng(0).normal(0, 50, (3, 4, 5))
    for axis in (0, 1, 2):
        assert np.abs(softmax(logits, axis) - special.softmax(logits, axis)).max() < 1e-12


@pytest.mark.parametrize("task", ["classification", "detection", "segmentation"])
def test_predictors_need_no_mindspore(task):
    code = f"{BLOCKED}\nimport src.{task}.predictor"
    result = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
