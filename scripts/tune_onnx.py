"""Find the structures of Ghost modules that ONNX Runtime runs fastest on this machine: python scripts/tune_onnx.py

A search from the table in src/export/onnx_structures.py: place by place, it tries every other structure. A candidate
is timed against the table in alternating calls, and taken over where it is faster beyond doubt, twice. Two sessions of
one file differ by 1 to 3 % as long as they last, so each round has new ones.
"""

import math
import sys
import textwrap
import time
from functools import lru_cache
from pathlib import Path

import numpy as np
from tqdm import tqdm

SCRIPTS = Path(__file__).resolve().parent
sys.path[:0] = [str(SCRIPTS.parent), str(SCRIPTS)]

from benchmark import describe_machine, machine, missing
from random_weights import randomise

from src.architecture import BLOCKS, MIN_INPUT_SIZE, VARIANTS
from src.console import Parser, run
from src.errors import UserError
from src.export.onnx_structures import STRUCTURES
from src.files import write_text
from src.runtime import init_runtime

TABLE_FILE = SCRIPTS.parent / "src" / "export" / "onnx_structures.py"
KINDS = ("joined", "split", "doubled")  # see `src.export.onnx_backbone`
SEED = 0
TOLERANCE = 1e-5  # of the outputs' range, between two tables
DOUBT = 3.3  # standard deviations: one in 2000 comparisons without a difference finds a gain
MIN_ROUNDS = 15  # fewer are never beyond doubt
FIRST_ROUNDS = 5  # that a candidate has to seem faster in, before the others
OPTIONS = ("networks", "image_size", "batch_sizes", "threads", "rounds", "passes")  # that the table depends on
MODULE = '''"""Structures of the Ghost modules of all bottlenecks in ONNX graphs, see `src.export.onnx_backbone`.

{source}
scripts/tune_onnx.py --write rewrites this file.
"""

STRUCTURES = (  # blocks that follow one another without a shortcut convolution must agree in the second
    # first, second Ghost module
{rows}
)
'''


