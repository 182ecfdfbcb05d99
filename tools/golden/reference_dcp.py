"""Makes tests/convert/reference/: a small model as Hugging Face's files, and as the reference's converter stores it.

  reference_dcp.py           writes both; the bytes of dcp/ differ from run to run (ids), the content does not

  hf/       config.json, model.safetensors: a layer with experts and an MTP module, in bf16; as published
  dcp/      the same in the layout of zigzagcai/DeepSeekV3, convert_ckpt_hf2dcp.py, described at reference_layout()
"""

import json
import os
import shutil
import sys
from pathlib import Path

import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import save_file

FOLDER = Path(__file__).parents[2] / "tests" / "convert" / "reference"
HIDDEN, WIDTH, EXPERTS, LAYERS, VOCAB, HEADS, NOPE, ROPE, VALUE, RANK = 8, 6, 4, 1, 24, 2, 4, 2, 4, 4
CONFIG = {
    "architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3", "vocab_size": VOCAB,
    "hidden_size": HIDDEN, "intermediate_size": 12, "moe_intermediate_size": WIDTH, "num_hidden_layers": LAYERS,
    "num_nextn_predict_layers": 1, "num_attention_heads": HEADS, "num_key_value_heads": HEADS,
    "n_routed_experts": EXPERTS, "n_shared_experts": 0, "n_group": 2, "topk_group": 1, "num_experts_per_tok": 2,
    "q_lora_rank": None, "kv_lora_rank": RANK, "qk_nope_head_dim": NOPE, "qk_rope_head_dim": ROPE, "v_head_dim": VALUE,
    "first_k_dense_replace": 0, "norm_topk_prob": True, "scoring_func": "sigmoid", "topk_method": "noaux_tc",
    "routed_scaling_factor": 2.5, "tie_word_embeddings": False, "torch_dtype": "bfloat16",
}


def block(layer):
    at = f"model.layers.{layer}"
    shapes = {
        f"{at}.input_layernorm.weight": (HIDDEN,),
        f"{at}.self_attn.q_proj.weight": (HEADS * (NOPE + ROPE), HIDDEN),
        f"{at}.self_attn.kv_a_proj_with_mqa.weight": (RANK + ROPE, HIDDEN),
        f"{at}.self_attn.kv_a_layernorm.weight": (RANK,),
        f"{at}.self_attn.kv_b_proj.weight": (HEADS * (NOPE + VALUE), RANK),
        f"{at}.self_attn.o_proj.weight": (HIDDEN, HEADS * VALUE),
        f"{at}.post_attention_layernorm.weight": (HIDDEN,),
        f"{at}.mlp.gate.weight": (EXPERTS, HIDDEN),
        f"{at}.mlp.gate.e_score_correction_bias": (EXPERTS,),
    }
    for expert in range(EXPERTS):
        own = f"{at}.mlp.experts.{expert}"
        shapes |= {f"{own}.gate_proj.weight": (WIDTH, HIDDEN), f"{own}.up_proj.weight": (WIDTH, HIDDEN),
                   f"{own}.down_proj.weight": (HIDDEN, WIDTH)}
    return shapes


def published():
    """Every tensor under its name in Hugging Face's files."""
    shapes = {"model.embed_tokens.weight": (VOCAB, HIDDEN), "model.norm.weight": (HIDDEN,),
              "lm_head.weight": (VOCAB, HIDDEN)}
    for layer in range(LAYERS + 1):
        shapes |= block(layer)
    at = f"model.layers.{LAYERS}"
    shapes |= {f"{at}.enorm.weight": (HIDDEN,), f"{at}.hnorm.weight": (HIDDEN,),
               f"{at}.eh_proj.weight": (HIDDEN, 2 * HIDDEN), f"{at}.shared_head.norm.weight": (HIDDEN,)}
    torch.manual_seed(1)
    tensors = {}
    for name, shape in shapes.items():
        dtype = torch.float32 if name.endswith("e_score_correction_bias") else torch.bfloat16
        tensors[name] = torch.randn(shape).to(dtype)
    tensors[f"{at}.embed_tokens.weight"] = tensors["model.embed_tokens.weight"].clone()
    tensors[f"{at}.shared_head.head.weight"] = tensors["lm_head.weight"].clone()
    return tensors


def reference_layout(tensors):
    """The state that the reference saves.

    A layer's experts are joined along the columns and the result is transposed, a view: [W, H] of E experts becomes
    [E * H, W] with strides (1, E * H), and PyTorch stores it with these strides. The layer after the last is the MTP
    module: its norms and eh_proj under mtp.mtp_layers.0, everything else of it under mtp.mtp_layers.0.layer.
    """
    state = {}
    for name, tensor in tensors.items():
        if ".mlp.experts." in name:
            module, rest = name.split(".mlp.experts.")
            expert, projection = rest.split(".", 1)
            if expert != "0":
                continue
            name = f"{module}.mlp.experts.{projection}"
            own = [tensors[f"{module}.mlp.experts.{e}.{projection}"] for e in range(EXPERTS)]
            tensor = torch.cat(own, dim=1).transpose(0, 1)
        last = f"model.layers.{LAYERS}."
        if name.startswith(last):
            rest = name.removeprefix(last)
            own = rest in ("hnorm.weight", "enorm.weight", "eh_proj.weight")
            name = f"mtp.mtp_layers.0.{'' if own else 'layer.'}{rest}"
        state[name] = tensor
    return {"model": state}


def main():
    shutil.rmtree(FOLDER, ignore_errors=True)
    (FOLDER / "hf").mkdir(parents=True)
    tensors = published()
    save_file(tensors, FOLDER / "hf" / "model.safetensors", metadata={"format": "pt"})
    (FOLDER / "hf" / "config.json").write_text(json.dumps(CONFIG, indent=2) + "\n")
    os.chdir(FOLDER)  # the path that is saved to stands in .metadata
    dcp.save(reference_layout(tensors), storage_writer=dcp.filesystem.FileSystemWriter("dcp"), no_dist=True)
    print(f"{sum(f.stat().st_size for f in FOLDER.rglob('*') if f.is_file())} bytes in {FOLDER}")


if __name__ == "__main__":
    sys.exit(main())
