"""Checkpoints: what dsv3 writes, read by Python, and what Python writes, read by dsv3.

Each check prints a line and returns whether it holds. `save` and `save-fsdp1` are the other side of two of them: FSDP2
on two ranks, and FSDP1 on four with the experts on process groups of their own.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
import torch.multiprocessing as mp
from safetensors.torch import load_file
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.checkpoint.quantized_hf_storage import QuantizedHuggingFaceStorageReader
from main_path import check_main_path, tensors_of, weights_of
from torch.distributed.fsdp import FullyShardedDataParallel, ShardingStrategy
from transformers import DeepseekV3Config, DeepseekV3ForCausalLM

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
TRAJECTORY = ROOT / "tests" / "golden" / "trajectory"
warnings.filterwarnings("ignore", message="torch.distributed is disabled")
warnings.filterwarnings("ignore", message="Please use DTensor instead")


def dsv3_trace(dsv3, aside, model, *flags):
    """Logits of tokens 0 … 31 as two rows, in fp32."""
    np.save(aside / "tokens.npy", np.arange(32, dtype=np.int64).reshape(2, 16))
    out = aside / "trace.safetensors"
    subprocess.run([dsv3, "trace", "--model", model, "--tokens", aside / "tokens.npy", "--dtype", "fp32", "--out", out,
                    *flags], check=True)
    return load_file(out)["logits"]


def transformers_logits(model):
    with torch.no_grad():
        return model(torch.arange(32).reshape(2, 16)).logits


def relative(ours, theirs):
    return ((ours - theirs).norm() / theirs.norm()).item()


def load_model(folder):
    return DeepseekV3ForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager",
                                                 experts_implementation="eager").eval()


def all_equal(ours, theirs):
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


def trained_run(dsv3, run, *flags):
    """A run of two ranks with expert parallelism, saved at step 3."""
    subprocess.run([dsv3, "train", TRAJECTORY / "run.toml", "--nproc", "2", "--parallel.ep=2", "--train.steps=3",
                    "--train.global_batch=4", "--train.dtype=fp32", "--checkpoint.every=3", f"--train.out={run}", *flags],
                   check=True, stdout=subprocess.DEVNULL)
    return run


def check_python_loads_ours(dsv3, aside, run):
    """dcp.load into a stock model: the exported weights bit for bit, dsv3's logits."""
    folder, exported = run / "checkpoints" / "step-3", run.with_name(run.name + "-exported")
    subprocess.run([dsv3, "export", run, exported, "--dtype", "fp32"], check=True, stdout=subprocess.DEVNULL)
    theirs = load_model(exported)
    model = load_model(exported)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.zero_()
    state = model.state_dict()
    dcp.load(state, checkpoint_id=folder)
    model.load_state_dict(state)
    equal = all_equal(model.state_dict(), theirs.state_dict())
    error = relative(dsv3_trace(dsv3, aside, folder), transformers_logits(model))
    print(f"dcp.load of our checkpoint ({run.name}): weights {'equal' if equal else 'DIFFER'}, logits' relative error {error:.2g}")
    return equal and error <= 1e-5


def check_optimizer(run):
    """Our moments in torch.optim.AdamW, and a step with them."""
    folder = run / "checkpoints" / "step-3"
    model = load_model(run / "hf")
    decays = [p for n, p in model.named_parameters() if p.ndim > 1 and "e_score" not in n]
    others = [p for n, p in model.named_parameters() if p.ndim <= 1 and "e_score" not in n]
    optimizer = torch.optim.AdamW([{"params": decays}, {"params": others}], lr=1.0)
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    state = {"optim": get_optimizer_state_dict(model, optimizer)}
    for group in state["optim"]["param_groups"]:
        group["params"] = list(group["params"])
    dcp.load(state, checkpoint_id=folder)
    set_optimizer_state_dict(model, optimizer, state["optim"])
    steps = {int(s["step"]) for s in optimizer.state.values()}
    moved = sum(bool(s["exp_avg_sq"].abs().sum() > 0) for s in optimizer.state.values())
    decay = [group["weight_decay"] for group in optimizer.param_groups]
    stored = {f"optim.state.{name}.{moment}": torch.full_like(p, torch.nan)
              for name, p in model.named_parameters() for moment in ("exp_avg", "exp_avg_sq")}
    dcp.load(stored, checkpoint_id=folder)
    equal = all(torch.equal(optimizer.state[p][moment], stored[f"optim.state.{name}.{moment}"])
                for name, p in model.named_parameters() for moment in ("exp_avg", "exp_avg_sq"))
    good = steps == {3} and moved > 0.9 * len(optimizer.state) and decay == [0.1, 0.0] and equal
    print(f"AdamW from our checkpoint: step {steps}, {moved} of {len(optimizer.state)} parameters have moments, "
          f"{'equal' if equal else 'DIFFERENT'}, weight decay {decay}")
    return good


