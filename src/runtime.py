"""The machine: device, graph mode, seed, ranks, and the choice of CPU kernels.

Only the standard library is imported at the top, so that the environment is set before MindSpore loads.
"""

import importlib.util
import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from src.errors import UserError

DEVICE_TARGETS = ("Ascend", "GPU", "CPU")
ONEDNN_ISA = "ONEDNN_MAX_CPU_ISA"
FIRST_AFFECTED_ONEDNN = 3  # shipped since MindSpore 2.9 as libdnnl.so.3
DEVICE_FILES = {"Ascend": "/dev/davinci_manager", "GPU": "/dev/nvidiactl"}

_isa_set_here = False


@dataclass(frozen=True)
class Runtime:
    """Where this process runs: device target, and its place among the processes of a data-parallel run."""

    device_target: str
    rank: int = 0
    ranks: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and prints."""
        return self.rank == 0


def prepare_environment() -> None:
    """Quiet MindSpore's log and select CPU kernels, each only where the user has not decided."""
    os.environ.setdefault("GLOG_v", "3")  # errors only
    if not any(os.path.exists(file) for file in DEVICE_FILES.values()):
        select_cpu_kernels("CPU")


def select_cpu_kernels(device_target: str) -> None:
    """Cap oneDNN at AVX2 where its AVX-512 convolution falls back to a reference loop.

    MindSpore 2.9 and newer bundle oneDNN 3, whose plain-layout convolution has no AVX-512 kernel: a 3x3
    convolution then takes about 60 times as long. oneDNN reads the variable at its first primitive, so this
    works before and after `import mindspore`, but not behind the first operator. A value that the user has
    set stays, and one that was set here is taken back when the device is not the CPU.
    """
    global _isa_set_here
    if device_target != "CPU":
        if _isa_set_here:
            os.environ.pop(ONEDNN_ISA, None)
            _isa_set_here = False
    elif ONEDNN_ISA not in os.environ and has_avx512() and bundled_onednn_version() >= FIRST_AFFECTED_ONEDNN:
        os.environ[ONEDNN_ISA] = "AVX2"
        _isa_set_here = True


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
    """Major version of MindSpore's oneDNN library; 0 where there is none. Does not load MindSpore."""
    spec = importlib.util.find_spec("mindspore")
    if spec is None or not spec.origin:
        return 0
    names = [file.name for file in Path(spec.origin).parent.glob("lib/libdnnl.so.*")]
    versions = [name.split(".so.")[1].split(".")[0] for name in names]
    return max((int(version) for version in versions if version.isdigit()), default=0)


def available_device_targets() -> tuple:
    """The device targets that MindSpore can use on this machine, best first; 'CPU' is always among them."""
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


def init_runtime(device_target: Optional[str] = None, seed: int = 1, graph_mode: bool = True) -> Runtime:
    """Set MindSpore up and return where this process runs.

    Args:
        device_target: 'Ascend', 'GPU' or 'CPU'; None for the best that is there.
        seed: for weights, shuffling and augmentation.
        graph_mode: compile the network (default), or run it operator by operator (PyNative).

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
    select_cpu_kernels(device_target)
    mindspore.set_context(
        mode=mindspore.GRAPH_MODE if graph_mode else mindspore.PYNATIVE_MODE, device_target=device_target
    )
    mindspore.set_seed(seed)
    return Runtime(device_target)
