"""Texts for the comparisons with `tokenizers`: every kind of writing that patterns tell apart, and what is none."""

import collections
import importlib.util
import subprocess
import sys
import tempfile
import unicodedata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WORDS = """the of and to in that is was for with his they at be this from have or by one had not but what all were when we there
can an your which their said if do will each about how up out them then she many some so these would other into has more her
two like him see time could no make than first been its who now people my made over did down only way find use may water long
little very after words called just where most know""".split()


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
    """English and code that lie on this machine, up to limit bytes of each. Ends the program when there is no English."""
    code, size = [], 0
    for path in sorted(Path(importlib.util.find_spec("numpy").origin).parents[1].rglob("*.py")):
        text = path.read_text(encoding="utf-8", errors="replace")
        code.append(text)
        size += len(text.encode())
        if size >= limit:
            break
    try:
        with tempfile.TemporaryDirectory() as aside:
            subprocess.run(["bash", ROOT / "tools" / "demo_text", f"{aside}/text.txt"], check=True, capture_output=True, text=True)
            english = Path(aside, "text.txt").read_text(encoding="utf-8")
    except (OSError, subprocess.CalledProcessError) as error:
        sys.exit(f"english: tools/demo_text gave none: {str(getattr(error, 'stderr', error)).strip()}")
    return code, [english[i : i + 200_000] for i in range(0, min(len(english), limit), 200_000)]


class TokenTexts:
    """Texts made of a tokenizer's own tokens, in runs of one script: letters drawn alone hardly ever make its longer tokens."""

    def __init__(self, tokenizer, rng):
        self.tokenizer, self.rng = tokenizer, rng
        by_script = collections.defaultdict(list)
        for id in range(tokenizer.get_vocab_size()):
            text = tokenizer.decode([id], skip_special_tokens=False)
            if text and "\ufffd" not in text:
                by_script[script_of(text)].append(id)
        self.scripts = list(by_script.values())

    def one_round(self):
        """Texts that hold each token once."""
        runs = []
        for ids in self.scripts:
            self.rng.shuffle(ids)
            at = 0
            while at < len(ids):
                length = self.rng.randint(1, 30)
                runs.append(self.tokenizer.decode(ids[at : at + length], skip_special_tokens=False))
                at += length
        self.rng.shuffle(runs)
        while runs:
            pieces = [runs.pop() for _ in range(min(len(runs), self.rng.randint(1, 8)))]
            yield self.rng.choice(["", *SPACES]).join(pieces)

    def some(self, size):
        """Rounds until they have this many bytes."""
        texts = []
        while size > 0:
            texts += self.one_round()
            size -= sum(len(text.encode()) for text in texts)
        return texts


def script_of(text):
    """The script of its letters by their names in Unicode, such as CJK and HIRAGANA; of several all, of none ""."""
    return " ".join(sorted({unicodedata.name(c, "?").split()[0] for c in text if c.isalpha()}))
