// The schedule. Forward of a micro-batch:
//   embedding and head     unshard; they stay so up to the end of backward
//   block i                unshard i, start the all-gathers of the next ones, run, reshard or keep
//   final norm, head       log-probabilities, a chunk of tokens at a time
//   MTP depth k            embedding of shifted tokens, its block, the head again
// Backward, the other way round:
//   block i                unshard i, start the all-gather of i − 1 (pre), recompute, run backward,
//                          start the all-gather of i − 1 (post), start the reduce-scatter of i, reshard i
//   embedding and head     reduce-scatter once, after their last use
// The all-to-alls of a MoE layer lie inside its block's forward and backward (parallel/all_to_all.cpp).
#include "dsv3/parallel/step.h"

#include <torch/csrc/autograd/autograd.h>

#include "dsv3/ops/embedding.h"
#include "dsv3/ops/torch_pch.h"
#include "dsv3/parallel/tape.h"

namespace dsv3 {
namespace {

using at::Tensor;

// Flat units whose reduction may be under way behind backward. Each holds its whole gradient and, on Gloo, as
// much again for what it receives.
constexpr size_t kReducing = 4;

Tensor leaf(const Tensor& x) { return x.detach().requires_grad_(true); }

void add_to(Tensor& sum, const Tensor& more) {
  if (more.defined()) sum = sum.defined() ? sum + more : more;
}

std::vector<FlatUnit*> units_of_layer(const Model& model, int64_t layer) {
  return layer < 0 ? std::vector<FlatUnit*>{} : model.flat_units_of(model.table().block_unit(layer));
}

std::vector<FlatUnit*> shared_units(const Model& model) {
  std::vector<FlatUnit*> units = model.flat_units_of(0);
  for (FlatUnit* unit : model.flat_units_of(model.table().head_unit())) units.push_back(unit);
  return units;
}

int64_t num_layers(const Model& model) {
  return model.config().num_hidden_layers + model.config().num_nextn_predict_layers;
}

// Starts the all-gathers of a layer unless max_unsharded layers are gathered already.
void prefetch(const Model& model, int64_t layer) {
  if (layer < 0 || layer >= num_layers(model)) return;
  if (const int64_t limit = model.exec().max_unsharded; limit > 0) {
    int64_t gathered = 0;
    for (int64_t other = 0; other < num_layers(model); ++other)
      for (const FlatUnit* unit : units_of_layer(model, other))
        if (!unit->is_sharded()) {
          ++gathered;
          break;
        }
    if (gathered >= limit) return;
  }
  for (FlatUnit* unit : units_of_layer(model, layer)) unit->prefetch();
}

// The forward pass of one micro-batch. training: builds the tape and counts for balancing.
class Forward {
 public:
  // kept: reshard = never, by layer; else nullptr.
  Forward(Model& model, const MicroBatch& micro, const ForwardOptions& options, bool training,
          int64_t global_sequences, std::map<int64_t, std::unique_ptr<Unsharded>>* kept)
      : model_(model),
        micro_(micro),
        options_(options),
        training_(training),
        sequences_(global_sequences),
        kept_(kept) {}