def check_we_load_fsdp(dsv3, aside, mode, name):
    """FSDP saves nested dicts, FSDP2 with AdamW's state, FSDP1 from two kinds of groups; dsv3 finds the weights."""
    folder = aside / f"{mode}-dcp"
    subprocess.run([sys.executable, Path(__file__), mode, "--out", folder], check=True, stdout=subprocess.DEVNULL)
    config = ("--config", TRAJECTORY / "config.json", "--model.num_nextn_predict_layers=0")
    error = relative(dsv3_trace(dsv3, aside, folder, *config), transformers_logits(load_model(TRAJECTORY)))
    whole = folder.with_name(folder.name + "-whole")
    equal = True
    if whole.exists():  # the same state saved by one process: weights and moments, tensor by tensor
        listed = subprocess.run([dsv3, "ckpt", "ls", folder], check=True, capture_output=True, text=True).stdout
        diff = subprocess.run([dsv3, "ckpt", "diff", folder, whole], capture_output=True, text=True)
        moments = listed.count(".exp_avg_sq")
        equal = diff.returncode == 0 and moments == 30
        print(f"{name}'s shards of weights and {moments} second moments against those that one process saves: "
              f"{'equal' if equal else diff.stdout + diff.stderr}")
    print(f"weights of {name}'s checkpoint: logits' relative error {error:.2g}")
    return error <= 1e-5 and equal


def convert_with(dsv3):
    def convert(*arguments):
        subprocess.run([dsv3, "convert", *map(str, arguments)], check=True, stdout=subprocess.DEVNULL)
    return convert


def check_fp8_reader(dsv3, aside):
    """PyTorch's reader of FP8 folders computes what dsv3 does. Matrices of several blocks, and of parts of one."""
    convert = convert_with(dsv3)
    torch.manual_seed(3)
    config = DeepseekV3Config.from_pretrained(TRAJECTORY, hidden_size=320, intermediate_size=260,
                                              moe_intermediate_size=136, num_nextn_predict_layers=0)
    DeepseekV3ForCausalLM(config).save_pretrained(aside / "large")
    convert(aside / "large", aside / "large-fp8", "--to", "hf", "--dtype", "fp8", "--max-file-gb", "0.001")
    convert(aside / "large-fp8", aside / "large-wide", "--to", "hf", "--dtype", "fp32")
    ours, codes = tensors_of(aside / "large-wide"), tensors_of(aside / "large-fp8")
    theirs = {name: torch.full_like(tensor, torch.nan) for name, tensor in ours.items()}
    dcp.load(theirs, storage_reader=QuantizedHuggingFaceStorageReader(str(aside / "large-fp8")))
    equal = all_equal(ours, theirs)
    matrices = sum(name.endswith("_scale_inv") for name in codes)
    blocks = sum(tensor.numel() for name, tensor in codes.items() if name.endswith("_scale_inv"))
    print(f"PyTorch's reader of our FP8: {'equal' if equal else 'DIFFERS'}, {matrices} matrices of {blocks} blocks")
    return equal and blocks > 2 * matrices > 20


def check_round_trip(dsv3, aside):
    """HF -> DCP -> HF is equal byte for byte in bf16; FP8 is its codes times their scales."""
    convert = convert_with(dsv3)
    convert(TRAJECTORY, aside / "bf16", "--to", "hf", "--dtype", "bf16")
    convert(aside / "bf16", aside / "dcp")
    convert(aside / "dcp", aside / "back", "--max-file-gb", "0.00004")
    good = all_equal(tensors_of(aside / "bf16"), tensors_of(aside / "back"))
    print(f"HF -> DCP -> HF: {'equal' if good else 'DIFFERS'}, {len(list((aside / 'back').glob('*.safetensors')))} shards")
    convert(aside / "bf16", aside / "fp8", "--to", "hf", "--dtype", "fp8")
    convert(aside / "fp8", aside / "wide", "--to", "hf", "--dtype", "fp32")
    codes, ours = tensors_of(aside / "fp8"), tensors_of(aside / "wide")
    if not all_equal(ours, weights_of(aside / "fp8")):
        print("FP8: the product of codes and scales differs")
        good = False
    matrices = sum(name.endswith("_scale_inv") for name in codes)
    print(f"FP8: {matrices} matrices")
    return good and matrices > 10


