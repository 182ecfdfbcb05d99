#include "dsv3/data/prepare.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>

#include "dsv3/base/atomic_file.h"
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
        prefix_(prefix),
        unfinished_json_(folder.files(part).string() + ".json"),
        bytes_(folder.found().parts[part].bytes),
        writer_(prefix, tokenizer.vocab_size(), folder.files(part), folder.found().parts[part].files) {}

  void add(std::span<const int32_t> ids, const TextJob::Piece& piece) {
    writer_.append(ids);
    if (piece.ends) writer_.end_document();
    bytes_ += static_cast<int64_t>(piece.bytes);
  }

  bool empty() const { return writer_.sizes().documents == 0; }

  PrepareProgress::Part sync() {
    writer_.sync();
    return {.files = writer_.sizes(), .bytes = bytes_};
  }

  // All three files, synced; a full disk shows here, while what stood under the output's names still stands.
  PrepareProgress::Part complete() {
    writer_.complete();
    const IndexedSizes& sizes = writer_.sizes();
    Json json;
    json["tokenizer"] = tokenizer_.name();
    json["tokenizer_hash"] = tokenizer_.hash();
    json["vocab_size"] = tokenizer_.vocab_size();
    json["eos_id"] = eos_;
    json["bytes"] = bytes_;
    json["documents"] = sizes.documents;
    json["tokens"] = sizes.tokens;
    json["largest_id"] = sizes.largest_id;
    AtomicFile file(prefix_.string() + ".json", unfinished_json_, 0);
    file.write(json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n");
    file.sync();
    return {.files = sizes, .bytes = bytes_};
  }

 private:
  const Tokenizer& tokenizer_;
  int32_t eos_;
  fs::path prefix_, unfinished_json_;
  int64_t bytes_;
  IndexedDatasetWriter writer_;
};

int32_t find_eos(const Tokenizer& tokenizer, const std::string& named) {
  const std::optional<int32_t> eos = named.empty() ? tokenizer.eos() : tokenizer.id_of(named);
  if (eos) return *eos;
  throw UsageError("--eos",
                   named.empty() ? printable(tokenizer.name()) + " does not say which token ends a document"
                                 : printable(named) + ": no token of " + printable(tokenizer.name()),
                   "name a token of it, such as \"<|endoftext|>\"");
}

// Nobody can read standard input again.
bool can_go_on(const PrepareOptions& options) {
  return std::ranges::find(options.inputs, "-") == options.inputs.end();
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
    if (!can_go_on(options)) next_save_ = Clock::time_point::max();
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
  // All is there, `next` being the end of the inputs: the files are whole in the folder.
  PrepareProgress complete(const TextPlace& next) {
    PrepareProgress progress = progress_at(next);
    progress.parts[TextJob::kTrain] = train_.complete();
    if (valid_) progress.parts[TextJob::kValid] = valid_->complete();
    progress.whole = 1;
    if (can_go_on(options_)) folder_.save(progress);
    return progress;
  }

 private:
  using Clock = std::chrono::steady_clock;

  PrepareProgress progress_at(const TextPlace& next) const {
    return {.next = next, .bad_lines = bad_.count(), .empty_documents = empty_};
  }
  void save(const TextPlace& next) {
    const auto start = Clock::now();
    PrepareProgress progress = progress_at(next);
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
  options.on_restart(fmt::format(
      "{}: goes on behind {} documents, {}", path, documents,
      found.whole ? "which are all" : "in " + printable(files.at(found.next.input).path.string(), 400)));
}

// Writes what is missing into the folder.
PrepareProgress write_outputs(const PrepareOptions& options, const std::vector<TextInput>& files,
                              const std::vector<fs::path>& outputs, const Tokenizer& tokenizer, int32_t eos,
                              PrepareFolder& folder) {
  Output train(outputs.front(), tokenizer, eos, folder, TextJob::kTrain);
  std::optional<Output> valid;
  if (outputs.size() > 1) valid.emplace(outputs.back(), tokenizer, eos, folder, TextJob::kValid);
  const TextRules rules{
      .tokenizer = tokenizer, .eos = eos, .held_out = options.valid_fraction, .text_key = options.text_key};
  Results results(options, folder, train, valid);
  const int64_t empty_inputs = work_on_texts(
      files, folder.found().next, options.threads,
      {.read = [&](const TextInput& input, const TextPlace& from,
                   const TextWork::Add& add) { return read_text(input, rules, from, add); },
       .make_worker =
           [&] {
             return [encoder = std::make_shared<TextEncoder>(rules)](TextJob& job) { encoder->encode(job); };
           },
       .use = [&](const TextJob& job) { results.add(job); }});

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
  return results.complete({.input = files.size(), .empty_inputs = empty_inputs});
}

PreparedFiles describe(const fs::path& prefix, const PrepareProgress::Part& part) {
  return {.prefix = prefix,
          .documents = part.files.documents,
          .tokens = part.files.tokens,
          .bytes = part.bytes,
          .longest_document = part.files.longest_document};
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

  PrepareFolder folder(options.out, outputs, identity_of(options, files, *tokenizer, eos));
  say_start(options, files, folder);
  const PrepareProgress before = folder.found();
  if (before.whole) BadLines(options.max_bad, {}, before.bad_lines);  // refuses what it always refuses
  const PrepareProgress now =
      before.whole ? before : write_outputs(options, files, outputs, *tokenizer, eos, folder);
  folder.publish();

  PrepareSummary summary;
  summary.train = describe(outputs.front(), now.parts[TextJob::kTrain]);
  if (split) summary.valid = describe(outputs.back(), now.parts[TextJob::kValid]);
  summary.skipped_files = now.next.empty_inputs;
  summary.empty_documents = now.empty_documents;
  summary.bad_lines = now.bad_lines;
  summary.earlier_bytes = before.parts[TextJob::kTrain].bytes + before.parts[TextJob::kValid].bytes;
  summary.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return summary;
}

}  // namespace dsv3
