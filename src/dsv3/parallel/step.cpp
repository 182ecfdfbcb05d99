#include "dsv3/parallel/step.h"

#include <torch/csrc/autograd/autograd.h>

#include "dsv3/ops/embedding.h"
#include "dsv3/ops/rms_norm.h"
#include "dsv3/ops/torch_pch.h"

namespace dsv3 {
namespace {

using at::Tensor;

// A part of the network between two detached boundaries.
struct Piece {
  std::vector<FlatUnit*> units;
  std::function<BlockOutput(const std::vector<Tensor>& inputs, const Tensor& replay_TK)> forward;
  bool recompute = false;
  RouterState* router = nullptr;
};

// What backward needs of a piece that ran.
struct Record {
  Piece piece;
  std::vector<Tensor> inputs;       // leaves; their grad() is the piece's result of backward
  Tensor output, balance;           // with graph; undefined when the piece is recomputed
  Tensor ids_TK;                    // routing of the first pass, replayed by recomputation
  std::unique_ptr<Unsharded> held;  // reshard = after_backward: from forward to backward
};

struct HeadRecord {
  Tensor hidden;       // leaf [B, S, H]
  Tensor logp, extra;  // with graph, [T]
};

Tensor leaf(const Tensor& x) { return x.detach().requires_grad_(true); }

void add_to(Tensor& sum, const Tensor& more) {
  if (more.defined()) sum = sum.defined() ? sum + more : more;
}

}  // namespace

struct Output::Tape {
  struct Depth {
    Tensor tokens_BS;
    std::vector<Record> records;
    HeadRecord head;
  };
  std::vector<std::unique_ptr<PassContext>> passes;  // stable addresses: pieces point at them
  std::vector<Depth> depths;                         // 0: embedding … final norm; k: MTP depth k
  std::map<int64_t, size_t> hidden_after;            // block → number of records up to it
  size_t norm = 0;                                   // index of the final norm's record in depth 0
  std::unique_ptr<Unsharded> shared;                 // embedding and head, first to last use
};

namespace {

// The forward pass of one micro-batch. training: builds the tape and counts for balancing.
class Forward {
 public:
  Forward(Model& model, const MicroBatch& micro, const ForwardOptions& options, bool training,
          int64_t global_sequences)
      : model_(model), micro_(micro), options_(options), training_(training), sequences_(global_sequences) {}

  Output run() {
    const ModelConfig& config = model_.config();
    const ParamTable& table = model_.table();
    tape_ = std::make_shared<Output::Tape>();
    std::vector<FlatUnit*> shared = model_.flat_units_of(0);
    for (FlatUnit* unit : model_.flat_units_of(table.head_unit())) shared.push_back(unit);
    tape_->shared = std::make_unique<Unsharded>(shared);
    out_.balance_loss = at::zeros({}, micro_.tokens_BS.options().dtype(at_least_fp32(model_.exec().dtype)));

    DepthInputs inputs = enter_depth(0);
    Tensor x = embedding(inputs.tokens_BS, model_.unit(0)[Role::embed_tokens]);
    for (int64_t layer = 0; layer < config.num_hidden_layers; ++layer) {
      for (Piece& piece : block_pieces(layer, false)) x = run_piece(std::move(piece), {x}, layer);
      if (wanted(layer)) {
        tape_->hidden_after[layer] = tape_->depths[0].records.size();
        out_.hidden[layer] = training_ ? leaf(x) : x;
      }
    }
    Tensor hidden = x;
    tape_->norm = tape_->depths[0].records.size();
    x = run_piece(norm_piece(), {x}, -1);
    if (!model_.exec().mtp_pre_norm) hidden = x;
    Output::Depth main = run_head(x, inputs.targets_BS, options_.vocab);
    out_.logp_BS = main.logp_BS;
    out_.extra_BS = main.extra_BS;
    out_.logits_BSV = main.logits_BSV;

    for (int64_t k = 1; k <= config.num_nextn_predict_layers; ++k) {
      inputs = enter_depth(k);
      const int64_t layer = config.num_hidden_layers + k - 1;
      const Tensor embedded = embedding(inputs.tokens_BS, model_.unit(0)[Role::embed_tokens]);
      std::vector<Tensor> entering{embedded, hidden};
      for (Piece& piece : block_pieces(layer, true))
        entering = {run_piece(std::move(piece), entering, layer)};
      hidden = entering[0];
      out_.mtp.push_back(run_head(hidden, inputs.targets_BS, {}));
    }
    if (training_) out_.tape = std::move(tape_);
    return std::move(out_);
  }

