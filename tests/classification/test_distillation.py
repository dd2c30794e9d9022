"""Distillation: the teacher is the network that its file holds, takes part in each step, and stays as it is."""

import mindspore
import numpy as np
import pytest
import yaml
from helpers import call, normal, optimizer_of, random_timm, randomise, reference, write_images
from mindspore import Tensor, nn
from training.tiny_network import TinyNetwork

from src.classification.loss import ClassificationLoss, DistillationLoss
from src.classification.teacher import build_teacher, load_teacher
from src.errors import UserError
from src.networks import create_network
from src.ranks import Ranks
from src.training.precision import mix_precision
from src.training.state import History, TrainingState
from src.training.step import TrainStep
from src.weights import files, save_weights
from src.weights.files import read_checkpoint

CLASSES = 4
FULL = {"accumulation_steps": 2, "loss_scale": "dynamic", "average_decay": 0.9, "clip_norm": 1.0}


@pytest.fixture(autouse=True)
def graph_mode():
    mindspore.set_context(mode=mindspore.GRAPH_MODE)


def tiny_teacher():
    mindspore.set_seed(9)
    network = TinyNetwork(CLASSES, 0.0)
    randomise(network)
    network.dropout = nn.Identity()
    return build_teacher(network)


def batch(index):
    labels = np.random.default_rng(index).integers(0, CLASSES, 6).astype(np.int32)
    return Tensor(normal(6, 3, 33, 33, seed=index)), Tensor(labels)


def start(amp="O0", weight=0.6, **options):
    """(student, teacher, training step, its state)."""
    mindspore.set_seed(1)
    student, teacher = TinyNetwork(CLASSES, 0.2), tiny_teacher()
    optimizer = optimizer_of(student, "adamw", [0.01] * 20)
    loss = ClassificationLoss(mix_precision(student, amp, "CPU"), 0.1)
    settings = {"clip_norm": 0.0, "accumulation_steps": 1, "loss_scale": "none", "average_decay": 0.0, **options}
    settings.update(initial_loss_scale=1024.0, ranks=Ranks(), seed=0)
    step = TrainStep(DistillationLoss(loss, teacher, weight, 2.0), student, optimizer, **settings).set_train()
    return student, teacher, step, TrainingState(student, step, History(8, 1))


def values(network):
    return {parameter.name: parameter.asnumpy().copy() for parameter in network.get_parameters()}


@pytest.mark.long
def test_the_teacher_stays_and_a_resumed_run_has_the_same_bits(tmp_path):
    student, teacher, step, state = start("O2", **FULL)
    before = values(teacher)
    for index in range(4):
        step(*batch(index))
    state.save(tmp_path / "a.ckpt")
    losses = [step(*batch(index)).asnumpy() for index in range(4, 8)]
    assert all(np.array_equal(value, before[name]) for name, value in values(teacher).items())
    arrays, _ = read_checkpoint(tmp_path / "a.ckpt")
    names = set(values(student))
    assert names < set(arrays) and not any("teacher" in name for name in arrays)
    assert {name.removeprefix("ema.") for name in arrays if name.startswith("ema.")} == names

    resumed, _, resumed_step, resumed_state = start("O2", **FULL)
    resumed_state.restore(tmp_path / "a.ckpt")
    assert [resumed_step(*batch(index)).asnumpy() for index in range(4, 8)] == losses
    assert all(np.array_equal(value, values(resumed)[name]) for name, value in values(student).items())


@pytest.mark.long
def test_a_student_alone_with_its_teacher_becomes_like_it():
    """With the teacher's whole weight, labels do not matter, and the loss falls towards 0."""
    student, teacher, step, _ = start(weight=1.0)
    student.dropout.p = 0.0
    images, labels = batch(0)
    losses = [float(step(images, labels).asnumpy()) for _ in range(19)]
    assert 0 < losses[-1] < 0.5 * losses[0]
    student, _, other, _ = start(weight=1.0)
    student.dropout.p = 0.0
    assert float(other(images, (labels + 1) % CLASSES).asnumpy()) == losses[0]


