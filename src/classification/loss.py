"""The training losses of classification, and class weights.

All are computed in float32 from plain operations: the CPU kernel behind `nn.CrossEntropyLoss` sums in an order that
differs between processes. Targets are labels int32 (N,), or float32 (N, classes), which are taken as they are, without
smoothing.

Source of distillation: Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", 2015,
https://arxiv.org/abs/1503.02531, section 2.
"""

import mindspore
import numpy as np
from mindspore import Tensor, nn, ops

from src.errors import UserError


def smooth_labels(targets, classes, label_smoothing):
    """Turn labels (N,) into targets (N, classes), `label_smoothing` of which is spread evenly; targets stay."""
    if targets.ndim == 2:
        return targets
    spread = label_smoothing / classes
    on, off = Tensor(1 - label_smoothing + spread, mindspore.float32), Tensor(spread, mindspore.float32)
    return ops.one_hot(targets, classes, on, off)


class Criterion(nn.Cell):
    """What the losses have in common: logits float32 (N, classes), targets -> scalar.

    Args:
        label_smoothing: share of the target that is spread evenly over all classes.
        class_weights: a number a class; None: all weigh the same.
    """

    def __init__(self, label_smoothing, class_weights):
        super().__init__(auto_prefix=False)
        self.label_smoothing = label_smoothing
        self.class_weights = to_tensor(class_weights)


class CrossEntropy(Criterion):
    """Cross-entropy; the mean over labels is weighted if classes are, that over targets is not, as in PyTorch."""

    def construct(self, logits, targets):
        smooth = smooth_labels(targets, logits.shape[1], self.label_smoothing)
        likelihoods = ops.log_softmax(logits, 1) * smooth
        if self.class_weights is None:
            return -likelihoods.sum(1).mean()
        likelihoods = likelihoods * ops.broadcast_to(self.class_weights, likelihoods.shape)
        if targets.ndim == 2:
            return -likelihoods.sum(1).mean()
        return -likelihoods.sum() / ops.gather(self.class_weights, targets, 0).sum()


class BinaryCrossEntropy(Criterion):
    """A sigmoid and cross-entropy for each class, their mean, as timm's `BinaryCrossEntropy`."""

    def construct(self, logits, targets):
        smooth = smooth_labels(targets, logits.shape[1], self.label_smoothing)
        # log(1 + exp(x)), none of whose exponentials exceeds 1; not from |x|, whose gradient at 0 would be wrong
        high = ops.stop_gradient(ops.relu(logits))
        losses = high - logits * smooth + ops.log(ops.exp(logits - high) + ops.exp(-high))
        if self.class_weights is not None:
            losses = losses * ops.broadcast_to(self.class_weights, losses.shape)
        return losses.mean()


CRITERIA = {"cross_entropy": CrossEntropy, "binary_cross_entropy": BinaryCrossEntropy}


class ClassificationLoss(nn.Cell):
    """Network and loss as one cell: images (N, 3, H, W), targets -> scalar.

    Args:
        network: images -> logits (N, classes).
        label_smoothing, class_weights: see `Criterion`.
        name: of `CRITERIA`.
    """

    def __init__(self, network, label_smoothing, name="cross_entropy", class_weights=None):
        super().__init__(auto_prefix=False)
        self.network = network
        self.criterion = CRITERIA[name](label_smoothing, class_weights)

    def construct(self, images, targets):
        return self.criterion(self.network(images).astype(mindspore.float32), targets)


class DistillationLoss(nn.Cell):
    """A loss, and the difference from a teacher on the same images: images (N, 3, H, W), targets -> scalar.

    Both parts are means over the batch: (1 - weight) loss + weight T^2 KL(teacher || network), with the softmax of the
    logits over T.

    Args:
        loss: `ClassificationLoss`.
        teacher: images -> logits (N, classes), a cell without parameters to train.
        weight: share of the teacher.
        temperature: T.
    """

    def __init__(self, loss, teacher, weight, temperature):
        super().__init__(auto_prefix=False)
        self.network, self.criterion, self.teacher = loss.network, loss.criterion, teacher
        self.weight, self.temperature = weight, temperature

    def construct(self, images, targets):
        logits = self.network(images).astype(mindspore.float32)
        taught = ops.stop_gradient(self.teacher(images))
        difference = divergence(logits / self.temperature, taught / self.temperature)
        return (1 - self.weight) * self.criterion(logits, targets) + self.weight * self.temperature**2 * difference


def divergence(logits, other_logits):
    """Compute the mean Kullback-Leibler divergence of softmax(logits) (N, classes) from that of the others."""
    ours, theirs = ops.log_softmax(logits, 1), ops.log_softmax(other_logits, 1)
    return (ops.exp(theirs) * (theirs - ours)).sum(1).mean()


def to_tensor(class_weights):
    """Turn weights into a float32 tensor (classes,); None stays."""
    return None if class_weights is None else Tensor(np.array(class_weights, np.float32))


def balance_classes(labels, class_names):
    """Compute the weights of classes that make up for their numbers: images / (classes x images of the class).

    Args:
        labels: (N,), of all images to train on.
        class_names: in index order.

    Returns:
        A tuple of numbers.

    Raises:
        UserError: if a class has no images.
    """
    counts = np.bincount(labels, minlength=len(class_names))
    if not counts.all():
        raise UserError(
            f"loss.class_weights: balanced needs images of every class, {class_names[int(counts.argmin())]!r} has none"
        )
    return tuple((len(labels) / (len(counts) * counts)).tolist())
