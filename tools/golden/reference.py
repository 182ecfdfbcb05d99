"""What transformers computes for one batch: logits, losses, routing and every gradient, under dsv3 trace's names.

Conventions
- lm loss: mean over the valid shifted labels; -100 is ignored. position_ids are transformers' own default (arange,
  with padding too), so labels of padding, and of the first real token of a left-padded row (padding would predict it),
  are -100 in the goldens.
- MTP depth k at position i reads token i + k and predicts token i + k + 1; the hidden input is the main model's hidden
  state (after its final norm, or before with mtp.hidden = pre_norm) for k = 1 and depth k - 1's output after its own
  norm otherwise. transformers' MtpModel drafts: it appends a sampled token for the missing tail and its labels= path
  raises, so the loss is built here. A position is alive at depth k when it is no padding and tokens i and i + k exist,
  are no padding and lie in the same document: the tail (i > S - 1 - k) and crossings take no part in loss, counts or
  balance loss. The loss further needs token i + k + 1 in that document and its label != -100.
- Documents: attention is causal inside a document; positions go on counting.
- Balance loss: sum over the MoE layers, MTP's included, of alpha * sum_i f_i P_i; sequence: per row over its alive
  positions, then the mean over the rows; batch: once over all alive positions.
"""

import torch
import torch.nn.functional as F
from hf_disk import load_mtp, mtp_name, on_disk
from transformers.models.deepseek_v3 import modeling_deepseek_v3 as modeling

MARGIN = 1e-4


class Recorder:
    """Keeps what the routers of a model saw and chose; replay: {layer: ids [T, K]} forces the choice."""

    def __init__(self, layers, replay=None):
        self.logits, self.ids, self.weights, self.bias, self.gates, self.hooks = {}, {}, {}, {}, {}, []
        for n, layer in layers:
            if not hasattr(layer.mlp, "gate"):
                continue
            gate = layer.mlp.gate
            self.gates[n], self.bias[n] = gate, gate.e_score_correction_bias
            if replay is not None:
                # A bias of its own per token, so large that the chosen experts (and their groups) win.
                forced = torch.full((len(replay[n]), gate.num_experts), -10.0).scatter_(1, replay[n], 10.0)
                gate.e_score_correction_bias = forced
            self.hooks.append(gate.register_forward_hook(lambda _m, _in, out, n=n: self._keep(n, out)))

    def _keep(self, n, out):
        self.logits[n] = out[0]
        self.ids[n], order = out[2].sort(dim=-1)
        self.weights[n] = out[1].gather(1, order)

    def remove(self):
        for hook in self.hooks:
            hook.remove()
        for n, gate in self.gates.items():
            gate.e_score_correction_bias = self.bias[n]


def margin(logits, bias, config):
    """The smallest distance between a chosen and a not chosen group, and a chosen and a not chosen expert."""
    scores = logits.detach().sigmoid() + bias
    groups = scores.view(len(scores), config.n_group, -1)
    smallest = float("inf")
    if config.topk_group < config.n_group:
        sums = groups.topk(2, dim=-1).values.sum(-1)
        best = sums.sort(dim=-1, descending=True).values
        smallest = (best[:, config.topk_group - 1] - best[:, config.topk_group]).min().item()
        kept = torch.zeros_like(sums, dtype=torch.bool).scatter_(1, sums.topk(config.topk_group).indices, True)
        scores = groups.masked_fill(~kept[..., None], float("-inf")).flatten(1)
    best = scores.sort(dim=-1, descending=True).values
    return min(smallest, (best[:, config.num_experts_per_tok - 1] - best[:, config.num_experts_per_tok]).min().item())