def test_a_teacher_of_timm_gives_timms_logits_in_training(tmp_path):
    torch, model = reference("torch"), random_timm("ghostnetv2_100", num_classes=3)
    torch.save({"state_dict": model.state_dict()}, tmp_path / "a.pth")
    teacher = load_teacher(tmp_path / "a.pth", 3, ())
    assert not teacher.trainable_params()
    assert all(parameter.name.startswith("teacher.") for parameter in teacher.get_parameters())
    images = normal(2, 3, 64, 64)
    with torch.no_grad():
        expected = model(torch.from_numpy(images)).numpy()
    mindspore.set_context(mode=mindspore.PYNATIVE_MODE)
    logits = teacher.set_train()(Tensor(images)).asnumpy()
    assert np.abs(logits - expected).max() < 1e-4 * np.ptp(expected)


def write_run(folder, name, **options):
    """A run's checkpoint beside its settings."""
    network = create_network(name, 3, **options)
    randomise(network)
    folder.mkdir(exist_ok=True)
    save_weights(network, folder / "best.ckpt")
    settings = {"network": {"name": name, "num_classes": 3, **options}, "data": {"class_names": ["a", "b", "c"]}}
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    return network


def test_a_run_s_settings_build_its_teacher(tmp_path):
    network = write_run(tmp_path / "run", "ghostnetv2_1x", width=0.5, dfc_kernel_size=3, dfc_gate="hard_sigmoid")
    mindspore.set_context(mode=mindspore.PYNATIVE_MODE)
    images = Tensor(normal(1, 3, 64, 64))
    expected = network.set_train(False)(images).asnumpy()
    logits = load_teacher(tmp_path / "run" / "best.ckpt", 3, ("a", "b", "c"))(images).asnumpy()
    assert np.abs(logits - expected).max() < 1e-4 * np.ptp(expected)
    with pytest.raises(UserError, match="^loss.teacher: .*best.ckpt: was trained with other class names"):
        load_teacher(tmp_path / "run" / "best.ckpt", 3, ("a", "c", "b"))
    with pytest.raises(UserError, match="^loss.teacher: .*best.ckpt: has 3 classes, the network 4$"):
        load_teacher(tmp_path / "run" / "best.ckpt", 4, ())


@pytest.mark.parametrize("has_settings", [True, False])
def test_the_teacher_s_file_is_read_once(tmp_path, monkeypatch, has_settings):
    network = write_run(tmp_path, "ghostnet_1x", width=0.5)
    if not has_settings:
        (tmp_path / "config.yaml").unlink()
    read = []
    monkeypatch.setattr(files, "read_checkpoint", lambda path: read.append(path) or read_checkpoint(path))
    teacher = load_teacher(tmp_path / "best.ckpt", 3, ())
    assert read == [tmp_path / "best.ckpt"]
    last = {name: value for name, value in values(teacher).items() if "classifier" in name}
    assert np.array_equal(last["teacher.classifier.weight"], values(network)["classifier.weight"])


@pytest.mark.slow
def test_train_py_with_a_larger_teacher_and_mixed_images(tmp_path):
    write_images(tmp_path / "data", {"train": {"a": 6, "b": 6}, "val": {"a": 2, "b": 2}}, {"a": 160, "b": 0})
    save_weights(create_network("ghostnetv2_1_6x", 2), tmp_path / "teacher.ckpt")
    settings = ["data.image_size=33", "data.eval_resize=33", "data.workers=1", "train.batch_size=4", "train.epochs=2"]
    settings += ["augment.mixup=0.8", "augment.cutmix=1", "train.ema_decay=0.9", "loss.teacher=teacher.ckpt"]
    fixed = ("--config", "classification.yaml", "--data_url", "data", "--num_classes", 2)
    (tmp_path / "classification.yaml").write_text("network: {name: ghostnetv2_1x}\noptimizer: {name: sgd}\n")
    result = call("train.py", *fixed, "--output_dir", "run", *settings, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "epoch 2/2" in result.stdout
    assert not any("teacher" in name for name in read_checkpoint(tmp_path / "run" / "last.ckpt")[0])