 private:
  bool wanted(int64_t layer) const {
    return std::find(options_.hidden.begin(), options_.hidden.end(), layer) != options_.hidden.end();
  }

  DepthInputs enter_depth(int64_t k) {
    DepthInputs inputs = inputs_of_depth(micro_, k);
    tape_->depths.push_back({.tokens_BS = inputs.tokens_BS, .records = {}, .head = {}});
    PassContext pass = k == 0 ? model_.pass_context(micro_) : *tape_->passes[0];
    pass.valid_BS = inputs.valid_BS;
    tape_->passes.push_back(std::make_unique<PassContext>(std::move(pass)));
    return inputs;
  }

  // The block of `layer` as one piece, or as two where only one half is recomputed. mtp: the first piece
  // takes {embedded, hidden} and the last one ends with shared_head.norm.
  std::vector<Piece> block_pieces(int64_t layer, bool mtp) {
    const PassContext* pass = tape_->passes.back().get();
    const int unit = model_.table().block_unit(layer);
    const UnitParams* p = &model_.unit(unit);
    RouterState* router = model_.router_state(layer);
    const ExecOptions& exec = model_.exec();
    auto first = [pass, p, mtp](const std::vector<Tensor>& in) {
      return attention_half(*pass, *p, mtp ? mtp_input(*pass, *p, in[0], in[1]) : in[0]);
    };
    auto second = [pass, p, router, mtp](const Tensor& x, const Tensor& replay_TK) {
      BlockOutput out = ffn_half(*pass, *p, router, x, replay_TK);
      if (mtp)
        out.y_BSH = rms_norm(pass->shared->ops, out.y_BSH, (*p)[Role::shared_head_norm],
                             pass->shared->config.rms_norm_eps);
      return out;
    };
    const std::vector<FlatUnit*> units = model_.flat_units_of(unit);
    if (exec.recompute == Recompute::attention || exec.recompute == Recompute::moe) {
      const bool attention = exec.recompute == Recompute::attention;
      return {{units,
               [first](const std::vector<Tensor>& in, const Tensor&) {
                 return BlockOutput{.y_BSH = first(in), .routing = {}, .balance_loss = {}};
               },
               attention, nullptr},
              {units,
               [second](const std::vector<Tensor>& in, const Tensor& replay_TK) {
                 return second(in[0], replay_TK);
               },
               !attention && router != nullptr, router}};
    }
    return {{units,
             [first, second](const std::vector<Tensor>& in, const Tensor& replay_TK) {
               return second(first(in), replay_TK);
             },
             exec.recompute == Recompute::block && layer % exec.recompute_every == 0, router}};
  }

  Piece norm_piece() {
    const PassContext* pass = tape_->passes[0].get();
    const UnitParams* p = &model_.unit(model_.table().head_unit());
    return {{},
            [pass, p](const std::vector<Tensor>& in, const Tensor&) {
              const BlockShared& shared = *pass->shared;
              return BlockOutput{
                  .y_BSH = rms_norm(shared.ops, in[0], (*p)[Role::final_norm], shared.config.rms_norm_eps),
                  .routing = {},
                  .balance_loss = {}};
            },
            false,
            nullptr};
  }

