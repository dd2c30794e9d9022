"""Ctrl-C ends a command at once, with one line and exit status 130, whatever it is doing."""

import signal
import subprocess
import sys
import threading
import time

import pytest
from bad_input.case import CLASSIFICATION, write_good_inputs
from helpers import PROJECT, command

from src.interrupt import INTERRUPTED, ExitOnInterrupt

SOON = 30  # seconds on a busy machine; the work that is interrupted would last longer
BUSY = {
    "in Python": "while True: pass",
    "inside a library": "import hashlib; hashlib.pbkdf2_hmac('sha256', b'x', b'x', 10**9)",
    "while a file is written": "import src.files\nwith src.files.atomic_path('a') as a: a.touch(); time.sleep(99)",
}


def interrupt(process, seconds=0.0):
    """Send Ctrl-C after some seconds: (exit status, standard error, seconds until it was over)."""
    time.sleep(seconds)
    start = time.monotonic()
    process.send_signal(signal.SIGINT)
    errors = process.communicate(timeout=100)[1]
    return process.returncode, errors, time.monotonic() - start


def start(arguments, cwd):
    return subprocess.Popen(arguments, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("work", BUSY)
def test_at_once(tmp_path, work):
    code = f"import sys, time; sys.path.insert(0, {str(PROJECT)!r})\nfrom src.interrupt import ExitOnInterrupt\n"
    code += f"with ExitOnInterrupt():\n print('ready', flush=True); print('kept')\n exec({BUSY[work]!r})"
    process = start([sys.executable, "-c", code], tmp_path)
    assert process.stdout.readline() == "ready\n"
    status, errors, seconds = interrupt(process, 0.3)
    assert (status, errors) == (INTERRUPTED, "interrupted\n") and seconds < 5
    assert list(tmp_path.iterdir()) == []


def test_behind_a_graph_of_mindspore(tmp_path):
    """Which takes the signal's handler over."""
    code = f"""
import sys; sys.path.insert(0, {str(PROJECT)!r})
from src.console import run
def main():
    import mindspore
    from mindspore import Tensor, nn
    mindspore.set_context(mode=mindspore.GRAPH_MODE)
    network, x = nn.ReLU(), Tensor([1.0])
    network(x)
    print("ready", flush=True)
    while True:
        network(x)
run(main)
"""
    process = start([sys.executable, "-c", code], tmp_path)
    assert process.stdout.readline() == "ready\n"
    status, errors, seconds = interrupt(process, 0.5)
    assert (status, errors) == (INTERRUPTED, "interrupted\n") and seconds < SOON


def test_behind_the_block_all_is_as_before():
    before = signal.getsignal(signal.SIGINT)
    with ExitOnInterrupt():
        assert signal.getsignal(signal.SIGINT) != before
    assert signal.getsignal(signal.SIGINT) == before and signal.set_wakeup_fd(-1) == -1


def test_another_thread_is_left_alone():
    before, entered = signal.getsignal(signal.SIGINT), []

    def enter():
        with ExitOnInterrupt():
            entered.append(signal.getsignal(signal.SIGINT) == before)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert entered == [True]


@pytest.mark.parametrize("script", ["train.py", "eval.py", "export.py", "scripts/predict.py"])
def test_while_modules_are_imported(tmp_path, script):
    status, errors, seconds = interrupt(start(command(script, "--checkpoint_path", "x"), tmp_path), 0.6)
    assert (status, errors) == (INTERRUPTED, "interrupted\n") and seconds < SOON


def test_while_the_training_graph_is_compiled(tmp_path):
    write_good_inputs(tmp_path)
    arguments = ("--config", CLASSIFICATION, "--output_dir", "run", "network.name=ghostnetv2_1x")
    process = start(command("train.py", *arguments), tmp_path)
    while "run in run" not in process.stdout.readline():
        pass
    status, errors, seconds = interrupt(process, 2.0)
    assert (status, errors) == (INTERRUPTED, "interrupted\n") and seconds < SOON
    assert not list((tmp_path / "run").glob("*.ckpt"))
