#include "dsv3/formats/pickle_value.h"

#include <algorithm>
#include <stdexcept>

namespace dsv3 {

PickleValue PickleValue::make(PickleKind kind, std::string_view text, std::vector<PickleValue> items) {
  auto node = std::make_shared<PickleNode>();
  node->kind = kind;
  node->text = text;
  for (const PickleValue& item : items) {
    PickleNode* child = item.node();
    if (child == nullptr) continue;
    if (child->levels >= kMaxDepth) throw std::logic_error("a pickle value nested too deep");
    child->sealed = true;
    node->levels = std::max<uint16_t>(node->levels, child->levels + 1);
  }
  node->items = std::move(items);
  return PickleValue(std::move(node));
}

PickleValue PickleValue::of_bool(bool value) {
  PickleValue out;
  out.value_ = value;
  return out;
}
PickleValue PickleValue::of_int(int64_t value) {
  PickleValue out;
  out.value_ = value;
  return out;
}
PickleValue PickleValue::of_real(double value) {
  PickleValue out;
  out.value_ = value;
  return out;
}
PickleValue PickleValue::of_text(std::string_view value) { return make(PickleKind::text, value); }
PickleValue PickleValue::of_bytes(std::string_view value) { return make(PickleKind::bytes, value); }
PickleValue PickleValue::of_tuple(std::vector<PickleValue> items) {
  return make(PickleKind::tuple, {}, std::move(items));
}
PickleValue PickleValue::of_list(std::vector<PickleValue> items) {
  return make(PickleKind::list, {}, std::move(items));
}
PickleValue PickleValue::of_dict(std::vector<std::pair<PickleValue, PickleValue>> items) {
  std::vector<PickleValue> flat;
  flat.reserve(2 * items.size());
  for (auto& [key, value] : items) {
    flat.push_back(std::move(key));
    flat.push_back(std::move(value));
  }
  return make(PickleKind::dict, {}, std::move(flat));
}
PickleValue PickleValue::of_global(std::string_view module_and_name) {
  return make(PickleKind::global, module_and_name);
}
PickleValue PickleValue::of_call(std::string_view global, std::vector<PickleValue> args) {
  return make(PickleKind::call, {}, {of_global(global), of_tuple(std::move(args))});
}
PickleValue PickleValue::of_instance(std::string_view global, PickleValue state) {
  std::vector<PickleValue> parts{of_global(global), of_tuple({})};
  if (!state.is(PickleKind::none)) parts.push_back(std::move(state));
  return make(PickleKind::instance, {}, std::move(parts));
}
PickleValue PickleValue::of_persistent(PickleValue id) {
  return make(PickleKind::persistent, {}, {std::move(id)});
}

PickleNode* PickleValue::node() const {
  const auto* node = std::get_if<std::shared_ptr<PickleNode>>(&value_);
  return node == nullptr ? nullptr : node->get();
}

PickleKind PickleValue::kind() const {
  if (folded() != nullptr) return PickleKind::folded;
  const PickleNode* held = node();
  return held != nullptr ? held->kind : static_cast<PickleKind>(value_.index());
}
static_assert(static_cast<int>(PickleKind::boolean) == 1 && static_cast<int>(PickleKind::integer) == 2 &&
                  static_cast<int>(PickleKind::real) == 3,
              "kinds without a node are numbered as the variant's alternatives");

bool PickleValue::is_global(std::string_view name) const {
  return is(PickleKind::global) && node()->text == name;
}
bool PickleValue::is_call(std::string_view global) const {
  return is(PickleKind::call) && node()->items[0].is_global(global);
}
bool PickleValue::is_instance(std::string_view global) const {
  return is(PickleKind::instance) && node()->items[0].is_global(global);
}

const std::string& PickleValue::text() const {
  const PickleNode* held = node();
  if (held == nullptr) throw std::logic_error("a pickle value without text");
  return held->text;
}
std::span<const PickleValue> PickleValue::items() const {
  const PickleNode* held = node();
  if (held == nullptr) throw std::logic_error("a pickle value without items");
  return held->items;
}
std::span<const PickleValue> PickleValue::args() const { return items()[1].items(); }
const PickleValue* PickleValue::state() const { return items().size() > 2 ? &items()[2] : nullptr; }

}  // namespace dsv3