  Tensor run_piece(Piece piece, const std::vector<Tensor>& inputs, int64_t layer) {
    Record record;
    record.held = std::make_unique<Unsharded>(piece.units);
    for (const Tensor& x : inputs) record.inputs.push_back(training_ ? leaf(x) : x);
    Tensor replay_TK;
    if (auto found = micro_.replay.find(layer); piece.router && found != micro_.replay.end())
      replay_TK = found->second;
    BlockOutput out;
    {
      at::AutoGradMode mode(training_ && !piece.recompute);
      out = piece.forward(record.inputs, replay_TK);
    }
    if (piece.router) {
      const int64_t experts = model_.config().n_routed_experts;
      record.ids_TK = out.routing.ids_TK;
      if (training_) {
        const Tensor& valid = tape_->passes.back()->valid_BS;
        piece.router->count_E.add_(
            count_tokens(record.ids_TK, valid.defined() ? valid.reshape({-1}) : Tensor(), experts));
      }
      if (options_.routing)
        out_.routing[layer] = {record.ids_TK, out.routing.weight_TK.detach(), out.routing.scores_TE.detach()};
    }
    if (out.balance_loss.defined()) {
      out.balance_loss = out.balance_loss / static_cast<double>(sequences_);
      out_.balance_loss = out_.balance_loss + out.balance_loss.detach();
    }
    const Tensor y = out.y_BSH.detach();
    if (training_) {
      if (!piece.recompute) {
        record.output = out.y_BSH;
        record.balance = out.balance_loss;
      }
      if (model_.exec().reshard == Reshard::after_forward) record.held.reset();
      record.piece = std::move(piece);
      tape_->depths.back().records.push_back(std::move(record));
    }
    return y;
  }

  Output::Depth run_head(const Tensor& hidden_BSH, const Tensor& targets_BS, const VocabFunction& vocab) {
    Output::Depth depth;
    HeadRecord& record = tape_->depths.back().head;
    record.hidden = training_ ? leaf(hidden_BSH) : hidden_BSH;
    const std::vector<int64_t> shape = targets_BS.sizes().vec();
    if (targets_BS.defined()) {
      at::AutoGradMode mode(training_);
      TokenLogprob result = token_logprob(model_.exec().ops, record.hidden.flatten(0, 1), model_.head(),
                                          targets_BS.reshape({-1}), vocab);
      record.logp = result.logp_T;
      record.extra = result.extra_T;
      depth.logp_BS = training_ ? leaf(result.logp_T.view(shape)) : result.logp_T.view(shape);
      if (vocab) depth.extra_BS = training_ ? leaf(result.extra_T.view(shape)) : result.extra_T.view(shape);
    }
    if (options_.logits) {
      at::NoGradGuard no_grad;
      depth.logits_BSV = at::linear(hidden_BSH, model_.head().data);
    }
    return depth;
  }

