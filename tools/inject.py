"""Runs a program under strace, which kills it at one of its system calls or lets that call fail. For tools/check_*.py."""

import re
import subprocess


def run(arguments, inject=None, log=None, env=None):
    """inject as strace's, "write:signal=KILL:when=3"; nothing: undisturbed."""
    if inject:
        call = inject.split(":")[0]
        arguments = ["strace", "-f", "-qq", "-o", str(log), "-e", f"trace={call}", "-e", f"inject={inject}", *arguments]
    return subprocess.run(arguments, capture_output=True, text=True, env=env)


def count_calls(arguments, log, call):
    """How often the busiest thread makes the call: the counter of strace is a thread's."""
    subprocess.run(["strace", "-f", "-qq", "-o", str(log), "-e", f"trace={call}", *arguments], check=True,
                   capture_output=True)
    threads = re.findall(r"^(\d+) +" + call + r"\(", log.read_text(), re.M)
    return max(threads.count(thread) for thread in set(threads)) if threads else 0
