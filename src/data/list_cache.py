"""Lists of the files in folders, kept in a file between runs: on a network disk, listing a million takes minutes.

A folder's list is taken from the file as long as its inode number and times say that it is the same folder and has not
changed: they change with each file that is added, removed or renamed in it. What they do not show is what happens to a
file itself, and whether a link's target comes or goes.
"""

import contextlib
import gzip
import hashlib
import json
import os
import sys
import time
import zlib
from pathlib import Path

from src.data.images import IMAGE_SUFFIXES, scan_folder
from src.errors import quote
from src.files import atomic_path, make_folder

VERSION = [1, *IMAGE_SUFFIXES]  # of the file's content
MIN_AGE = 60 * 10**9  # nanoseconds since a folder changed: clocks differ, and some disks count in seconds


@contextlib.contextmanager
def open_list_cache(cache, root):
    """Give a `scan_folder` for the folders below `root` that knows those of an earlier run.

    Args:
        cache: folder for the lists, a file for each `root`; None for `scan_folder` itself.
        root: a folder.

    Raises:
        UserError: if the file cannot be written.
    """
    if cache is None:
        yield scan_folder
        return
    lists = FolderLists(cache, root)
    yield lists.scan
    lists.save()


class FolderLists:
    """The lists of the folders below `root`, see `open_list_cache`."""

    def __init__(self, cache, root):
        make_folder(cache)
        self.root = os.path.abspath(root)
        name = hashlib.sha256(os.fsencode(os.path.realpath(root))).hexdigest()[:16]
        self.path = Path(cache) / f"{name}.json.gz"  # gzip's checksum tells a damaged file
        self.known, self.lists = self._read(), {}

    def scan(self, path):
        """As `scan_folder`."""
        status = os.stat(path)  # before the list: what changes in between shows the next time
        state = [status.st_ino, status.st_mtime_ns, status.st_ctime_ns]
        name = os.path.relpath(path, self.root)
        known = self.known.get(name)
        found = known[1] if known and known[0] == state else scan_folder(path)
        if time.time_ns() - max(state[1:]) > MIN_AGE:
            self.lists[name] = [state, found]
        return found

    def save(self):
        """Write the file, if a list in it is new."""
        if self.lists == self.known:
            return
        content = json.dumps({"version": VERSION, "lists": self.lists}).encode()
        with atomic_path(self.path) as temporary:
            temporary.write_bytes(gzip.compress(content, 1))

    def _read(self) -> dict:
        """Read {folder: [state, list]}; nothing, with a warning, if the file is damaged."""
        try:
            content = json.loads(gzip.decompress(self.path.read_bytes()))
            return content["lists"] if content["version"] == VERSION else {}
        except FileNotFoundError:
            return {}
        except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError):
            print(f"warning: {quote(self.path)}: is damaged, the folders are listed anew", file=sys.stderr)
            return {}
