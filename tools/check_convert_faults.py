#!/usr/bin/env python3
"""Disturbs dsv3 convert at each system call by which it writes, in both directions; what it leaves must be whole or absent.

  tools/check_convert_faults.py [--every N] [--dsv3 PATH]      --every N: each N-th place alone

Under strace's inject, for every call of a small conversion that changes the disk:
  - it is killed just there: the target is absent or whole, and the same command again ends byte-equal to an undisturbed one;
  - the call fails once with EIO or ENOSPC: exit 1 and one line that names a file, or the conversion ends well all the same;
    the target is absent or whole, and the same command again ends byte-equal.
Undisturbed, all that the target holds is synced before it gets its name, and that before the conversion ends.
Then conversions, verify and diff run on files whose transfers are cut short or interrupted at every turn (tools/short_io.c).
"""

import argparse
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path

from faults import FAULTS, ROOT, ShortTransfers, places, require_strace, run, unsynced

MODEL = ROOT / "tests" / "golden" / "trajectory"


def content(folder):
    """Bytes by name."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


class Conversion:
    def __init__(self, dsv3, aside, source, to, flags):
        self.aside, self.out = aside, aside / f"to-{to}"
        self.command = [str(dsv3), "convert", str(source), str(self.out), "--to", to, "--max-file-gb", "0.00004", *flags]

    def whole(self):
        done = run(self.command)
        assert done.returncode == 0, done.stderr
        self.expected = content(self.out)

    def clear(self):
        for path in self.aside.glob(self.out.name + "*"):
            shutil.rmtree(path)

    def disturb(self, inject):
        """None, or what went wrong."""
        self.clear()
        first = run(self.command, inject, self.aside / "log")
        if "error" in inject:
            lines = first.stderr.splitlines()
            if first.returncode not in (0, 1):
                return f"code {first.returncode}: {first.stderr}"
            if first.returncode == 0 and not self.out.exists():
                return "ended with 0 and without a result"
            if first.returncode == 1 and not (len(lines) == 1 and lines[0].startswith("dsv3: error: ")
                                              and (str(self.aside) in lines[0] or "standard output" in lines[0])):
                return f"not one line that names the file: {first.stderr}"
            if "internal error" in first.stderr:
                return first.stderr
        was_there = self.out.exists()
        if was_there and content(self.out) != self.expected:
            return "left a target that is not whole"
        again = run(self.command)
        if again.returncode != (2 if was_there else 0):
            return f"again: code {again.returncode}: {again.stderr}"
        if content(self.out) != self.expected:
            return "again: ended otherwise"
        left = [path.name for path in self.aside.glob(self.out.name + "*") if path != self.out]
        return f"again: left {left}" if left else None

    def check(self, every):
        """(disturbed runs, wrong ones)"""
        self.clear()
        first, others = places(self.command, self.aside / "log", self.aside)
        met = {place[:2]: place for place in others + first}
        not_synced = unsynced(self.aside / "log", self.out)
        print("\n".join(not_synced), end="\n" if not_synced else "")
        runs, wrong = 0, len(not_synced)
        for place in list(met.values())[::every]:
            for fault in FAULTS:
                inject = f"{place.call}:{fault}:when={place.number}"
                said = self.disturb(inject)
                runs += 1
                if said:
                    wrong += 1
                    print(f"{self.out.name}: {inject} ({place.path}): {said}")
        print(f"{self.out.name}: {dict(Counter(call for call, _ in met))}")
        return runs, wrong


def check_short(aside, conversions):
    """How many commands went wrong under short_io.c."""
    short = ShortTransfers(aside)
    said = []
    for conversion in conversions:
        conversion.clear()
        said.append(short.run(conversion.command))
        if not said[-1] and content(conversion.out) != conversion.expected:
            said.append(f"{conversion.out.name}: ended otherwise under short transfers")
        dsv3, out = conversion.command[0], str(conversion.out)
        said.append(short.run([dsv3, "ckpt", "verify", out]))
        said.append(short.run([dsv3, "ckpt", "diff", out, out]))
    wrong = [line for line in said if line]
    print("\n".join(wrong), end="\n" if wrong else "")
    return len(wrong)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dsv3", default=ROOT / "build" / "release" / "bin" / "dsv3")
    parser.add_argument("--every", type=int, default=1)
    arguments = parser.parse_args()
    require_strace()
    with tempfile.TemporaryDirectory() as aside:
        aside = Path(aside)
        to_dcp = Conversion(arguments.dsv3, aside, MODEL, "dcp", [])
        to_dcp.whole()
        shutil.copytree(to_dcp.out, aside / "source")
        to_hf = Conversion(arguments.dsv3, aside, aside / "source", "hf", ["--dtype", "fp8"])
        to_hf.whole()
        wrong = check_short(aside, (to_dcp, to_hf))
        runs = 0
        for conversion in (to_dcp, to_hf):
            more, bad = conversion.check(arguments.every)
            runs, wrong = runs + more, wrong + bad
    print(f"check_convert_faults: {runs} disturbed runs, {wrong} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
