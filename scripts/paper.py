"""The paper's comparisons that need no training, as tables and drawings: python scripts/paper.py --output_dir paper

Parameters, multiply-adds and latency of every size, attention and ablation. Latency is that of one image on one thread,
in ONNX Runtime and in LiteRT, where these are installed; every measurement is a process of its own, and those of all
networks alternate. Accuracies are published ones.
"""

import csv
import io
import json
import statistics
import sys
import tempfile
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parent
sys.path[:0] = [str(SCRIPTS.parent), str(SCRIPTS)]

from benchmark import call, describe_machine, machine, missing
from matplotlib.figure import Figure
from paper_tables import MOBILENETV2, TABLES, V1
from tqdm import tqdm

from src.architecture import MIN_INPUT_SIZE
from src.console import Parser, run
from src.errors import UserError
from src.files import atomic_path, write_text

RUNTIMES = {
    # worker's name: (label, format of the file, packages it needs)
    "onnx": ("ONNX Runtime", "ONNX", ("onnx", "onnxruntime")),
    "litert": ("LiteRT", "TFLITE", ("ai_edge_litert",)),
}
REPORT = "paper.md"


def parse_arguments():
    parser = Parser(__doc__.splitlines()[0])
    parser.add_argument("--output_dir", type=Path, metavar="DIR", help="new folder for tables and drawings")
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=list(TABLES), metavar="NAME", help="some only")
    parser.add_argument("--image_size", type=int, default=224, metavar="PIXELS")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="processes for each latency; 0 for none")
    parser.add_argument("--runs", type=int, default=30, metavar="N", help="timed calls of a process")
    arguments = parser.parse_args()
    for name, low in (("image_size", MIN_INPUT_SIZE), ("rounds", 0), ("runs", 1)):
        if getattr(arguments, name) < low:
            raise UserError(f"--{name} {getattr(arguments, name)} is out of range: at least {low}")
    if arguments.output_dir and arguments.output_dir.exists():
        raise UserError(f"--output_dir {arguments.output_dir}: exists")
    return arguments


def key_of(row) -> str:
    """Give a name for the network of a row, the same for rows that only differ in their labels."""
    return json.dumps([row.name, row.options])


def measure(rows, arguments, runtimes, folder) -> dict:
    """Build the networks of the rows, and time each in each runtime, in turn.

    Returns:
        {key: {'parameters', 'multiply_adds', 'all_multiply_adds', runtime: milliseconds of each round}}; 'failed' with
        the reason in a runtime's place where it does not run.
    """
    common = {"folder": folder, "image_size": arguments.image_size, "threads": 1, "batches": [1], "batch": 1}
    common.update(
        task="classification",
        types=["float32"],
        any_batch=False,
        open_batch=False,
        runs=arguments.runs,
        formats=[RUNTIMES[name][1] for name in runtimes],
    )
    options = {}
    for number, row in enumerate(rows):
        options.setdefault(key_of(row), {**common, "network": str(number), "name": row.name, "options": row.options})
    progress = tqdm(total=len(options) * (1 + arguments.rounds * len(runtimes)), unit="process", disable=None)
    results = {}
    for key, chosen in options.items():
        results[key] = call("prepare", "row", chosen)
        if "failed" in results[key]:
            raise UserError(f"{chosen['name']} with {chosen['options']}: {results[key]['failed']}")
        results[key].update({name: [] for name in runtimes})
        progress.update()
    for _ in range(arguments.rounds):
        for name in runtimes:
            for key, chosen in options.items():
                outcome = call("infer", name, chosen)
                times = results[key][name]
                if "failed" in outcome:
                    results[key][name] = outcome
                elif isinstance(times, list):
                    times.append(1000 * statistics.median(outcome["seconds"]))
                progress.update()
    progress.close()
    return results


def latency(result, reference, runtime):
    """Give the median milliseconds, and how many times the reference's, both None where there are none.

    The ratio is the median of that of each round.
    """
    times, others = result.get(runtime), reference.get(runtime)
    if not isinstance(times, list) or not times:
        return None, None
    ratio = statistics.median(a / b for a, b in zip(times, others)) if isinstance(others, list) else None
    return statistics.median(times), ratio


