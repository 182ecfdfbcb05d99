#pragma once
// Writes a pickle a value at a time, so that a large one need not stand in memory as values.

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>

#include "dsv3/formats/pickle.h"

namespace dsv3 {

// Protocol 2. Texts and globals that come again are taken from the memo.
class PickleWriter {
 public:
  void save(const PickleValue& value);
  void text(const std::string& value);
  void global(const std::string& module_and_name);
  // A dict: then key, value, key, value …
  void begin_dict() { out_ += "}("; }
  void end_dict() { out_ += 'u'; }
  // An object of a class with fields: then name, value …
  void begin_instance(const std::string& global_name) {
    global(global_name);
    out_ += ")\x81";
    begin_dict();
  }
  void end_instance() { out_ += "ub"; }
  // The pickle of the one value that was saved.
  std::string finish() {
    out_ += '.';
    return std::move(out_);
  }

 private:
  using Memo = std::unordered_map<std::string, uint32_t>;
  void integer(int64_t value);
  void marked(std::span<const PickleValue> items, char opcode);
  void tuple(std::span<const PickleValue> items);
  void bytes(std::string_view value);
  void unicode(std::string_view value);
  bool recall(const Memo& memo, const std::string& name);
  void memoize(Memo& memo, const std::string& name);
  void numbered(char opcode, char long_opcode, uint32_t number);
  template <class T>
  void little(T value) {
    out_.append(reinterpret_cast<const char*>(&value), sizeof value);
  }

  std::string out_ = "\x80\x02";
  Memo texts_, globals_;
  uint32_t next_ = 0;  // index in the memo
};

}  // namespace dsv3
