"""Loss and metrics: against PyTorch, and by hand."""

import csv
from types import SimpleNamespace

import mindspore
import numpy as np
import pytest
from helpers import reference
from mindspore import Tensor, nn, ops

from src.errors import UserError
from src.segmentation.loss import IGNORED, SegmentationLoss, pixel_cross_entropy
from src.segmentation.metrics import ConfusionMatrix


class TwoMaps(nn.Cell):
    """Stands in for DeepLabV3 in training: its logits and auxiliary logits are parameters."""

    def __init__(self, logits, auxiliary):
        super().__init__()
        self.logits = mindspore.Parameter(Tensor(logits), name="logits")
        self.auxiliary = mindspore.Parameter(Tensor(auxiliary), name="auxiliary")

    def construct(self, images):
        return self.logits, self.auxiliary


def random_maps(seed=0):
    rng = np.random.default_rng(seed)
    logits = 3 * rng.standard_normal((2, 5, 4, 6)).astype(np.float32)
    auxiliary = 3 * rng.standard_normal((2, 5, 2, 3)).astype(np.float32)
    labels = rng.integers(0, 5, (2, 29, 47)).astype(np.uint8)
    labels[rng.random(labels.shape) < 0.3] = IGNORED
    return logits, auxiliary, labels


@pytest.mark.parametrize("average", ["all", "counted"])
def test_loss_and_gradients_equal_pytorch(average):
    torch = reference("torch")
    functional = torch.nn.functional
    logits, auxiliary, labels = random_maps()
    cell = SegmentationLoss(TwoMaps(logits, auxiliary), 0.4, average)
    parameters = [cell.network.logits, cell.network.auxiliary]
    loss, gradients = ops.value_and_grad(cell, None, parameters)(Tensor(np.zeros(1, np.float32)), Tensor(labels))

    maps = [torch.from_numpy(values).requires_grad_() for values in (logits, auxiliary)]
    expected = 0
    for values, weight in zip(maps, (1.0, 0.4)):
        full = functional.interpolate(values, labels.shape[1:], mode="bilinear", align_corners=False)
        each = functional.cross_entropy(full, torch.from_numpy(labels).long(), ignore_index=IGNORED, reduction="none")
        expected += weight * (each.mean() if average == "all" else each.sum() / int((labels != IGNORED).sum()))
    expected.backward()
    assert abs(float(loss.asnumpy()) - expected.item()) < 1e-5
    for gradient, values in zip(gradients, maps):
        assert np.abs(gradient.asnumpy() - values.grad.numpy()).max() < 1e-6


def test_over_all_pixels_a_batch_is_the_mean_of_its_parts():
    """However a batch is split over devices, its loss is the same."""
    logits, _, labels = random_maps()
    labels = np.ascontiguousarray(labels[:, :4, :6]).astype(np.int32)
    labels[0, :3] = IGNORED

    def loss(part, average):
        return float(pixel_cross_entropy(Tensor(logits[part]), Tensor(labels[part]), average).asnumpy())

    halves = [[loss(slice(i, i + 1), average) for i in range(2)] for average in ("all", "counted")]
    assert np.mean(halves[0]) == pytest.approx(loss(slice(2), "all"), rel=1e-6)
    assert np.mean(halves[1]) != pytest.approx(loss(slice(2), "counted"), rel=1e-2)


@pytest.mark.parametrize("average", ["all", "counted"])
def test_a_batch_without_labelled_pixels_has_no_loss(average):
    logits, auxiliary, labels = random_maps()
    cell = SegmentationLoss(TwoMaps(logits, auxiliary), 0.4, average)
    parameters = [cell.network.logits, cell.network.auxiliary]
    nothing = Tensor(np.full_like(labels, IGNORED))
    loss, gradients = ops.value_and_grad(cell, None, parameters)(Tensor(np.zeros(1, np.float32)), nothing)
    assert float(loss.asnumpy()) == 0
    assert all((gradient.asnumpy() == 0).all() for gradient in gradients)


def test_half_precision_and_large_logits_stay_finite():
    logits = np.zeros((1, 2, 1, 2), np.float16)
    logits[0, 0] = (60000, -60000)
    labels = Tensor(np.zeros((1, 1, 2), np.int32))
    loss = pixel_cross_entropy(Tensor(logits), labels, "counted")
    assert loss.dtype == mindspore.float32
    assert float(loss.asnumpy()) == 30000  # of pixels with loss 0 and 60000


def three_classes():
    """Two images, four classes, of which the last is nowhere and class 2 is predicted only."""
    matrix = ConfusionMatrix(4)
    matrix.update(np.array([[0, 0, 1], [1, 2, 0]], np.uint8), np.array([[0, 0, 1], [0, 1, IGNORED]], np.uint8))
    matrix.update(np.array([[1, 1]], np.uint8), np.array([[1, IGNORED]], np.uint8))
    return matrix


def test_metrics_by_hand():
    matrix = three_classes()
    assert matrix.counts.tolist() == [[2, 1, 0, 0], [0, 2, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert matrix.counts.dtype == np.int64
    # class 0: 2 of 2 + 1; class 1: 2 of 2 + 1 + 1; class 2: predicted once, never right; class 3: nowhere
    assert matrix.iou()[:3] == pytest.approx([2 / 3, 2 / 4, 0]) and np.isnan(matrix.iou()[3])
    assert matrix.accuracy()[:2] == pytest.approx([2 / 3, 2 / 3]) and np.isnan(matrix.accuracy()[2:]).all()
    assert matrix.result() == {
        "mean_iou": pytest.approx((2 / 3 + 2 / 4 + 0) / 3),
        "pixel_accuracy": pytest.approx(4 / 6),
        "mean_accuracy": pytest.approx(2 / 3),
        "images": 2,
    }


def test_sums_over_processes_are_of_counts_not_of_ratios():
    def add_others(values):
        return values + np.array([[0, 0], [6, 0]]) if values.ndim == 2 else values + 3

    matrix = ConfusionMatrix(2)
    matrix.update(np.array([[0, 1]], np.uint8), np.array([[0, 1]], np.uint8))
    matrix.gather(SimpleNamespace(sum=add_others))
    assert matrix.result() == {
        "mean_iou": pytest.approx((1 / 7 + 1 / 7) / 2),
        "pixel_accuracy": pytest.approx(2 / 8),
        "mean_accuracy": pytest.approx((1 + 1 / 7) / 2),
        "images": 4,
    }


def test_report(tmp_path):
    three_classes().write_report(tmp_path / "per_class.csv", ("sky", "road", "tree", "car"))
    rows = list(csv.DictReader((tmp_path / "per_class.csv").open()))
    assert [row["class"] for row in rows] == ["sky", "road", "tree", "car"]
    assert [(row["pixels"], row["predicted_pixels"]) for row in rows] == [
        ("3", "2"),
        ("3", "3"),
        ("0", "1"),
        ("0", "0"),
    ]
    assert [float(row["iou"]) for row in rows[:3]] == pytest.approx([2 / 3, 1 / 2, 0])
    assert rows[3]["iou"] == rows[3]["accuracy"] == "nan"


def test_masks_without_any_class_are_named():
    matrix = ConfusionMatrix(2)
    matrix.update(np.zeros((2, 2), np.uint8), np.full((2, 2), IGNORED, np.uint8))
    with pytest.raises(UserError, match="no pixel of the evaluated masks has a class"):
        matrix.result()
