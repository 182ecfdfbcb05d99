#include "dsv3/data/prepare.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>

#include "dsv3/base/error.h"
#include "dsv3/base/file.h"
#include "dsv3/base/hash.h"
#include "dsv3/base/json.h"
#include "dsv3/data/indexed_dataset.h"
#include "dsv3/data/prepare_progress.h"
#include "dsv3/data/text_inputs.h"
#include "dsv3/data/text_job.h"
#include "dsv3/data/text_work.h"
#include "dsv3/data/tokenizer.h"

namespace dsv3 {
namespace {

namespace fs = std::filesystem;

void check_outputs(const std::vector<fs::path>& inputs, const std::vector<TextInput>& files,
                   const std::vector<fs::path>& prefixes) {
  std::vector<fs::path> written = PrepareFolder::all_files(prefixes.back()), read = inputs;
  for (const fs::path& prefix : prefixes) {
    for (const char* ending : {"", ".bin", ".idx", ".json"}) written.push_back(prefix.string() + ending);
  }
  for (const TextInput& file : files) read.push_back(file.path);
  require_no_input("--out", written, read);
}

// All that the bytes of the output follow from. max_bad and threads are none of it: more bad lines may be
// allowed when it goes on.
std::string identity_of(const PrepareOptions& options, const std::vector<TextInput>& files,
                        const Tokenizer& tokenizer, int32_t eos) {
  Json out = {{"tokenizer", tokenizer.hash()},
              {"vocab_size", tokenizer.vocab_size()},
              {"eos", eos},
              {"text_key", options.text_key},
              {"valid_fraction", options.valid_fraction}};
  Hasher hasher;
  hasher.update(out.dump(-1, ' ', false, Json::error_handler_t::ignore));
  for (const TextInput& file : files) {
    const FileStamp stamp = file_stamp(file.path).value_or(FileStamp());
    hasher.update(fmt::format("{} {} {} {}.{} {}", static_cast<int>(file.format),
                              static_cast<int>(file.compression), stamp.size, stamp.seconds,
                              stamp.nanoseconds, fs::absolute(file.path).string()));
    hasher.update(std::string_view("\0", 1));
  }
  return to_hex(hasher.digest());
}

// One PREFIX while it is written.
class Output {
 public:
  Output(const fs::path& prefix, const Tokenizer& tokenizer, int32_t eos, const PrepareFolder& folder,
         TextJob::Part part)
      : tokenizer_(tokenizer),
        eos_(eos),
        unfinished_json_(folder.files(part).string() + ".json"),
        writer_(prefix, tokenizer.vocab_size(), folder.files(part), folder.found().parts[part].files) {
    files_.prefix = prefix;
    files_.bytes = folder.found().parts[part].bytes;
  }

  void add(std::span<const int32_t> ids, const TextJob::Piece& piece) {
    writer_.append(ids);
    if (piece.ends) writer_.end_document();
    files_.bytes += static_cast<int64_t>(piece.bytes);
  }

  bool empty() const { return writer_.sizes().documents == 0; }

  PrepareProgress::Part sync() {
    writer_.sync();
    return {.files = writer_.sizes(), .bytes = files_.bytes};
  }

