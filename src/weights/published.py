"""Weights that others have published, by name: the table of them, and the folder that fetched ones are kept in."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import yaml

from src.errors import UserError

TABLE = Path(__file__).with_name("published.yaml")
CACHE = "GHOSTNETV2_CACHE"  # environment variable that names another folder
ENDINGS = (".pth.tar", ".pth", ".safetensors", ".ckpt")


@dataclass(frozen=True)
class PublishedFile:
    """A row of the table, which says what each column is.

    Attributes:
        name: of the row.
        url, network, top_1, source, width, sha256, size: its columns.
    """

    name: str
    url: str
    network: str
    top_1: float
    source: str
    width: Optional[float] = None
    sha256: Optional[str] = None
    size: Optional[int] = None

    def path(self, folder) -> Path:
        """Give the path of the fetched file in a folder."""
        return Path(folder) / (self.name + next(ending for ending in ENDINGS if self.url.endswith(ending)))


def read_published() -> dict:
    """Read the table: {name: PublishedFile}."""
    rows = yaml.safe_load(TABLE.read_text(encoding="utf-8"))
    return {name: PublishedFile(name, **row) for name, row in rows.items()}


def cache_folder() -> Path:
    """Give the folder of fetched files: $GHOSTNETV2_CACHE, else one in the user's folder for caches."""
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get(CACHE) or caches / "ghostnetv2-mindspore" / "weights")


def find_weights(path) -> Path:
    """Give the path of a weights file: a file of that path if there is one, else the fetched file of that name.

    Raises:
        UserError: if it is a name of the table that was not fetched; nothing is fetched here.
    """
    published = None if os.path.exists(path) else read_published().get(str(path))
    if published is None:
        return Path(path)
    fetched = published.path(cache_folder())
    if not fetched.is_file():
        raise UserError(f"{path}: is not fetched yet, python scripts/fetch_weights.py {path} gets it")
    return fetched