def check_python_loads_converted(dsv3, aside, name, cut, **sizes):
    """dcp.load of a folder that dsv3 convert wrote into a stock model's state: the HF folder's weights bit for bit. cut: how
    many tensors lie in pieces in several files."""
    folder, converted = aside / name, aside / f"{name}-dcp"
    torch.manual_seed(5)
    config = DeepseekV3Config.from_pretrained(TRAJECTORY, num_nextn_predict_layers=0, **sizes)
    model = DeepseekV3ForCausalLM(config).to(torch.bfloat16)
    gate = model.model.layers[-1].mlp.gate
    gate.e_score_correction_bias = torch.rand(config.n_routed_experts)  # fp32, as in DeepSeek-V3's own folder
    model.save_pretrained(folder)
    convert_with(dsv3)(folder, converted, "--max-file-gb", "0.015")
    theirs = DeepseekV3ForCausalLM.from_pretrained(folder, dtype="auto").state_dict()
    ours = {name: torch.full_like(tensor, torch.nan) for name, tensor in theirs.items()}
    dcp.load(ours, checkpoint_id=converted, no_dist=True)
    equal = all_equal({k: v.view(torch.uint8) for k, v in ours.items()}, {k: v.view(torch.uint8) for k, v in theirs.items()})
    metadata = dcp.FileSystemReader(converted).read_metadata()
    files = {}
    for index, place in metadata.storage_data.items():
        files.setdefault(index.fqn, set()).add(place.relative_path)
    found = sum(len(names) > 1 for names in files.values())
    same_dtypes = all(metadata.state_dict_metadata[k].properties.dtype == v.dtype for k, v in theirs.items())
    print(f"dcp.load of a converted folder ({name}): weights {'equal' if equal else 'DIFFER'}, "
          f"{'their' if same_dtypes else 'OTHER'} dtypes, {found} of {len(theirs)} tensors in several of "
          f"{len(set().union(*files.values()))} files")
    return equal and same_dtypes and found == cut


def save(rank, out, port_folder):
    from fsdp2 import adamw, shard

    dist.init_process_group("gloo", init_method=f"file://{port_folder}/store", rank=rank, world_size=2)
    model = DeepseekV3ForCausalLM.from_pretrained(TRAJECTORY, dtype=torch.float32, attn_implementation="eager",
                                                  experts_implementation="eager")
    shard(model, "fp32", 2)
    optimizer = adamw(model, 0.0)  # moments, and weights that stay
    model(torch.arange(32).reshape(2, 16), use_cache=False).logits.sum().backward()
    optimizer.step()
    state = {"model": get_model_state_dict(model), "optim": get_optimizer_state_dict(model, optimizer)}
    dcp.save(state, checkpoint_id=out)
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    whole = {"model": get_model_state_dict(model, options=options),
             "optim": get_optimizer_state_dict(model, optimizer, options=options)}
    if rank == 0:
        dcp.save(whole, checkpoint_id=f"{out}-whole", no_dist=True)
    dist.barrier()
    os._exit(0)  # Gloo's threads now and then abort a process that winds down


def save_fsdp1(rank, out, port_folder):
    """As the reference wraps its model: the experts on two groups of two ranks, all else on all four."""
    dist.init_process_group("gloo", init_method=f"file://{port_folder}/store", rank=rank, world_size=4)
    groups = [dist.new_group([0, 2]), dist.new_group([1, 3])]
    model = load_model(TRAJECTORY)

    def wrap(module, group=None):
        return FullyShardedDataParallel(module, process_group=group, sharding_strategy=ShardingStrategy.FULL_SHARD,
                                        use_orig_params=True, device_id=torch.device("cpu"))
    layers = model.model.layers
    for i, layer in enumerate(layers):  # by hand: the policy refuses modules with wrapped ones in them
        if hasattr(layer.mlp, "experts"):
            layer.mlp.experts = wrap(layer.mlp.experts, groups[rank % 2])
        layers[i] = wrap(layer)
    dcp.save({"model": get_model_state_dict(wrap(model))}, checkpoint_id=out)
    dist.barrier()
    os._exit(0)


def check_all(dsv3, aside):
    run = trained_run(dsv3, aside / "run")
    tied = trained_run(dsv3, aside / "tied", "--model.init=", "--model.tie_word_embeddings=true")
    return [check_python_loads_ours(dsv3, aside, run), check_optimizer(run), check_python_loads_ours(dsv3, aside, tied),
            check_we_load_fsdp(dsv3, aside, "save", "FSDP2"),
            check_we_load_fsdp(dsv3, aside, "save-fsdp1", "FSDP1"),
            check_round_trip(dsv3, aside),
            # Longer than what a conversion writes as one piece: the embedding, the head, and two tensors of all experts.
            check_python_loads_converted(dsv3, aside, "cut", 4, vocab_size=66000, hidden_size=128,
                                         moe_intermediate_size=8200),
            check_python_loads_converted(dsv3, aside, "tied-head", 0, tie_word_embeddings=True),
            check_fp8_reader(dsv3, aside), check_main_path(dsv3, aside)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mode", choices=["check", "save", "save-fsdp1"])
    parser.add_argument("--dsv3", default=str(ROOT / "build" / "release" / "bin" / "dsv3"))
    parser.add_argument("--out")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as aside:
        if arguments.mode != "check":
            os.environ["OMP_NUM_THREADS"] = "1"
            entry, ranks = {"save": (save, 2), "save-fsdp1": (save_fsdp1, 4)}[arguments.mode]
            mp.spawn(entry, (arguments.out, aside), nprocs=ranks)
        else:
            sys.exit(not all(check_all(arguments.dsv3, Path(aside))))


if __name__ == "__main__":
    main()
