#pragma once
// Token files written byte by byte, right or wrong.

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include "support/files.h"

namespace dsv3 {

using test::expect_error;
using test::TempDir;
using test::write_file;

inline std::vector<std::string> names(const TempDir& dir) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(dir.path())) {
    names.push_back(std::filesystem::relative(entry.path(), dir.path()).string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

inline std::string read_file(const std::filesystem::path& path) {
  std::ostringstream text;
  text << std::ifstream(path, std::ios::binary).rdbuf();
  return text.str();
}

template <typename T>
std::string raw(const std::vector<T>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
}

// The fields of .idx and .bin as a test wants them; the defaults are a right pair of two documents.
struct RawPair {
  std::string magic = std::string("MMIDIDX\0\0", 9);
  uint64_t version = 1;
  uint8_t dtype = 8;
  std::vector<int32_t> lengths = {3, 2};
  std::vector<int64_t> pointers = {0, 6};
  std::vector<int64_t> documents = {0, 1, 2};
  uint64_t sequences = 2, entries = 3;
  std::string bin = raw<uint16_t>({10, 11, 12, 20, 21});

  std::string idx() const {
    return magic + raw<uint64_t>({version}) + raw<uint8_t>({dtype}) + raw<uint64_t>({sequences, entries}) +
           raw(lengths) + raw(pointers) + raw(documents);
  }
  void write(const std::filesystem::path& prefix) const {
    write_file(prefix.string() + ".idx", idx());
    write_file(prefix.string() + ".bin", bin);
  }
};

}  // namespace dsv3
