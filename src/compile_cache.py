"""Compiled graphs of evaluation, kept on disk between runs: the first batch then comes seconds earlier.

MindSpore's own cache does not look at what it is asked for: it hands out the graph of another network, or of another
batch size, if only the source files are the same. So each graph has a folder of its own here, named by all
that the graph depends on. Training graphs are not kept: read back, they no longer update all parameters.
"""

import hashlib
import os
import platform
import shutil
import tempfile
from pathlib import Path

import mindspore
import numpy as np
from mindspore import Parameter, Tensor, nn

_folder = None


def default_folder() -> Path:
    """`ghostnetv2-mindspore` in the user's folder for caches."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ghostnetv2-mindspore"


def keep_graphs(folder) -> None:
    """Keep compiled graphs in `folder` from now on; None: no longer. The main script must be a file, for MindSpore."""
    global _folder
    _folder = folder


def run_cached(network, *inputs):
    """`network(*inputs)`, with its graph from the cache where there is one.

    Args:
        network: nn.Cell in evaluation mode, or anything else that can be called, which is just called.
        inputs: tensors.
    """
    if _folder is not None and isinstance(network, nn.Cell) and not network.training:
        shapes = tuple((tensor.shape, str(tensor.dtype)) for tensor in inputs)
        compiled = network.__dict__.setdefault("graphs_compiled", set())
        if shapes not in compiled:
            compiled.add(shapes)
            _compile(network, inputs, Path(_folder) / describe(network, inputs))
    return network(*inputs)


def describe(network, inputs) -> str:
    """Digest of all that a graph depends on: versions, source files, cells, parameters and inputs."""
    digest = hashlib.sha256()

    def add(*values):
        digest.update(repr(values).encode())

    add(mindspore.__version__, platform.python_version(), mindspore.get_context("device_target"))
    add(mindspore.get_context("mode"))
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    for name, cell in network.cells_and_names():
        add(name, type(cell).__module__, type(cell).__qualname__)
        for key, value in sorted(vars(cell).items()):
            if not key.startswith("_"):  # MindSpore's own, such as the time of creation
                add(key, _constant(value))
        add(sorted((key, str(primitive)) for key, primitive in cell._primitives.items()))
    for parameter in network.get_parameters():
        add(parameter.name, parameter.shape, str(parameter.dtype))
    for tensor in inputs:
        add(tensor.shape, str(tensor.dtype))
    return digest.hexdigest()[:32]


def _constant(value):
    """What a graph may hold of a cell's attribute."""
    if isinstance(value, Parameter):
        return None
    if isinstance(value, Tensor):
        value = value.asnumpy()
    if isinstance(value, np.ndarray):
        return value.shape, str(value.dtype), value.tobytes()
    if isinstance(value, (list, tuple)):
        return [_constant(item) for item in value]
    return value if isinstance(value, (bool, int, float, str)) else None


def _compile(network, inputs, folder) -> None:
    """Compile a graph, or read it from `folder`; where it is new, the folder appears once it is whole."""
    target = folder
    if not folder.is_dir():
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            target = Path(tempfile.mkdtemp(prefix=".", dir=folder.parent))
        except OSError:  # no place for a cache: compile as without one
            return
    mindspore.set_context(enable_compile_cache=True, compile_cache_path=str(target))
    try:
        network.compile(*inputs)
    finally:
        mindspore.set_context(enable_compile_cache=False)
        if target != folder:
            try:
                target.rename(folder)
            except OSError:  # another process was faster, or the disk is full
                shutil.rmtree(target, ignore_errors=True)
