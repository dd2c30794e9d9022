"""The images that the ranges of an int8 file's maps are taken from."""

from pathlib import Path

import numpy as np

from src.data.images import find_images
from src.errors import UserError
from src.export.exported_file import show_sides

MOST_IMAGES = 100  # evenly spaced in the folder


class InputRecorder:
    """A network that keeps what it is called with.

    Args:
        network: `FileNetwork`.
    """

    def __init__(self, network):
        self.network, self.input_size, self.inputs = network, network.input_size, []

    def __call__(self, images):
        size = images.shape[2:]
        if size != self.input_size:
            wanted = show_sides(self.input_size)
            raise UserError(
                f"--calibration_data: the settings make images of {show_sides(size)}, the file takes {wanted}"
            )
        self.inputs.append(images)
        return self.network(images)


def find_calibration_images(folder) -> list:
    """Choose image files of a folder.

    Raises:
        UserError: if it is not there or has none.
    """
    if not Path(folder).is_dir():
        raise UserError(f"--calibration_data {folder}: no such folder")
    paths, _ = find_images(Path(folder))
    return [paths[int(place)] for place in np.linspace(0, len(paths) - 1, min(len(paths), MOST_IMAGES))]


def record_inputs(network, build_predictor, paths):
    """Give what a network is called with in prediction: float32 (count, C, H, W).

    Args:
        network: `FileNetwork`.
        build_predictor: of the task, see `src.tasks.Task`.
        paths: image files.
    """
    recorder = InputRecorder(network)
    predictor = build_predictor(recorder)
    for path in paths:
        predictor.predict(path, predictor.prepare(path), False)
    return np.concatenate(recorder.inputs)
