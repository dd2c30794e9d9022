"""How every command reads its line and ends: a mistake is one line. Needs no MindSpore."""

import argparse
import errno
import io
import logging
import os
import sys
from contextlib import contextmanager

from src.errors import UserError, find_message
from src.interrupt import INTERRUPTED, ExitOnInterrupt


class Parser(argparse.ArgumentParser):
    """Parser whose complaints are a line like any other, and to which an empty text is none.

    Args:
        description: first line of the help.
        formatter: class of argparse.
    """

    def __init__(self, description, formatter=argparse.ArgumentDefaultsHelpFormatter):
        super().__init__(description=description, formatter_class=formatter, allow_abbrev=False)

    def error(self, message):
        raise UserError(f"{message}; --help lists what there is")

    def parse_known_args(self, args=None, namespace=None):
        arguments, rest = super().parse_known_args(args, namespace)
        for action in self._actions:
            value = getattr(arguments, action.dest, None)
            if value == "" or (isinstance(value, list) and "" in value):
                self.error(str(argparse.ArgumentError(action, "is empty")))
        return arguments, rest


def run(main) -> None:
    """Run an entry point: a user's mistake prints one line and exits with 2, Ctrl-C exits with 130."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # a file or a pipe has each line at once, too
    try:
        with ExitOnInterrupt():
            main()
            sys.stdout.flush()
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        _close_output()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except UserError as error:
        _fail(error)
    except OSError as error:
        if error.filename is not None:
            _fail(UserError(f"{error.filename}: {error.strerror}"))
        if error.errno != errno.ENOSPC:
            raise
        _close_output()
        _fail(UserError(f"standard output: cannot be written: {error.strerror}"))
    except RuntimeError as error:
        message = find_message(str(error))  # MindSpore's data pipeline wraps what its workers raise in a long text
        if message is None:
            raise
        _fail(UserError(message))


def _close_output() -> None:
    """Let what is printed from now on, and what still waits, vanish."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(error: UserError) -> None:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(2)


@contextmanager
def quiet_logging(level=logging.CRITICAL):
    """Keep away what libraries log in Python, up to a level, while a `with` block lasts."""
    before = logging.root.manager.disable
    logging.disable(level)
    try:
        yield
    finally:
        logging.disable(before)
