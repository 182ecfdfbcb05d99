#!/usr/bin/env python3
"""check_indexed_dataset.py PREFIX EXPECTED.json: reads PREFIX.idx and PREFIX.bin with numpy alone.

An independent reader of the Megatron-Core format. EXPECTED.json may hold any of: documents, tokens, largest_id (as
PREFIX.json of `dsv3 prepare`, whose other keys are ignored), dtype ("uint16" or "int32") and texts, a list with the
text of each document as UTF-8, without its last token, eos_id. Exit code 0 when all is equal, else 1 and what differs.
"""

import json
import sys

import numpy as np

DTYPES = {4: "int32", 8: "uint16"}


def read(prefix):
    raw = np.fromfile(prefix + ".idx", dtype=np.uint8)
    position = 0

    def take(dtype, count):
        nonlocal position
        values = np.frombuffer(raw, dtype=dtype, count=count, offset=position)
        position += values.nbytes
        return values

    assert bytes(take("u1", 9)) == b"MMIDIDX\x00\x00", "magic"
    assert take("<u8", 1)[0] == 1, "version"
    dtype = DTYPES[int(take("u1", 1)[0])]
    sequences, entries = (int(n) for n in take("<u8", 2))
    lengths, pointers, documents = take("<i4", sequences), take("<i8", sequences), take("<i8", entries)
    assert position == raw.size, f"{raw.size - position} bytes left in .idx"
    ids = np.fromfile(prefix + ".bin", dtype=np.dtype(dtype).newbyteorder("<"))
    starts = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    assert np.array_equal(pointers, starts[:-1] * ids.itemsize), "pointers"
    assert starts[-1] == ids.size, f"{ids.size} ids in .bin, {starts[-1]} in .idx"
    assert documents[0] == 0 and documents[-1] == sequences and np.all(np.diff(documents) >= 0), "document_indices"
    return dtype, ids, [ids[starts[a] : starts[b]] for a, b in zip(documents[:-1], documents[1:])]


def main():
    prefix, expected_path = sys.argv[1:]
    with open(expected_path, encoding="utf-8") as file:
        expected = json.load(file)
    dtype, ids, documents = read(prefix)
    found = {"dtype": dtype, "documents": len(documents), "tokens": int(ids.size), "largest_id": int(ids.max())}
    if "texts" in expected:
        found["texts"] = [bytes(d[:-1].astype(np.uint8)).decode("utf-8") for d in documents]
        assert all(d[-1] == expected.get("eos_id", 257) for d in documents), "eos"
    wrong = [key for key in found if key in expected and found[key] != expected[key]]
    for key in wrong:
        print(f"{prefix}: {key}: {found[key]!r:.200}, expected {expected[key]!r:.200}", file=sys.stderr)
    if not wrong:
        print(f"{prefix}: {len(documents)} documents, {ids.size} tokens, as expected")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
