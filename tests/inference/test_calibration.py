"""The images that int8 is fitted to: those that a prediction gives its network."""

import numpy as np
import pytest
from helpers import write_images

from src.errors import UserError
from src.inference.calibration import MOST_IMAGES, find_calibration_images, record_inputs


class Mean:
    """A network for images of 4x6 pixels."""

    input_size = (4, 6)

    def __call__(self, images):
        return [images.mean((2, 3))]


class TwoViews:
    """A predictor that calls its network twice for an image."""

    def __init__(self, network):
        self.network, self.answers = network, []

    def prepare(self, path):
        return np.full((1, 3, 4, 6), float(path), np.float32)

    def predict(self, path, batch, draws):
        self.answers += [self.network(batch), self.network(-batch)]


class WrongSize(TwoViews):
    def prepare(self, path):
        return np.zeros((1, 3, 6, 4), np.float32)


def test_what_the_network_is_called_with_is_kept():
    inputs = record_inputs(Mean(), TwoViews, ["1", "2"])
    assert inputs.shape == (4, 3, 4, 6) and inputs[:, 0, 0, 0].tolist() == [1, -1, 2, -2]


def test_another_size_is_one_line():
    with pytest.raises(UserError, match="--calibration_data: the settings make images of 6x4, the file takes 4x6"):
        record_inputs(Mean(), WrongSize, ["1"])


@pytest.mark.parametrize(("count", "expected"), [(1, 1), (5, 5), (MOST_IMAGES + 7, MOST_IMAGES)])
def test_images_are_chosen_evenly(tmp_path, count, expected):
    write_images(tmp_path, {"val": {"a": count}}, size=(4, 4))
    paths = find_calibration_images(tmp_path)
    assert len(set(paths)) == expected and paths == sorted(paths)


def test_a_folder_that_is_missing_or_empty_is_one_line(tmp_path):
    for folder in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(UserError, match="nowhere: no such folder|holds no images"):
            find_calibration_images(folder)