def balance_loss(kind, indicator, logits, ids, alive, config):
    """logits [B, S, E], ids [B, S, K], alive [B, S]."""
    rows = [(logits[b][alive[b]], ids[b][alive[b]]) for b in range(len(logits))]
    if kind == "batch":
        rows = [(logits[alive], ids[alive])]
    total = 0
    for row_logits, row_ids in rows:
        scores = row_logits.sigmoid()
        if indicator == "unbiased":
            best = scores.detach().sort(dim=-1, descending=True)
            row_ids = best.indices[:, : config.num_experts_per_tok]
        counts = torch.bincount(row_ids.flatten(), minlength=config.n_routed_experts)
        f = counts.to(scores.dtype) * config.n_routed_experts / (config.num_experts_per_tok * len(scores))
        p = (scores / scores.sum(-1, keepdim=True)).mean(0)
        total = total + (f * p).sum()
    return total / len(rows)


def cross_entropy(logits, targets, count=None):
    """targets [B, S] where position i's target stands at i; the mean over those != -100, or the sum / count."""
    total = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-100, reduction="sum")
    return total / ((targets != -100).sum() if count is None else count)


def ahead(x, k, fill):
    """x [B, S] with position i holding x[i + k]."""
    return F.pad(x[:, k:], (0, k), value=fill)


def document_mask(documents, mask, dtype):
    """Additive [B, 1, S, S]: causal, inside a document, no padding keys."""
    s = documents.shape[1]
    seen = torch.ones(s, s, dtype=torch.bool).tril() & (documents[:, :, None] == documents[:, None, :])
    seen = seen & mask.bool()[:, None, :]
    return torch.zeros(seen.shape, dtype=dtype).masked_fill(~seen, torch.finfo(dtype).min)[:, None]


