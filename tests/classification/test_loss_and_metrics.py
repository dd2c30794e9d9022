"""Loss against PyTorch's, metrics against a hand-computed case and PyTorch."""

import numpy as np
import pytest
from helpers import normal, reference
from mindspore import Tensor, nn

from src.classification.loss import ClassificationLoss
from src.classification.metrics import ClassificationMetrics
from src.ranks import Ranks


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_loss_equals_pytorch(label_smoothing):
    torch = reference("torch")
    rng = np.random.default_rng(0)
    logits, labels = 3 * normal(9, 5), rng.integers(0, 5, 9).astype(np.int32)
    ours = ClassificationLoss(nn.Identity(), label_smoothing)(Tensor(logits), Tensor(labels)).asnumpy()
    theirs = torch.nn.functional.cross_entropy(
        torch.from_numpy(logits), torch.from_numpy(labels).long(), label_smoothing=label_smoothing
    )
    assert ours == pytest.approx(theirs.item(), rel=1e-6)


def test_metrics_by_hand(tmp_path):
    metrics = ClassificationMetrics(3)
    # scores fall with the index, so label 0 is best, 4 is fifth, 5 is sixth
    logits = np.array([[5.0, 4.0, 3.0, 2.0, 1.0, 0.0]] * 3)
    metrics.update(np.array([2, 0]), logits[:2], np.array([0, 4]))
    metrics.update(np.array([1]), logits[2:], np.array([5]))
    metrics.gather(Ranks())
    result = metrics.result()
    log_sum = np.log(np.exp(logits[0]).sum())
    assert result["top_1_accuracy"] == pytest.approx(1 / 3)
    assert result["top_5_accuracy"] == pytest.approx(2 / 3)
    assert result["loss"] == pytest.approx(((log_sum - 5) + (log_sum - 1) + (log_sum - 0)) / 3)
    assert result["images"] == 3

    metrics.write_reports(tmp_path, ["x", "y, z", "w"], list("abcdef"))
    share = np.exp(5 - log_sum)
    assert (tmp_path / "predictions.csv").read_text().splitlines() == [
        "image,label,top_1,top_2,top_3,top_4,top_5,confidence,loss",
        f"x,e,a,b,c,d,e,{share:.6f},{log_sum - 1:.6f}",
        f'"y, z",f,a,b,c,d,e,{share:.6f},{log_sum:.6f}',
        f"w,a,a,b,c,d,e,{share:.6f},{log_sum - 5:.6f}",
    ]
    assert (tmp_path / "per_class.csv").read_text().splitlines() == [
        "class,images,top_1_accuracy,top_5_accuracy",
        "a,1,1.0,1.0",
        "e,1,0.0,1.0",
        "f,1,0.0,0.0",
    ]


def test_fewer_classes_than_five():
    metrics = ClassificationMetrics(2)
    metrics.update(np.array([0, 1]), np.array([[1.0, 2.0], [3.0, 2.0]]), np.array([0, 0]))
    result = metrics.result()
    assert (result["top_1_accuracy"], result["top_5_accuracy"]) == (0.5, 1.0)


@pytest.mark.parametrize("indices", [[0, 1], [0, 1, 1, 2]])
def test_an_image_that_is_missed_or_counted_twice_is_an_error(indices):
    metrics = ClassificationMetrics(3)
    for index in indices:
        metrics.update(np.array([index]), np.zeros((1, 6)), np.array([0]))
    with pytest.raises(RuntimeError, match="1 images were not evaluated exactly once"):
        metrics.gather(Ranks())


def test_metrics_equal_pytorch_and_survive_large_logits():
    torch = reference("torch")
    rng = np.random.default_rng(1)
    logits, labels = 1000 * normal(50, 20), rng.integers(0, 20, 50)
    metrics = ClassificationMetrics(50)
    for part in np.array_split(np.arange(50), 7):
        metrics.update(part, logits[part], labels[part])
    t_logits, t_labels = torch.from_numpy(logits), torch.from_numpy(labels)
    best = t_logits.topk(5).indices == t_labels[:, None]
    result = metrics.result()
    assert result["top_1_accuracy"] == pytest.approx(best[:, 0].double().mean().item())
    assert result["top_5_accuracy"] == pytest.approx(best.any(1).double().mean().item())
    assert result["loss"] == pytest.approx(torch.nn.functional.cross_entropy(t_logits, t_labels).item(), rel=1e-5)
    confidence = torch.softmax(t_logits.double(), 1).max(1).values.numpy()
    assert np.abs(metrics.confidence - confidence).max() < 1e-6
