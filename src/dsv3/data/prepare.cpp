#include "dsv3/data/prepare.h"

#include <fmt/format.h>

#include <chrono>

#include "dsv3/base/error.h"
#include "dsv3/base/file.h"
#include "dsv3/base/json.h"
#include "dsv3/data/indexed_dataset.h"
#include "dsv3/data/ordered_work.h"
#include "dsv3/data/text_inputs.h"
#include "dsv3/data/text_job.h"
#include "dsv3/data/tokenizer.h"

namespace dsv3 {
namespace {

namespace fs = std::filesystem;

constexpr int kMaxThreads = 1024;

constexpr uint64_t kMaxWeight = 32 << 20;  // see weight_of

// Text in flight. A JSON parser takes 13 times a long line, so that such lines wait for each other.
uint64_t weight_of(const TextJob& job) {
  const bool long_line =
      job.kind == TextJob::Kind::json_lines && job.text.size() > 2 * ByteSource::kPieceBytes;
  return job.text.size() * (long_line ? 13 : 1);
}

// UsageError when a file that will be written is read too; an existing one also under another name.
class OutputNames {
 public:
  void add(const fs::path& path) {
    names_.push_back({path, fs::weakly_canonical(path, ignored_), fs::exists(path, ignored_)});
  }
  void check(const fs::path& input) const {
    const fs::path path = input == "-" ? "/dev/stdin" : input;
    const fs::path canonical = fs::weakly_canonical(path, ignored_);
    for (const Name& name : names_) {
      if (canonical != name.canonical && !(name.exists && fs::equivalent(path, name.given, ignored_)))
        continue;
      throw UsageError("--out", fmt::format("{} is an input too", printable(name.given.string())),
                       "give another prefix");
    }
  }

 private:
  struct Name {
    fs::path given, canonical;
    bool exists = false;
  };
  std::vector<Name> names_;
  mutable std::error_code ignored_;
};

void check_outputs(const std::vector<fs::path>& inputs, const std::vector<TextInput>& files,
                   const std::vector<fs::path>& prefixes) {
  OutputNames names;
  for (const fs::path& prefix : prefixes) {
    for (const char* ending : {"", ".bin", ".idx", ".json"}) names.add(prefix.string() + ending);
  }
  for (const fs::path& input : inputs) names.check(input);
  for (const TextInput& file : files) names.check(file.path);
}

// One PREFIX while it is written.
class Output {
 public:
  Output(const fs::path& prefix, const Tokenizer& tokenizer, int32_t eos)
      : tokenizer_(tokenizer), eos_(eos), writer_(prefix, tokenizer.vocab_size()) {
    files_.prefix = prefix;
  }

