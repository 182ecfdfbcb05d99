#pragma once
// Token files of consecutive ids, and streams over them.

#include <numeric>

#include "data/token_files.h"
#include "dsv3/data/loader.h"

namespace dsv3 {

// One file of ids first, first + 1, … in documents of these lengths.
inline std::string write_tokens(const std::filesystem::path& prefix, int32_t first,
                                const std::vector<int>& lengths) {
  IndexedDatasetWriter writer(prefix, 1000);
  for (int length : lengths) {
    std::vector<int32_t> ids(length);
    std::iota(ids.begin(), ids.end(), first);
    first += length;
    writer.add_document(ids);
  }
  writer.finish();
  return prefix.string();
}

inline std::vector<int64_t> range(int64_t begin, int64_t end) {
  std::vector<int64_t> out(end - begin);
  std::iota(out.begin(), out.end(), begin);
  return out;
}

inline std::vector<int64_t> sample(const SampleStream& stream, int64_t cursor) {
  std::vector<int64_t> tokens(stream.seq_len() + 1);
  stream.read(cursor, tokens, {});
  return tokens;
}

// What each source has given.
inline std::vector<int64_t> cursors(const SampleStream& stream, int64_t cursor) {
  std::vector<int64_t> given;
  for (const Walk& walk : stream.position(cursor).walks) given.push_back(walk.cursor);
  return given;
}

}  // namespace dsv3
