"""train.py with a tiny network, but slow batches and a slow disk: what tests start in order to kill it."""

import os
import sys
import time
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(PROJECT), str(PROJECT / "tests")]

from training.tiny_network import TinyNetwork

import train
from src.classification import task
from src.console import run
from src.training import setup

write_to_disk = os.fsync


def slow_fsync(file):
    time.sleep(0.05)
    write_to_disk(file)


class SlowStep(setup.TrainStep):
    def __call__(self, *columns):
        time.sleep(0.05)
        return super().__call__(*columns)


os.fsync = slow_fsync
setup.TrainStep = SlowStep
task.create_network = lambda name, num_classes, dropout, **options: TinyNetwork(num_classes, dropout)
run(train.main)
