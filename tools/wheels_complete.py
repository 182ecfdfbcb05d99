#!/usr/bin/env python3
"""wheels_complete.py FOLDER PINS: exit 0 when FOLDER holds every name==version of PINS, each file with its size."""
import csv
import pathlib
import re
import sys


def normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def whole(folder, info):
    with open(info / "RECORD", newline="") as rows:
        for path, _, size in csv.reader(rows):
            # Scripts lie elsewhere with --target (and "pip" rewrites their first line); byte code has no size.
            if path.startswith("..") or not size:
                continue
            file = folder / path
            if not file.is_file() or file.stat().st_size != int(size):
                return False
    return True


folder = pathlib.Path(sys.argv[1])
found = {}
for info in folder.glob("*.dist-info"):
    name, version = info.name.removesuffix(".dist-info").split("-", 1)
    found[normal(name), version] = info
for pin in pathlib.Path(sys.argv[2]).read_text().split():
    name, version = pin.split("==")
    info = found.get((normal(name), version))
    if info is None or not (info / "RECORD").is_file() or not whole(folder, info):
        sys.exit(1)
