#pragma once
// Pickles written opcode by opcode, for what no pickler writes.

#include <cstdint>
#include <string>
#include <string_view>

namespace dsv3::test {

template <class T>
std::string little(T value) {
  return {reinterpret_cast<const char*>(&value), sizeof value};
}
inline std::string pickle_text(std::string_view value) {
  return "X" + little(static_cast<uint32_t>(value.size())) + std::string(value);
}
inline std::string pickle_of(std::string_view opcodes) { return "\x80\x04" + std::string(opcodes); }
// A global of a name "module name".
inline std::string pickle_global(std::string name) {
  name[name.find(' ')] = '\n';
  return "c" + name + "\n";
}

}  // namespace dsv3::test
