"""Writes src/dsv3/data/unicode_tables.inc: what `tokenizers` takes for which kind of character.

  unicode_tables.py [--check]     --check: compares with the file that is there instead; exit 1 when they differ

Its parts use Unicode tables of different ages (Oniguruma's, Rust's, crates of Unicode 8 and 9), and PCRE2's are older or newer.
So each is asked about every code point, and the answers are kept: whole for the small predicates, and for regular
expressions' properties what PCRE2 of Unicode 14 (10.42), the oldest that is supported, does not know yet. Of NFC: what it may change,
so that libutf8proc, which knows more, is never asked about anything else.
"""

import subprocess
import sys
import tempfile
import unicodedata
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers

OUT = Path(__file__).resolve().parents[2] / "src" / "dsv3" / "data" / "unicode_tables.inc"
PROPERTIES = ["L", "Lu", "Ll", "Lt", "Lm", "Lo", "M", "N", "Nd", "Nl", "No", "P", "S", "Z"]
POINTS = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
TEXT = "".join(map(chr, POINTS))

PCRE2 = r"""
#define PCRE2_CODE_UNIT_WIDTH 32
#include <pcre2.h>
#include <stdio.h>
int main(int argc, char** argv) {
  PCRE2_UCHAR32 version[64];
  pcre2_config_32(PCRE2_CONFIG_UNICODE_VERSION, version);
  if (version[0] != '1' || version[1] != '4') return fprintf(stderr, "PCRE2 of Unicode 14 wanted\n"), 1;
  for (int i = 1; i < argc; ++i) {
    PCRE2_UCHAR32 pattern[64];
    size_t n = 0;
    for (const char* c = argv[i]; *c; ++c) pattern[n++] = *c;
    int error;
    size_t at;
    pcre2_code_32* code = pcre2_compile_32(pattern, n, PCRE2_UTF | PCRE2_UCP, &error, &at, NULL);
    pcre2_match_data_32* data = pcre2_match_data_create_32(1, NULL);
    for (PCRE2_UCHAR32 c = 0; c < 0x110000; ++c)
      if ((c < 0xD800 || c > 0xDFFF) && pcre2_match_32(code, &c, 1, 0, 0, data, NULL) >= 0) printf("%u ", c);
    printf("\n");
  }
}
"""


def ranges(points):
    found = []
    for c in sorted(points):
        if found and found[-1][1] == c - 1:
            found[-1][1] = c
        else:
            found.append([c, c])
    return found


def matched(pre_tokenizer):
    """The code points that a pre-tokenizer with behaviour "removed" removes."""
    left = set()
    for _, (begin, end) in pre_tokenizer.pre_tokenize_str(TEXT):
        left.update(POINTS[begin:end])
    return set(POINTS) - left


def of_added_token(text, added):
    """The code points c for which `added` is not found in text(c)."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.add_tokens([added])
    return {c for c in POINTS if not tokenizer.encode(text(chr(c)), add_special_tokens=False).ids}


def pcre2(properties):
    with tempfile.TemporaryDirectory() as aside:
        source, program = Path(aside) / "p.c", Path(aside) / "p"
        source.write_text(PCRE2)
        subprocess.run(["cc", "-O1", source, "-o", program, "-lpcre2-32"], check=True)
        out = subprocess.run([program, *(f"\\p{{{p}}}" for p in properties)], check=True, capture_output=True, text=True)
    return [set(map(int, line.split())) for line in out.stdout.splitlines()]


def table(name, points, comment):
    lines, line = [f"// {comment}", f"constexpr CharRange {name}[] = {{"], ""
    for a, b in ranges(points):
        item = f"{{0x{a:x}, 0x{b:x}}},"
        if len(line) + len(item) > 106:
            lines.append(line)
            line = ""
        line = (line + " " if line else "    ") + item
    return "\n".join([*lines, line, "};"])


def make():
    parts = ["// clang-format off", "// Made by tools/peers/unicode_tables.py; included by unicode.cpp alone."]
    parts.append(table("kWord", of_added_token(lambda c: c + "0", AddedToken("0", single_word=True)), "\\w of added tokens"))
    parts.append(table("kNumeric", digits(), "Digits"))
    parts.append(table("kPunctuation", matched(pre_tokenizers.Punctuation("removed")), "Punctuation"))
    for name, old in zip(PROPERTIES, pcre2(PROPERTIES)):
        new = matched(pre_tokenizers.Split(Regex(rf"\p{{{name}}}+"), "removed"))
        assert old <= new, f"{name} lost {sorted(map(hex, old - new))}"
        if new - old:
            parts.append(table(f"kNew{name}", new - old, f"\\p{{{name}}} since Unicode 14"))
    change, join = nfc()
    parts.append(table("kNfcChange", change, "NFC: changed, moved, or joined to the one before it"))
    parts.append(table("kNfcJoin", join, "NFC: stable ones that may change with those behind; more of those that cannot"))
    parts.append("// clang-format on")
    return "\n".join(parts) + "\n"


def digits():
    """What Digits isolates: it has no behaviour "removed", and never joins a digit to what is none."""
    inside = "a".join(map(chr, POINTS))
    pieces = pre_tokenizers.Digits(individual_digits=True).pre_tokenize_str("a" + inside + "a")
    return {ord(piece) for piece, _ in pieces if len(piece) == 1 and piece != "a"}


def nfc():
    """kNfcChange, exactly; kNfcJoin and characters between its own, but none that newer tables may know."""
    assert unicodedata.unidata_version == "14.0.0", "Python's tables of Unicode 14 wanted"
    compose, decompose = normalizers.NFC().normalize_str, normalizers.NFD().normalize_str
    points = [c for c in POINTS if c >= 0x80]

    def ask(normalize, text):  # of all at once: a call a character takes long
        return dict(zip(points, normalize("\n".join(text(chr(c)) for c in points)).split("\n"), strict=True))

    parts, whole = ask(decompose, str), ask(compose, str)
    split = {c for c in points if parts[c] != chr(c)}
    # Between marks of the largest class and the smallest: a mark moves, or these two move past each other.
    between = ask(decompose, lambda c: f"\u0345{c}\u0334")
    marks = {c for c in points if c not in split and between[c] != f"\u0345{chr(c)}\u0334"}
    changed = {c for c in points if whole[c] != chr(c)}
    pairs = [(compose(parts[c][:-1]), parts[c][-1]) for c in split - changed]
    assert all(len(first) == 1 for first, _ in pairs)
    change = marks | changed | {ord(second) for _, second in pairs}
    join = (split | {ord(first) for first, _ in pairs}) - change
    known = change | join
    new = [c for c in points if c not in known and
           (unicodedata.category(chr(c)) == "Cn" or unicodedata.combining(chr(c)) or unicodedata.normalize("NFD", chr(c)) != chr(c))]
    filled, begin = set(), None
    for c, joins in sorted([(c, True) for c in join] + [(c, False) for c in new]):
        if joins:
            filled.update([c] if begin is None else range(begin, c + 1))
        begin = c if joins else None
    return change, filled


def main():
    text = make()
    if "--check" in sys.argv[1:]:
        same = OUT.exists() and OUT.read_text() == text
        print(f"unicode tables: {'equal' if same else 'differ'}")
        sys.exit(0 if same else 1)
    OUT.write_text(text)


if __name__ == "__main__":
    main()
