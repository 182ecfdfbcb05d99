"""Compares `dsv3 tokenizer train` with BpeTrainer of the library `tokenizers`: the files have to be equal to the last byte once the
library has read and written ours.

  train_tokenizer.py [--dsv3 PATH] [--mb N] [--seed N] [--rounds N]
  train_tokenizer.py --goldens    only writes tests/data/tokenizers/trained

Then both encode fuzzed texts with the trained files, transformers loads the folder, and training is timed in turns. Exit code 1 when
anything differs.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("RAYON_NUM_THREADS", "2")
from texts import MAKERS, fuzz_string, real_texts, word_text
from tokenizer import GOLDEN, ROOT, V3_PATTERNS, byte_level, compare, split_steps
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

SPECIAL = ["<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜▁pad▁｜>"]
# As V3's file writes it: line breaks are characters, not escapes.
V3_WRITTEN = [p.replace("\\r", "\r").replace("\\n", "\n") for p in V3_PATTERNS]


def theirs(texts, vocab, pattern="v3", min_frequency=2, special=()):
    """What `tokenizers` learns from texts, with the parts of a file that ours writes."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=False))
    steps = [*split_steps(*V3_WRITTEN), byte_level()] if pattern == "v3" else [byte_level(True)]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps) if pattern == "v3" else steps[0]
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokens = [AddedToken(t, normalized=False, special=True) for t in [*SPECIAL, *special]]
    trainer = trainers.BpeTrainer(vocab_size=vocab, min_frequency=min_frequency, special_tokens=tokens, show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def ours(dsv3, texts, folder, vocab, pattern="v3", min_frequency=2, special=(), threads=2):
    """Trains on files that hold the texts; returns the trained file and the summary."""
    folder.mkdir(parents=True, exist_ok=True)
    for i, text in enumerate(texts):
        (folder / f"{i}.txt").write_bytes(text.encode())
    flags = ["--vocab-size", str(vocab), "--pattern", pattern, "--min-frequency", str(min_frequency), "--threads", str(threads), "--json"]
    if special:
        flags += ["--special", ",".join(special)]
    files = [folder / f"{i}.txt" for i in range(len(texts))]
    out = subprocess.run([dsv3, "tokenizer", "train", *files, "--out", folder / "out", *flags], check=True, capture_output=True)
    return folder / "out" / "tokenizer.json", json.loads(out.stdout)


def check(label, dsv3, texts, aside, vocab, **options):
    """0 when both files are equal, else 1."""
    folder = Path(tempfile.mkdtemp(dir=aside))
    file, summary = ours(dsv3, texts, folder, vocab, **options)
    expected = theirs(texts, vocab, **options)
    a, b = expected.to_str(), Tokenizer.from_file(str(file)).to_str()
    size = sum(len(t.encode()) for t in texts)
    print(f"{label}: {size / 1e6:.2f} MB, {summary['vocab_size']} tokens, {summary['merges']} merges: {'equal' if a == b else 'DIFFERENT'}",
          flush=True)
    if a == b:
        return 0
    at = next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))
    print(f"  at {at}: {b[at - 60:at + 60]!r}, expected {a[at - 60:at + 60]!r}")
    return 1


def repeats(rng, size):
    """Words of few letters: pairs that overlap, come up again after they were merged, and make tokens that exist."""
    letters = rng.choice(["a", "ab", "abc", "-=", "\n ", "01"])
    return "".join("".join(rng.choices(letters, k=rng.randint(1, 40))) + rng.choice([" ", "  ", "\n", ". "]) for _ in range(size))


def check_transformers(folder, file):
    """The folder as transformers loads it: 0 when ids, bos, eos and pad are those of the file."""
    from transformers import AutoTokenizer

    loaded, tokenizer = AutoTokenizer.from_pretrained(folder), Tokenizer.from_file(str(file))
    text = "In the beginning was the Word. 12345 中文\n\n"
    same = loaded(text)["input_ids"] == tokenizer.encode(text).ids and [loaded.bos_token_id, loaded.eos_token_id, loaded.pad_token_id] == [0, 1, 2]
    print(f"transformers {'loads' if same else 'DOES NOT load'} the folder: {type(loaded).__name__}")
    return 0 if same else 1


