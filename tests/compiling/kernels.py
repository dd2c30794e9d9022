"""The kernels of a compiled training step or evaluation network, on CPU, and on GPU and Ascend without the device.

python tests/compiling/kernels.py {cpu,gpu,ascend} CASE... [section.key=value ...] [--update]   from the project's root

Each case is compiled in a process of its own, and MindSpore's dump of what it would launch is read. For GPU and Ascend,
stand-ins for CUDA's and CANN's libraries are needed, from a program `STUBS`, which says what that proves.
"""

import argparse
import collections
import dataclasses
import hashlib
import os
import re
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

PROJECT = Path(__file__).resolve().parents[2]
STUBS = PROJECT.parent / "shared" / "device_stubs" / "build.py"
TARGETS = {"cpu": "CPU", "gpu": "GPU", "ascend": "Ascend"}
CONFIGS = {
    "classification": "configs/classification/ghostnetv2_1x_imagenet.yaml",
    "detection": "configs/detection/yolov3_ghostnetv2_1x_coco.yaml",
    "segmentation": "configs/segmentation/deeplabv3_ghostnetv2_1x_ade20k.yaml",
}
BATCH, SIDE, UPDATES = 2, 128, 1000  # the last of an epoch, so that any warm-up fits into the run
HOST_CALLBACK = "PyExecute"


@dataclasses.dataclass(frozen=True)
class Compiled:
    """What came of a case.

    Attributes:
        kernels: Counter of (device, primitive, types).
        seconds: of the process.
    """

    kernels: collections.Counter
    seconds: float

    def count(self, device=None, primitive=None) -> int:
        """Count the kernels of a device and of a primitive; None for all."""
        wanted = (device, primitive)
        return sum(n for key, n in self.kernels.items() if all(w in (None, k) for w, k in zip(wanted, key)))


def compile_case(device, case, *settings, full=False) -> Compiled:
    """Compile a case in a process of its own.

    Args:
        device: 'cpu', 'gpu' or 'ascend'.
        case: name of a task, for its training step, or with `-eval` behind it, for its evaluation network.
        settings: overrides, 'section.key=value'.
        full: all blocks of the network, not one a stage and the last, which have the same kinds of kernels.

    Raises:
        RuntimeError: with the reason, if it does not compile.
    """
    with tempfile.TemporaryDirectory() as folder:
        variables = {
            **os.environ,
            **stub_environment(device),
            "MS_DEV_SAVE_GRAPHS": "1",
            "MS_DEV_SAVE_GRAPHS_PATH": folder,
            "MS_DEV_DUMP_IR_PASSES": "none",  # the list of kernels is dumped all the same
            "MS_COMPILER_CACHE_ENABLE": "0",
        }
        if "train.sync_bn=true" in settings:  # one of two processes, of which the other is not there
            variables.update(MS_SIMULATION_LEVEL="1", RANK_SIZE="2", RANK_ID="0")
        command = [sys.executable, __file__, device, case, *settings, "--here", folder, *["--full"] * full]
        start = time.monotonic()
        result = subprocess.run(command, env=variables, cwd=folder, capture_output=True, text=True, check=False)
        if result.returncode != 0:
            raise RuntimeError(result.stderr[-3000:])
        return Compiled(read_kernels(Path(folder)), time.monotonic() - start)


def compile_cases(device, cases, full=False):
    """Compile cases, each a name and settings, and yield a `Compiled` each; two at a time, as each takes one core."""
    with ThreadPoolExecutor(2) as pool:
        yield from pool.map(lambda case: compile_case(device, *case, full=full), cases)


def stub_environment(device) -> dict:
    """Build the stand-ins for a device's libraries, once a machine: the variables under which they are found.

    Another process may want them at the same time, or have them loaded: they are never built a second time in place.
    """
    if device == "cpu":
        return {}
    import fcntl

    digest = hashlib.sha256(STUBS.read_bytes() + sys.prefix.encode()).hexdigest()[:12]  # MindSpore's place counts
    folder = Path(tempfile.gettempdir()) / f"ghostnetv2_stubs_{os.getuid()}_{digest}"
    folder.mkdir(exist_ok=True)
    variables = folder / f"{device}.txt"
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not variables.is_file():
            command = [sys.executable, str(STUBS), device, str(folder)]
            output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            variables.write_text(output)
    return dict(re.findall(r"^export (\w+)=(.*)$", variables.read_text(), re.MULTILINE))


def read_kernels(folder) -> collections.Counter:
    """Count (device, primitive, types) in MindSpore's dump of a graph."""
    kernels = collections.Counter()
    for dump in folder.glob("**/final_actor_set_*.ir"):
        text = dump.read_text(errors="ignore")
        for name, details in re.findall(r"^%\d+ = kernel_graph\d+:(\S+?)-op\d+\(.*((?:\n\t# .*)+)", text, re.MULTILINE):
            device = re.search(r"device context: ([A-Za-z]+)", details)
            types = re.search(r"type : (.*?) *$", details, re.MULTILINE)
            kernels[device[1] if device else "?", name, shorten_types(types[1] if types else "?")] += 1
    return kernels


