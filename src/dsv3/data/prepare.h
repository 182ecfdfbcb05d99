#pragma once
// Text to token files: what `dsv3 prepare` does.

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace dsv3 {

struct PrepareOptions {
  std::vector<std::filesystem::path> inputs =
      {};                         // files, folders and "-" for standard input: list_text_inputs
  std::string format = "auto";    // or text, lines, jsonl: list_text_inputs
  std::string glob = {};          // which files of a folder
  std::string text_key = "text";  // of the objects of .jsonl: where the text stands
  int64_t max_bad = 0;            // so many lines that are no document are skipped
  std::function<void(const std::string&)> on_bad_line = {};  // told each of them: "FILE:LINE: WHY"
  // Seconds between two records of how far it is, which is what a kill costs; 0: at every place where reading
  // can go on.
  double save_every_s = 30;
  // Told whether it goes on from such a record of an earlier command, or why not.
  std::function<void(const std::string&)> on_restart = {};
  int threads = 1;                 // that encode; the files are the same for any number
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
  int64_t skipped_files = 0;    // empty: worth a warning
  int64_t empty_documents = 0;  // objects of .jsonl whose text is empty: skipped
  int64_t bad_lines = 0;        // skipped
  int64_t earlier_bytes = 0;    // of text, that a command before this had encoded when it was killed
  double seconds = 0;           // of this command
};

// A text file is one document, its bytes, then eos; of lines and .jsonl each line is one that is not blank,
// and its '\n' or "\r\n" is no part of it. Memory does not grow with the files: 32 MB of text are held at
// once, or the one document that is larger. A tokenizer.json needs a document as a whole, and so does holding
// out a part of a compressed one or of standard input: at most 64 MB (kMaxWholeDocumentBytes); the held-out
// part begins at a character when the tokenizer is not "byte". Such a document takes 0.2 GB, and 0.35 GB when
// each of its bytes becomes a token. Vocabularies above 65,536 are stored as int32. PREFIX.json says
// tokenizer, tokenizer_hash, vocab_size, eos_id, bytes, documents, tokens and largest_id.
//
// A line is bad when it has more than 16 MB (kMaxLineBytes), is not encoded by the tokenizer (no UTF-8), or,
// in .jsonl, is not JSON, no object, or one without exactly one text_key that is a string.
//
// What stood under the output's names is replaced at the end, when everything is on disk, or kept: all of it,
// PREFIX.json and both parts, when the input is refused or the disk is full. Until then the output lies in
// the folder PREFIX.partial, with a record of how far it is. What a process that was killed or that failed
// has left there is gone on from when inputs (by name, size and time), tokenizer and all options that make
// the bytes are the same; on_bad_line is not told again of the lines before. Else it is begun anew. With
// standard input among the inputs no record is made.
//
// UsageError: what list_text_inputs refuses, an input that is the output; another process that writes the
// same PREFIX; fewer bad lines allowed than were skipped before it was killed; a tokenizer that does not
// exist; a tokenizer without the eos that is named, or none named; a fraction outside [0, 1). InputError: no
// text at all, nothing to hold out; bad line max_bad + 1, as FILE:LINE; compressed data that open_bytes
// refuses; a document that is too long (read_text) or not UTF-8 for a tokenizer.json; a tokenizer.json that
// is refused (read_tokenizer_json).
PrepareSummary prepare(const PrepareOptions& options);

}  // namespace dsv3
