"""Makes tests/golden/NAME/ with transformers: a tiny model, a batch, and what transformers computes for it in fp64.

  make.py [NAME...]            writes them
  make.py --check [NAME...]    makes them anew aside and compares: ids and weights equal, fp64 tensors within 1e-12
  make.py --meta [NAME...]     likewise, and takes the meta.json of those that are equal

A folder holds config.json and model.safetensors (as published: one tensor per expert), tokens.npy and, where the case
has them, mask.npy, labels.npy, documents.npy; expected.safetensors (names of dsv3 trace --grads; fp64; the conventions
stand in reference.py; values where mask or mtp.K.alive is 0 mean nothing, nor do router.(L + K - 1)'s there);
meta.json: `flags` for dsv3 trace, the smallest top-k margin, and transformers' own relative errors against fp64
(norms; "grads": all gradients as one vector): fp32; bf16, with its own router choices; bf16_replayed, see there.
The cases with `generate` also hold what generation.py writes.
"""

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
import numpy as np
import torch
from cases import CASES, make_batch, make_config, moved_batch, trace_flags
from fp64_patch import cast, fp64
from generation import make_generation
from hf_disk import write_random
from reference import MARGIN, load, margin, relative_errors
from safetensors.torch import load_file, save_file
from transformers import DeepseekV3Config
from transformers.utils import logging

NOISE = 3e-6
SENSITIVITY = 6e-6
BF16_BATCHES = 80
GOLDEN = Path(__file__).parents[2] / "tests" / "golden"


def make(name, case, folder, seeds=range(100), noise=NOISE):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(make_config(case), indent=2) + "\n")
    for seed in seeds:
        if make_with_seed(name, case, folder, seed, noise):
            break
    else:
        raise SystemExit(f"{name}: {seeds}: no top-k margin above {MARGIN} with fp32 errors below {noise}")
    if case.get("generate"):
        make_generation(folder)


def make_with_seed(name, case, folder, seed, noise):
    """False when a choice of experts is too close to call, or a gradient so small that fp32 makes noise of it."""
    config = DeepseekV3Config.from_pretrained(folder)
    write_random(config, folder, [seed, *name.encode()], case.get("scales", {}), case.get("copies", False))
    arrays = make_batch(case, config.vocab_size, seed)
    batch = {key: torch.from_numpy(array) for key, array in arrays.items()}
    switches = case.get("switches", {})

    with torch.no_grad():
        _, recorder = load(folder, torch.float32, **switches).forward(**batch)
    margins = [margin(recorder.logits[n], recorder.bias[n], config) for n in recorder.logits]
    if switches.get("indicator") == "unbiased":
        margins += [unbiased_margin(logits, config) for logits in recorder.logits.values()]
    if min(margins, default=1) < MARGIN:
        return False

    with fp64():
        reference = load(folder, torch.float32, **switches)
        cast(reference.model), reference.mtp.double()
        expected, _ = reference.trace(**batch)
        if sensitivity(reference, batch, expected) > SENSITIVITY:
            return False
    assert all(t.dtype in (torch.float64, torch.int64) and t.isfinite().all() for t in expected.values())
    check_files(folder, reference)
    fp32, recorder = load(folder, torch.float32, **switches).trace(**batch)
    if max(relative_errors(fp32, expected).values()) > noise:
        return False
    choices = recorder.ids
    assert all(torch.equal(fp32[key], value) for key, value in expected.items() if value.dtype == torch.int64)
    bf16, recorder = load(folder, torch.bfloat16, **switches).trace(**batch)
    differing = [(recorder.ids[n] != choices[n]).any(-1).double().mean().item() for n in choices]
    replayed = bf16_replayed(folder, arrays, switches)
    if replayed is None:
        return False

    save_file(expected, folder / "expected.safetensors")
    for path in folder.glob("*.safetensors"):
        path.chmod(0o644)
    for key, array in arrays.items():
        np.save(folder / f"{key}.npy", array)
    meta = {
        "about": case["about"], "seed": seed, "flags": trace_flags(switches), "topk_margin": min(margins, default=None),
        "bf16_tokens_routed_differently": differing,
        "relative_error": {
            "fp32": summary(relative_errors(fp32, expected)), "bf16": summary(relative_errors(bf16, expected)),
            "bf16_replayed": {key: float(f"{error:.3e}") for key, error in replayed.items()},
        },
    }
    (folder / "meta.json").write_text(json.dumps(meta, indent=0) + "\n")
    return True


def sensitivity(reference, batch, expected, draws=8):
    """How far the worst gradient moves, relatively, when every weight moves by what fp32 would round off.

    A single fp32 run may be exact by luck; beyond this no fp32 program comes closer, on another processor neither.
    """
    generator = torch.Generator().manual_seed(0)
    weights = [(p, p.detach().clone()) for _, p in reference.parameters()]
    moved = []
    for _ in range(draws):
        with torch.no_grad():
            for p, weight in weights:
                p.copy_(weight * (1 + 2**-24 * torch.randn(p.shape, generator=generator, dtype=p.dtype)))
        moved.append(max(relative_errors(reference.trace(**batch)[0], expected).values()))
    with torch.no_grad():
        for p, weight in weights:
            p.copy_(weight)
    return max(moved)


