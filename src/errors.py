"""Errors that are the user's to mend: one clear line, exit status 2, no traceback."""

import difflib
import re

MAX_LENGTH = 2000  # characters of a message


class UserError(Exception):
    """A mistake in the user's input: what is wrong, where, and what is allowed, in one line.

    Args:
        message: may hold names and values from outside, whatever characters these are made of. A traceback that ends in
            a `UserError`, which MindSpore makes of those of its workers, stays as it is, see `find_message`.
    """

    def __init__(self, message):
        super().__init__(message if find_message(str(message)) else shorten(quote(message)))


def find_message(text: str):
    """Find the message of the last `UserError` in a text with tracebacks; None if there is none."""
    found = re.findall(rf"^(?:{re.escape(UserError.__module__)}\.)?UserError: (.*)$", text, re.MULTILINE)
    return found[-1] if found else None


def quote(text) -> str:
    """Write line breaks and other characters that do not print as escapes, such as `\\n`."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def shorten(text: str, length: int = MAX_LENGTH) -> str:
    """Leave out the middle of a text of more than `length` characters."""
    half = length // 2
    return text if len(text) <= length else f"{text[:half]} ... {text[-half:]}"


def suggestion(word: str, allowed) -> str:
    """Give ` (did you mean 'x'?)` for the closest of `allowed`, or an empty string when nothing is close."""
    matches = difflib.get_close_matches(str(word), [str(name) for name in allowed], n=1, cutoff=0.5)
    return f" (did you mean {matches[0]!r}?)" if matches else ""