  Model& model_;
  const MicroBatch& micro_;
  const ForwardOptions& options_;
  bool training_;
  int64_t sequences_;
  std::shared_ptr<Output::Tape> tape_;
  Output out_;
};

// Runs a piece's backward with dy (undefined: zero) and returns the gradients of its inputs.
std::vector<Tensor> backward_piece(Record& record, const Tensor& dy, int64_t sequences) {
  Unsharded unsharded(record.piece.units);
  if (record.piece.recompute) {
    at::AutoGradMode grad_mode(true);
    BlockOutput out = record.piece.forward(record.inputs, record.ids_TK);
    record.output = out.y_BSH;
    if (out.balance_loss.defined()) record.balance = out.balance_loss / static_cast<double>(sequences);
  }
  torch::autograd::variable_list outputs{record.output},
      grads{dy.defined() ? dy : at::zeros_like(record.output)};
  if (record.balance.defined()) {
    outputs.push_back(record.balance);
    grads.push_back(at::ones_like(record.balance));
  }
  torch::autograd::backward(outputs, grads);
  std::vector<Tensor> result;
  for (const Tensor& input : record.inputs) result.push_back(input.grad());
  record = {};
  return result;
}

// Gradient of the hidden states under the leaves' gradients; undefined when no leaf has one.
Tensor backward_head(HeadRecord& record, const Tensor& logp_leaf, const Tensor& extra_leaf) {
  torch::autograd::variable_list outputs, grads;
  auto add = [&](const Tensor& graph, const Tensor& leaf) {
    if (!leaf.defined() || !leaf.grad().defined()) return;
    outputs.push_back(graph);
    grads.push_back(leaf.grad().reshape({-1}));
  };
  add(record.logp, logp_leaf);
  add(record.extra, extra_leaf);
  if (!outputs.empty()) torch::autograd::backward(outputs, grads);
  const Tensor dhidden = record.hidden.grad();
  record = {};
  return dhidden;
}

}  // namespace

Step::Step(Model& model, const Batch& batch)
    : model_(model), counts_(count_batch(batch, model.config().num_nextn_predict_layers)) {
  for (const auto& unit : model.flat_units()) unit->grad().zero_();
  for (RouterState& state : model.router_states()) state.count_E.zero_();
}

Output Step::forward(const MicroBatch& micro, const ForwardOptions& options) {
  for (int64_t block : options.hidden)
    if (block < 0 || block >= model_.config().num_hidden_layers)
      throw std::out_of_range("ForwardOptions::hidden: no block " + std::to_string(block));
  return Forward(model_, micro, options, /*training=*/true, counts_.sequences).run();
}

void Step::backward(Output&& output) {
  if (!output.tape)
    throw std::logic_error("Step::backward: the output was consumed already, or comes from evaluate()");
  Output::Tape& tape = *output.tape;
  Param& embed = model_.unit(0)[Role::embed_tokens];
  const auto padding_id = model_.config().pad_token_id;

  // MTP modules, deepest first; dhidden is the gradient of what the depth above hands down.
  Tensor dhidden;
  for (size_t k = tape.depths.size() - 1; k >= 1; --k) {
    auto& depth = tape.depths[k];
    Tensor dx = backward_head(depth.head, output.mtp[k - 1].logp_BS, output.mtp[k - 1].extra_BS);
    add_to(dx, dhidden);
    std::vector<Tensor> grads{dx};
    for (auto record = depth.records.rbegin(); record != depth.records.rend(); ++record)
      grads = backward_piece(*record, grads[0], counts_.sequences);
    embedding_backward(depth.tokens_BS, grads[0], embed, padding_id);
    dhidden = grads[1];
  }

  // Head and final norm.
  auto& main = tape.depths[0];
  const bool pre_norm = model_.exec().mtp_pre_norm;
  Tensor dx = backward_head(main.head, output.logp_BS, output.extra_BS);
  if (!pre_norm) add_to(dx, dhidden);
  dx = backward_piece(main.records[tape.norm], dx, counts_.sequences)[0];
  if (pre_norm) add_to(dx, dhidden);

  // Blocks, last to first.
  for (size_t i = tape.norm; i-- > 0;) {
    for (const auto& [layer, records] : tape.hidden_after)
      if (records == i + 1) add_to(dx, output.hidden[layer].grad());
    dx = backward_piece(main.records[i], dx, counts_.sequences)[0];
  }
  embedding_backward(main.tokens_BS, dx, embed, padding_id);
  output = {};
}

StepResult Step::finish() { return {&model_, counts_}; }

Step Model::begin_step(const Batch& batch) { return Step(*this, batch); }

Output Model::evaluate(const MicroBatch& micro, const ForwardOptions& options) {
  at::NoGradGuard no_grad;
  return Forward(*this, micro, options, /*training=*/false, micro.tokens_BS.size(0)).run();
}

StepCounts count_batch(const Batch& batch, int64_t mtp_depth) {
  StepCounts counts;
  counts.mtp_valid.resize(static_cast<size_t>(mtp_depth), 0);
  auto targets = [](const DepthInputs& inputs) {
    return inputs.targets_BS.ne(kIgnoredTarget).sum().item<int64_t>();
  };
  for (const MicroBatch& micro : batch.micro) {
    counts.sequences += micro.tokens_BS.size(0);
    counts.tokens +=
        micro.padding_BS.defined() ? micro.padding_BS.sum().item<int64_t>() : micro.tokens_BS.numel();
    counts.valid += targets(inputs_of_depth(micro, 0));
    for (int64_t k = 1; k <= mtp_depth; ++k) counts.mtp_valid[k - 1] += targets(inputs_of_depth(micro, k));
  }
  return counts;
}

Losses standard_loss(const Output& output, const StepCounts& counts, const LossOptions& options) {
  auto mean = [](const Tensor& logp, int64_t valid) {
    return logp.sum().neg() / static_cast<double>(std::max<int64_t>(valid, 1));
  };
  Losses losses;
  losses.total = mean(output.logp_BS, counts.valid);
  losses.lm = losses.total.detach();
  const double depths = static_cast<double>(output.mtp.size());
  for (size_t k = 0; k < output.mtp.size(); ++k) {
    const Tensor loss =
        mean(output.mtp[k].logp_BS, options.mtp_count_main ? counts.valid : counts.mtp_valid[k]);
    losses.mtp.push_back(loss.detach());
    losses.total = losses.total + loss * (options.mtp_lambda / depths);
  }
  return losses;
}

}  // namespace dsv3
