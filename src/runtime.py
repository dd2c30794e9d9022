"""The machine: device, graph mode, seed, and the environment of the libraries.

MindSpore is imported inside the functions, so that the environment can be set before it loads.
"""

import ctypes
import importlib.util
import math
import os
import platform
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from src.errors import UserError
from src.ranks import Ranks, join_ranks

DEVICE_TARGETS = ("Ascend", "GPU", "CPU")
ONEDNN_ISA = "ONEDNN_MAX_CPU_ISA"
FIRST_AFFECTED_ONEDNN = 3  # shipped since MindSpore 2.9 as libdnnl.so.3
DEVICE_FILES = {"Ascend": "/dev/davinci_manager", "GPU": "/dev/nvidiactl"}
PLUGINS = {"Ascend": "libmindspore_ascend.so*", "GPU": "libmindspore_gpu.so*"}  # of MindSpore
NEEDED = {"Ascend": "CANN's set_env.sh", "GPU": "CUDA_HOME and LD_LIBRARY_PATH"}  # for these to load
LAUNCHED = ("RANK_SIZE", "OMPI_COMM_WORLD_SIZE")  # number of processes, of launchers that are not msrun


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


def find_devices() -> dict:
    """Look for the devices of this machine.

    Returns:
        {device target: None, or why MindSpore cannot use it}, best first; 'CPU' is always among them.
    """
    import mindspore

    found = {target: _try_device(mindspore, target) for target, file in DEVICE_FILES.items() if os.path.exists(file)}
    return {**found, "CPU": None}


def _try_device(mindspore, target):
    """Find out why MindSpore cannot use a device that is there; None if it can."""
    before = mindspore.get_context("device_target")
    try:
        mindspore.set_context(device_target=target)
    except (RuntimeError, ValueError) as error:
        return _plugin_problem(mindspore, target) or str(error).strip().splitlines()[0]
    mindspore.set_context(device_target=before)
    return None


def _plugin_problem(mindspore, target):
    """Find out why the libraries of a device do not load, which MindSpore only logs; None if one does."""
    plugins = sorted(Path(mindspore.__file__).parent.glob(f"lib/plugin/{PLUGINS[target]}"))
    if not plugins:
        return f"this MindSpore has no library {PLUGINS[target]}"
    try:
        ctypes.CDLL(str(plugins[-1]))
    except OSError as error:
        return f"{error}; {NEEDED[target]} may be missing"
    return None


def choose_device(device_target: Optional[str]) -> str:
    """Choose the best device that MindSpore can use, or the one that is asked for.

    Raises:
        UserError: if MindSpore cannot use what is asked for.
    """
    import mindspore

    devices = find_devices()
    usable = [target for target, problem in devices.items() if problem is None]
    if device_target is None:
        for target, problem in devices.items():
            if problem is not None:
                print(f"warning: {target} is not used: {problem}", file=sys.stderr)
        return usable[0]
    if device_target in usable:
        return device_target
    problem = devices.get(device_target) or f"it is not on this machine (MindSpore {mindspore.__version__})"
    raise UserError(f"device_target={device_target!r} cannot be used: {problem}; available: {', '.join(usable)}")


def check_launcher() -> None:
    """Raise `UserError` if several processes were started by a launcher that is not msrun: each would train alone."""
    if "MS_ROLE" in os.environ:
        return
    for name in LAUNCHED:
        count = os.environ.get(name, "")
        if count.isascii() and count.isdigit() and int(count) > 1:
            raise UserError(
                f"{name}={count}: started as one of {count} processes, but not by msrun; "
                f"msrun --worker_num={count} starts them, see scripts/run_distribute_train.sh"
            )


def init_runtime(
    device_target: Optional[str],
    seed: int,
    graph_mode: bool,
    device_id: Optional[int] = None,
    jit_level: Optional[str] = None,
    reduced_float32: bool = False,
) -> Runtime:
    """Set MindSpore up, on all processes where `msrun` started several, and tell where this one runs.

    Args:
        device_target: 'Ascend', 'GPU' or 'CPU'; None for the best that is there.
        seed: for weights, shuffling and augmentation.
        graph_mode: whether networks are compiled, or run operator by operator (PyNative).
        device_id: number of the device; None for the first, or the one that msrun gives.
        jit_level: of MindSpore's compiler, 'O0', 'O1' or 'O2'; None for the one that suits the device.
        reduced_float32: whether convolutions may take HF32 (Ascend) or TF32 (GPU) in place of float32.

    Raises:
        UserError: if the device is not there, or several processes were started in another way.
    """
    import mindspore

    check_launcher()
    device_target = choose_device(device_target)
    if device_target == "CPU":
        select_cpu_kernels()
    mode = mindspore.GRAPH_MODE if graph_mode else mindspore.PYNATIVE_MODE
    mindspore.set_context(mode=mode, device_target=device_target)
    set_device_id(device_target, device_id)
    set_device_options(device_target, jit_level, reduced_float32)
    ranks = join_ranks()
    mindspore.set_seed(seed)
    return Runtime(device_target, ranks)


def set_device_id(device_target: str, device_id: Optional[int]) -> None:
    """Choose one of several devices; raises `UserError` where there is no choice."""
    import mindspore

    if device_id is None:
        return
    if "MS_ROLE" in os.environ:
        raise UserError(f"runtime.device_id: {device_id}: msrun gives each process its device")
    if device_target == "CPU" and device_id != 0:
        raise UserError(f"runtime.device_id: {device_id}: there is one CPU, 0")
    mindspore.set_context(device_id=device_id)


def set_device_options(device_target: str, jit_level: Optional[str], reduced_float32: bool) -> None:
    """Set the compiler's level and the precision of convolutions."""
    import mindspore

    # by itself, Ascend 910A takes GE, which does not suit a training step of many small operators
    level = jit_level or ("O0" if device_target == "Ascend" else None)
    if level is not None:
        mindspore.set_context(jit_config={"jit_level": level})
    if device_target == "Ascend":
        mindspore.set_context(ascend_config={"conv_allow_hf32": reduced_float32, "matmul_allow_hf32": False})
    elif device_target == "GPU":
        mindspore.set_context(gpu_config={"conv_allow_tf32": reduced_float32, "matmul_allow_tf32": False})


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
