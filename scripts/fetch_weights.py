"""Fetch weights that others have published: python scripts/fetch_weights.py NAME

They are kept in $GHOSTNETV2_CACHE, or else in ~/.cache/ghostnetv2-mindspore/weights. The last line is the file's path;
commands that take weights take NAME instead, too. --list shows the names.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src.console import Parser, run
from src.errors import UserError, suggestion
from src.weights.download import download
from src.weights.published import cache_folder, read_published


def parse_arguments():
    parser = Parser(__doc__, argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?", metavar="NAME", help="which weights")
    parser.add_argument("--list", action="store_true", help="show all names, and where their files are from")
    parser.add_argument("--cache_dir", type=Path, metavar="DIR", help="folder for the file, in place of the usual one")
    parser.add_argument("--force", action="store_true", help="fetch it even if it is there")
    arguments = parser.parse_args()
    if arguments.list == (arguments.name is not None):
        parser.error("NAME or --list is needed, one of both")
    return arguments


def print_table(table, folder) -> None:
    """Print a line for each published file."""
    width = max(map(len, table))
    for file in table.values():
        network = file.network + ("" if file.width is None else f" at width {file.width:g}")
        fetched = ", fetched" if file.path(folder).is_file() else ""
        print(f"{file.name:{width}}  {network}, top-1 {file.top_1} % (published){fetched}: {file.url}")


def main():
    arguments = parse_arguments()
    table, folder = read_published(), arguments.cache_dir or cache_folder()
    if arguments.list:
        print_table(table, folder)
        return
    if arguments.name not in table:
        raise UserError(f"{arguments.name}: is not published{suggestion(arguments.name, table)}; --list shows what is")
    file = table[arguments.name]
    path = file.path(folder)
    if arguments.force or not path.is_file():
        print(f"{file.name}: from {file.url}")
        download(file.url, path, file.sha256, file.size)
        print("sha256 as published" if file.sha256 else "no sha256 is published that it could be checked against")
    print(path)


if __name__ == "__main__":
    run(main)
