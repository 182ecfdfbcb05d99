"""Trains bench-108m with dsv3 and transformers (eager, grouped_mm experts), a step each in turn; prints medians.

  bench.py [--dsv3 PATH] [--dtypes fp32,bf16] [--ranks N] [--steps N] [--warmup N] [--json]

--ranks 2: two processes of one thread each, dsv3 with ep = 2 against transformers under FSDP2 with Gloo (fsdp2.py).

One run on one machine: compare the ratios, not the seconds. Exit code 1 when dsv3 is below its bar (as fast as the better
peer; on two ranks 1.5 times in fp32, 2 times in bf16) or its peak memory is above that peer's.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
DSV3 = HERE.parents[1] / "build" / "release" / "bin" / "dsv3"
SHARDED_BAR = {"fp32": 1.5, "bf16": 2.0}


class Program:
    """A program that trains a step for each line "go" and answers with lines of JSON."""

    def __init__(self, name, command):
        self.name, self.seconds = name, []
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.tokens = self.answer()["tokens_per_step"]

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"bench: {self.name} ended with code {self.process.wait()}, expected a line of JSON")
        return json.loads(line)

    def step(self):
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        self.seconds.append(self.answer()["seconds"])

    def finish(self):
        self.process.stdin.close()
        self.memory = self.answer()
        self.process.wait()


def programs_of(dtype, arguments):
    ours = [arguments.dsv3, "bench-steps", "--dtype", dtype]
    if arguments.ranks == 1:
        peer = [sys.executable, str(HERE / "bench_peer.py"), "--dtype", dtype, "--experts"]
        peers = {f"transformers {experts}": [*peer, experts] for experts in ("eager", "grouped_mm")}
    else:
        ours += ["--nproc", str(arguments.ranks), f"--parallel.ep={arguments.ranks}"]
        peer = [sys.executable, str(HERE / "fsdp2.py"), "bench", "--ranks", str(arguments.ranks), "--dtype", dtype]
        peers = {"FSDP2 grouped_mm": peer}
    return [Program("dsv3", ours), *(Program(name, command) for name, command in peers.items())]


def measure(dtype, arguments):
    programs = programs_of(dtype, arguments)
    for _ in range(arguments.warmup + arguments.steps):
        for program in programs:
            program.step()
    rows = []
    for program in programs:
        program.finish()
        seconds = statistics.median(program.seconds[arguments.warmup :])
        rows.append({"program": program.name, "dtype": dtype, "seconds": seconds, "fastest_s": min(program.seconds),
                     "tokens_per_s": program.tokens / seconds, **program.memory})
    best = min(rows[1:], key=lambda row: row["seconds"])
    for row in rows:
        row["speed_of_dsv3"] = row["seconds"] / rows[0]["seconds"]
        row["memory_of_dsv3"] = rows[0]["peak_bytes"] / row["peak_bytes"]
    bar = 1 if arguments.ranks == 1 else SHARDED_BAR[dtype]
    return rows, best["speed_of_dsv3"] >= bar and best["memory_of_dsv3"] <= 1


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dsv3", default=str(DSV3))
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--dtypes", default="fp32,bf16")
    parser.add_argument("--steps", type=int, default=7)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="a line of JSON a program instead of the table")
    arguments = parser.parse_args()
    if not Path(arguments.dsv3).exists():
        raise SystemExit(f"bench: {arguments.dsv3}: not there, expected dsv3 (make build)")
    met = True
    if not arguments.json:
        print(f"{'':24} {'dtype':5} {'s/step':>8} {'tok/s':>8} {'peak GB':>8} {'warm GB':>8} "
              f"{'dsv3 speed':>11} {'dsv3 memory':>12}")
    for dtype in arguments.dtypes.split(","):
        rows, good = measure(dtype, arguments)
        met = met and good
        for row in rows:
            if arguments.json:
                print(json.dumps(row), flush=True)
                continue
            print(f"{row['program']:24} {dtype:5} {row['seconds']:8.2f} {row['tokens_per_s']:8.0f} "
                  f"{row['peak_bytes'] / 1e9:8.2f} {row['rss_bytes'] / 1e9:8.2f} {row['speed_of_dsv3']:10.2f}x "
                  f"{row['memory_of_dsv3']:11.2f}x", flush=True)
    sys.exit(0 if met else 1)


if __name__ == "__main__":
    main()
