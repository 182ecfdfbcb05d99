"""The golden configurations: what each varies, and the batch that goes with it."""

import numpy as np

BASE = {
    "architectures": ["DeepseekV3ForCausalLM"],
    "model_type": "deepseek_v3",
    "vocab_size": 40,
    "hidden_size": 32,
    "intermediate_size": 16,
    "moe_intermediate_size": 2,
    "num_hidden_layers": 1,
    "num_nextn_predict_layers": 0,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "n_shared_experts": 1,
    "n_routed_experts": 8,
    "routed_scaling_factor": 2.5,
    "kv_lora_rank": 8,
    "q_lora_rank": 12,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8,
    "v_head_dim": 8,
    "n_group": 4,
    "topk_group": 2,
    "num_experts_per_tok": 3,
    "first_k_dense_replace": 0,
    "norm_topk_prob": True,
    "scoring_func": "sigmoid",
    "topk_method": "noaux_tc",
    "hidden_act": "silu",
    "max_position_embeddings": 4096,
    "initializer_range": 0.02,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000,
    "rope_scaling": None,
    "attention_bias": False,
    "attention_dropout": 0.0,
    "tie_word_embeddings": False,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "torch_dtype": "float32",
}
YARN = {
    "type": "yarn", "factor": 40, "beta_fast": 32, "beta_slow": 1, "mscale": 1.0, "mscale_all_dim": 1.0,
    "original_max_position_embeddings": 4096,
}
# Activations near sqrt(eps), where eps is seen.
SMALL = {"embed_tokens": 0.005, "kv_a_proj_with_mqa.weight": 0.002, "q_a_proj.weight": 0.002}
DENSE_MOE = {"num_hidden_layers": 2, "first_k_dense_replace": 1}
SEQUENCE = {"balance": "sequence", "alpha": 0.5, "indicator": "unbiased"}

