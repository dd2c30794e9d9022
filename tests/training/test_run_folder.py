"""The folder of a run: where a new run goes, where one is resumed, and what a killed one leaves."""

import subprocess
import sys

import pytest
from helpers import PROJECT
from PIL import Image

from src.errors import UserError
from src.training.run_folder import RunFolder, choose_metrics, find_run, new_folder


def test_where_a_run_is_resumed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_run("auto", None, "digits") == (None, None)
    first = new_folder(None, "digits")
    RunFolder(first).make()
    assert str(first) == "runs/digits" and str(new_folder(None, "digits")) == "runs/digits-2"
    with pytest.raises(UserError, match="is not a run"):
        find_run("auto", None, "digits")
    (first / "config.yaml").touch()
    assert find_run("auto", None, "digits") == (first, None)  # killed before anything was saved
    (first / "last.ckpt").touch()
    assert find_run("auto", None, "digits") == (first, first / "last.ckpt")
    assert (
        find_run("runs/digits", None, "x")
        == find_run("runs/digits/last.ckpt", "runs/digits", "x")
        == (first, first / "last.ckpt")
    )
    assert find_run("auto", "elsewhere", "digits") == (None, None)
    second = new_folder(None, "digits")
    RunFolder(second).make()
    (second / "config.yaml").touch()
    assert find_run("auto", None, "digits") == (second, None)
    with pytest.raises(UserError, match="--resume takes a run's folder or checkpoint, or auto"):
        find_run("nowhere", None, "digits")
    with pytest.raises(UserError, match="a run goes on in its own folder"):
        find_run("runs/digits", "other", "digits")
    with pytest.raises(UserError, match="exists and is not empty"):
        new_folder(first, "digits")


def test_leftovers_of_a_killed_run_go(tmp_path):
    (tmp_path / ".last.ckpt.123.tmp.ckpt").touch()
    (tmp_path / ".hidden").touch()
    RunFolder(tmp_path).remove_leftovers()
    assert [path.name for path in tmp_path.iterdir()] == [".hidden"]


def test_curves_have_the_metrics_of_the_task(tmp_path):
    rows = [{"epoch": 1, "step": 4, "learning_rate": 0.1, "train_loss": 2.0, "seconds": 1.5}]
    assert choose_metrics(rows, "AP") == []
    folder = RunFolder(tmp_path)
    folder.draw_curves(rows, "AP")  # no evaluation yet
    assert Image.open(folder.curves).size == (1200, 360)
    rows.append({**rows[0], "epoch": 2, "AP": 0.3, "AP50": 0.5, "AP75": 0.2, "AP_small": -1.0, "images": 5})
    assert choose_metrics(rows, "AP") == ["AP", "AP50", "AP75"]
    assert choose_metrics(rows, "AP_small") == ["AP_small", "AP", "AP50"]
    rows[1].update(loss=1.0, loss_scale=65536.0)
    assert choose_metrics(rows, "loss") == ["AP", "AP50", "AP75"]
    folder.draw_curves(rows, "AP")
    assert Image.open(folder.curves).size == (1600, 360)  # with the loss scale


def test_two_runs_in_one_folder(tmp_path):
    """The second one is refused while the first lives; a killed one leaves no lock and no file behind."""
    path = tmp_path / "run"
    code = (
        f"from src.training.run_folder import RunFolder as F; f = F({str(path)!r}); f.make(); f.lock(); input(print(1))"
    )
    process = subprocess.Popen(
        [sys.executable, "-u", "-c", code], cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout.readline() == b"1\n"
    with pytest.raises(UserError, match="run: another run is going on in it"):
        RunFolder(path).begin("", "", [], [])
    assert list(path.iterdir()) == []
    process.kill()
    process.wait()
    first = RunFolder(path)
    first.begin("", "", [], ["one"])
    with pytest.raises(UserError, match="another run is going on"):
        RunFolder(path).lock()
    del first
    RunFolder(path).begin("", "", [], ["two"])
    assert sorted(file.name for file in path.iterdir()) == ["config.yaml", "evaluate.sh", "train.log"]