def shorten_types(text) -> str:
    """Shorten MindSpore's list of types, without lengths: `Float32* [Int64] <Bool> -> Float32`.

    A tensor's type stands alone, a tuple's in brackets, a number's as it is; * stands for repetitions.
    """
    text = re.sub(r"<(?:Ref\[)?Tensor\[(\w+)\]+>", r"\1", text)
    text = re.sub(r"<Tuple\[(\w*)(?:\*\d+)?\]>", r"[\1]", text)
    return re.sub(r"(?<!\S)(\S+)(?: \1)+(?!\S)", r"\1*", text)


def compile_here(device, case, settings, full) -> None:
    """Compile a case in this process, whose environment is set already."""
    import src.runtime

    src.runtime.DEVICE_FILES[TARGETS[device]] = os.devnull  # the driver's file, where the device is looked for
    import src.architecture
    import src.classification.task
    import src.training.setup
    from src.classification.teacher import build_teacher
    from src.config import load_config, parse_override
    from src.networks import create_network
    from src.ranks import Ranks
    from src.tasks import SCHEMAS, create_task

    if not full:
        shorten_network(src.architecture)
    src.training.setup.check_precision = lambda *_: None  # it would launch kernels
    src.classification.task.load_teacher = lambda path, num_classes, class_names: build_teacher(
        create_network("ghostnetv2_1x", num_classes, dropout=0.0)
    )
    src.runtime.check_launcher = lambda: None  # MindSpore's simulation is told the number of processes in this way
    name, _, part = case.partition("-")
    overrides = [parse_override(text) for text in (f"train.batch_size={BATCH}", *settings)]
    config = load_config(PROJECT / CONFIGS[name], SCHEMAS, overrides)
    runtime = src.runtime.init_runtime(TARGETS[device], 1, graph_mode=True)
    if config.train.sync_bn and "RANK_SIZE" in os.environ:
        from mindspore.communication import GlobalComm, init

        GlobalComm.CHECK_ENVS = False  # CANN's Python packages
        init()
        runtime = dataclasses.replace(runtime, ranks=Ranks(0, 2))
    task = create_task(config)
    network, columns = task.build_network(), build_columns(config)
    if part == "eval":
        task.build_evaluation_network(network).set_train(False).compile(columns[0])
        return
    data = SimpleNamespace(batches=UPDATES * config.train.accumulation_steps)
    run = src.training.setup.build_run(task, config, runtime, network, data)
    run.train_step.set_train().compile(*columns)


def shorten_network(architecture) -> None:
    """Leave one block a stage, and the last one, which keeps its input's resolution."""
    import src.ghostnetv2

    blocks = architecture.BLOCKS
    chosen = tuple(block for i, block in enumerate(blocks) if i in (0, len(blocks) - 1) or block[-1] > 1)
    for module in (architecture, src.ghostnetv2):
        if hasattr(module, "BLOCKS"):
            module.BLOCKS = chosen


def build_columns(config) -> list:
    """Build a batch of the task's dataset, without contents."""
    import numpy as np
    from mindspore import Tensor

    side = config.data.image_size if config.task == "detection" else SIDE
    images = np.zeros((BATCH, 3, side, side), np.float32)
    if config.task == "classification" and config.augment.mixes:
        truth = [np.zeros((BATCH, config.network.num_classes), np.float32)]
    elif config.task == "classification":
        truth = [np.zeros(BATCH, np.int32)]
    elif config.task == "detection":
        count = config.data.max_boxes
        truth = [np.zeros((BATCH, count, 4), np.float32), np.zeros((BATCH, count), np.int32)]
    else:
        truth = [np.zeros((BATCH, side, side), np.uint8)]
    return [Tensor(column) for column in (images, *truth)]


def main() -> None:
    sys.path[:0] = [str(PROJECT), str(PROJECT / "tests")]
    from compiling import review

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("device", choices=TARGETS)
    text = "TASK, or TASK-eval, and settings for all of them; `all` for those of the reviewed list"
    parser.add_argument("cases", nargs="+", metavar="CASE", help=text)
    parser.add_argument("--full", action="store_true", help="all blocks of the network")
    parser.add_argument("--update", action="store_true", help="add the kernels to the reviewed list")
    parser.add_argument("--here", help=argparse.SUPPRESS)
    arguments = parser.parse_intermixed_args()
    settings = [text for text in arguments.cases if "=" in text]
    names = [text for text in arguments.cases if "=" not in text]
    if arguments.here:
        try:
            compile_here(arguments.device, names[0], settings, arguments.full)
        except Exception as error:
            print(error, file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)  # nothing to tidy up on a device that is not there
    target, complete = TARGETS[arguments.device], arguments.cases == ["all"]
    cases = review.reviewed_cases(target) if complete else [(name, *settings) for name in names]
    seen = set()
    for case, compiled in zip(cases, compile_cases(arguments.device, cases, arguments.full)):
        print_case(case, compiled)
        seen |= review.describe(compiled.kernels, target)
    if arguments.update:
        review.update_list(target, seen, complete)


def print_case(case, compiled) -> None:
    host = compiled.count(primitive=HOST_CALLBACK)
    print(f"{' '.join(case)}: {compiled.count()} kernels, {host} host callbacks, {compiled.seconds:.0f} s")
    for (device, name, types), count in sorted(compiled.kernels.items()):
        print(f"  {device:6} {count:5} x {name}: {types}", flush=True)


if __name__ == "__main__":
    main()
