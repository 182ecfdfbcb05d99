#include "dsv3/data/prepare.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <string_view>

#include "dsv3/base/error.h"
#include "dsv3/base/file.h"
#include "dsv3/base/json.h"
#include "dsv3/data/indexed_dataset.h"
#include "dsv3/data/tokenizer.h"

namespace dsv3 {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kPieceBytes = 1 << 20;
constexpr uint64_t kMaxDocumentBytes = 0x7fffffff - 1;  // .idx counts tokens, eos too, in int32

bool is_later_format(const fs::path& path) {
  const std::string extension = path.extension().string();
  return extension == ".jsonl" || extension == ".gz" || extension == ".zst";
}

[[noreturn]] void refuse_later_format(const fs::path& path) {
  throw UsageError(printable(path.string()), path.extension().string() + " is not supported yet",
                   "give .txt files");
}

// Sorted .txt files anywhere below folder. Other files may lie beside them, but text in a format that we
// shall read one day must not be left out in silence.
std::vector<fs::path> list_folder(const fs::path& folder) {
  std::vector<fs::path> files;
  try {
    for (const fs::directory_entry& entry : fs::recursive_directory_iterator(folder)) {
      if (entry.is_directory()) continue;
      if (is_later_format(entry.path())) refuse_later_format(entry.path());
      if (entry.path().extension() == ".txt") files.push_back(entry.path());
    }
  } catch (const fs::filesystem_error& error) {
    throw RunError(printable(folder.string()), error.code().message());
  }
  std::sort(files.begin(), files.end());
  return files;
}

std::vector<fs::path> list_inputs(const std::vector<fs::path>& inputs) {
  if (inputs.empty()) throw UsageError("prepare", "no input", "name .txt files or folders of them");
  std::vector<fs::path> files;
  for (const fs::path& input : inputs) {
    require_exists(input);
    if (fs::is_directory(input)) {
      for (fs::path& file : list_folder(input)) files.push_back(std::move(file));
      continue;
    }
    if (is_later_format(input)) refuse_later_format(input);
    if (input.extension() != ".txt") {
      throw UsageError(printable(input.string()), "is no .txt file and no folder",
                       "rename it if it is plain text");
    }
    files.push_back(input);
  }
  return files;
}

void check_output(const std::vector<fs::path>& inputs, const std::vector<fs::path>& files,
                  const fs::path& out) {
  std::error_code ignored;
  auto same = [&](const fs::path& a, const fs::path& b) {
    return fs::weakly_canonical(a, ignored) == fs::weakly_canonical(b, ignored) ||
           fs::equivalent(a, b, ignored);
  };
  auto check = [&](const fs::path& input, const fs::path& output) {
    if (!same(input, output)) return;
    throw UsageError("--out", fmt::format("{} is an input too", printable(output.string())),
                     "give another prefix");
  };
  for (const fs::path& input : inputs) check(input, out);
  for (const fs::path& file : files) {
    for (const char* ending : {"", ".bin", ".idx", ".json"}) check(file, fs::path(out.string() + ending));
  }
}

// One PREFIX while it is written.
class Output {
 public:
  Output(const fs::path& prefix, const Tokenizer& tokenizer, int32_t eos)
      : tokenizer_(tokenizer), eos_(eos), writer_(prefix, tokenizer.vocab_size()) {
    files_.prefix = prefix;
  }

  // Bytes [begin, end) of file as a document; an empty range is none.
  void add(const InputFile& file, uint64_t begin, uint64_t end) {
    if (begin == end) return;
    const uint64_t most = tokenizer_.cuts_anywhere() ? kPieceBytes : end - begin;
    const std::string what =
        begin == 0 ? file.path() : fmt::format("{}: from byte {} on", file.path(), begin);
    std::string piece;
    std::vector<int32_t> ids;
    for (uint64_t at = begin; at < end; at += piece.size()) {
      piece.resize(std::min(most, end - at));
      file.read(std::as_writable_bytes(std::span(piece)), at);
      ids.clear();
      tokenizer_.encode(piece, false, ids, what);
      writer_.append(ids);
    }
    writer_.append({&eos_, 1});
    writer_.end_document();
    files_.bytes += static_cast<int64_t>(end - begin);
  }

  bool empty() const { return writer_.num_documents() == 0; }

