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
LEVELS = ("O0", "O2", "O3", "auto")  # of mixed precision
ONEDNN_ISA = "ONEDNN_MAX_CPU_ISA"
FIRST_AFFECTED_ONEDNN = 3  # shipped since MindSpore 2.9 as libdnnl.so.3
DEVICE_FILES = {"Ascend": "/dev/davinci_manager", "GPU": "/dev/nvidiactl"}

LIMB = 20  # bits of a whole number that float32 still sums exactly over 16 processes

_isa_set_here = False
_rank, _ranks = 0, 1


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
    """Quiet MindSpore's log, let Pillow keep its memory, select CPU kernels: each where the user has not decided."""
    os.environ.setdefault("GLOG_v", "3")  # errors only
    # freed and allocated anew for each picture, memory has the kernel clear it: a tenth of the time of a data pipeline
    os.environ.setdefault("PILLOW_BLOCK_SIZE", "1m")
    os.environ.setdefault("PILLOW_BLOCKS_MAX", "64")
    if not any(os.path.exists(file) for file in DEVICE_FILES.values()):
        select_cpu_kernels("CPU")


def select_cpu_kernels(device_target: str) -> None:
    """Cap oneDNN at AVX2 where its AVX-512 convolution falls back to a reference loop.

    MindSpore 2.9 and newer bundle oneDNN 3, whose plain-layout convolution has no AVX-512 kernel: a dense 3x3
    convolution then takes many times as long. oneDNN reads the variable at its first primitive, so this
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


def _init_ranks():
    """(rank, ranks) of this process; starts MindSpore's communication where `msrun` launched it."""
    global _rank, _ranks
    if "MS_ROLE" not in os.environ:
        return 0, 1
    import mindspore
    from mindspore.communication import GlobalComm, get_group_size, get_rank, init

    if not GlobalComm.INITED:
        init()
    _rank, _ranks = get_rank(), get_group_size()
    mindspore.set_auto_parallel_context(
        parallel_mode=mindspore.ParallelMode.DATA_PARALLEL, gradients_mean=True, device_num=_ranks
    )
    return _rank, _ranks


def place_among_ranks():
    """(rank, ranks) of this process, as `init_runtime` found them; (0, 1) before it."""
    return _rank, _ranks


def mean_over_ranks(parameters):
    """Set each parameter to its mean over all processes of the run."""
    if _ranks == 1 or not parameters:
        return
    import numpy as np
    from mindspore import Tensor, ops

    values = [parameter.asnumpy() for parameter in parameters]
    total = ops.AllReduce()(Tensor(np.concatenate([value.ravel() for value in values]))).asnumpy()
    ends = np.cumsum([value.size for value in values])[:-1]
    for parameter, value, part in zip(parameters, values, np.split(total / np.float32(_ranks), ends)):
        parameter.set_data(Tensor(part.reshape(value.shape)))


def wait_for_ranks() -> None:
    """Return once all processes of the run have come here."""
    import numpy as np

    sum_over_ranks(np.zeros(1, np.int64))


def sum_over_ranks(values):
    """Sum of an array over all processes of the run, the same on each.

    Whole numbers are exact below 2**60; others keep about 48 bits. The devices' common ground is float32, so
    values travel in parts.
    """
    import numpy as np

    if _ranks == 1:
        return values
    from mindspore import Tensor, ops

    reduce = ops.AllReduce()

    def total(part):
        return reduce(Tensor(part.astype(np.float32))).asnumpy().astype(np.float64)

    if np.issubdtype(values.dtype, np.integer):
        limbs = [total(values >> shift & (1 << LIMB) - 1) for shift in (0, LIMB)] + [total(values >> 2 * LIMB)]
        return sum(limb.astype(np.int64) << shift for limb, shift in zip(limbs, (0, LIMB, 2 * LIMB)))
    high = values.astype(np.float32)
    return total(high) + total(values - high)


def init_runtime(
    device_target: Optional[str] = None, seed: int = 1, graph_mode: bool = True, compile_cache: bool = False
) -> Runtime:
    """Set MindSpore up, on all processes where `msrun` started several, and return where this one runs.

    Args:
        device_target: 'Ascend', 'GPU' or 'CPU'; None for the best that is there.
        seed: for weights, shuffling and augmentation.
        graph_mode: compile the network (default), or run it operator by operator (PyNative).
        compile_cache: keep compiled graphs of evaluation on disk, where that is known to work: on CPU.

    Raises:
        UserError: if the device is not there.
    """
    import mindspore

    from src.compile_cache import default_folder, keep_graphs

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
    keep_graphs(default_folder() if compile_cache and graph_mode and device_target == "CPU" else None)
    rank, ranks = _init_ranks()
    mindspore.set_seed(seed)
    return Runtime(device_target, rank, ranks)
