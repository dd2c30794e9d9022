"""Losses against PyTorch's and timm's, metrics against a hand-computed case and PyTorch."""

import mindspore
import numpy as np
import pytest
from helpers import PROJECT, normal, reference, write_images
from mindspore import Tensor, nn, ops
from sklearn.utils.class_weight import compute_class_weight

import src.classification.task as classification_task
from src.classification.loss import (
    BinaryCrossEntropy,
    ClassificationLoss,
    CrossEntropy,
    DistillationLoss,
    balance_classes,
)
from src.classification.metrics import ClassificationMetrics
from src.config import load_config
from src.errors import UserError
from src.ranks import Ranks
from src.tasks import SCHEMAS, create_task

CONFIG = PROJECT / "configs" / "classification" / "digits.yaml"
WEIGHTS = (0.5, 2.0, 1.0, 3.5, 0.1)


def targets_of(kind):
    """Labels int32 (9,), or targets float32 (9, 5) of a mixed batch."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 5, 9).astype(np.int32)
    return labels if kind == "labels" else (0.7 * np.eye(5)[labels] + 0.3 * np.eye(5)[labels[::-1]]).astype(np.float32)


def value_and_gradient(criterion, logits, targets):
    value, gradient = ops.value_and_grad(criterion, 0)(Tensor(logits), Tensor(targets))
    return float(value.asnumpy()), gradient.asnumpy()


def pytorch_value_and_gradient(function, logits, targets):
    """In float64."""
    torch = reference("torch")
    inputs = torch.from_numpy(logits).double().requires_grad_()
    targets = torch.from_numpy(targets)
    value = function(inputs, targets.long() if targets.ndim == 1 else targets.double())
    value.backward()
    return value.item(), inputs.grad.numpy()


def assert_same(ours, theirs):
    assert ours[0] == pytest.approx(theirs[0], rel=5e-6)  # MindSpore's log_softmax approximates on CPU
    assert np.abs(ours[1] - theirs[1]).max() < 2e-6


@pytest.fixture(params=[mindspore.GRAPH_MODE, mindspore.PYNATIVE_MODE], ids=["graph", "pynative"])
def mode(request):
    mindspore.set_context(mode=request.param)


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["plain", "weights"])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@pytest.mark.parametrize("kind", ["labels", "targets"])
def test_cross_entropy_equals_pytorchs(kind, label_smoothing, weights, mode):
    torch = reference("torch")
    logits, targets = 3 * normal(9, 5), targets_of(kind)
    ours = value_and_gradient(CrossEntropy(label_smoothing, weights), logits, targets)

    def function(inputs, expected):
        weight = None if weights is None else torch.tensor(weights, dtype=torch.float64)
        smoothing = label_smoothing if kind == "labels" else 0.0  # targets are smoothed where they are mixed
        return torch.nn.functional.cross_entropy(inputs, expected, weight, label_smoothing=smoothing)

    assert_same(ours, pytorch_value_and_gradient(function, logits, targets))


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["plain", "weights"])
@pytest.mark.parametrize("kind", ["labels", "targets"])
def test_binary_cross_entropy_equals_timms(kind, weights, mode):
    torch, loss = reference("torch"), reference("timm.loss")
    logits, targets = 5 * normal(9, 5), targets_of(kind)
    logits[0] = 0.0, 80.0, -80.0, 1e4, -1e4
    ours = value_and_gradient(BinaryCrossEntropy(0.1, weights), logits, targets)
    weight = None if weights is None else torch.tensor(weights, dtype=torch.float64)
    theirs = pytorch_value_and_gradient(loss.BinaryCrossEntropy(0.1, weight=weight), logits, targets)
    assert_same(ours, theirs)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_distillation_equals_pytorchs(temperature, mode):
    torch = reference("torch")
    logits, taught, labels = 3 * normal(9, 5), 4 * normal(9, 5, seed=1), targets_of("labels")

    class Teacher(nn.Cell):
        def construct(self, images):
            return Tensor(taught)

    loss = DistillationLoss(ClassificationLoss(nn.Identity(), 0.1), Teacher(), 0.3, temperature)
    ours = value_and_gradient(loss, logits, labels)

    def function(inputs, expected):
        functional = torch.nn.functional
        theirs = functional.log_softmax(torch.from_numpy(taught).double() / temperature, 1)
        student = functional.log_softmax(inputs / temperature, 1)
        divergence = functional.kl_div(student, theirs, reduction="batchmean", log_target=True)
        loss = functional.cross_entropy(inputs, expected, label_smoothing=0.1)
        return 0.7 * loss + 0.3 * temperature**2 * divergence

    assert_same(ours, pytorch_value_and_gradient(function, logits, labels))


def test_balanced_weights_equal_scikit_learns():
    labels = np.array([0] * 7 + [2] * 2 + [1] * 31 + [0])
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    assert balance_classes(labels, ("a", "b", "c")) == pytest.approx(expected, rel=1e-15)
    with pytest.raises(UserError, match="^loss.class_weights: balanced needs images of every class, 'd' has none$"):
        balance_classes(labels, ("a", "b", "c", "d"))


def test_a_task_builds_the_loss_of_its_settings(tmp_path):
    write_images(tmp_path, {"train": {"a": 9, "b": 3}, "val": {"a": 1, "b": 1}})
    values = {"data.path": str(tmp_path), "network.num_classes": 2, "train.batch_size": 4}

    def build(**settings):
        overrides = {**values, **{f"loss.{key}": value for key, value in settings.items()}}
        config = load_config(CONFIG, SCHEMAS, [(key, value, "test") for key, value in overrides.items()])
        task = create_task(config)
        return task.attach_loss(nn.Identity(), task.build_dataset("train", Ranks())).criterion

    plain = build(label_smoothing=0.3)
    assert type(plain) is CrossEntropy and plain.label_smoothing == 0.3 and plain.class_weights is None
    assert type(build(name="binary_cross_entropy", class_weights=[1, 2])) is BinaryCrossEntropy
    assert build(class_weights=[1, 2]).class_weights.asnumpy().tolist() == [1, 2]
    assert build(class_weights="balanced").class_weights.asnumpy() == pytest.approx([12 / 18, 12 / 6])


def test_balanced_weights_list_no_folder_again(tmp_path, monkeypatch):
    """The listing is minutes long on a network disk; the weights are those of the images that are trained on."""
    write_images(tmp_path, {"train": {"a": 9, "b": 3}})
    values = {"data.path": str(tmp_path), "network.num_classes": 2, "train.batch_size": 4}
    values["loss.class_weights"] = "balanced"
    task = create_task(load_config(CONFIG, SCHEMAS, [(key, value, "test") for key, value in values.items()]))
    listed, list_class_folders = [], classification_task.list_class_folders

    def list_and_count(folder, *arguments):
        listed.append(folder.name)
        return list_class_folders(folder, *arguments)

    monkeypatch.setattr(classification_task, "list_class_folders", list_and_count)
    train_data = task.build_dataset("train", Ranks(1, 2))  # half of the images are another process's
    weights = task.attach_loss(nn.Identity(), train_data).criterion.class_weights
    assert weights.asnumpy() == pytest.approx([12 / 18, 12 / 6]) and listed == ["train"]


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