  PreparedFiles finish() {
    const IndexedSizes& sizes = writer_.sizes();
    files_.documents = sizes.documents;
    files_.tokens = sizes.tokens;
    files_.longest_document = sizes.longest_document;
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
    json["largest_id"] = sizes.largest_id;
    AtomicFile file(json_path, unfinished_json_, 0);
    file.write(json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n");
    file.commit();
    return files_;
  }

 private:
  const Tokenizer& tokenizer_;
  int32_t eos_;
  fs::path unfinished_json_;
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

// What is known at the end: written, counted and, beyond the limit, refused in the order of the text; and
// recorded now and then.
class Results {
 public:
  Results(const PrepareOptions& options, PrepareFolder& folder, Output& train, std::optional<Output>& valid)
      : options_(options),
        folder_(folder),
        train_(train),
        valid_(valid),
        bad_(options.max_bad, options.on_bad_line, folder.found().bad_lines),
        empty_(folder.found().empty_documents) {
    // Nobody can read standard input again.
    if (std::ranges::find(options.inputs, "-") != options.inputs.end()) next_save_ = Clock::time_point::max();
  }

  void add(const TextJob& job) {
    if (job.begin && Clock::now() >= next_save_) save(*job.begin);
    std::span<const int32_t> ids = job.ids;
    for (const TextJob::Piece& piece : job.pieces) {
      Output& output = piece.part == TextJob::kTrain ? train_ : valid_.value();
      output.add(ids.first(piece.ids), piece);
      ids = ids.subspan(piece.ids);
    }
    empty_ += job.empty;
    bad_.add(job);
  }
  int64_t bad_lines() const { return bad_.count(); }
  int64_t empty_documents() const { return empty_; }

 private:
  using Clock = std::chrono::steady_clock;

  void save(const TextPlace& next) {
    const auto start = Clock::now();
    PrepareProgress progress{.next = next, .bad_lines = bad_.count(), .empty_documents = empty_};
    progress.parts[TextJob::kTrain] = train_.sync();
    if (valid_) progress.parts[TextJob::kValid] = valid_->sync();
    folder_.save(progress);
    // Each second that it takes puts off the next by as much again: it never takes more than a thirtieth of
    // the time, on any disk.
    const std::chrono::duration<double> took = Clock::now() - start;
    next_save_ = Clock::now() + seconds(options_.save_every_s * (1 + took.count()));
  }
  static Clock::duration seconds(double count) {
    return std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(count));
  }

  const PrepareOptions& options_;
  PrepareFolder& folder_;
  Output& train_;
  std::optional<Output>& valid_;
  BadLines bad_;
  int64_t empty_;
  Clock::time_point next_save_ = Clock::now() + seconds(options_.save_every_s);
};

// Goes on from what is found, and says so.
void say_start(const PrepareOptions& options, const std::vector<TextInput>& files,
               const PrepareFolder& folder) {
  if (!options.on_restart || folder.start() == PrepareFolder::Start::fresh) return;
  const std::string path = printable(folder.path().string(), 400);
  if (folder.start() == PrepareFolder::Start::discarded) {
    options.on_restart(path + " is of other inputs or options, or damaged: begun anew");
    return;
  }
  const PrepareProgress& found = folder.found();
  const int64_t documents = found.parts[0].files.documents;
  options.on_restart(fmt::format("{}: goes on behind {} documents, in {}", path, documents,
                                 printable(files.at(found.next.input).path.string(), 400)));
}

}  // namespace

PrepareSummary prepare(const PrepareOptions& options) {
  const auto start = std::chrono::steady_clock::now();
  if (!(options.valid_fraction >= 0 && options.valid_fraction < 1)) {
    throw UsageError("--valid-fraction", fmt::format("{}, expected 0 to below 1", options.valid_fraction));
  }
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

  create_folders(options.out.parent_path());

  PrepareSummary summary;
  PrepareFolder folder(options.out, identity_of(options, files, *tokenizer, eos));
  say_start(options, files, folder);
  Output train(outputs.front(), *tokenizer, eos, folder, TextJob::kTrain);
  std::optional<Output> valid;
  if (split) valid.emplace(outputs.back(), *tokenizer, eos, folder, TextJob::kValid);
  const TextRules rules{
      .tokenizer = *tokenizer, .eos = eos, .held_out = options.valid_fraction, .text_key = options.text_key};
  Results results(options, folder, train, valid);
  summary.skipped_files = work_on_texts(
      files, folder.found().next, options.threads,
      {.read = [&](const TextInput& input, const TextPlace& from,
                   const TextWork::Add& add) { return read_text(input, rules, from, add); },
       .make_worker =
           [&] {
             return [encoder = std::make_shared<TextEncoder>(rules)](TextJob& job) { encoder->encode(job); };
           },
       .use = [&](const TextJob& job) { results.add(job); }});
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
  folder.finish();
  summary.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return summary;
}

}  // namespace dsv3
