// Weights into and out of a model: initialisation, Hugging Face folders.

#include "dsv3/base/error.h"
#include "dsv3/base/philox.h"
#include "dsv3/comm/agreement.h"
#include "dsv3/convert/hf_writer.h"
#include "dsv3/convert/model_weights.h"
#include "dsv3/ops/torch_pch.h"
#include "dsv3/parallel/fill.h"
#include "dsv3/parallel/model.h"

namespace dsv3 {
namespace {

// Runs fn on a copy of x that lies on `device`, and brings the result back.
template <class Fn>
void on_device(const at::Tensor& x, at::Device device, Fn fn) {
  const at::Tensor there = x.to(device);
  fn(there);
  if (!there.is_alias_of(x)) x.copy_(there);
}

}  // namespace

void Model::initialise(uint64_t seed) {
  at::NoGradGuard no_grad;
  const ModelConfig& config = shared_.config;
  for (const auto& flat : flat_units_) {
    for (const FlatUnit::Piece& piece : flat->pieces()) {
      const ParamSpec& spec = *piece.spec;
      at::Tensor values = flat->master().narrow(0, piece.offset, piece.count);
      if (spec.init != InitKind::normal) {
        values.fill_(spec.init == InitKind::ones ? 1 : 0);
        continue;
      }
      const uint64_t purpose = hash_name(spec.name);
      fill_pieces(values, [&](int64_t begin, auto out) {
        std::vector<float> normal(out.size());
        philox_normal(normal, config.initializer_range, seed, purpose,
                      static_cast<uint64_t>(piece.element + begin));
        std::copy(normal.begin(), normal.end(), out.begin());
      });
      if (spec.role == Role::embed_tokens && config.pad_token_id) {
        const int64_t row = *config.pad_token_id * config.hidden_size;
        const int64_t from = std::max(row, piece.element);
        const int64_t to = std::min(row + config.hidden_size, piece.element + piece.count);
        if (from < to) values.slice(0, from - piece.element, to - piece.element).zero_();
      }
    }
  }
  for (RouterState& state : router_states_) state.bias_E.zero_();
}

std::vector<int64_t> Model::load(const std::filesystem::path& folder, bool allow_missing_mtp) {
  at::NoGradGuard no_grad;
  mesh_.phase("load");
  std::vector<int64_t> missing;
  // A byte that one rank alone reads may be the damaged one: all end with its error.
  on_all_ranks(mesh_, [&] { missing = load_alone(folder, allow_missing_mtp); });
  return missing;
}

std::vector<int64_t> Model::load_alone(const std::filesystem::path& folder, bool allow_missing_mtp) {
  const ModelWeights reader(folder, shared_.config);
  const std::vector<int64_t>& missing = reader.missing_mtp();
  if (!missing.empty() && !allow_missing_mtp)
    throw InputError(folder.string(), "MTP depth " + std::to_string(missing.front()),
                     "the weights hold none of its tensors", "set mtp.init_missing = true to initialise it");
  auto absent = [&](const ParamSpec& spec) {
    return std::any_of(missing.begin(), missing.end(), [&](int64_t depth) {
      return spec.unit == table_.block_unit(table_.num_blocks + depth - 1);
    });
  };
  for (const auto& flat : flat_units_)
    for (const FlatUnit::Piece& piece : flat->pieces())
      if (!absent(*piece.spec))
        fill_pieces(flat->master().narrow(0, piece.offset, piece.count),
                    [&](int64_t begin, auto out) { reader.read(*piece.spec, piece.element + begin, out); });
  for (const ParamSpec& spec : table_.params)
    if (spec.role == Role::router_bias && !absent(spec))
      fill_pieces(bias_of(spec), [&](int64_t begin, auto out) { reader.read(spec, begin, out); });
  return missing;
}

at::Tensor Model::bias_of(const ParamSpec& spec) const {
  for (const RouterState& state : router_states_)
    if (table_.block_unit(state.layer) == spec.unit) return state.bias_E;
  throw std::logic_error("bias_of: " + spec.name + " belongs to no router");
}

at::Tensor Model::collect(const ParamSpec& spec, int64_t begin, int64_t count, bool gradient) const {
  at::NoGradGuard no_grad;
  if (spec.role == Role::router_bias) return bias_of(spec).narrow(0, begin, count);
  const auto dtype = at_least_fp32(exec_.dtype);
  at::Tensor values = at::zeros({count}, at::TensorOptions().device(exec_.device).dtype(dtype));
  for (FlatUnit* flat : flat_units_of(spec.unit))
    for (const FlatUnit::Piece& piece : flat->pieces()) {
      if (piece.spec->name != spec.name || (gradient && !flat->trainable())) continue;
      const int64_t from = std::max(begin, piece.element);
      const int64_t to = std::min(begin + count, piece.element + piece.count);
      if (from >= to) continue;
      const at::Tensor& shard = gradient ? flat->grad() : flat->master();
      values.slice(0, from - begin, to - begin)
          .copy_(shard.slice(0, piece.offset + from - piece.element, piece.offset + to - piece.element));
    }
  // Each element has one owner. Added as integers: the others' zeros change no bit of it, not even of -0.0.
  mesh_.data().all_reduce(values.view(dtype == at::kDouble ? at::kLong : at::kInt), "collect").wait();
  return values;
}

bool Model::is_finite() const {
  at::NoGradGuard no_grad;
  int64_t bad = 0;
  for (const auto& flat : flat_units_) bad += flat->master().isfinite().all().item<bool>() ? 0 : 1;
  return mesh_.sum(std::span<const int64_t>(&bad, 1), "finite weights")[0] == 0;
}

// Rank 0 asks for pieces in the order in which it writes them, the others answer until it is through.
void Model::save_hf(const std::filesystem::path& folder, const std::filesystem::path& tokenizer) {
  at::NoGradGuard no_grad;
  mesh_.phase("export");
  const at::Tensor request = at::empty({3}, at::kLong);  // parameter, begin, count; parameter -1: done
  int64_t failed = 0;
  auto ask = [&](int64_t param, int64_t begin, int64_t count) {
    int64_t* values = request.mutable_data_ptr<int64_t>();
    if (mesh_.rank() == 0) values[0] = param, values[1] = begin, values[2] = count;
    on_device(request, exec_.device,
              [&](const at::Tensor& x) { mesh_.world().broadcast(x, 0, "export").wait(); });
    return values[0] < 0 ? at::Tensor()
                         : collect(table_.params[static_cast<size_t>(values[0])], values[1], values[2]);
  };
  std::exception_ptr error;
  if (mesh_.rank() == 0) {
    try {
      write_hf_folder(
          folder, shared_.config,
          [&](const ParamSpec& spec, int64_t begin, std::span<float> out) {
            const auto size = static_cast<int64_t>(out.size());
            const int64_t index = table_.find(spec.name) - table_.params.data();
            at::from_blob(out.data(), {size}, at::kFloat).copy_(ask(index, begin, size));
          },
          {.dtype = exec_.dtype == at::kBFloat16 ? DType::bf16 : DType::f32, .tokenizer = tokenizer});
    } catch (...) {
      error = std::current_exception();
      failed = 1;
    }
    ask(-1, 0, 0);
  } else {
    while (ask(0, 0, 0).defined()) {
    }
  }
  failed = mesh_.sum(std::span<const int64_t>(&failed, 1), "export")[0];
  if (error) std::rethrow_exception(error);
  if (failed) throw RunError(folder.string(), "rank 0 could not write it");
}

}  // namespace dsv3
