"""Training beside PyTorch: the same first losses, and the same accuracy in the end."""

import mindspore
import numpy as np
import pytest
from helpers import build_rates, copy_weights, normal, optimizer_of, randomise_, reference, step_of
from mindspore import Tensor
from sklearn.datasets import load_digits

from src.classification.loss import ClassificationLoss
from src.ghostnetv2 import create_network

EPOCHS, BATCH = 6, 32


def build_pair(rates, seed, randomise=False):
    """timm's network and its optimizer, our training step from the same weights, and our network."""
    torch, timm = reference("torch"), reference("timm")
    torch.manual_seed(seed)
    model = timm.create_model("ghostnetv2_100", num_classes=10, drop_rate=0.0)
    if randomise:
        randomise_(model, seed)
    model.train()
    network = create_network("ghostnetv2_1x", num_classes=10, dropout=0.0)
    copy_weights(model, network)
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": 1e-4}, {"params": others, "weight_decay": 0.0}]
    theirs = torch.optim.SGD(groups, lr=rates[0], momentum=0.9)
    ours = optimizer_of(network, "sgd", rates, weight_decay=1e-4, momentum=0.9)
    return model, theirs, step_of(ClassificationLoss(network, 0.1), ours).set_train(), network


def pytorch_step(model, optimizer, rate, images, labels):
    torch = reference("torch")
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad()
    logits = model(torch.from_numpy(images))
    loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(labels).long(), label_smoothing=0.1)
    loss.backward()
    optimizer.step()
    return loss.item()


@pytest.mark.long
def test_first_losses_equal_pytorchs():
    rates = [1e-3] * 5
    model, optimizer, step, _ = build_pair(rates, seed=0, randomise=True)
    rng, differences = np.random.default_rng(1), []
    for rate, images in zip(rates, normal(5, 16, 3, 64, 64)):
        labels = rng.integers(0, 10, 16).astype(np.int32)
        ours = float(step(Tensor(images), Tensor(labels)).asnumpy())
        differences.append(abs(ours - pytorch_step(model, optimizer, rate, images, labels)))
    assert differences[0] < 1e-5
    assert max(differences) < 1e-3


def digits():
    """Training and validation images (N, 3, 64, 64) and labels of scikit-learn's digits."""
    bunch = load_digits()
    images = np.kron(bunch.images / 16, np.ones((8, 8)))[:, None].repeat(3, 1).astype(np.float32)
    images, labels = (images - 0.5) / 0.25, bunch.target.astype(np.int32)
    return (images[:1437], labels[:1437]), (images[1437:], labels[1437:])


@pytest.mark.slow
def test_both_frameworks_learn_the_digits_equally_well():
    """The same weights, batches and settings, three seeds: accuracies within their spread."""
    torch = reference("torch")
    (images, labels), (val_images, val_labels) = digits()
    steps = len(images) // BATCH
    rates = build_rates("cosine", 0.05, EPOCHS, steps, warmup_epochs=1.0)
    accuracies = []
    for seed in (1, 2, 3):
        mindspore.set_seed(seed)
        model, optimizer, step, network = build_pair(rates, seed)
        rng = np.random.default_rng(seed)
        for epoch in range(EPOCHS):
            order = rng.permutation(len(images))
            for index in range(steps):
                batch = order[index * BATCH : (index + 1) * BATCH]
                pytorch_step(model, optimizer, rates[epoch * steps + index], images[batch], labels[batch])
                step(Tensor(images[batch]), Tensor(labels[batch]))
        model.eval()
        network.set_train(False)
        with torch.no_grad():
            theirs = model(torch.from_numpy(val_images)).numpy().argmax(1)
        ours = np.concatenate([network(Tensor(part)).asnumpy().argmax(1) for part in np.split(val_images, 6)])
        accuracies.append(((ours == val_labels).mean(), (theirs == val_labels).mean()))
        print(f"seed {seed}: MindSpore {accuracies[-1][0]:.4f}, PyTorch {accuracies[-1][1]:.4f}")
    ours, theirs = np.array(accuracies).T
    assert min(ours.mean(), theirs.mean()) > 0.9
    spread = max(np.ptp(ours), np.ptp(theirs), 0.01)
    assert abs(ours.mean() - theirs.mean()) <= spread
