"""The machine: device, graph mode, seed, and the environment of the libraries.

MindSpore is imported inside the functions, so that the environment can be set before it loads.
"""

import importlib.util
import math
import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from src.errors import UserError
from src.ranks import Ranks, join_ranks

DEVICE_TARGETS = ("Ascend", "GPU", "CPU")
ONEDNN_ISA = "ONEDNN_MAX_CPU_ISA"
FIRST_AFFECTED_ONEDNN = 3  # shipped since MindSpore 2.9 as libdnnl.so.3
DEVICE_FILES = {"Ascend": "/dev/davinci_manager", "GPU": "/dev/nvidiactl"}


@dataclass(frozen=True)
class Runtime:
    """Where this process runs.

    Attributes:
        device_target: 'Ascend', 'GPU' or 'CPU'.
        ranks: its place among the processes of the run.
    """

    device_target: str
    ranks: Ranks = Ranks()


def prepare_environment() -> None:
    """Quiet MindSpore's log, let Pillow keep its memory, select CPU kernels: each where the user has not decided."""
    os.environ.setdefault("GLOG_v", "3")  # errors only
    # freed and allocated anew for each image, memory has the kernel clear it: a tenth of the time of a data pipeline
    os.environ.setdefault("PILLOW_BLOCK_SIZE", "1m")
    os.environ.setdefault("PILLOW_BLOCKS_MAX", "64")
    if not any(os.path.exists(file) for file in DEVICE_FILES.values()):
        select_cpu_kernels()


def select_cpu_kernels() -> None:
    """Cap oneDNN at AVX2 where its AVX-512 convolution falls back to a reference loop.

    MindSpore 2.9 and newer bundle oneDNN 3, whose plain-layout convolution has no AVX-512 kernel: a dense 3x3
    convolution then takes many times as long. oneDNN reads the variable at its first primitive, so this
    works before and after `import mindspore`, but not behind the first operator. A value that is there already stays.
    """
    affected = has_avx512() and bundled_onednn_version() >= FIRST_AFFECTED_ONEDNN
    if affected:
        os.environ.setdefault(ONEDNN_ISA, "AVX2")


def has_avx512(cpuinfo: str = "/proc/cpuinfo") -> bool:
    """Whether this is an x86 processor with AVX-512."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return False
    try:
        text = Path(cpuinfo).read_text()
    except OSError:
        return False
    return any("avx512f" in line.split() for line in text.splitlines() if line.startswith("flags"))


def bundled_onednn_version() -> int:
    """Find the major version of MindSpore's oneDNN library, without loading MindSpore; 0 where there is none."""
    spec = importlib.util.find_spec("mindspore")
    if spec is None or not spec.origin:
        return 0
    names = [file.name for file in Path(spec.origin).parent.glob("lib/libdnnl.so.*")]
    versions = [name.split(".so.")[1].split(".")[0] for name in names]
    return max((int(version) for version in versions if version.isdigit()), default=0)


def available_device_targets() -> tuple:
    """List the device targets that MindSpore can use on this machine, best first; 'CPU' is always among them."""
    import mindspore

    return tuple(target for target in DEVICE_TARGETS if target == "CPU" or _is_available(mindspore, target))


def _is_available(mindspore, target: str) -> bool:
    if not os.path.exists(DEVICE_FILES[target]):
        return False
    before = mindspore.get_context("device_target")
    try:
        mindspore.set_context(device_target=target)
    except (RuntimeError, ValueError):
        return False
    mindspore.set_context(device_target=before)
    return True


def init_runtime(device_target: Optional[str], seed: int, graph_mode: bool) -> Runtime:
    """Set MindSpore up, on all processes where `msrun` started several, and tell where this one runs.

    Args:
        device_target: 'Ascend', 'GPU' or 'CPU'; None for the best that is there.
        seed: for weights, shuffling and augmentation.
        graph_mode: whether networks are compiled, or run operator by operator (PyNative).

    Raises:
        UserError: if the device is not there.
    """
    import mindspore

    available = available_device_targets()
    device_target = device_target or available[0]
    if device_target not in available:
        raise UserError(
            f"device_target={device_target!r} is not on this machine, or MindSpore {mindspore.__version__} "
            f"cannot use it; available: {', '.join(available)}"
        )
    if device_target == "CPU":
        select_cpu_kernels()
    mode = mindspore.GRAPH_MODE if graph_mode else mindspore.PYNATIVE_MODE
    mindspore.set_context(mode=mode, device_target=device_target)
    ranks = join_ranks()
    mindspore.set_seed(seed)
    return Runtime(device_target, ranks)


def machine_memory() -> float:
    """Find the size of the main memory in bytes; infinite where the system does not tell."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError):  # not a Unix
        return math.inf


def check_memory(name: str, content: str, *shape) -> None:
    """Refuse an array that the machine's memory cannot hold.

    Args:
        name: of the setting to change.
        content: what the numbers are, for the message.
        shape: of the array, float32.

    Raises:
        UserError: naming the setting, the shape and both sizes.
    """
    size, memory = 4 * math.prod(shape), machine_memory()
    if size > memory:
        raise UserError(
            f"{name}: {content} of {' x '.join(map(str, shape))} float32 take {size / 1e9:.1f} GB, "
            f"this machine has {memory / 1e9:.1f} GB of memory"
        )