def fill_table(rows, results, runtimes):
    """Give the heads and the lines of a table, as texts; "" for what is not known."""
    heads = ["network", "parameters, M", "multiply-adds, M", "all products, M"]
    for name in runtimes:
        heads += [f"{RUNTIMES[name][0]}, ms", f"times {V1.label}"]
    lines = []
    for row in rows:
        result = results[key_of(row)]
        line = [row.label, f"{result['parameters'] / 1e6:.2f}"]
        line += [f"{result[name] / 1e6:.1f}" for name in ("multiply_adds", "all_multiply_adds")]
        for name in runtimes:
            milliseconds, ratio = latency(result, results[key_of(V1)], name)
            failed = result[name].get("failed", "") if isinstance(result[name], dict) else ""
            line += [failed if milliseconds is None else f"{milliseconds:.2f}", "" if ratio is None else f"{ratio:.2f}"]
        lines.append([*line, "" if row.accuracy is None else str(row.accuracy), row.source])
    return [*heads, "top-1, published", "source"], lines


def as_markdown(title, heads, lines) -> str:
    """Put a table into Markdown."""
    rows = [heads, ["---"] * len(heads), *([cell.replace("|", "/") for cell in line] for line in lines)]
    return f"## {title}\n\n" + "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"


def as_csv(heads, lines) -> str:
    """Put a table into CSV."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([heads, *lines])
    return text.getvalue()


def draw(rows, results, runtimes, path) -> None:
    """Draw published accuracy over multiply-adds, and over each latency: the paper's figure 1."""
    axes_of = ["multiply_adds", *runtimes]
    drawn = {key_of(row): row for row in rows if row.accuracy is not None and row.family}.values()
    figure = Figure(figsize=(6 * len(axes_of), 5), layout="constrained")
    axes = figure.subplots(1, len(axes_of), squeeze=False)
    for kind, axis in zip(axes_of, axes[0]):
        families = {}
        for row in drawn:
            result = results[key_of(row)]
            x = result[kind] / 1e6 if kind == "multiply_adds" else latency(result, {}, kind)[0]
            if x is not None:
                families.setdefault(row.family, []).append((x, row.accuracy, row.label))
        for family, points in families.items():
            points.sort()
            of_one_size = len(points) == 1 or family == MOBILENETV2.family
            axis.plot(
                *zip(*[point[:2] for point in points]), marker="o", linestyle="" if of_one_size else "-", label=family
            )
            for number, (x, y, label) in enumerate(points):
                place, side = ((5, 4 if number % 2 else -11), "left") if len(points) > 1 else ((0, -19), "center")
                axis.annotate(label, (x, y), xytext=place, textcoords="offset points", fontsize=7, ha=side)
        axis.margins(x=0.45, y=0.12)
        axis.set_xlabel("multiply-adds, millions" if kind == "multiply_adds" else f"{RUNTIMES[kind][0]}, ms an image")
        axis.set_ylabel("top-1 accuracy on ImageNet, published, %")
        axis.grid(alpha=0.3)
        axis.legend(loc="upper left")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150)


def main():
    arguments = parse_arguments()
    runtimes = [name for name, (_, _, needs) in RUNTIMES.items() if not missing(needs)] if arguments.rounds else []
    rows = [V1, *(row for name in arguments.tables for row in TABLES[name][1])]
    with tempfile.TemporaryDirectory() as folder:
        results = measure(rows, arguments, runtimes, folder)
    text = f"{describe_machine(machine())}; one thread, {arguments.image_size}x{arguments.image_size} pixels\n\n"
    tables = {name: fill_table(TABLES[name][1], results, runtimes) for name in arguments.tables}
    text += "\n".join(as_markdown(TABLES[name][0], *table) for name, table in tables.items())
    print(text)
    if arguments.output_dir:
        arguments.output_dir.mkdir(parents=True)
        write_text(arguments.output_dir / REPORT, text)
        for name, table in tables.items():
            write_text(arguments.output_dir / f"{name}.csv", as_csv(*table))
        draw(rows, results, runtimes, arguments.output_dir / "figure1.png")


if __name__ == "__main__":
    run(main)