def measure(dsv3, texts, aside, vocab, rounds):
    """Both with two threads, in turns; each on texts in memory or in files of the page cache."""
    best = {}
    folder = Path(tempfile.mkdtemp(dir=aside))
    for _ in range(rounds):
        for name, threads in [("dsv3, 1 thread", 1), ("dsv3, 2 threads", 2)]:
            best[name] = min(best.get(name, 1e9), ours(dsv3, texts, folder, vocab, threads=threads)[1]["seconds"])
        start = time.perf_counter()
        theirs(texts, vocab)
        best["tokenizers, 2 threads"] = min(best.get("tokenizers, 2 threads", 1e9), time.perf_counter() - start)
    size = sum(len(t.encode()) for t in texts) / 1e6
    slowest = best["tokenizers, 2 threads"]
    print(f"speed, {size:.1f} MB to {vocab} tokens, best of {rounds}: " +
          ", ".join(f"{name} {s:.2f} s ({slowest / s:.1f} times)" for name, s in best.items()), flush=True)


def write_goldens():
    rng = random.Random(2)
    folder = GOLDEN / "trained"
    folder.mkdir(parents=True, exist_ok=True)
    text = word_text(rng, 3000) + repeats(rng, 20) + "中文字 の\u3000العربية é\u0301 <eos> 12345\r\n" * 3
    (folder / "text.txt").write_bytes(text.encode())
    for pattern in ["v3", "gpt2"]:
        theirs([text], 400, pattern=pattern, special=["<tool>"]).save(str(folder / f"{pattern}.json"), pretty=False)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--dsv3", default=ROOT / "build" / "release" / "bin" / "dsv3")
    parser.add_argument("--mb", type=float, default=4, help="of English, of code and of made text each")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--goldens", action="store_true")
    args = parser.parse_args()
    if args.goldens:
        return write_goldens()
    rng = random.Random(args.seed)
    code, english = real_texts(int(args.mb * 1e6))
    english = ["".join(english)]
    made = [rng.choice(MAKERS)(rng, 100_000) for _ in range(int(args.mb * 10))]
    wrong = 0
    with tempfile.TemporaryDirectory() as aside:
        run = lambda label, texts, vocab, **options: check(label, args.dsv3, texts, aside, vocab, **options)
        wrong += run("english", english, 8000)
        wrong += run("english, gpt2", english, 8000, pattern="gpt2")
        wrong += run("code", code, 8000)
        wrong += run("code as one file", ["".join(code)], 8000, pattern="gpt2")
        wrong += run("made", made, 12_000, min_frequency=1)
        wrong += run("made as one file", ["".join(made)], 4000, pattern="gpt2")
        wrong += run("all", [*english, *code, *made], 32_000, special=["<think>", "</think>", " two words "])
        wrong += run("more than there is", english[:1], 100_000, min_frequency=20)
        for i in range(20):
            wrong += run(f"repeats {i}", [repeats(rng, 200)], rng.choice([300, 400, 700]), min_frequency=rng.choice([1, 2, 3]),
                         pattern=rng.choice(["v3", "gpt2"]))
        file, _ = ours(args.dsv3, [*english, *code[:100], *made], Path(aside) / "used", 16_000)
        tokenizer = Tokenizer.from_file(str(file))
        batches = [[fuzz_string(rng, SPECIAL) for _ in range(5000)] for _ in range(2)] + [code[:200], [e[:200_000] for e in english]]
        wrong += compare(tokenizer, args.dsv3, file, batches, "encoded with a trained file")
        wrong += check_transformers(file.parent, file)
        if args.rounds:
            measure(args.dsv3, english, aside, 8000, args.rounds)
            measure(args.dsv3, [*english, *code, *made], aside, 32_000, args.rounds)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