  PreparedFiles finish() {
    files_.documents = writer_.num_documents();
    files_.tokens = writer_.num_tokens();
    files_.longest_document = writer_.longest_document();
    const fs::path json_path = files_.prefix.string() + ".json";
    // Away before the data changes: no .json is better than one of other data.
    std::error_code ignored;
    fs::remove(json_path, ignored);
    writer_.finish();
    Json json;
    json["tokenizer"] = tokenizer_.name();
    json["tokenizer_hash"] = tokenizer_.hash();
    json["vocab_size"] = tokenizer_.vocab_size();
    json["eos_id"] = eos_;
    json["bytes"] = files_.bytes;
    json["documents"] = files_.documents;
    json["tokens"] = files_.tokens;
    json["largest_id"] = writer_.largest_id();
    write_atomically(json_path, json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n");
    return files_;
  }

 private:
  const Tokenizer& tokenizer_;
  int32_t eos_;
  IndexedDatasetWriter writer_;
  PreparedFiles files_;
};

int32_t find_eos(const Tokenizer& tokenizer, const std::string& named) {
  const std::optional<int32_t> eos = named.empty() ? tokenizer.eos() : tokenizer.id_of(named);
  if (eos) return *eos;
  throw UsageError("--eos",
                   named.empty() ? printable(tokenizer.name()) + " does not say which token ends a document"
                                 : printable(named) + ": no token of " + printable(tokenizer.name()),
                   "name a token of it, such as \"<|endoftext|>\"");
}

// at, or where the character begins that at cuts in two: only so many bytes back as a character has.
uint64_t character_begin(const InputFile& file, uint64_t at) {
  for (int i = 0; i < 3 && at > 0 && at < file.size(); ++i, --at) {
    std::byte byte{};
    file.read({&byte, 1}, at);
    if ((byte & std::byte{0xC0}) != std::byte{0x80}) break;
  }
  return at;
}

}  // namespace

PrepareSummary prepare(const PrepareOptions& options) {
  const auto start = std::chrono::steady_clock::now();
  if (!(options.valid_fraction >= 0 && options.valid_fraction < 1)) {
    throw UsageError("--valid-fraction", fmt::format("{}, expected 0 to below 1", options.valid_fraction));
  }
  if (options.out.empty()) throw UsageError("--out", "is missing", "give the PREFIX to write");
  const bool split = options.valid_fraction > 0;
  const std::string prefix = options.out.string();
  const std::vector<fs::path> outputs =
      split ? std::vector<fs::path>{prefix + "_train", prefix + "_valid"} : std::vector<fs::path>{prefix};
  const std::vector<fs::path> files = list_inputs(options.inputs);
  for (const fs::path& output : outputs) check_output(options.inputs, files, output);
  check_output(options.inputs, {}, options.out);

  const std::unique_ptr<const Tokenizer> tokenizer = open_tokenizer(options.tokenizer);
  const int32_t eos = find_eos(*tokenizer, options.eos);

  std::error_code failed;
  if (options.out.has_parent_path()) fs::create_directories(options.out.parent_path(), failed);
  if (failed) throw RunError(printable(options.out.parent_path().string()), failed.message());

  PrepareSummary summary;
  Output train(outputs.front(), *tokenizer, eos);
  std::optional<Output> valid;
  if (split) valid.emplace(outputs.back(), *tokenizer, eos);
  for (const fs::path& path : files) {
    const InputFile file(path);
    if (file.size() == 0) ++summary.skipped_files;
    if (file.size() > kMaxDocumentBytes) {
      throw InputError(
          file.path(), "size",
          fmt::format("{} bytes, expected at most {} in a document", file.size(), kMaxDocumentBytes),
          "cut it, for example with split -C 1G");
    }
    const auto held_out = static_cast<uint64_t>(static_cast<double>(file.size()) * options.valid_fraction);
    uint64_t cut = file.size() - held_out;
    if (!tokenizer->cuts_anywhere()) cut = character_begin(file, cut);
    train.add(file, 0, cut);
    if (valid) valid->add(file, cut, file.size());
  }

  const std::string first = options.inputs.front().string();
  if (train.empty()) {
    throw InputError(first, "",
                     files.empty() ? "no .txt file in it" : fmt::format("no text in {} files", files.size()));
  }
  if (valid && valid->empty()) {
    throw InputError(first, "",
                     fmt::format("no byte to hold out at --valid-fraction {}", options.valid_fraction),
                     "a larger fraction or more text");
  }
  summary.train = train.finish();
  if (valid) summary.valid = valid->finish();
  summary.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return summary;
}

}  // namespace dsv3
