#pragma once
// Text to token files: what `dsv3 prepare` does.

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace dsv3 {

struct PrepareOptions {
  std::vector<std::filesystem::path>
      inputs;                      // .txt files, and folders whose .txt files are taken in sorted order
  std::filesystem::path out = {};  // PREFIX of PREFIX.bin, PREFIX.idx and PREFIX.json
  std::string tokenizer = "byte";  // or a tokenizer.json, or a folder that has one
  // The token that ends a document, as text; empty: what the tokenizer says (Tokenizer::eos).
  std::string eos = {};
  // 0 < F < 1: the last F of each document's bytes is held out: PREFIX_train and PREFIX_valid are written
  // instead.
  double valid_fraction = 0;
};

// One PREFIX that was written.
struct PreparedFiles {
  std::filesystem::path prefix;
  int64_t documents = 0, tokens = 0, bytes = 0;  // tokens: one eos a document among them
  int64_t longest_document = 0;                  // tokens
};

struct PrepareSummary {
  PreparedFiles train;  // everything, unless a part was held out
  std::optional<PreparedFiles> valid;
  int64_t skipped_files = 0;  // empty: worth a warning
  double seconds = 0;
};

// Each .txt file is one document: its bytes, then eos. Bytes are read in pieces of 1 MB, so memory does not
// grow with the files; a tokenizer.json needs a document as a whole, at most 1 GB of UTF-8, and then a
// held-out part begins at a character. Vocabularies above 65,536 are stored as int32. Links to folders are
// not followed. PREFIX.json says tokenizer, tokenizer_hash, vocab_size, eos_id, bytes, documents, tokens and
// largest_id.
//
// What stood under the output's names is replaced at the end, or kept when the input is refused. UsageError:
// an input that does not exist, is of another kind (.jsonl, .gz and .zst are not supported yet) or is the
// output; a tokenizer that does not exist; a tokenizer without the eos that is named, or
// none named; a fraction outside [0, 1). InputError: no text at all, nothing to hold out, a
// file of 2 GiB (more than .idx can hold in a document); text that is not UTF-8 for a tokenizer.json, and one
// that is refused (read_tokenizer_json).
PrepareSummary prepare(const PrepareOptions& options);

}  // namespace dsv3
