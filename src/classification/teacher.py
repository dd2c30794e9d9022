"""The teacher of a distillation: a trained network that stays as it is."""

from pathlib import Path

from src.classification.settings import ClassificationConfig
from src.config import load_config
from src.errors import UserError
from src.export.folding import fold_batch_norm
from src.networks import create_network
from src.training.run_folder import RUN_CONFIG
from src.weights import read_weights
from src.weights.files import fit_weights
from src.weights.published import find_weights

PREFIX = "teacher."  # of its parameters' names, which would be those of the network that it teaches


def load_teacher(path, num_classes, class_names):
    """Load a classifier without dropout, stochastic depth and batch normalisation, none of whose parameters is trained.

    Args:
        path: weights file of any kind, see `read_weights`. Beside a run's settings it is the network of these, else the
            one that its names and shapes tell.
        num_classes: that it must have.
        class_names: that its run must have had, if both are known; () where they are not.

    Returns:
        nn.Cell, images float32 (N, 3, H, W) -> logits float32 (N, classes).

    Raises:
        UserError: if the file is missing, damaged, or of another kind of network.
    """
    try:
        file = read_weights(path)
        network = _build_network(Path(path), file.identity, num_classes, class_names)
        fit_weights(network, file, path)
    except UserError as error:
        raise UserError(f"loss.teacher: {error}") from None
    return build_teacher(network)


def build_teacher(network):
    """Copy a network without dropout into one that computes the same in evaluation and in training."""
    teacher = fold_batch_norm(network)
    teacher.update_parameters_name(PREFIX)
    for parameter in teacher.get_parameters():
        parameter.requires_grad = False
    return teacher


def _build_network(path, identity, num_classes, class_names):
    """Build the network that a weights file, of an `Identity` or None, belongs to; its classes must be these."""
    settings = find_weights(path).parent / RUN_CONFIG
    if settings.is_file():
        config = load_config(settings, {"classification": ClassificationConfig})
        name, classes, options = config.network.name, config.network.num_classes, config.network.backbone_options()
        if class_names and config.data.class_names and class_names != config.data.class_names:
            raise UserError(f"{path}: was trained with other class names, or in another order")
    else:
        if identity is None:
            raise UserError(f"{path}: holds no network that this project knows")
        name, classes = identity.variant, identity.num_classes
        options = {"width": identity.width, "attention": identity.attention}
    if classes != num_classes:
        raise UserError(f"{path}: has {'no' if classes is None else classes} classes, the network {num_classes}")
    return create_network(name, num_classes, **{**options, "dropout": 0.0, "drop_path": 0.0})
