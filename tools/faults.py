"""Faults of the disk, for tools/check_*.py: a program that strace kills at one of its system calls, or whose call fails,
one whose transfers are cut short or interrupted at every turn (short_io.c), and what a program does not sync in time."""

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


def unsynced(log, folder):
    """What the command that places() traced left to luck, a line each: it survives a kill, but not a machine that stops. A file
    must be synced after its last change and before it or a folder above it is renamed; a folder, after the last change of its
    names and before its own rename; those above it then, before the next rename, removal or message, or the end.
    folder: holds the results or is one; each file that is in it was seen being created."""
    known, changed = {}, {}  # whether a path is a folder; the line at which what is not synced was last changed
    begun, waiting, said, any_renamed = {}, [], [], False

    def change(*paths):
        changed.update(dict.fromkeys(map(str, paths), number))

    def expect_synced_before(what):
        for target in waiting:
            said.extend(f"{path} is not synced between the rename to {target} and {what}" for path in Path(target).parents
                        if str(path) in changed and path.is_relative_to(folder.parent))
        waiting.clear()

    for number, line in enumerate(log.read_text().splitlines()):
        start, (thread, text) = number, line.split(maxsplit=1)
        if text.endswith("<unfinished ...>"):
            begun[thread] = number, text.removesuffix("<unfinished ...>")
            continue
        if text.startswith("<... "):
            start, first = begun.pop(thread)
            text = first + text.partition("resumed>")[2]
        done = re.fullmatch(r"(\w+)\((.*)\) += \d.*", text)
        if not done:  # it failed, and changed nothing
            continue
        call, given = done.groups()
        opened = re.findall(r"\d+<([^>]*)>", given)
        names = [os.path.join(*pair) for pair in re.findall(r'(?:\w+<([^>]*)>, )?"([^"]*)"', given)]
        if call.startswith(("rename", "unlink", "rmdir")) or call.startswith("write") and given.startswith(("1<", "2<")):
            expect_synced_before(text)
        if call in ("fsync", "fdatasync"):
            if changed.get(opened[0], start) < start:
                del changed[opened[0]]
        elif call in ("openat", "mkdir", "mkdirat"):
            if names[0] not in known and (call != "openat" or "O_CREAT" in given):
                known[names[0]] = call != "openat"
                change(Path(names[0]).parent, *names[:call == "openat"])
        elif call.startswith(("unlink", "rmdir")):
            known.pop(names[0], None)
            changed.pop(names[0], None)
            change(Path(names[0]).parent)
        elif call.startswith("rename"):
            source, target = names
            inside = sorted(path for path in {*known, *changed} if Path(path).is_relative_to(source))
            said += [f"{path} is not synced before the rename to {target}" for path in inside if path in changed]
            if known.get(source):
                waiting.append(target)
                any_renamed = True
            for of in (known, changed):
                of.update({target + path.removeprefix(source): of.pop(path) for path in inside if path in of})
            change(Path(source).parent, Path(target).parent)
        elif call != "close":  # all others change what a file holds
            change(opened[call == "copy_file_range"] if opened else names[-1])
    expect_synced_before("the end")
    said += [f"{path} was not seen being created" for path in folder.rglob("*") if path.is_file() and str(path) not in known]
    return said if any_renamed else [*said, "no folder was renamed"]


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
