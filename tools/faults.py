"""Faults of the disk, for tools/check_*.py: a program that strace kills at one of its system calls, or whose call fails,
and one whose transfers are cut short or interrupted at every turn (short_io.c)."""

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
# All that change a file system; of openat those alone that create a file, of close those of such files.
CALLS = ("openat", "mkdir", "mkdirat", "write", "writev", "pwrite64", "pwritev", "truncate", "ftruncate", "fallocate",
         "copy_file_range", "sendfile", "fsync", "fdatasync", "close", "rename", "renameat", "renameat2", "link", "linkat",
         "symlink", "symlinkat", "unlink", "unlinkat", "rmdir")
FAULTS = ("signal=KILL", "error=EIO", "error=ENOSPC")


class Place(NamedTuple):
    call: str
    number: int  # which of the calls of that name of its thread
    path: str  # in the folder, or "standard output"


def run(arguments, inject=None, log=None, env=None):
    """inject as strace's, "write:signal=KILL:when=3"; nothing: undisturbed."""
    if inject:
        call = inject.split(":")[0]
        arguments = ["strace", "-f", "-qq", "-o", str(log), "-e", f"trace={call}", "-e", f"inject={inject}", *arguments]
    return subprocess.run(arguments, capture_output=True, text=True, env=env)


def require_strace():
    if shutil.which("strace") is None:
        sys.exit(f"{Path(sys.argv[0]).name}: strace is not installed (tools/setup faults)")


def places(arguments, log, folder):
    """(those of the first thread, those of the others): where the command changes the folder or writes to its standard
    output. The counter of strace is a thread's: of the others' places, many are met by several threads."""
    subprocess.run(["strace", "-f", "-qq", "-y", "-o", str(log), "-e", "trace=" + ",".join(CALLS), *arguments], check=True,
                   capture_output=True)
    found, others, counters, created, first = {}, {}, Counter(), set(), None
    inside = re.compile(r'[<"]' + re.escape(str(folder)) + r'/([^>"]*)')
    for line in log.read_text().splitlines():
        begun = re.match(r"(\d+) +(\w+)\((\d*)", line)
        if not begun:
            continue
        thread, call, fd = begun.groups()
        first = first or thread
        counters[thread, call] += 1
        paths = inside.findall(line)
        path = paths[-1] if paths else "standard output" if call.startswith("write") and fd in ("1", "2") else None
        if call == "openat" and path:
            if "O_CREAT" not in line:
                continue
            created.add(path)
        if path and (call != "close" or path in created):
            place = Place(call, counters[thread, call], path)
            (found if thread == first else others).setdefault(place[:2], place)
    return list(found.values()), list(others.values())


class ShortTransfers:
    """Commands under short_io.c."""

    def __init__(self, aside):
        self.library, self.log = aside / "short_io.so", aside / "short_io.log"
        subprocess.run([os.environ.get("CC", "cc"), "-O2", "-shared", "-fPIC", "-o", str(self.library),
                        str(ROOT / "tools/short_io.c"), "-ldl"], check=True)

    def run(self, command):
        """None, or what went wrong: it must end well, and have met both short and interrupted transfers."""
        self.log.unlink(missing_ok=True)
        done = run(command, env=os.environ | {"LD_PRELOAD": str(self.library), "DSV3_SHORT_IO_LOG": str(self.log)})
        met = [int(count) for count in self.log.read_text().split()] if self.log.exists() else [0, 0]
        if done.returncode != 0 or min(met) == 0:
            return f"{' '.join(command[1:3])} under short transfers: code {done.returncode}, {met} met: {done.stderr}"
        return None
