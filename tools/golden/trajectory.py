"""Makes tests/golden/trajectory/: 100 AdamW steps of transformers + MtpLayer on real text in fp64.

  trajectory.py            writes it
  trajectory.py --check    trains anew from the committed weights and text and compares within 1e-10

The folder is a run of dsv3 train (run.toml, config.json, model.safetensors, text.bin, text.idx) and expected.json: the
fields of metrics.jsonl a step, and at the end each router bias and the norm of each weight under its name on disk.
Conventions: lr, gamma and lambda of a step are taken at the tokens seen before it, lr times min(1, step / warmup);
clipping is torch's clip_grad_norm_ (scale = clip / (norm + 1e-6), at most 1); no decay on norms and biases; biases move
after the step by gamma * sign(mean(count) - count).
"""

import json
import math
import os
import subprocess
import sys
import tomllib
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
import numpy as np
import torch
from cases import BASE
from fp64_patch import cast, fp64
from hf_disk import on_disk, write_random
from reference import load
from transformers import DeepseekV3Config
from transformers.utils import logging

FOLDER = Path(__file__).parents[2] / "tests" / "golden" / "trajectory"
CONFIG = {
    **BASE, "vocab_size": 259, "num_hidden_layers": 2, "first_k_dense_replace": 1, "num_nextn_predict_layers": 1,
    "moe_intermediate_size": 4,
}
RUN = """\
# 100 steps that tools/golden/trajectory.py repeats with transformers.
[model]
config = "config.json"
init = "."

[data]
train = "text"
seq_len = 32
shuffle = false

[optim]
lr = 3e-3
betas = [0.9, 0.95]
eps = 1e-8
weight_decay = 0.1
clip = 1.0

[schedule]
lr = [{tokens = 0, value = 3e-3}, {tokens = 4480, value = 3e-4, shape = "cosine"}]
gamma = [{tokens = 0, value = 1e-2}, {tokens = 4800, value = 0.0}]
lambda = [{tokens = 0, value = 0.3}, {tokens = 3200, value = 0.1, shape = "linear"}]
warmup_steps = 10

[balance]
loss = "sequence"
alpha = 1e-2
indicator = "unbiased"

[train]
steps = 100
global_batch = 2
micro_batch = 1
dtype = "fp64"
"""


def write_text(tokens_needed):
    """The King James Version from Genesis 1 on as byte tokens, one document."""
    text = subprocess.run(["bible", "-l79", "gen1:1-gen3:24"], capture_output=True, check=True).stdout
    ids = np.frombuffer(text[:tokens_needed], dtype=np.uint8).astype("<u2")
    assert len(ids) == tokens_needed
    ids.tofile(FOLDER / "text.bin")
    with open(FOLDER / "text.idx", "wb") as file:
        file.write(b"MMIDIDX\0\0")
        np.array([1], "<u8").tofile(file)
        np.array([8], "<u1").tofile(file)  # uint16
        np.array([1, 2], "<u8").tofile(file)  # sequences, document entries
        np.array([len(ids)], "<i4").tofile(file)
        np.array([0, 0, 1], "<i8").tofile(file)  # pointer; documents


def scheduled(points, tokens):
    """Each point's value holds from its place on; linear and cosine ones are approached from the point before."""
    value, start = points[0]["value"], points[0]["tokens"]
    for point in points[1:]:
        shape, end = point.get("shape", "step"), point["tokens"]
        if tokens < end:
            share = (tokens - start) / (end - start)
            share = {"step": 0.0, "linear": share, "cosine": (1 - math.cos(math.pi * share)) / 2}[shape]
            return value + (point["value"] - value) * share
        value, start = point["value"], end
    return value


def train():
    run = tomllib.loads((FOLDER / "run.toml").read_text())
    schedule, optim, length, rows = run["schedule"], run["optim"], run["data"]["seq_len"], run["train"]["global_batch"]
    ids = torch.from_numpy(np.fromfile(FOLDER / "text.bin", "<u2").astype(np.int64))
    reference = load(FOLDER, torch.float32, balance="sequence", alpha=run["balance"]["alpha"])
    cast(reference.model), reference.mtp.double()
    parameters = list(reference.parameters())
    plain = [p for name, p in parameters if "norm" in name or name.endswith("bias")]
    decayed = [p for name, p in parameters if not ("norm" in name or name.endswith("bias"))]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": optim["weight_decay"]}, {"params": plain, "weight_decay": 0.0}],
        betas=tuple(optim["betas"]), eps=optim["eps"],
    )
    gates = {n: layer.mlp.gate for n, layer in reference.layers() if hasattr(layer.mlp, "gate")}

    steps = []
    for step in range(1, run["train"]["steps"] + 1):
        seen = (step - 1) * rows * length
        starts = range(seen, seen + rows * length, length)
        samples = torch.stack([ids[start : start + length + 1] for start in starts])
        reference.mtp_lambda = scheduled(schedule["lambda"], seen)
        out, _ = reference.forward(samples[:, :-1], labels=samples)
        optimizer.zero_grad()
        out["loss"].backward()
        norm = torch.nn.utils.clip_grad_norm_([p for _, p in parameters], optim["clip"])
        lr = scheduled(schedule["lr"], seen) * min(1, step / schedule["warmup_steps"])
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.step()
        for n, gate in gates.items():
            counts = out[f"router.{n}.counts"].double()
            gate.e_score_correction_bias += scheduled(schedule["gamma"], seen) * (counts.mean() - counts).sign()
        steps.append({
            "step": step, "tokens": seen + rows * length, "loss": out["loss"].item(), "lm_loss": out["lm_loss"].item(),
            "mtp_loss": out["mtp.1.loss"].item(), "balance_loss": out["balance_loss"].item(), "lr": lr,
            "grad_norm": norm.item(),
        })
    norms = {key: part.norm().item() for name, p in parameters for key, part in on_disk(name, p.detach())}
    biases = {f"model.layers.{n}.mlp.gate.e_score_correction_bias": gate.e_score_correction_bias.tolist()
              for n, gate in gates.items()}
    return {"steps": steps, "final_bias": biases, "final_norm": norms}


def numbers(tree, path=""):
    """Yields (path, number) of nested JSON."""
    if isinstance(tree, (dict, list)):
        for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield from numbers(value, f"{path}.{key}")
    else:
        yield path, tree


def main():
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    expected = FOLDER / "expected.json"
    if "--check" in sys.argv[1:]:
        with fp64():
            new, old = dict(numbers(train())), dict(numbers(json.loads(expected.read_text())))
        worst = max(new, key=lambda key: abs(new[key] - old[key]) / max(1e-3, abs(old[key])))
        print(f"trajectory: largest relative difference at {worst}: {new[worst]!r}, committed {old[worst]!r}")
        if new.keys() != old.keys() or abs(new[worst] - old[worst]) > 1e-10 * max(1e-3, abs(old[worst])):
            sys.exit("trajectory: differs")
        return
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / "config.json").write_text(json.dumps(CONFIG, indent=2) + "\n")
    (FOLDER / "run.toml").write_text(RUN)
    run = tomllib.loads(RUN)
    write_text(run["train"]["steps"] * run["train"]["global_batch"] * run["data"]["seq_len"] + 1)
    write_random(DeepseekV3Config.from_pretrained(FOLDER), FOLDER, [0, 7], {"lm_head": 0.02}, False)
    (FOLDER / "model.safetensors").chmod(0o644)
    with fp64():
        expected.write_text(json.dumps(train(), indent=0) + "\n")


if __name__ == "__main__":
    main()
