"""What the entry points share on the command line: flags, settings, and how a run ends."""

import argparse
import os
import re
import sys
from pathlib import Path

from src.config import load_config, parse_override
from src.errors import UserError
from src.runtime import DEVICE_TARGETS

DEFAULT_CONFIG = Path(__file__).resolve().parents[1] / "configs" / "classification" / "ghostnetv2_1x_imagenet.yaml"
RUN_CONFIG = "config.yaml"  # the settings of a run, kept beside its checkpoints
INTERRUPTED = 130

# flags that are settings under another name: those of the official port
FLAG_KEYS = {"device_target": "runtime.device_target", "data_url": "data.path", "num_classes": "network.num_classes"}


def build_parser(description: str) -> argparse.ArgumentParser:
    """Parser with the flags that every entry point has."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--config", metavar="FILE", help="settings (YAML); default: those of the checkpoint's run")
    parser.add_argument("--data_url", metavar="DIR", help="data set folder")
    parser.add_argument("--device_target", choices=DEVICE_TARGETS, help="default: the best that is there")
    parser.add_argument("--num_classes", type=int, metavar="N", help="classes of the network")
    return parser


def add_overrides(parser: argparse.ArgumentParser) -> None:
    """`section.key=value` arguments at the end of the line."""
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="settings to change")


def read_config(arguments, schemas, overrides, checkpoint_path=None):
    """The checked settings that the command line asks for.

    Without `--config`, the settings that a run left beside its checkpoint, else `DEFAULT_CONFIG`.
    """
    path = arguments.config
    if path is None:
        beside = Path(checkpoint_path).parent / RUN_CONFIG if checkpoint_path else None
        path = beside if beside and beside.is_file() else DEFAULT_CONFIG
        print(f"settings: {path}")
    flags = [
        (key, getattr(arguments, flag), f"--{flag}")
        for flag, key in FLAG_KEYS.items()
        if getattr(arguments, flag) is not None
    ]
    return load_config(path, schemas, flags + [parse_override(text) for text in overrides])


def run(main) -> None:
    """Run an entry point: a user's mistake prints one line and exits with 2, Ctrl-C exits with 130."""
    try:
        main()
        sys.stdout.flush()
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except UserError as error:
        _fail(str(error))
    except RuntimeError as error:
        # MindSpore's data pipeline wraps what its workers raise in a long text of its own
        wrapped = re.findall(rf"^{UserError.__module__}\.UserError: (.*)$", str(error), re.MULTILINE)
        if not wrapped:
            raise
        _fail(wrapped[-1])


def _fail(message: str) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)
