"""Runs transformers' DeepSeek-V3 in fp64 throughout.

Five places of transformers 5.17 fix fp32 whatever the model's dtype: RMSNorm, the router's gate, the softmax of eager
attention, RoPE's inv_freq, and RoPE's tables. Four of them say `torch.float32` or `torch.float` in two modules; there
the name `torch` is replaced by a view of torch in which those two mean float64, so that transformers' own code runs.
The fifth (`position_ids.float()`) is a method call and needs a forward of its own. The loss is computed outside.
"""

import contextlib

import torch
from transformers import modeling_rope_utils
from transformers.models.deepseek_v3 import modeling_deepseek_v3 as modeling


class _TorchOfDoubles:
    float = float32 = torch.float64

    def __getattr__(self, name):
        return getattr(torch, name)


def _rope_tables(self, x, position_ids):
    angles = position_ids[:, :, None].to(torch.float64) * self.inv_freq
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos() * self.attention_scaling, angles.sin() * self.attention_scaling


@contextlib.contextmanager
def fp64():
    """Inside, models given to cast() compute in fp64; outside, transformers is as it was."""
    forward = modeling.DeepseekV3RotaryEmbedding.forward
    modules = (modeling, modeling_rope_utils)
    for module in modules:
        module.torch = _TorchOfDoubles()
    modeling.DeepseekV3RotaryEmbedding.forward = _rope_tables
    try:
        yield
    finally:
        modeling.DeepseekV3RotaryEmbedding.forward = forward
        for module in modules:
            module.torch = torch


def cast(model):
    """The fp32 model in fp64, its inv_freq computed anew. Call inside fp64()."""
    model.double()
    rope = model.model.rotary_emb
    rounded = rope.inv_freq
    if rope.rope_type == "default":
        rope.inv_freq = rope.compute_default_rope_parameters(model.config)[0]
    else:
        rope.inv_freq = modeling_rope_utils.ROPE_INIT_FUNCTIONS[rope.rope_type](model.config, None)[0]
    assert rope.inv_freq.dtype == torch.float64
    torch.testing.assert_close(rope.inv_freq, rounded, rtol=1e-6, atol=0)
    return model
