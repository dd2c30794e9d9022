"""A trained network, ready to be called, from a checkpoint or an exported file."""

import os
from pathlib import Path

from src.config import dump_config
from src.errors import UserError
from src.export.exported import ExportedNetwork, is_exported
from src.export.exported_file import show_sides
from src.inference.finite import FiniteNetwork
from src.inference.graph_cache import CachedNetwork
from src.weights import load_weights


def load_network(task, path, prefer):
    """Load what `task.evaluate` and `task.predict` call.

    Args:
        task: see `src.tasks.Task`.
        path: exported file, or weights file as in `load_weights`.
        prefer: 'ema' or 'raw', where a weights file has both.

    Returns:
        `FiniteNetwork`, and what was loaded, in words.

    Raises:
        UserError: if the file does not fit the settings.
    """
    if is_exported(path):
        network = ExportedNetwork(path)
        check_signature(network.file, task.export_signature(), path)
        shape = network.file.input_shape
        batch = "any batch" if shape[0] is None else f"batch {shape[0]}"
        kind = Path(path).suffix[1:].upper()
        return FiniteNetwork(network, path), f"{path}: {kind} file for images of {show_sides(shape[1:])}, {batch}"
    network = task.build_network()
    loaded = load_weights(network, path, prefer)
    return FiniteNetwork(task.build_evaluation_network(network), path), loaded


def check_signature(file, signature, path) -> None:
    """Raise `UserError` unless an `ExportedFile` takes and gives what an `ExportSignature` says."""
    sides, expected = file.input_shape[1:], signature.input_shape
    if any(side not in (None, wanted) for side, wanted in zip(sides, expected)):
        raise UserError(
            f"{path}: takes images of {show_sides(sides)}, the settings give {show_sides(expected)}: data.image_size"
        )
    if file.output_count != len(signature.output_names):
        expected = ", ".join(signature.output_names)
        raise UserError(f"{path}: gives {file.output_count} outputs, not the {len(signature.output_names)}: {expected}")
    name, rank, wanted = signature.output_names[0], len(file.output_shape), signature.output_rank
    if rank not in (0, wanted):  # 0 where the file does not say
        raise UserError(f"{path}: gives {name} of {rank} dimensions, not {wanted}")
    given, classes = file.output_shape[1] if rank > 1 else 1, signature.logit_classes
    if classes is not None and given not in (None, classes):
        raise UserError(f"{path}: gives {given} classes, the settings say {classes}; --num_classes {given} fits")


def cache_graphs(network, config, device_target):
    """Keep the compiled graphs of a network from `load_network` on disk, where the settings ask for it and it works."""
    if isinstance(network, FiniteNetwork):
        return FiniteNetwork(cache_graphs(network.network, config, device_target), network.path)
    wanted = config.runtime.compile_cache and config.runtime.graph_mode and device_target == "CPU"
    if not wanted or isinstance(network, ExportedNetwork):
        return network
    return CachedNetwork(network, graph_folder(), dump_config(config))


def graph_folder() -> Path:
    """Give `ghostnetv2-mindspore` in the user's folder for caches."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ghostnetv2-mindspore"