def parse_arguments():
    parser = Parser(__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", choices=VARIANTS, default=["ghostnetv2_1x"], metavar="NAME")
    parser.add_argument("--image_size", type=int, default=224, metavar="PIXELS")
    parser.add_argument("--batch_sizes", nargs="+", type=int, default=[1, 16], metavar="N")
    parser.add_argument("--threads", type=int, default=2, metavar="N", help="of ONNX Runtime, within an operator")
    parser.add_argument("--rounds", type=int, default=20, metavar="N", help="pairs of sessions in a comparison")
    parser.add_argument("--passes", type=int, default=3, metavar="N", help="over all places of the table, at most")
    parser.add_argument("--output", metavar="FILE", help="write the table found as a module, new file")
    parser.add_argument("--write", action="store_true", help=f"replace {TABLE_FILE.name} if the table found is faster")
    arguments = parser.parse_args()
    limits = {"image_size": MIN_INPUT_SIZE, "rounds": MIN_ROUNDS, "batch_sizes": 1, "threads": 1, "passes": 1}
    for name, least in limits.items():
        lowest = np.min(getattr(arguments, name))
        if lowest < least:
            raise UserError(f"--{name} {lowest} is out of range: at least {least}")
    if arguments.output and Path(arguments.output).exists():
        raise UserError(f"--output {arguments.output}: exists")
    lacking = missing(("onnx", "onnxruntime"))
    if lacking:
        raise UserError(f"needs {' and '.join(lacking)}: pip install {' '.join(lacking)}")
    return arguments


class Race:
    """Times the ONNX graphs of two tables against each other: each network at each batch size."""

    def __init__(self, networks, image_size, batch_sizes, threads):
        self.cases = [(network, batch) for network in map(build_network, networks) for batch in batch_sizes]
        self.image_shape, self.threads = (3, image_size, image_size), threads
        self.models = lru_cache(maxsize=2)(self.build_models)

    def build_models(self, table) -> list:
        """Build the bytes of an ONNX file for each case; raises `ValueError` where the table does not allow it."""
        from src.classification.export_graph import describe_classifier
        from src.export.onnx_graph import build_onnx

        options = {"structures": table}
        models = [build_onnx(describe_classifier, network, self.image_shape, n, **options) for network, n in self.cases]
        return [model.SerializeToString() for model in models]

    def allows(self, table) -> bool:
        """Whether the graphs can be built."""
        try:
            self.models(table)
        except ValueError:
            return False
        return True

    def start(self, table) -> list:
        """Start a session for each case: functions that give the logits of random images."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        # threads look out for work after a call, for longer than the next one takes, and would slow the other session
        options.add_session_config_entry("session.force_spinning_stop", "1")
        generator, calls = np.random.default_rng(SEED), []
        for model, (_, batch) in zip(self.models(table), self.cases):
            session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
            feed = {"image": generator.standard_normal((batch, *self.image_shape)).astype(np.float32)}
            calls.append(lambda session=session, feed=feed: session.run(None, feed)[0])
        return calls

    def compare(self, candidate, table, rounds):
        """Time two tables: ln(candidate's time / table's) in each round, the mean over all cases."""
        return np.array([self.run_round(candidate, table, number) for number in range(rounds)])

    def run_round(self, candidate, table, number) -> float:
        """Time two tables in new sessions; which come first alternates with `number`."""
        step = 1 if number % 2 else -1
        started = [self.start(each) for each in (candidate, table)[::step]][::step]
        largest = max(batch for _, batch in self.cases)
        ratios = []
        for (_, batch), *pair in zip(self.cases, *started):
            check_outputs(*[call() for call in pair])
            for call in pair:  # to warm up
                call()
            ratios.append(time_pair(*pair, 2 * largest // batch, number))  # each case takes about the same time
        return float(np.mean(ratios))


def build_network(name):
    """Build a network with random weights and batch normalisation, folded."""
    from src.export.folding import fold_batch_norm
    from src.ghostnetv2 import create_network

    return fold_batch_norm(randomise(create_network(name, dropout=0.0)))


def check_outputs(actual, expected) -> None:
    """Raise `UserError` if the logits of two tables differ."""
    difference = np.abs(actual - expected).max() / np.ptp(expected)
    if not difference <= TOLERANCE:  # nan fails too
        raise UserError(f"outputs of two tables differ by {difference:.2g} of their range, allowed is {TOLERANCE}")


def time_pair(first, second, count, number) -> float:
    """Take the median of ln(first's time / second's) in pairs of calls; who begins alternates, also with `number`."""
    ratios = []
    for index in range(number, number + count):
        seconds = {}
        for call in (first, second) if index % 2 else (second, first):
            start = time.perf_counter()
            call()
            seconds[call] = time.perf_counter() - start
        ratios.append(math.log(seconds[first] / seconds[second]))
    return float(np.median(ratios))


def interval(values) -> tuple:
    """Estimate the centre of values by signed ranks (Hodges and Lehmann), and its lowest and highest by `DOUBT`."""
    count = len(values)
    rows, columns = np.triu_indices(count)
    means = np.sort((values[rows] + values[columns]) / 2)
    outside = int(len(means) / 2 - DOUBT * math.sqrt(count * (count + 1) * (2 * count + 1) / 24))
    return np.median(means), means[outside], means[-1 - outside]


def is_faster(values) -> bool:
    """Whether results of `Race.compare` are below 0 beyond doubt."""
    return interval(values)[2] < 0


def list_places() -> list:
    """List what changes at once: (blocks, 0 for their first or 1 for their second Ghost module).

    Blocks up to the next stride agree in the second: at the smallest width they have no shortcut convolution.
    """
    starts = [0, *[index for index, block in enumerate(BLOCKS) if block[-1] > 1], len(BLOCKS)]
    runs = [range(*limits) for limits in zip(starts, starts[1:])]
    return [*[([index], 0) for index in range(len(BLOCKS))], *[(run, 1) for run in runs]]


def replace(table, blocks, module, kind) -> tuple:
    """Give the table with `kind` at a place of `list_places`."""
    rows = [list(row) for row in table]
    for index in blocks:
        rows[index][module] = kind
    return tuple(map(tuple, rows))


def search(table, race, rounds, passes) -> tuple:
    """Change the table place by place to what `race`, a `Race`, finds faster, until a pass changes nothing."""
    for number in range(passes):
        before = table
        for blocks, module in tqdm(list_places(), f"pass {number + 1}/{passes}", leave=False, disable=None):
            for candidate in [replace(table, blocks, module, kind) for kind in KINDS]:
                if candidate == table or not race.allows(candidate):
                    continue
                seems_faster = np.median(race.compare(candidate, table, FIRST_ROUNDS)) < 0
                # twice: rounds are not quite independent, as each finds the memory that the one before has left
                if seems_faster and all(is_faster(race.compare(candidate, table, rounds)) for _ in range(2)):
                    table = candidate
                    kinds = " and ".join(table[blocks[0]])
                    tqdm.write(f"blocks {blocks[0]} to {blocks[-1]}: {kinds}", file=sys.stderr)
        if table == before:
            break
    return table


def render(table, arguments) -> str:
    """Write the table as the text of a module."""
    facts = machine()
    facts = {name: facts[name] for name in ("processor", "cores", "memory_gib", "python", "onnxruntime")}
    values = [" ".join(map(str, np.ravel(getattr(arguments, name)))) for name in OPTIONS]
    command = " ".join(["python scripts/tune_onnx.py", *[f"--{name} {text}" for name, text in zip(OPTIONS, values)]])
    source = "\n".join(textwrap.fill(text, 119) for text in (f"Measured on {describe_machine(facts)}, by:", command))
    rows = "\n".join(f'    ("{first}", "{second}"),' for first, second in table)
    return MODULE.format(source=source, rows=rows)


def main():
    arguments = parse_arguments()
    init_runtime("CPU", SEED, graph_mode=False)
    race = Race(arguments.networks, arguments.image_size, arguments.batch_sizes, arguments.threads)
    table = search(STRUCTURES, race, arguments.rounds, arguments.passes)
    values = race.compare(table, STRUCTURES, 2 * arguments.rounds)
    speed, highest, lowest = (math.exp(-value) for value in interval(values))
    text = render(table, arguments)
    print(text)
    print(f"{speed:.3f} times as fast as the present table, {lowest:.3f} to {highest:.3f}")
    if arguments.output:
        write_text(arguments.output, text)
    if table == STRUCTURES or not is_faster(values):
        print(f"{TABLE_FILE.name} stays: no table is faster beyond doubt")
    elif arguments.write:
        write_text(TABLE_FILE, text)


if __name__ == "__main__":
    run(main)
