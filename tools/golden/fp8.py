"""Makes tests/convert/fp8/ with torch: FP8 as torch.float8_e4m3fn casts it, a matrix quantised in blocks, and what
torch.distributed's QuantizedHuggingFaceStorageReader makes of that.

  fp8.py           writes it
  fp8.py --check   makes it anew and compares

model.safetensors: a.weight [129, 131] and its scales, as published. expected.safetensors:
  values   float32 [256], of every code
  firsts   int32 [126]: the bits of the least positive bfloat16 that becomes code 1, 2, ... 126; the script checks that
           no code decreases from there on, so that these tell the code of every bfloat16
  rows     float32 [3, 131]: rows 0, 127 and 128 of a.weight dequantised
  cols     float32 [129, 4]: its columns 0, 127, 128 and 130
"""

import argparse
import json
import tempfile
from pathlib import Path

import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import load_file, save_file
from torch.distributed.checkpoint import QuantizedHuggingFaceStorageReader

FOLDER = Path(__file__).parents[2] / "tests" / "convert" / "fp8"
FP8, BLOCK, LARGEST = torch.float8_e4m3fn, 128, 448.0
SHAPE = (129, 131)


def matrix():
    """tests/convert/fp8_test.cpp computes the same; every value is exact in fp32."""
    i, j = torch.arange(SHAPE[0]).view(-1, 1), torch.arange(SHAPE[1])
    return ((i * 7919 + j * 104729 + i * j * 31) % 65521 - 32760).to(torch.float32) * 2**-18


def quantise(weight):
    """As inference/kernel.py of the release: the scale is a quotient in fp32."""
    rows, cols = (-(-n // BLOCK) for n in weight.shape)
    codes, scales = torch.empty(weight.shape, dtype=FP8), torch.empty(rows, cols)
    for r in range(rows):
        for c in range(cols):
            at = slice(r * BLOCK, (r + 1) * BLOCK), slice(c * BLOCK, (c + 1) * BLOCK)
            scales[r, c] = weight[at].abs().amax() / LARGEST
            codes[at] = (weight[at] / scales[r, c]).to(FP8)
    return codes, scales


def firsts():
    """Checks that the cast, saturated, is monotone, odd and keeps NaN; returns where each code begins."""
    values = torch.arange(2**16, dtype=torch.int32).to(torch.uint16).view(torch.bfloat16).float()
    codes = values.clamp(-LARGEST, LARGEST).to(FP8).view(torch.uint8).to(torch.int32)
    positive, negative, infinity = codes[: 2**15], codes[2**15 :], 0x7F80
    assert torch.equal(positive + 0x80, negative)
    assert (positive[infinity + 1 :] == 0x7F).all() and (positive[: infinity + 1].diff() >= 0).all()
    assert positive[infinity] == 0x7E
    return torch.searchsorted(positive[: infinity + 1].contiguous(), torch.arange(1, 127)).to(torch.int32)


def dequantised(model):
    with tempfile.TemporaryDirectory() as folder:
        name = "model-00001-of-00001.safetensors"
        save_file(model, f"{folder}/{name}")
        index = {"metadata": {}, "weight_map": {key: name for key in model}}
        Path(folder, "model.safetensors.index.json").write_text(json.dumps(index))
        state = {"a.weight": torch.empty(SHAPE)}
        dcp.load(state, storage_reader=QuantizedHuggingFaceStorageReader(folder), no_dist=True)
    return state["a.weight"]


def make():
    codes, scales = quantise(matrix())
    model = {"a.weight": codes, "a.weight_scale_inv": scales}
    whole = dequantised(model)
    expected = {
        "values": torch.arange(256, dtype=torch.int32).to(torch.uint8).view(FP8).float(),
        "firsts": firsts(),
        "rows": whole[[0, 127, 128]].contiguous(),
        "cols": whole[:, [0, 127, 128, 130]].contiguous(),
    }
    return {"model.safetensors": model, "expected.safetensors": expected}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, tensors in make().items():
        if not check:
            save_file(tensors, FOLDER / name)
            continue
        stored = load_file(FOLDER / name)
        assert stored.keys() == tensors.keys(), name
        for key, tensor in tensors.items():
            assert torch.equal(stored[key].view(torch.uint8), tensor.view(torch.uint8)), f"{name}: {key}"
    print("fp8: equal" if check else f"fp8: written to {FOLDER}")


main()