# name: about, config over BASE (a value of ... removes the key), and optionally
#   scales (see hf_disk), switches (of reference.Reference), batch (see make_batch), copies, generate (greedy goldens)
CASES = {
    "groups": {
        "about": "released keys, one dense and two MoE layers, 4 groups of 4, 2 kept, top-k 4",
        "config": {"num_hidden_layers": 3, "first_k_dense_replace": 1, "n_routed_experts": 16, "num_experts_per_tok": 4,
                   "aux_loss_alpha": 1e-4, "ep_size": 1, "seq_aux": True, "pretraining_tp": 1, "moe_layer_freq": 1},
    },
    "yarn": {
        "about": "YaRN of the released config: mscale = mscale_all_dim, old keys; its ramp lies inside the rope dims",
        "config": {**DENSE_MOE, "rope_scaling": YARN, "max_position_embeddings": 163840},
        "generate": True,
    },
    "yarn_mscale": {
        "about": "YaRN with mscale != mscale_all_dim, new keys (rope_parameters), theta 1000",
        "config": {"rope_scaling": ..., "rope_theta": ..., "rope_parameters": {
            "rope_type": "yarn", "rope_theta": 1000.0, "factor": 8.0, "beta_fast": 16.0, "beta_slow": 0.5,
            "mscale": 0.707, "mscale_all_dim": 1.3, "original_max_position_embeddings": 512},
            "qk_rope_head_dim": 16},
    },
    "yarn_no_mscale": {
        "about": "YaRN without either mscale: cos and sin scaled, softmax not",
        "config": {"rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024}},
    },
    "moonlight": {
        "about": "no q_lora, one group, eps 1e-5 (1e-6 in kv_a_layernorm), theta 5e4, scale 2.446, 2 shared experts",
        "config": {**DENSE_MOE, "q_lora_rank": None, "n_group": 1, "topk_group": 1, "rms_norm_eps": 1e-5,
                   "rope_theta": 50000.0, "routed_scaling_factor": 2.446, "n_shared_experts": 2, "moe_layer_freq": 1},
        "scales": SMALL,
        "generate": True,
    },
    "negative_bias": {
        "about": "every biased score negative: masking dropped groups with 0.0 would choose their experts",
        "config": {}, "scales": {"e_score_correction_bias": (-2.0, 0.2)},
    },
    "tied": {
        "about": "tied embeddings without padding row",
        "config": {**DENSE_MOE, "tie_word_embeddings": True}, "generate": True,
    },
    "tied_pad": {
        "about": "tied embeddings with pad_token_id 5 among the tokens: its row gets the head's gradient only",
        "config": {"tie_word_embeddings": True, "pad_token_id": 5}, "batch": {"force": 5},
    },
    "dense_only": {
        "about": "first_k_dense_replace = num_hidden_layers",
        "config": {"num_hidden_layers": 2, "first_k_dense_replace": 2},
    },
    "attention_bias": {
        "about": "biases on q_a_proj, kv_a_proj_with_mqa and o_proj",
        "config": {"attention_bias": True},
    },
    "attention_bias_no_q_lora": {
        "about": "attention_bias without q_lora: none on q_proj; 3 heads; v wider than nope; 2 shared experts",
        "config": {"attention_bias": True, "q_lora_rank": None, "num_attention_heads": 3, "num_key_value_heads": 3,
                   "v_head_dim": 12, "qk_nope_head_dim": 6, "qk_rope_head_dim": 4, "n_shared_experts": 2},
    },
    "eps": {
        "about": "rms_norm_eps 1e-5 with q_lora: q_a_layernorm and kv_a_layernorm stay at 1e-6",
        "config": {"rms_norm_eps": 1e-5}, "scales": SMALL,
    },
    "no_norm_topk": {
        "about": "norm_topk_prob false, scale 1, theta 1e6, two groups of four, top-k 2",
        "config": {"norm_topk_prob": False, "routed_scaling_factor": 1.0, "rope_theta": 1000000.0, "n_group": 2,
                   "topk_group": 1, "num_experts_per_tok": 2},
    },
    "left_padding": {
        "about": "left padding with attention mask; positions stay arange",
        "config": {**DENSE_MOE, "pad_token_id": 2}, "batch": {"left": [0, 5], "pad": 2},
    },
    "right_padding": {
        "about": "right padding with mask, pad_token_id 3 also among the real tokens (its embedding row: no gradient), "
                 "scattered labels of -100",
        "config": {"pad_token_id": 3}, "batch": {"right": [3, 0], "pad": 3, "force": 3, "ignore": 0.2},
    },
    "mtp1": {
        "about": "one MTP module; its layer repeats embedding and head on disk as the released weights do",
        "config": {"num_nextn_predict_layers": 1}, "copies": True,
    },
    "mtp1_pre_norm": {
        "about": "depth 1 reads the hidden state before the final norm; tied; MTP loss over the main loss's count",
        "config": {"num_nextn_predict_layers": 1, "tie_word_embeddings": True},
        "switches": {"mtp_hidden": "pre_norm", "mtp_count": "main", "mtp_lambda": 0.7},
    },
    "mtp2_padding": {
        "about": "two MTP modules, one row padded left, one right, scattered labels of -100",
        "config": {"num_nextn_predict_layers": 2},
        "batch": {"left": [4, 0], "right": [0, 3], "pad": 1, "ignore": 0.1},
    },
    "mtp2_documents": {
        "about": "two MTP modules, mask = document: attention inside a document, crossings masked in "
                 "every loss; right padding in one row",
        "config": {"num_nextn_predict_layers": 2},
        "batch": {"lengths": [[4, 2, 1, 5], [8, 4]], "right": [0, 2], "pad": 1},
    },
    "balance_sequence": {
        "about": "sequence-wise loss, unbiased indicator, padding, MTP depth 1",
        "config": {"num_nextn_predict_layers": 1}, "switches": SEQUENCE,
        "batch": {"left": [0, 3], "right": [5, 0], "pad": 1},
    },
    "balance_selected": {
        "about": "sequence-wise loss over the actual selection, no padding",
        "config": {}, "switches": {**SEQUENCE, "indicator": "selected"},
    },
    "balance_batch": {
        "about": "batch-wise loss, unbiased indicator, padding",
        "config": {}, "switches": {**SEQUENCE, "balance": "batch"}, "batch": {"right": [5, 0], "pad": 1},
    },
}


def make_config(case):
    merged = {**BASE, **case["config"]}
    return {key: value for key, value in merged.items() if value is not ...}


def make_batch(case, vocab_size, seed, rows=2, length=12):
    """tokens and, where the case has them, mask, labels, documents: int64 [rows, length] arrays by name.

    left, right: padding of each row, filled with `pad`. ignore: share of labels that are -100. force: a token id that
    stands in both rows. lengths: documents of each row.
    """
    spec = case.get("batch", {})
    generator = np.random.Generator(np.random.PCG64([seed, 1]))
    tokens = generator.integers(3, vocab_size, (rows, length))
    if "force" in spec:
        tokens[:, [1, 6, 7]] = spec["force"]
    batch = {"tokens": tokens}
    if "pad" in spec:
        place = np.arange(length)
        left = np.array(spec.get("left", [0] * rows))[:, None]
        right = np.array(spec.get("right", [0] * rows))[:, None]
        mask = (place >= left) & (place < length - right)
        tokens[~mask] = spec["pad"]
        labels = np.where(mask & (place > left), tokens, -100)
        labels[(left == 0).flatten(), 0] = tokens[(left == 0).flatten(), 0]
        if "ignore" in spec:
            labels[generator.random((rows, length)) < spec["ignore"]] = -100
        batch |= {"mask": mask.astype(np.int64), "labels": labels}
    if "lengths" in spec:
        batch["documents"] = np.stack([np.repeat(np.arange(len(row)), row) for row in spec["lengths"]])
    return batch


def moved_batch(batch, n, vocab_size):
    """Batch n of a family with one structure: token ids moved on, padding and labels of -100 as they are.

    By 13 n; from n = vocab_size on, where that repeats, by n // vocab_size more a place.
    """
    def moved(ids, kept):
        place = np.arange(ids.shape[1])
        return np.where(kept, ids, (ids + 13 * n + n // vocab_size * place) % vocab_size)

    padding = batch["mask"] == 0 if "mask" in batch else np.zeros_like(batch["tokens"], dtype=bool)
    family = {"tokens": moved(batch["tokens"], padding)}
    if "labels" in batch:
        family["labels"] = moved(batch["labels"], batch["labels"] == -100)
    return {**batch, **family}


def trace_flags(switches):
    """The switches as dsv3 trace's flags."""
    flags = [f"--balance.loss={switches.get('balance', 'none')}"]
    names = {"alpha": "balance.alpha", "indicator": "balance.indicator", "mtp_lambda": "mtp.lambda",
             "mtp_hidden": "mtp.hidden", "mtp_count": "mtp.count"}
    return flags + [f"--{names[key]}={value}" for key, value in switches.items() if key != "balance"]
