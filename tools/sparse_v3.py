#!/usr/bin/env python3
"""A folder of DeepSeek-V3's full shape that takes no room: 91,991 tensors in 163 files, every value zero.

  tools/sparse_v3.py FOLDER

Names, shapes, dtypes and their order are those of the released FP8 weights, layer 61 (multi-token prediction) with its
repeats of embedding and head among them; 689 GB, of which the disk holds the headers alone. The files are cut by size, so
a tensor may stand in a neighbour of the file that it has in the release.
"""

import json
import math
import struct
import sys
from pathlib import Path

FILES, BLOCK = 163, 128
H, HEADS, Q_LORA, KV_LORA, NOPE, ROPE, V = 7168, 128, 1536, 512, 128, 64, 128
FFN, MOE, EXPERTS, LAYERS, DENSE, VOCAB = 18432, 2048, 256, 61, 3, 129280
SIZES = {"F32": 4, "BF16": 2, "F8_E4M3": 1}
CONFIG = {
    "architectures": ["DeepseekV3ForCausalLM"], "attention_bias": False, "attention_dropout": 0.0, "bos_token_id": 0,
    "eos_token_id": 1, "first_k_dense_replace": DENSE, "hidden_act": "silu", "hidden_size": H, "initializer_range": 0.02,
    "intermediate_size": FFN, "kv_lora_rank": KV_LORA, "max_position_embeddings": 163840, "model_type": "deepseek_v3",
    "moe_intermediate_size": MOE, "moe_layer_freq": 1, "n_group": 8, "n_routed_experts": EXPERTS, "n_shared_experts": 1,
    "norm_topk_prob": True, "num_attention_heads": HEADS, "num_experts_per_tok": 8, "num_hidden_layers": LAYERS,
    "num_key_value_heads": HEADS, "num_nextn_predict_layers": 1, "q_lora_rank": Q_LORA, "qk_nope_head_dim": NOPE,
    "qk_rope_head_dim": ROPE, "rms_norm_eps": 1e-6, "rope_theta": 10000, "routed_scaling_factor": 2.5,
    "scoring_func": "sigmoid", "tie_word_embeddings": False, "topk_group": 4, "topk_method": "noaux_tc",
    "torch_dtype": "bfloat16", "use_cache": True, "v_head_dim": V, "vocab_size": VOCAB,
    "rope_scaling": {"beta_fast": 32, "beta_slow": 1, "factor": 40, "mscale": 1.0, "mscale_all_dim": 1.0,
                     "original_max_position_embeddings": 4096, "type": "yarn"},
    "quantization_config": {"activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8",
                            "weight_block_size": [BLOCK, BLOCK]},
}


def tensors():
    """(name, dtype, shape) of every tensor, in the order of the index."""

    def fp8(name, rows, cols):
        yield f"{name}.weight", "F8_E4M3", [rows, cols]
        yield f"{name}.weight_scale_inv", "F32", [-(-rows // BLOCK), -(-cols // BLOCK)]

    def plain(name, *shape):
        yield f"{name}.weight", "BF16", list(shape)

    def ffn(name, width):
        yield from fp8(f"{name}.gate_proj", width, H)
        yield from fp8(f"{name}.up_proj", width, H)
        yield from fp8(f"{name}.down_proj", H, width)

    yield from plain("model.embed_tokens", VOCAB, H)
    for n in range(LAYERS + 1):
        layer = f"model.layers.{n}"
        if n == LAYERS:
            yield from plain(f"{layer}.embed_tokens", VOCAB, H)
            yield from plain(f"{layer}.enorm", H)
            yield from plain(f"{layer}.hnorm", H)
            yield from plain(f"{layer}.eh_proj", H, 2 * H)
        yield from fp8(f"{layer}.self_attn.q_a_proj", Q_LORA, H)
        yield from plain(f"{layer}.self_attn.q_a_layernorm", Q_LORA)
        yield from fp8(f"{layer}.self_attn.q_b_proj", HEADS * (NOPE + ROPE), Q_LORA)
        yield from fp8(f"{layer}.self_attn.kv_a_proj_with_mqa", KV_LORA + ROPE, H)
        yield from plain(f"{layer}.self_attn.kv_a_layernorm", KV_LORA)
        yield from fp8(f"{layer}.self_attn.kv_b_proj", HEADS * (NOPE + V), KV_LORA)
        yield from fp8(f"{layer}.self_attn.o_proj", H, HEADS * V)
        if n < DENSE:
            yield from ffn(f"{layer}.mlp", FFN)
        else:
            yield from plain(f"{layer}.mlp.gate", EXPERTS, H)
            yield f"{layer}.mlp.gate.e_score_correction_bias", "F32", [EXPERTS]
            for expert in range(EXPERTS):
                yield from ffn(f"{layer}.mlp.experts.{expert}", MOE)
            yield from ffn(f"{layer}.mlp.shared_experts", MOE)
        yield from plain(f"{layer}.input_layernorm", H)
        yield from plain(f"{layer}.post_attention_layernorm", H)
        if n == LAYERS:
            yield from plain(f"{layer}.shared_head.norm", H)
            yield from plain(f"{layer}.shared_head.head", VOCAB, H)
        if n == LAYERS - 1:
            yield from plain("model.norm", H)
            yield from plain("lm_head", VOCAB, H)


def write(folder):
    listed = [(name, dtype, shape, SIZES[dtype] * math.prod(shape)) for name, dtype, shape in tensors()]
    total = sum(size for *_, size in listed)
    files, before = [[] for _ in range(FILES)], 0
    for tensor in listed:
        files[before * FILES // total].append(tensor)
        before += tensor[3]
    weight_map = {}
    for number, file in enumerate(files, 1):
        name = f"model-{number:05}-of-{FILES:06}.safetensors"
        weight_map |= {tensor[0]: name for tensor in file}
        header, at = {}, 0
        # Larger dtypes first, then by name, as safetensors orders them.
        for tensor, dtype, shape, size in sorted(file, key=lambda t: (-SIZES[t[1]], t[0])):
            header[tensor] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + size]}
            at += size
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        with open(folder / name, "wb") as out:
            out.write(struct.pack("<Q", len(text)) + text)
            out.truncate(8 + len(text) + at)
    # The release counts two bytes an element, whatever its dtype.
    elements = sum(math.prod(shape) for _, _, shape, _ in listed)
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {"total_size": 2 * elements},
                    "weight_map": {name: weight_map[name] for name, *_ in listed}}, indent=2))
    (folder / "config.json").write_text(json.dumps(CONFIG, indent=2))
    return len(listed), total


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True)
    count, total = write(folder)
    print(f"{folder}: {count} tensors of {total} bytes in {FILES} files")


if __name__ == "__main__":
    main()
