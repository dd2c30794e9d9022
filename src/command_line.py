"""What the entry points share on the command line: flags and settings."""

import argparse
import re
from pathlib import Path

from src.console import Parser
from src.interrupt import ExitOnInterrupt

with ExitOnInterrupt():  # these take seconds
    from src.architecture import IMAGENET_CLASSES
    from src.config import load_config, parse_override
    from src.export.exported import SETTINGS, is_exported, read_notes
    from src.runtime import DEVICE_TARGETS, init_runtime
    from src.tasks import SCHEMAS
    from src.training.run_folder import RUN_CONFIG
    from src.weights import read_weights
    from src.weights.files import PREFERENCES
    from src.weights.identity import Identity
    from src.weights.published import find_weights

CONFIGS = Path(__file__).resolve().parents[1] / "configs" / "classification"
DEFAULT_CONFIG = CONFIGS / "ghostnetv2_1x_imagenet.yaml"
OFFICIAL_PORT_CONFIG = CONFIGS / "ghostnetv2_1x_imagenet_mindspore.yaml"  # its resize is another one
EXIF_ROTATION = "data.exif_rotation=true"

# flags that are settings under another name: those of the official port and its sibling
FLAG_KEYS = {
    "device_target": "runtime.device_target",
    "device_id": "runtime.device_id",
    "data_url": "data.path",
    "num_classes": "network.num_classes",
    "pre_trained": "train.pre_trained",
    "finetune": "train.finetune",
}


def build_parser(description: str) -> Parser:
    """Build a parser with the flags that every entry point has."""
    parser = Parser(description)
    parser.add_argument("--config", metavar="FILE", help="settings (YAML); default: those of the checkpoint's run")
    parser.add_argument("--data_url", metavar="DIR", help="dataset folder")
    parser.add_argument("--device_target", choices=DEVICE_TARGETS, help="default: the best that is there")
    parser.add_argument("--device_id", type=int, metavar="N", help="number of the device, for a single process")
    parser.add_argument("--num_classes", type=int, metavar="N", help="classes of the network")
    return parser


def add_weights(parser: argparse.ArgumentParser) -> None:
    """Add `--checkpoint_path`, and which of its weights to take."""
    parser.add_argument("--checkpoint_path", required=True, metavar="FILE", help="weights, or the name of fetched ones")
    add_preference(parser)


def add_preference(parser: argparse.ArgumentParser) -> None:
    """Add `--weights`, for files that hold averaged and plain ones."""
    parser.add_argument("--weights", choices=PREFERENCES, default="ema", help="which, where a file has both")


def add_overrides(parser: argparse.ArgumentParser) -> None:
    """Add the `section.key=value` arguments at the end of the line."""
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="settings to change")


def read_config(arguments, checkpoint_path=None, warnings=None):
    """Read and check the settings that the command line asks for.

    Without `--config`, those that an exported file holds, else those that a run left beside its checkpoint, else
    `OFFICIAL_PORT_CONFIG` for a checkpoint of the official MindSpore port, else `DEFAULT_CONFIG`. `warnings` is a list
    that lines about settings without an effect are added to, see `load_config`.
    """
    path, text = arguments.config, None
    if path is None:
        text = read_notes(checkpoint_path).get(SETTINGS) if checkpoint_path and is_exported(checkpoint_path) else None
        path = _config_for(checkpoint_path) if text is None else checkpoint_path
        print(f"settings: {path}")
    flags = [
        (key, getattr(arguments, flag), f"--{flag}")
        for flag, key in FLAG_KEYS.items()
        if getattr(arguments, flag, None) is not None
    ]
    overrides = [parse_override(item) for item in arguments.overrides]
    return load_config(path, SCHEMAS, flags + overrides, text, warnings)


def _config_for(checkpoint_path):
    beside = find_weights(checkpoint_path).parent / RUN_CONFIG
    if beside.is_file():
        return beside
    if is_exported(checkpoint_path):
        return DEFAULT_CONFIG
    file = read_weights(checkpoint_path)
    # the official port's names are ours, but only our files say whose they are
    from_port = file.kind == "MindSpore checkpoint" and not file.is_ours
    fits = file.identity == Identity("ghostnetv2_1x", None, IMAGENET_CLASSES)
    return OFFICIAL_PORT_CONFIG if from_port and fits else DEFAULT_CONFIG


def parse_images(parser):
    """Add images and settings to a parser, and parse the command line into `images` and `overrides`, among others.

    Photographs are seen as people see them, unless a setting says otherwise.
    """
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="images, or folders of images")
    parser.add_argument(
        "--set", nargs="*", default=[], metavar="section.key=value", help="settings to change; as well at the end"
    )
    arguments = parser.parse_intermixed_args()
    arguments.overrides = [EXIF_ROTATION, *arguments.set, *filter(is_override, arguments.images)]
    arguments.images = [name for name in arguments.images if not is_override(name)]
    if not arguments.images:
        parser.error("no IMAGE is given")
    return arguments


def is_override(text) -> bool:
    """Whether an argument is a setting, `section.key=value`, and not the name of a file."""
    return re.match(r"\w+(\.\w+)+=", text) is not None and not Path(text).exists()


def start_runtime(config, training):
    """Set MindSpore up as the settings say, see `init_runtime`; in training float32 need not keep all its bits."""
    settings = config.runtime
    reduced = training if settings.reduced_float32 is None else settings.reduced_float32
    device = (settings.device_id, settings.jit_level, reduced)
    return init_runtime(settings.device_target, settings.seed, settings.graph_mode, *device)
