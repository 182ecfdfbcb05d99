#pragma once
// tokenizer.json taken apart without belief in its sizes: inside this room, for tokenizer_json.cpp.

#include <filesystem>

#include "dsv3/base/json.h"
#include "dsv3/data/tokenizer_json.h"

namespace dsv3 {

// The tables as they stand in the file, and the small rest.
struct TokenizerFile {
  std::string file, hash;
  StringTable vocab;
  std::vector<int64_t> ids;  // of vocab; any integer
  StringTable merges;        // left, right, …
  Json rest;                 // the file without model.vocab and model.merges
  bool has_vocab = false, has_merges = false;
};

// InputError: no JSON object, larger than 48 MB, nested deeper than 16, a duplicate key outside vocab (there
// the ids tell), a string of more than 64 kB, more than 2^19 tokens or merges, more than 2^17 other values.
TokenizerFile read_tokenizer_file(const std::filesystem::path& path);

}  // namespace dsv3
