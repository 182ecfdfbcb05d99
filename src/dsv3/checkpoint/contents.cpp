#include "dsv3/checkpoint/contents.h"

#include <fmt/format.h>

#include "dsv3/convert/rectangles.h"
#include "dsv3/ops/torch_pch.h"

namespace dsv3 {
namespace {

const char* const kFirst = "exp_avg";
const char* const kSecond = "exp_avg_sq";

SavedRange moment(const ParamSpec& spec, const char* name, const std::vector<int64_t>& shape, int64_t begin,
                  at::Tensor values) {
  return {.key = "optim.state." + spec.name + "." + name,
          .path = {"optim", "state", spec.name, name},
          .shape = shape,
          .begin = begin,
          .values = std::move(values)};
}

const Optimizer::Moments* moments_of(const Optimizer& optimizer, const FlatUnit& unit) {
  for (const Optimizer::Moments& moments : optimizer.moments())
    if (moments.unit == &unit) return &moments;
  return nullptr;
}

}  // namespace

std::vector<SavedRange> saved_ranges(Model& model, Optimizer& optimizer, bool all) {
  const MeshLayout& layout = model.mesh().layout();
  const int64_t replica = model.mesh().replicate().rank();
  const bool first_rank = model.mesh().rank() == 0;
  std::vector<SavedRange> ranges;
  for (size_t u = 0; u < model.flat_units().size(); ++u) {
    if (!all && static_cast<int64_t>(u) % layout.replicate != replica) continue;
    FlatUnit& unit = *model.flat_units()[u];
    const Optimizer::Moments* moments = moments_of(optimizer, unit);
    for (const FlatUnit::Piece& piece : unit.pieces()) {
      const ParamSpec& spec = *piece.spec;
      const auto part = [&](const at::Tensor& shard) { return shard.narrow(0, piece.offset, piece.count); };
      const auto keys = all ? std::vector{spec.name} : dcp_keys(spec, model.config());
      for (const std::string& key : keys)
        ranges.push_back({key, {key}, spec.shape, piece.element, part(unit.master())});
      if (moments == nullptr) continue;
      ranges.push_back(moment(spec, kFirst, spec.shape, piece.element, part(moments->first)));
      ranges.push_back(moment(spec, kSecond, spec.shape, piece.element, part(moments->second)));
    }
  }
  if (!all && !first_rank) return ranges;
  for (const ParamSpec& spec : model.table().params)
    if (spec.role == Role::router_bias)
      ranges.push_back({spec.name, {spec.name}, spec.shape, 0, model.bias_of(spec)});
  return ranges;
}

namespace {

DType dtype_of(const at::Tensor& values) {
  switch (values.scalar_type()) {
    case at::kDouble:
      return DType::f64;
    case at::kFloat:
      return DType::f32;
    case at::kBFloat16:
      return DType::bf16;
    default:
      throw std::logic_error(std::string("no dtype of a checkpoint: ") + c10::toString(values.scalar_type()));
  }
}

}  // namespace

void write_range(DcpFileWriter& writer, const SavedRange& range) {
  const at::Tensor values = range.values.to(at::kCPU).contiguous();
  const auto size = static_cast<size_t>(values.element_size());
  const auto* data = static_cast<const std::byte*>(values.const_data_ptr());
  for (const Rectangle& part : rectangles(range.shape, range.begin, values.numel()))
    writer.tensor(range.key, range.path, dtype_of(values), range.shape, part.offsets, part.sizes,
                  {data + static_cast<size_t>(part.begin - range.begin) * size,
                   static_cast<size_t>(part.count) * size});
}

void write_optimizer_facts(DcpFileWriter& writer, const Model& model, const OptimConfig& optim, double lr,
                           int64_t updates) {
  std::vector<std::string> names[2];  // that decay, that do not
  const auto t = static_cast<float>(updates);
  for (const auto& unit : model.flat_units()) {
    if (!unit->trainable()) continue;
    for (const FlatUnit::Slot& slot : unit->slots()) {
      names[slot.spec->decay ? 0 : 1].push_back(slot.spec->name);
      writer.tensor("optim.state." + slot.spec->name + ".step", {"optim", "state", slot.spec->name, "step"},
                    DType::f32, {}, {}, {}, std::as_bytes(std::span(&t, 1)));
    }
  }
  for (int64_t group = 0; group < 2; ++group) {
    auto write = [&](const char* name, const PickleValue& value) {
      writer.object(fmt::format("optim.param_groups.{}.{}", group, name),
                    {"optim", "param_groups", group, name}, value);
    };
    std::vector<PickleValue> params;
    for (const std::string& name : names[group]) params.push_back(PickleValue::of_text(name));
    const PickleValue no = PickleValue::of_bool(false);
    write("lr", PickleValue::of_real(lr));
    write("betas",
          PickleValue::of_tuple({PickleValue::of_real(optim.beta1), PickleValue::of_real(optim.beta2)}));
    write("eps", PickleValue::of_real(optim.eps));
    write("weight_decay", PickleValue::of_real(group == 0 ? optim.weight_decay : 0.0));
    for (const char* name : {"amsgrad", "maximize", "capturable", "differentiable"}) write(name, no);
    for (const char* name : {"foreach", "fused"}) write(name, PickleValue());
    write("decoupled_weight_decay", PickleValue::of_bool(true));
    write("params", PickleValue::of_list(std::move(params)));
  }
}

}  // namespace dsv3
