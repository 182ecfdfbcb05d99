#pragma once
// Python's pickle as torch.save and torch.distributed.checkpoint write it: a value tree, never code. Globals
// are names, calls and instances are recorded, not made. Source: CPython's Lib/pickletools.py.

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "dsv3/base/file.h"

namespace dsv3 {

enum class PickleKind : uint8_t {
  none,
  boolean,
  integer,
  real,
  text,        // str, valid UTF-8
  bytes,       //
  tuple,       //
  list,        //
  dict,        // an OrderedDict too
  global,      // "module name"
  call,        // REDUCE: callable(*args), perhaps with a state
  instance,    // NEWOBJ: a fresh object of a class, perhaps with a state
  persistent,  // BINPERSID: an object that stands outside of the pickle
  folded,      // an object that PickleRules::fold took out of the tree
};

struct PickleNode;

// What stands for such an object: numbers of the one who took it.
struct PickleFolded {
  uint32_t kind = 0, index = 0;
};

// One value. Copies share what they hold; a tree may hold one value at many places, so walk only as deep as
// the format at hand asks. No cycles, at most kMaxDepth levels.
class PickleValue {
 public:
  static constexpr int kMaxDepth = 200;

  PickleValue() = default;  // None
  static PickleValue of_bool(bool value);
  static PickleValue of_int(int64_t value);
  static PickleValue of_real(double value);
  static PickleValue of_text(std::string_view value);
  static PickleValue of_bytes(std::string_view value);
  static PickleValue of_tuple(std::vector<PickleValue> items);
  static PickleValue of_list(std::vector<PickleValue> items);
  static PickleValue of_dict(std::vector<std::pair<PickleValue, PickleValue>> items);
  static PickleValue of_global(std::string_view module_and_name);  // "torch bfloat16"
  static PickleValue of_call(std::string_view global, std::vector<PickleValue> args);
  static PickleValue of_instance(std::string_view global, PickleValue state);  // None: no state
  static PickleValue of_persistent(PickleValue id);

  PickleKind kind() const;
  bool is(PickleKind wanted) const { return kind() == wanted; }
  // Whether it is the global of that name, or a call or an instance of it.
  bool is_global(std::string_view name) const;
  bool is_call(std::string_view global) const;
  bool is_instance(std::string_view global) const;

  // Each is for its own kinds; another kind is std::bad_variant_access or std::logic_error.
  bool boolean() const { return std::get<bool>(value_); }
  int64_t integer() const { return std::get<int64_t>(value_); }
  double real() const { return std::get<double>(value_); }
  const std::string& text() const;  // text, bytes, global
  // tuple, list: the items; dict: key, value, key, value …, a key may repeat and the last one counts;
  // persistent: the id.
  std::span<const PickleValue> items() const;
  // call, instance: the arguments, and the state (nullptr without one).
  std::span<const PickleValue> args() const;
  const PickleValue* state() const;
  const PickleFolded* folded() const { return std::get_if<PickleFolded>(&value_); }  // nullptr: another kind

 private:
  friend class PickleParser;
  explicit PickleValue(PickleFolded folded) : value_(folded) {}
  explicit PickleValue(std::shared_ptr<PickleNode> node) : value_(std::move(node)) {}
  static PickleValue make(PickleKind kind, std::string_view text, std::vector<PickleValue> items = {});
  PickleNode* node() const;  // nullptr for None, bool, int, float and folded

  std::variant<std::monostate, bool, int64_t, double, std::shared_ptr<PickleNode>, PickleFolded> value_;
};

// What a pickle may hold beyond plain values.
struct PickleRules {
  std::span<const std::string_view> globals;  // allowed "module name"s
  bool persistent_ids = false;
  // Asked once for each call when it is made and for each object that gets a state. What it returns stands in
  // the object's place, whose memory is free again; where the pickle fetches an object that had no state when
  // it was put into the memo, that object itself appears.
  std::function<std::optional<PickleFolded>(const PickleValue& object)> fold = {};
};

// Parses protocols 2 to 5. InputError{file, "FIELD byte N", why} on: an opcode or global that is not allowed
// (named), a claim beyond the end, bytes after STOP, a cycle, nesting deeper than PickleValue::kMaxDepth,
// integers beyond int64, text that is no UTF-8. Memory follows the bytes: at most half as many nodes as bytes
// (and 65,536 in any case), and a text of at most 16 MiB.
// `collections OrderedDict` becomes a dict and `_codecs encode` of latin1 text becomes bytes, when allowed.
PickleValue parse_pickle(std::span<const std::byte> bytes, std::string_view file, std::string_view field,
                         const PickleRules& rules);
// The same for bytes [begin, begin + size) of a file, read piece by piece.
PickleValue parse_pickle(const InputFile& file, uint64_t begin, uint64_t size, std::string_view field,
                         const PickleRules& rules);

// Protocol 2, as pickle.loads and torch.load(weights_only=True) accept it. Repeated texts and globals are
// written once. A value that is used at several places is written several times.
std::string write_pickle(const PickleValue& value);

}  // namespace dsv3
