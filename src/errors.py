"""Errors that are the user's to mend: one clear line, exit status 2, no traceback."""

import difflib


class UserError(Exception):
    """A mistake in the user's input: what is wrong, where, and what is allowed, in one line."""


def suggestion(word: str, allowed) -> str:
    """Give ` (did you mean 'x'?)` for the closest of `allowed`, or an empty string when nothing is close."""
    matches = difflib.get_close_matches(str(word), [str(name) for name in allowed], n=1, cutoff=0.5)
    return f" (did you mean {matches[0]!r}?)" if matches else ""
