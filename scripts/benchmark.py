"""Time GhostNetV2 in every runtime that is installed here: python scripts/benchmark.py

Each measurement is a process of its own; rounds of all of them alternate, so that a busy moment hits every one.
Without options: inference. --train: a training step. --pipeline: input pipelines, on the images of --data_url.
"""

import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parent
sys.path[:0] = [str(SCRIPTS.parent), str(SCRIPTS)]
# without what `src` sets for MindSpore and Pillow, so that the others run as they do by themselves
ENVIRONMENT = dict(os.environ)

from benchmark_tables import FILES, PIPELINES, PLAIN, RUNTIMES, show_network, show_pipelines

from src.architecture import VARIANTS
from src.command_line import DEFAULT_CONFIG
from src.console import Parser, run
from src.errors import UserError
from src.files import write_text
from src.networks import NETWORKS
from src.weights.names import TIMM_NAMES

WORKER = SCRIPTS / "benchmark_worker.py"
PACKAGES = ("mindspore", "torch", "timm", "onnxruntime", "ai_edge_litert", "openvino")
FORMATS = {"mindir": "MINDIR", "onnx": "ONNX", "onnx_any": "ONNX", "onnx_int8": "ONNX"}  # that runtimes need
FORMATS.update(litert="TFLITE", litert_float16="TFLITE", litert_int8="TFLITE")
TYPES = {"onnx_int8": "int8", "litert_float16": "float16", "litert_int8": "int8"}  # of weights, if not float32
IMAGE_SIZES = {"classification": 224, "detection": 320, "segmentation": 512}


def parse_arguments():
    parser = Parser(__doc__.splitlines()[0])
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--train", action="store_true", help="time a training step: SGD with momentum")
    mode.add_argument("--pipeline", action="store_true", help="time input pipelines")
    parser.add_argument("--task", choices=IMAGE_SIZES, default="classification", help="whose network is timed")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=["ghostnetv2_1x"], metavar="NAME")
    parser.add_argument(
        "--batch_sizes", nargs="+", type=int, metavar="N", help="default: 1 16; 16 with --train, 64 with --pipeline"
    )
    parser.add_argument("--image_size", type=int, metavar="PIXELS", help="default: 224, 320 or 512, by task")
    parser.add_argument("--runtimes", nargs="+", choices=[row[0] for row in RUNTIMES], metavar="NAME", help="some only")
    parser.add_argument("--threads", type=int, metavar="N", help="default: what each runtime takes by itself")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="processes for each measurement")
    parser.add_argument("--runs", type=int, default=30, metavar="N", help="timed calls of a process, at batch 1")
    parser.add_argument("--data_url", metavar="DIR", help="folder of images for --pipeline")
    parser.add_argument("--config", default=str(DEFAULT_CONFIG), metavar="FILE", help="augmentation of --pipeline")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), metavar="N", help="of a pipeline")
    parser.add_argument("--samples", type=int, default=3200, metavar="N", help="images in a pass of a pipeline")
    parser.add_argument("--json", metavar="FILE", help="write all figures, new file")
    return parser.parse_args()


def machine() -> dict:
    """Where this runs."""
    model = ""
    if Path("/proc/cpuinfo").is_file():
        match = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
        model = match[1] if match else ""
    gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30 if hasattr(os, "sysconf") else 0
    versions = {name: importlib.metadata.version(name) for name in PACKAGES if importlib.util.find_spec(name)}
    return {
        "processor": model or platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "memory_gib": round(gib),
        "python": platform.python_version(),
        **versions,
    }


def describe_machine(facts) -> str:
    """`machine()` in words."""
    versions = ", ".join(f"{name} {facts[name]}" for name in ("python", *PACKAGES) if name in facts)
    return f"{facts['processor']}, {facts['cores']} cores, {facts['memory_gib']} GiB; {versions}"


def missing(packages) -> list:
    return [name for name in packages if importlib.util.find_spec(name) is None]


def call(kind, name, options):
    """The worker's result, or {'failed': reason}."""
    command = [sys.executable, str(WORKER), kind, name, json.dumps({**options, "started": time.time()})]
    process = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True)
    if process.returncode:
        lines = [line for line in process.stderr.splitlines() if line.strip()]
        return {"failed": lines[-1][:200] if lines else f"exit status {process.returncode}"}
    return json.loads(process.stdout.splitlines()[-1])


def race(kind, entries, rounds):
    """{key: list of results}: each entry (key, name, options) is measured once a round; failed ones drop out."""
    results = {key: [] for key, _, _ in entries}
    for number in range(rounds):
        for key, name, options in entries:
            if results[key] and "failed" in results[key][-1]:
                continue
            print(f"\rround {number + 1} of {rounds}: {key:40s}", end="", file=sys.stderr, flush=True)
            results[key].append(call(kind, name, options))
    print("\r" + " " * 70 + "\r", end="", file=sys.stderr, flush=True)
    return results


def summarise(results) -> dict:
    """Median and quartiles, in milliseconds, of all calls of all processes."""
    if "failed" in results[-1]:
        return results[-1]
    times = sorted(1000 * second for result in results for second in result["seconds"])
    low, high = (times[int(share * (len(times) - 1))] for share in (0.25, 0.75))
    figures = {"ms": statistics.median(times), "low": low, "high": high, "runs": len(times)}
    for key in ("until_answer", "peak_mb"):
        figures[key] = statistics.median(result[key] for result in results)
    return figures


def difference(results, expected):
    """Largest difference of the logits, as a share of their range."""
    output = results[-1].get("output")
    if output is None or expected is None:
        return None
    return max(abs(a - b) for a, b in zip(output, expected)) / (max(expected) - min(expected))


