"""The names of Hugging Face's files: one tensor per expert, MTP modules as extra layers."""

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from transformers.modeling_layers import MtpLayer
from transformers.models.deepseek_v3 import modeling_deepseek_v3 as modeling

MTP_NAMES = {"mtp_block.": "", "post_norm.": "shared_head.norm."}


def on_disk(name, tensor):
    """Yields (name on disk, part) of one entry of a state_dict()."""
    if name.endswith("experts.gate_up_proj"):
        stem = name.removesuffix("gate_up_proj")
        for e, both in enumerate(tensor):
            gate, up = both.chunk(2)
            yield f"{stem}{e}.gate_proj.weight", gate
            yield f"{stem}{e}.up_proj.weight", up
    elif name.endswith("experts.down_proj"):
        stem = name.removesuffix("down_proj")
        for e, down in enumerate(tensor):
            yield f"{stem}{e}.down_proj.weight", down
    else:
        yield name, tensor


def mtp_name(config, depth, name):
    """`name` inside the MtpLayer of `depth` (from 1) as transformers would spell it in a layer of the main model."""
    for ours, theirs in MTP_NAMES.items():
        if name.startswith(ours):
            name = theirs + name.removeprefix(ours)
    return f"model.layers.{config.num_hidden_layers + depth - 1}.{name}"


def load_mtp(config, folder, dtype=torch.float32):
    """The MTP modules of a folder as transformers' MtpLayers."""
    disk = load_file(f"{folder}/model.safetensors")
    layers = []
    for depth in range(1, config.num_nextn_predict_layers + 1):
        layer = MtpLayer(
            config, modeling.DeepseekV3DecoderLayer, modeling.DeepseekV3RMSNorm, config.num_hidden_layers + depth - 1
        )
        with torch.no_grad():
            for name, tensor in layer.state_dict().items():
                for disk_name, part in on_disk(mtp_name(config, depth, name), tensor):
                    part.copy_(disk[disk_name])
        bias = layer.mtp_block.mlp.gate.e_score_correction_bias
        layer.to(dtype)
        if dtype == torch.bfloat16:  # as from_pretrained keeps it
            layer.mtp_block.mlp.gate.e_score_correction_bias = bias
        layers.append(layer)
    return torch.nn.ModuleList(layers)


def write_random(config, folder, seed, scales, copies):
    """Writes random weights under which logits and gradients are O(1). numpy's generator: equal on every machine.

    scales: {part of a name: standard deviation}, against the default of fan_in ** -0.5.
    copies: repeat embedding and head in every MTP layer, as the released weights do.
    """
    generator = np.random.Generator(np.random.PCG64(seed))
    model = modeling.DeepseekV3ForCausalLM(config)
    entries = dict(model.state_dict())
    if config.tie_word_embeddings:
        del entries["lm_head.weight"]
    for depth in range(1, config.num_nextn_predict_layers + 1):
        layer = MtpLayer(
            config, modeling.DeepseekV3DecoderLayer, modeling.DeepseekV3RMSNorm, config.num_hidden_layers + depth - 1
        )
        entries.update({mtp_name(config, depth, name): tensor for name, tensor in layer.state_dict().items()})

    disk = {}
    for name, like in entries.items():
        for disk_name, part in on_disk(name, like):
            normal = generator.standard_normal(tuple(part.shape))
            mean, std = _distribution(disk_name, part, scales)
            disk[disk_name] = torch.from_numpy((mean + std * normal).astype(np.float32))
    if copies:
        for depth in range(1, config.num_nextn_predict_layers + 1):
            disk[mtp_name(config, depth, "embed_tokens.weight")] = disk["model.embed_tokens.weight"].clone()
            disk[mtp_name(config, depth, "shared_head.head.weight")] = disk["lm_head.weight"].clone()
    save_file(disk, f"{folder}/model.safetensors", metadata={"format": "pt"})


def _distribution(name, part, scales):
    mean, std = 0.0, part.shape[-1] ** -0.5
    if "norm" in name:
        mean, std = 1.0, 0.2
    elif "embed_tokens" in name:
        std = 1.0
    elif "mlp.gate.weight" in name or "lm_head" in name:
        std *= 1.5
    elif name.endswith("bias"):
        std = 0.2
    for key, value in scales.items():
        if key in name:
            mean, std = value if isinstance(value, tuple) else (mean, value)
    return mean, std
