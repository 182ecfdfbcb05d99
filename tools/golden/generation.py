"""Greedy generation by transformers.generate in fp32: one prompt, and a left-padded batch of two.

Writes prompt.npy [1, P], generated.npy [1, 64] (the new tokens alone), and batch_prompt.npy [2, P], batch_mask.npy,
batch_generated.npy [2, 64]. Prompts are chosen so that at each step the best logit leads by more than GAP and the end
token never comes.
"""

import numpy as np
import torch
from reference import load

NEW_TOKENS, PROMPT, GAP = 64, 9, 1e-3


def make_generation(folder):
    model = load(folder, torch.float32).model
    for seed in range(1000):
        generator = np.random.Generator(np.random.PCG64([seed, 2]))
        prompts = torch.from_numpy(generator.integers(3, model.config.vocab_size, (3, PROMPT)))
        mask = torch.ones_like(prompts[1:])
        mask[1, :4] = 0
        batch = prompts[1:].masked_fill(mask == 0, 2)
        single, gap_single = greedy(model, prompts[:1], torch.ones_like(prompts[:1]))
        padded, gap_padded = greedy(model, batch, mask)
        end = model.config.eos_token_id
        full = single.shape[1] == padded.shape[1] == NEW_TOKENS
        if full and min(gap_single, gap_padded) > GAP and not torch.cat((single, padded)).eq(end).any():
            break
    else:
        raise SystemExit(f"{folder.name}: no prompt whose greedy tokens are {GAP} ahead")
    for name, tensor in (("prompt", prompts[:1]), ("generated", single), ("batch_prompt", batch), ("batch_mask", mask),
                         ("batch_generated", padded)):
        np.save(folder / f"{name}.npy", tensor.numpy())


def greedy(model, tokens, mask):
    """The new tokens and the smallest lead of a best logit."""
    result = model.generate(
        tokens, attention_mask=mask, max_new_tokens=NEW_TOKENS, do_sample=False, pad_token_id=2, output_logits=True,
        return_dict_in_generate=True,
    )
    best = torch.stack(result.logits).topk(2, dim=-1).values
    return result.sequences[:, tokens.shape[1]:], (best[..., 0] - best[..., 1]).min().item()