def choose_runtimes(arguments, network):
    """Rows of `RUNTIMES` that can be measured, and lines about the others."""
    chosen, notes = [], []
    for row in RUNTIMES:
        if arguments.runtimes and row[0] not in arguments.runtimes:
            continue
        lacking = missing(row[3])
        if lacking:
            notes.append(f"not measured: {row[4]} (not installed: {', '.join(lacking)})")
        elif "timm" in row[3] and not has_timm(row[0], network, arguments.task):
            notes.append(f"not measured: {row[4]} (timm has no {network} for {arguments.task})")
        else:
            chosen.append(row)
    return chosen, notes


def has_timm(key, network, task) -> bool:
    """Whether there is a network of timm's for a runtime: a classifier, or the backbone of another task's."""
    if key in PLAIN:
        return task != "classification" and network in TIMM_NAMES and network in VARIANTS
    return task == "classification" and network in TIMM_NAMES


def benchmark_network(arguments, network, kind, folder):
    """{'network', 'parameters', ..., 'rows': {runtime: {batch: figures}}} and notes, of inference or training."""
    runtimes, notes = choose_runtimes(arguments, network)
    if kind == "train":
        runtimes = [row for row in runtimes if row[0] in ("mindspore", "timm")]
    common = {"folder": folder, "network": network, "image_size": arguments.image_size, "threads": arguments.threads}
    common["task"] = arguments.task
    keys = {row[0] for row in runtimes}
    formats = sorted({FORMATS[key] for key in keys & FORMATS.keys()})
    types = sorted({TYPES.get(key, "float32") for key in keys})
    common.update(batches=arguments.batch_sizes, formats=formats, types=types, open_batch="onnx_any" in keys)
    common["plain"] = [FILES[key].removeprefix("{batch}.") for key in PLAIN if key in keys]
    facts = call("prepare", "mindspore", common)
    if "failed" not in facts and keys & {"timm_onnx", "timm_onnx_any", "openvino"} and kind == "infer":
        facts.update(call("prepare", "timm", common))
    if "failed" not in facts and common["plain"]:
        facts.update(call("prepare", "plain", common))
    if "failed" in facts:
        raise UserError(f"{network}: {facts['failed']}")
    rows = {row[0]: {} for row in runtimes}
    for batch in arguments.batch_sizes:
        runs = max(5, arguments.runs // (1 + batch // 4))
        entries = [
            (key, name, {**common, "batch": batch, "any_batch": is_open, "runs": runs})
            for key, name, is_open, _, _ in runtimes
        ]
        results = race(kind, entries, arguments.rounds)
        expected = results[next(iter(results))][-1].get("output")  # MindSpore's, unless that is left out
        for key in rows:
            rows[key][batch] = summarise(results[key])
            if kind == "infer":
                rows[key][batch]["difference"] = difference(results[key], expected)
            file = Path(folder) / f"{network}.{FILES[key].format(batch=batch)}"
            beside = Path(f"{file}.data")  # weights that PyTorch's exporter has put there
            size = file.stat().st_size + (beside.stat().st_size if beside.exists() else 0)
            rows[key][batch]["file_mb"] = size / 1e6
    return {"network": network, **facts, "rows": rows}, notes


def benchmark_pipelines(arguments):
    """{pipeline: {'images_per_second': all rounds, 'median'}}, notes."""
    if not arguments.data_url or not Path(arguments.data_url).is_dir():
        raise UserError("--pipeline: needs --data_url, a folder of images")
    options = {name: getattr(arguments, name) for name in ("data_url", "config", "samples", "workers")}
    options["batch"] = arguments.batch_sizes[0]
    notes = [f"not measured: {label} (not installed: {needs[0]})" for _, needs, label in PIPELINES if missing(needs)]
    entries = [(name, name, options) for name, needs, _ in PIPELINES if not missing(needs)]
    results = race("pipeline", entries, arguments.rounds)
    rows = {}
    for name, outcomes in results.items():
        if "failed" in outcomes[-1]:
            rows[name] = outcomes[-1]
            continue
        speeds = sorted(outcome["images_per_second"] for outcome in outcomes)
        rows[name] = {"images_per_second": speeds, "median": statistics.median(speeds)}
        notes += [note for note in outcomes[-1]["notes"] if note not in notes]
    return rows, notes


def main():
    arguments = parse_arguments()
    kind = "train" if arguments.train else "infer"
    default = [64] if arguments.pipeline else [16] if arguments.train else [1, 16]
    arguments.batch_sizes = arguments.batch_sizes or default
    arguments.image_size = arguments.image_size or IMAGE_SIZES[arguments.task]
    for name in ("rounds", "runs", "workers", "samples"):
        if getattr(arguments, name) < 1:
            raise UserError(f"--{name} {getattr(arguments, name)} is out of range: at least 1")
    if arguments.task != "classification" and (arguments.train or arguments.pipeline):
        raise UserError(f"--task {arguments.task}: --train and --pipeline are for classification")
    if arguments.json and Path(arguments.json).exists():
        raise UserError(f"--json {arguments.json}: exists")
    report = {"machine": machine(), "kind": "pipeline" if arguments.pipeline else kind, "results": []}
    print(describe_machine(report["machine"]) + "\n")
    if arguments.pipeline:
        rows, notes = benchmark_pipelines(arguments)
        report["results"].append(rows)
        print("\n".join([*show_pipelines(rows, arguments), *notes]))
    else:
        with tempfile.TemporaryDirectory() as folder:
            for network in arguments.networks:
                result, notes = benchmark_network(arguments, network, kind, folder)
                report["results"].append(result)
                print("\n".join([*show_network(result, arguments, kind), *notes]) + "\n")
    if arguments.json:
        write_text(arguments.json, json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    run(main)
