"""Feed two epochs of batches through MindSpore's queue on a GPU that is not there: shapes, types, and the end.

Run by `test_feed`, in the environment of `kernels.stub_environment`. Nothing is copied, so values do not arrive.
"""

import os
import sys
from pathlib import Path
from types import SimpleNamespace

PROJECT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(PROJECT), str(PROJECT / "tests")]

import mindspore
from training.tiny_run import tiny_dataset

from src.training.feed import feed_batches

EPOCHS, BATCHES = 3, 4


def main():
    mindspore.set_context(mode=mindspore.GRAPH_MODE, device_target="GPU")
    run = SimpleNamespace(
        history=SimpleNamespace(epoch=1, batch=2),
        epochs=EPOCHS,
        train_data=tiny_dataset([[0.0] * BATCHES] * EPOCHS),
        config=SimpleNamespace(train=SimpleNamespace(sink=None)),
        train_step=lambda images: (images.shape, str(images.dtype)),
    )
    with feed_batches(run) as train_on_next:
        seen = [train_on_next() for _ in range(BATCHES - 2 + BATCHES)]
    print(sorted(set(seen)), len(seen), flush=True)


main()
os._exit(0)  # nothing to tidy up on a device that is not there
