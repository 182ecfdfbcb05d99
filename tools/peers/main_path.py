"""The way into training: a folder that transformers saved (bf16; FP8), as it is and converted to DCP, loaded into sharded
models; loss and every gradient of step 1 are those of transformers.

The gradients are read where Python finds them: exp_avg of the first checkpoint is (1 - beta1) times them, exp_avg_sq
(1 - beta2) times their squares. Used by checkpoints.py.
"""

import json
import subprocess
from pathlib import Path

import numpy as np
import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import load_file
from transformers import DeepseekV3Config, DeepseekV3ForCausalLM

TRAJECTORY = Path(__file__).resolve().parents[2] / "tests" / "golden" / "trajectory"
BATCH, LENGTH = 4, 32
BETAS = (0.9, 0.95)
LAYOUTS = {"(4,2)": ["--nproc", "4", "--parallel.ep=2"], "(2,1)": ["--nproc", "2"]}


def save_model(folder):
    """A bf16 model whose matrices are of several FP8 blocks, as transformers saves it."""
    torch.manual_seed(11)
    config = DeepseekV3Config.from_pretrained(TRAJECTORY, hidden_size=160, intermediate_size=200,
                                              moe_intermediate_size=136, num_nextn_predict_layers=0)
    model = DeepseekV3ForCausalLM(config)
    for layer in model.model.layers[config.first_k_dense_replace:]:
        layer.mlp.gate.weight.data.normal_(std=0.3)  # no choice of an expert hangs on the last bits
        layer.mlp.gate.e_score_correction_bias.uniform_(-0.1, 0.1)
    model.to(torch.bfloat16).save_pretrained(folder)


def tensors_of(folder):
    return {k: v for file in sorted(folder.glob("*.safetensors")) for k, v in load_file(file).items()}


def weights_of(folder):
    """fp32; FP8 codes times the scales of their blocks of 128 x 128."""
    stored = tensors_of(folder)
    weights = {}
    for name, tensor in stored.items():
        if name.endswith("_scale_inv"):
            continue
        weights[name] = tensor.float()
        if name + "_scale_inv" in stored:
            rows, cols = tensor.shape
            scales = stored[name + "_scale_inv"].repeat_interleave(128, 0)[:rows].repeat_interleave(128, 1)[:, :cols]
            weights[name] *= scales
    return weights


def expected(folder, weights):
    """(loss, {name: gradient}) of step 1 by transformers, in fp32. Experts are stacked there as in our DCP folders."""
    model = DeepseekV3ForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager",
                                                  experts_implementation="eager")
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            stack, _, part = name.rpartition(".experts.")
            if not stack:
                if name in weights:
                    tensor.copy_(weights[name])
                continue
            for expert in range(tensor.shape[0]):
                one = {p: weights[f"{stack}.experts.{expert}.{p}_proj.weight"] for p in ("gate", "up", "down")}
                tensor[expert].copy_(torch.cat([one["gate"], one["up"]]) if part == "gate_up_proj" else one["down"])
    ids = torch.from_numpy(np.fromfile(TRAJECTORY / "text.bin", "<u2").astype(np.int64))
    samples = torch.stack([ids[i * LENGTH : (i + 1) * LENGTH + 1] for i in range(BATCH)])
    logits = model(samples[:, :-1], use_cache=False).logits
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), samples[:, 1:].flatten())
    loss.backward()
    return loss.item(), {name: parameter.grad for name, parameter in model.named_parameters()}


def step_one(dsv3, source, config, out, layout):
    """(loss, {name: gradient}, {name: squared gradient}) of dsv3 train."""
    subprocess.run(
        [dsv3, "train", TRAJECTORY / "run.toml", *layout, f"--model.config={config}", f"--model.init={source}",
         "--train.steps=1", f"--train.global_batch={BATCH}", "--train.micro_batch=1", "--train.dtype=fp32",
         "--balance.loss=none", "--optim.clip=0", "--checkpoint.every=1", f"--train.out={out}"],
        check=True, stdout=subprocess.DEVNULL)
    folder = out / "checkpoints" / "step-1"
    keys = dcp.FileSystemReader(folder).read_metadata().state_dict_metadata
    state = {key: torch.empty(meta.size) for key, meta in keys.items() if key.endswith((".exp_avg", ".exp_avg_sq"))}
    dcp.load(state, checkpoint_id=folder)
    loss = json.loads((out / "metrics.jsonl").read_text().splitlines()[0])["loss"]

    def moments(kind, beta):
        return {key.removeprefix("optim.state.").removesuffix(f".{kind}"): value / (1 - beta)
                for key, value in state.items() if key.endswith(f".{kind}")}

    return loss, moments("exp_avg", BETAS[0]), moments("exp_avg_sq", BETAS[1])


def check_main_path(dsv3, aside):
    def convert(*arguments):
        subprocess.run([dsv3, "convert", *map(str, arguments)], check=True, stdout=subprocess.DEVNULL)

    def error(ours, theirs):
        return ((ours - theirs).norm() / theirs.norm()).item() if theirs.norm() > 0 else ours.norm().item()

    aside = aside / "main-path"
    save_model(aside / "bf16")
    convert(aside / "bf16", aside / "fp8", "--to", "hf", "--dtype", "fp8")
    good = True
    for dtype in ("bf16", "fp8"):
        folder = aside / dtype
        convert(folder, aside / f"{dtype}-dcp")
        weights = weights_of(folder)
        for source in (folder, aside / f"{dtype}-dcp"):
            if source is not folder:  # converted weights are bf16
                weights = {key: value.bfloat16().float() for key, value in weights.items()}
            loss, grads = expected(aside / "bf16", weights)
            for name, layout in LAYOUTS.items():
                out = aside / f"{source.name}-{name}"
                ours, first, second = step_one(dsv3, source, aside / "bf16" / "config.json", out, layout)
                worst = max(error(first[key], grad) for key, grad in grads.items())
                worst_square = max(error(second[key], grad.square()) for key, grad in grads.items())
                off = abs(ours - loss) / loss
                print(f"main path, {source.name} on {name}: loss {off:.2g}, worst of {len(grads)} gradients {worst:.2g}, of "
                      f"their squares {worst_square:.2g} (relative)")
                good &= first.keys() == grads.keys() and off <= 1e-6 and worst <= 1e-5 and worst_square <= 2e-5
    return good