class Reference:
    """A model, its MTP modules and the switches of dsv3 trace."""

    def __init__(self, model, mtp, mtp_lambda=0.3, mtp_hidden="post_norm", mtp_count="own", balance="none", alpha=0.0,
                 indicator="unbiased"):
        self.model, self.mtp, self.config = model, mtp, model.config
        self.mtp_lambda, self.mtp_hidden, self.mtp_count = mtp_lambda, mtp_hidden, mtp_count
        self.balance, self.alpha, self.indicator = balance, alpha, indicator

    def layers(self):
        blocks = list(self.model.model.layers) + [layer.mtp_block for layer in self.mtp]
        return list(enumerate(blocks))

    def parameters(self):
        """(state_dict name, parameter); a tied head once."""
        for name, parameter in self.model.named_parameters():
            yield name, parameter
        for k, layer in enumerate(self.mtp, 1):
            for name, parameter in layer.named_parameters():
                yield mtp_name(self.config, k, name), parameter

    def forward(self, tokens, mask=None, labels=None, documents=None, replay=None):
        """All outputs of trace as graph tensors, and the Recorder.

        labels may be one position longer than tokens, as in training: the last token is only a target.
        """
        model, config = self.model, self.config
        mask = torch.ones_like(tokens) if mask is None else mask
        labels = tokens if labels is None else labels
        length = tokens.shape[1]
        dtype = model.lm_head.weight.dtype
        recorder = Recorder(self.layers(), replay)
        seen, out = {}, {}

        def keep_input(_module, _args, kwargs):
            seen.update(kwargs)

        def keep_output(n):
            return lambda _module, _args, output: out.__setitem__(f"hidden.{n}", output)

        hooks = [model.model.layers[0].register_forward_pre_hook(keep_input, with_kwargs=True)]
        for n, layer in enumerate(model.model.layers):
            hooks.append(layer.register_forward_hook(keep_output(n)))
        attention_mask = mask if documents is None else document_mask(documents, mask, dtype)
        normed = model.model(tokens, attention_mask=attention_mask, use_cache=False).last_hidden_state
        for hook in hooks:
            hook.remove()

        logits = model.lm_head(normed)
        alive = mask.bool()

        def same_document(k):
            return torch.ones_like(alive) if documents is None else ahead(documents, k, -1) == documents

        targets = ahead(labels, 1, -100)[:, :length].masked_fill(~(alive & same_document(1)), -100)
        main_count = (targets != -100).sum()
        precise = logits.dtype if logits.dtype == torch.float64 else torch.float32
        lm_loss = cross_entropy(logits.to(precise), targets)
        out |= {"logits": logits, "lm_loss": lm_loss}

        alive_at = {n: alive for n in range(config.num_hidden_layers)}
        previous = normed if self.mtp_hidden == "post_norm" else out[f"hidden.{config.num_hidden_layers - 1}"]
        mtp_losses = []
        for k, layer in enumerate(self.mtp, 1):
            previous = layer(
                model.model.embed_tokens(ahead(tokens, k, 0)), previous, past_key_values=None,
                **{key: seen[key] for key in ("position_embeddings", "attention_mask", "position_ids")},
            )
            # Padding is one block at an end, documents are contiguous: i and i + k decide for what lies between.
            alive_k = alive & ahead(mask, k, 0).bool() & same_document(k)
            alive_at[config.num_hidden_layers + k - 1] = alive_k
            targets = ahead(labels, k + 1, -100)[:, :length].masked_fill(~(alive_k & same_document(k + 1)), -100)
            logits_k = model.lm_head(previous)
            loss_k = cross_entropy(logits_k.to(precise), targets, main_count if self.mtp_count == "main" else None)
            mtp_losses.append(loss_k)
            out |= {f"mtp.{k}.logits": logits_k, f"mtp.{k}.loss": loss_k, f"mtp.{k}.alive": alive_k.long()}
        recorder.remove()

        loss = lm_loss
        if mtp_losses:
            loss = loss + self.mtp_lambda / len(mtp_losses) * sum(mtp_losses)
        shape = tokens.shape
        if self.balance != "none":
            terms = [
                balance_loss(self.balance, self.indicator, recorder.logits[n].view(*shape, -1),
                             recorder.ids[n].view(*shape, -1), alive_at[n], config)
                for n in recorder.logits
            ]
            out["balance_loss"] = self.alpha * sum(terms, torch.zeros((), dtype=precise))
            loss = loss + out["balance_loss"]
        out["loss"] = loss
        for n in recorder.logits:
            out[f"router.{n}.experts"] = recorder.ids[n].view(*shape, -1)
            out[f"router.{n}.weights"] = recorder.weights[n].view(*shape, -1)
            out[f"router.{n}.counts"] = torch.bincount(
                out[f"router.{n}.experts"][alive_at[n]].flatten(), minlength=config.n_routed_experts
            )
        return out, recorder

    def trace(self, **batch):
        """forward(), and backward of the total loss: everything that dsv3 trace --grads writes, detached."""
        for _, parameter in self.parameters():
            parameter.grad = None
        out, recorder = self.forward(**batch)
        out["loss"].backward()
        for name, parameter in self.parameters():
            gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            for disk_name, part in on_disk(name, gradient):
                out[f"grad.{disk_name}"] = part
        return {name: tensor.detach().contiguous().clone() for name, tensor in out.items()}, recorder


def load(folder, dtype, **switches):
    """dtype fp32, bf16: as from_pretrained leaves it; fp64: the caller casts, see fp64_patch.cast()."""
    model = modeling.DeepseekV3ForCausalLM.from_pretrained(
        folder, dtype=dtype, attn_implementation="eager", experts_implementation="eager"
    )
    model.eval()
    return Reference(model, load_mtp(model.config, folder, dtype), **switches)


def relative_errors(ours, theirs):
    """{name: |a - b| / max(|b|, 1e-6 * global norm)} of logits and gradients; "grads" is all of them as one vector."""
    names = [name for name in theirs if name.startswith("grad.")]
    total = sum(theirs[name].double().square().sum() for name in names).sqrt()
    distances = {name: (ours[name].double() - theirs[name].double()).norm() for name in [*names, "logits"]}
    errors = {n: (d / max(theirs[n].double().norm(), 1e-6 * total)).item() for n, d in distances.items()}
    errors["grads"] = (sum(distances[name].square() for name in names).sqrt() / total).item()
    return errors