  void add(std::span<const int32_t> ids, const TextJob::Piece& piece) {
    writer_.append(ids);
    if (piece.ends) writer_.end_document();
    files_.bytes += static_cast<int64_t>(piece.bytes);
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

// What is known at the end: written, counted and, beyond the limit, refused in the order of the text.
class Results {
 public:
  Results(const PrepareOptions& options, Output& train, std::optional<Output>& valid)
      : options_(options), train_(train), valid_(valid) {}

  void add(const TextJob& job) {
    std::span<const int32_t> ids = job.ids;
    for (const TextJob::Piece& piece : job.pieces) {
      Output& output = piece.part == TextJob::kTrain ? train_ : valid_.value();
      output.add(ids.first(piece.ids), piece);
      ids = ids.subspan(piece.ids);
    }
    empty_ += job.empty;
    for (const TextJob::BadLine& line : job.bad)
      add_bad(fmt::format("{}:{}", *job.file, line.line), line.why);
  }
  int64_t bad_lines() const { return bad_; }
  int64_t empty_documents() const { return empty_; }

 private:
  void add_bad(const std::string& where, const std::string& why) {
    if (++bad_ > options_.max_bad) {
      throw InputError(where, "", why,
                       options_.max_bad == 0
                           ? "--max-bad N skips up to N such lines"
                           : fmt::format("line {} of this kind, --max-bad {}", bad_, options_.max_bad));
    }
    if (options_.on_bad_line) options_.on_bad_line(printable(where, 400) + ": " + why);
  }

  const PrepareOptions& options_;
  Output& train_;
  std::optional<Output>& valid_;
  int64_t bad_ = 0, empty_ = 0;
};

// All inputs through all threads; returns how many inputs were empty.
int64_t encode_all(const std::vector<TextInput>& inputs, const TextRules& rules, int threads,
                   Results& results) {
  OrderedWork<TextJob> work(
      threads, kMaxWeight,
      [&] {
        return [encoder = std::make_shared<TextEncoder>(rules)](TextJob& job) { encoder->encode(job); };
      },
      [&](const TextJob& job) { results.add(job); });
  int64_t empty = 0;
  const auto read = [&](const TextInput& input) {
    return read_text(input, rules, [&](TextJob job) {
      const bool refused_soon = job.kind == TextJob::Kind::long_line;
      const uint64_t weight = weight_of(job);
      work.add(std::move(job), weight);
      if (refused_soon) work.finish();
    });
  };
  for (const TextInput& input : inputs) {
    try {
      if (!read(input)) ++empty;
    } catch (const InputError&) {
      // What is wrong with the text before comes first, for any number of threads.
      work.finish();
      throw;
    }
  }
  work.finish();
  return empty;
}

}  // namespace

PrepareSummary prepare(const PrepareOptions& options) {
  const auto start = std::chrono::steady_clock::now();
  if (!(options.valid_fraction >= 0 && options.valid_fraction < 1)) {
    throw UsageError("--valid-fraction", fmt::format("{}, expected 0 to below 1", options.valid_fraction));
  }
  if (options.threads < 1 || options.threads > kMaxThreads)
    throw UsageError("--threads", fmt::format("{}, expected 1 to {}", options.threads, kMaxThreads));
  if (options.max_bad < 0)
    throw UsageError("--max-bad", fmt::format("{}, expected 0 or more", options.max_bad));
  if (options.out.empty()) throw UsageError("--out", "is missing", "give the PREFIX to write");
  if (const fs::path name = options.out.filename(); name.empty() || name == "." || name == "..")
    throw UsageError("--out", printable(options.out.string(), 400) + " names a folder, expected a PREFIX",
                     "add a name, as in " + printable((options.out / "text").string(), 400));
  const bool split = options.valid_fraction > 0;
  const std::string prefix = options.out.string();
  const std::vector<fs::path> outputs =
      split ? std::vector<fs::path>{prefix + "_train", prefix + "_valid"} : std::vector<fs::path>{prefix};
  const std::vector<TextInput> files = list_text_inputs(options.inputs, options.format, options.glob);
  std::vector<fs::path> prefixes = outputs;
  if (split) prefixes.push_back(options.out);
  check_outputs(options.inputs, files, prefixes);

  const std::unique_ptr<const Tokenizer> tokenizer = open_tokenizer(options.tokenizer);
  const int32_t eos = find_eos(*tokenizer, options.eos);

  std::error_code failed;
  if (options.out.has_parent_path()) fs::create_directories(options.out.parent_path(), failed);
  if (failed) throw RunError(printable(options.out.parent_path().string()), failed.message());

  PrepareSummary summary;
  Output train(outputs.front(), *tokenizer, eos);
  std::optional<Output> valid;
  if (split) valid.emplace(outputs.back(), *tokenizer, eos);
  const TextRules rules{
      .tokenizer = *tokenizer, .eos = eos, .held_out = options.valid_fraction, .text_key = options.text_key};
  Results results(options, train, valid);
  summary.skipped_files = encode_all(files, rules, options.threads, results);
  summary.bad_lines = results.bad_lines();
  summary.empty_documents = results.empty_documents();

  const std::string first = options.inputs.front().string();
  if (train.empty()) {
    throw InputError(first, "",
                     files.empty() ? "no text file in it" : fmt::format("no text in {} files", files.size()));
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