  Output run() {
    const ModelConfig& config = model_.config();
    tape_ = std::make_shared<Output::Tape>();
    tape_->shared = std::make_unique<Unsharded>(shared_units(model_));
    out_.balance_loss = at::zeros({}, micro_.tokens_BS.options().dtype(at_least_fp32(model_.exec().dtype)));

    DepthInputs inputs = enter_depth(0);
    Tensor x = embedding(inputs.tokens_BS, model_.unit(0)[Role::embed_tokens]);
    for (int64_t layer = 0; layer < config.num_hidden_layers; ++layer) {
      x = run_block(layer, {x});
      if (wanted(layer)) {
        tape_->hidden_after[layer] = tape_->depths[0].records.size();
        out_.hidden[layer] = training_ ? leaf(x) : x;
      }
    }
    Tensor hidden = x;
    tape_->norm = tape_->depths[0].records.size();
    x = run_piece(final_norm_piece(model_, *tape_->passes[0]), {x}, nullptr);
    if (!model_.exec().mtp_pre_norm) hidden = x;
    Output::Depth main = run_head(x, inputs.targets_BS, options_.vocab);
    out_.logp_BS = main.logp_BS;
    out_.extra_BS = main.extra_BS;
    out_.logits_BSV = main.logits_BSV;

    for (int64_t k = 1; k <= config.num_nextn_predict_layers; ++k) {
      inputs = enter_depth(k);
      const Tensor embedded = embedding(inputs.tokens_BS, model_.unit(0)[Role::embed_tokens]);
      hidden = run_block(config.num_hidden_layers + k - 1, {embedded, hidden});
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

  Tensor run_block(int64_t layer, std::vector<Tensor> inputs) {
    const ExecOptions& exec = model_.exec();
    const std::vector<FlatUnit*> units = units_of_layer(model_, layer);
    auto unsharded = std::make_unique<Unsharded>(units);
    if (kept_ && !kept_->contains(layer)) (*kept_)[layer] = std::make_unique<Unsharded>(units);
    for (int64_t ahead = 1; ahead <= exec.prefetch_forward; ++ahead) prefetch(model_, layer + ahead);
    Record* last = nullptr;
    for (Piece& piece : block_pieces(model_, *tape_->passes.back(), layer))
      inputs = {run_piece(std::move(piece), inputs, &last)};
    if (training_ && exec.reshard != Reshard::after_forward) last->held = std::move(unsharded);
    return inputs[0];
  }

  // Returns the output's boundary. last: where the record is, in training.
  Tensor run_piece(Piece piece, const std::vector<Tensor>& inputs, Record** last) {
    Record record;
    for (const Tensor& x : inputs) record.inputs.push_back(training_ ? leaf(x) : x);
    if (auto found = micro_.replay.find(piece.layer); piece.router && found != micro_.replay.end())
      record.replay.ids_TK = found->second;
    BlockOutput out;
    {
      at::AutoGradMode mode(training_ && !piece.recompute);
      out = piece.forward(record.inputs, record.replay);
    }
    if (piece.router) count(*piece.router, out);
    if (out.balance_loss.defined()) {
      out.balance_loss = out.balance_loss / static_cast<double>(sequences_);
      out_.balance_loss = out_.balance_loss + out.balance_loss.detach();
    }
    const Tensor y = out.y_BSH.detach();
    if (training_) {
      if (!piece.recompute) {
        record.output = out.y_BSH;
        record.balance = out.balance_loss;
      } else if (piece.router) {
        record.replay = {out.routing.ids_TK, out.plan};
      }
      record.piece = std::move(piece);
      std::vector<Record>& records = tape_->depths.back().records;
      records.push_back(std::move(record));
      if (last) *last = &records.back();
    }
    return y;
  }

  void count(RouterState& router, const BlockOutput& out) {
    if (training_) {
      const Tensor& valid = tape_->passes.back()->valid_BS;
      router.count_E.add_(count_tokens(out.routing.ids_TK, valid.defined() ? valid.reshape({-1}) : Tensor(),
                                       model_.config().n_routed_experts));
    }
    if (options_.routing)
      out_.routing[router.layer] = {out.routing.ids_TK, out.routing.weight_TK.detach(),
                                    out.routing.scores_TE.detach()};
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
  std::map<int64_t, std::unique_ptr<Unsharded>>* kept_;
  std::shared_ptr<Output::Tape> tape_;
  Output out_;
};

// Runs a piece's backward with dy (undefined: zero) and returns the gradients of its inputs.
std::vector<Tensor> backward_piece(Record& record, const Tensor& dy, int64_t sequences) {
  if (record.piece.recompute) {
    at::AutoGradMode grad_mode(true);
    BlockOutput out = record.piece.forward(record.inputs, record.replay);
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

Step::Step(Model& model, const Batch& batch) : model_(&model) {
  const int64_t depths = model.config().num_nextn_predict_layers;
  const StepCounts mine = count_batch(batch, depths);
  std::vector<int64_t> values{mine.tokens, mine.valid, mine.sequences};
  values.insert(values.end(), mine.mtp_valid.begin(), mine.mtp_valid.end());
  values = model.mesh().sum(values, "counts");
  counts_ = {.tokens = values[0],
             .valid = values[1],
             .mtp_valid = {values.begin() + 3, values.end()},
             .sequences = values[2]};
  for (const auto& unit : model.flat_units()) unit->zero_grad();
  for (RouterState& state : model.router_states()) state.count_E.zero_();
}

Output Step::forward(const MicroBatch& micro, const ForwardOptions& options) {
  for (int64_t block : options.hidden)
    if (block < 0 || block >= model_->config().num_hidden_layers)
      throw std::out_of_range("ForwardOptions::hidden: no block " + std::to_string(block));
  model_->mesh().phase("forward");
  const bool keep = model_->exec().reshard == Reshard::never;
  return Forward(*model_, micro, options, /*training=*/true, counts_.sequences, keep ? &kept_ : nullptr)
      .run();
}

void Step::backward(Output&& output) {
  if (!output.tape)
    throw std::logic_error("Step::backward: the output was consumed already, or comes from evaluate()");
  model_->mesh().phase("backward");
  Output::Tape& tape = *output.tape;
  Param& embed = model_->unit(0)[Role::embed_tokens];
  const auto padding_id = model_->config().pad_token_id;
  const ExecOptions& exec = model_->exec();
  const std::vector<FlatUnit*> shared = shared_units(*model_);
  for (FlatUnit* unit : shared) unit->open_grad();

  std::unique_ptr<Unsharded> unsharded;  // of the layer that backward is in
  auto backward_block_piece = [&](Record& record, const Tensor& dy) {
    const int64_t layer = record.piece.layer;
    const std::vector<FlatUnit*> units = units_of_layer(*model_, layer);
    if (!unsharded) {
      unsharded = std::make_unique<Unsharded>(units);
      if (exec.prefetch_backward == PrefetchBackward::pre) prefetch(*model_, layer - 1);
      for (FlatUnit* unit : units) unit->open_grad();
    }
    record.held.reset();
    std::vector<Tensor> grads = backward_piece(record, dy, counts_.sequences);
    if (record.piece.first_of_layer) {
      if (exec.prefetch_backward == PrefetchBackward::post) prefetch(*model_, layer - 1);
      close_grad(units);
      unsharded.reset();
    }
    record = {};
    return grads;
  };

  // MTP modules, deepest first; dhidden is the gradient of what the depth above hands down.
  Tensor dhidden;
  for (size_t k = tape.depths.size() - 1; k >= 1; --k) {
    auto& depth = tape.depths[k];
    Tensor dx = backward_head(depth.head, output.mtp[k - 1].logp_BS, output.mtp[k - 1].extra_BS);
    add_to(dx, dhidden);
    std::vector<Tensor> grads{dx};
    for (auto record = depth.records.rbegin(); record != depth.records.rend(); ++record)
      grads = backward_block_piece(*record, grads[0]);
    embedding_backward(depth.tokens_BS, grads[0], embed, padding_id);
    dhidden = grads[1];
  }

  // Head and final norm.
  auto& main = tape.depths[0];
  Tensor dx = backward_head(main.head, output.logp_BS, output.extra_BS);
  if (!exec.mtp_pre_norm) add_to(dx, dhidden);
  dx = backward_piece(main.records[tape.norm], dx, counts_.sequences)[0];
  if (exec.mtp_pre_norm) add_to(dx, dhidden);

  // Blocks, last to first.
  for (size_t i = tape.norm; i-- > 0;) {
    for (const auto& [layer, records] : tape.hidden_after)
      if (records == i + 1) add_to(dx, output.hidden[layer].grad());
    dx = backward_block_piece(main.records[i], dx)[0];
  }
  embedding_backward(main.tokens_BS, dx, embed, padding_id);
  close_grad(shared);
  output = {};
}

// Starts the reduce-scatters of units that backward is through with, unless gradients stay whole until
// finish().
void Step::close_grad(const std::vector<FlatUnit*>& units) {
  if (model_->exec().accumulate == Accumulate::unsharded) return;
  for (FlatUnit* unit : units)
    if (unit->reduce_grad()) reducing_.push_back(unit);
  while (reducing_.size() > kReducing) {
    reducing_.front()->wait_grad();
    reducing_.pop_front();
  }
}

StepResult Step::finish() {
  for (const auto& unit : model_->flat_units()) unit->finish_grad();
  reducing_.clear();
  kept_.clear();
  // Router counts of all ranks, all layers at once: the rule that moves the bias reads the whole batch.
  std::vector<Tensor> counts;
  for (RouterState& state : model_->router_states()) counts.push_back(state.count_E);
  if (!counts.empty() && model_->mesh().world_size() > 1) {
    const Tensor all = at::stack(counts);
    model_->mesh().world().all_reduce(all, "router counts").wait();
    for (size_t i = 0; i < counts.size(); ++i) counts[i].copy_(all[static_cast<int64_t>(i)]);
  }
  return {model_, counts_};
}

Step Model::begin_step(const Batch& batch) { return Step(*this, batch); }

Output Model::evaluate(const MicroBatch& micro, const ForwardOptions& options) {
  at::NoGradGuard no_grad;
  const int64_t sequences = std::max<int64_t>(1, micro.tokens_BS.size(0));
  return Forward(*this, micro, options, /*training=*/false, sequences, nullptr).run();
}

}  // namespace dsv3