def bf16_replayed(folder, arrays, switches):
    """The errors in bf16 under the router choices of fp32; None when those are not fp64's everywhere.

    Each is the median over the BF16_BATCHES batches where the tensor is not zero: over one batch the error of a small
    tensor (an expert with a handful of tokens) is a single draw of rounding noise, and a mean is decided by the few
    batches that amplify rounding tenfold. The indicator of the balance loss is a choice as well, so the selection
    itself is counted. Padding is left out.
    """
    switches = {**switches, "indicator": "selected"}
    with fp64():
        exact = load(folder, torch.float32, **switches)
        cast(exact.model), exact.mtp.double()
    fp32, bf16 = load(folder, torch.float32, **switches), load(folder, torch.bfloat16, **switches)
    errors = {}
    for n in range(BF16_BATCHES):
        moved = moved_batch(arrays, n, exact.config.vocab_size)
        batch = {key: torch.from_numpy(array) for key, array in moved.items()}
        with fp64():
            theirs, recorder = exact.trace(**batch)
        with torch.no_grad():
            choices = fp32.forward(**batch)[1].ids
        if not all(torch.equal(recorder.ids[layer], choices[layer]) for layer in choices):
            return None
        ours, recorder = bf16.trace(**batch, replay=choices)
        assert all(torch.equal(recorder.ids[layer], choices[layer]) for layer in choices)
        if "mask" in batch:
            for out in ours, theirs:
                out["logits"] = out["logits"][batch["mask"].bool()]
        for name, error in relative_errors(ours, theirs).items():
            if name == "grads" or theirs[name].any():
                errors.setdefault(name, []).append(error)
    return {name: statistics.median(found) for name, found in errors.items()}


def summary(errors):
    return {"logits": errors["logits"], "grads": errors["grads"], "worst": max(errors.values())}


def unbiased_margin(logits, config):
    best = logits.detach().sigmoid().sort(dim=-1, descending=True).values
    return (best[:, config.num_experts_per_tok - 1] - best[:, config.num_experts_per_tok]).min().item()


def check_files(folder, reference):
    """transformers writes the weights with the names and values of our file, and a gradient came for each name."""
    ours = load_file(folder / "model.safetensors")
    with tempfile.TemporaryDirectory() as aside:
        reference.model.float().save_pretrained(aside)
        theirs = load_file(f"{aside}/model.safetensors")
    assert all(torch.equal(theirs[name], ours[name]) for name in theirs)
    mtp = reference.config.num_hidden_layers
    assert all(int(name.split(".")[2]) >= mtp for name in set(ours) - set(theirs))


def compare(name, committed, fresh):
    """The differences between two golden folders, one line each."""
    if sorted(os.listdir(committed)) != sorted(os.listdir(fresh)):
        yield f"{name}: files {sorted(os.listdir(committed))}, made anew {sorted(os.listdir(fresh))}"
        return
    for path in sorted(fresh.iterdir()):
        other, where = committed / path.name, f"{name}/{path.name}"
        if path.name == "config.json":
            if json.loads(path.read_text()) != json.loads(other.read_text()):
                yield f"{where}: differs"
        elif path.suffix == ".npy":
            if not np.array_equal(np.load(path), np.load(other)):
                yield f"{where}: differs"
        elif path.suffix == ".safetensors":
            yield from compare_tensors(where, load_file(other), load_file(path))


def compare_tensors(where, old, new):
    if old.keys() != new.keys():
        yield f"{where}: names differ: {sorted(old.keys() ^ new.keys())}"
        return
    total = sum(t.square().sum() for n, t in old.items() if n.startswith("grad.")) ** 0.5
    for name, tensor in old.items():
        if tensor.dtype != torch.float64:
            if not torch.equal(tensor, new[name]):
                yield f"{where}: {name} differs"
            continue
        error = ((new[name] - tensor).norm() / max(tensor.norm(), 1e-6 * total)).item()
        if not error <= 1e-12:
            yield f"{where}: {name}: relative difference {error:.3g}, expected at most 1e-12"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--meta", action="store_true")
    parser.add_argument("names", nargs="*", metavar="NAME")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    problems = []
    for name in arguments.names or CASES:
        if not (arguments.check or arguments.meta):
            make(name, CASES[name], GOLDEN / name)
            size = sum(path.stat().st_size for path in (GOLDEN / name).iterdir())
            print(f"{name}: {size // 1000} kB", flush=True)
            continue
        with tempfile.TemporaryDirectory() as aside:
            seed = json.loads((GOLDEN / name / "meta.json").read_text())["seed"]
            make(name, CASES[name], Path(aside), [seed], noise=1e-5)
            found = list(compare(name, GOLDEN / name, Path(aside)))
            if arguments.meta and not found:
                shutil.copyfile(Path(aside) / "meta.json", GOLDEN / name / "meta.json")
        print(f"{name}: {'differs' if found else 'equal'}", flush=True)
        problems += found
    if problems:
        sys.exit("\n".join(problems))


if __name__ == "__main__":
    main()
