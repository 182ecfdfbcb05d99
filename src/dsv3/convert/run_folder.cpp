#include "dsv3/convert/run_folder.h"

#include <algorithm>
#include <charconv>
#include <string>
#include <string_view>

#include "dsv3/base/atomic_file.h"
#include "dsv3/base/error.h"
#include "dsv3/base/file.h"

namespace dsv3 {
namespace fs = std::filesystem;
namespace {

constexpr std::string_view kStep = "step-";
constexpr uint64_t kMaxTokenizer = 1u << 30;

std::vector<fs::path> entries_of(const fs::path& folder) {
  std::vector<fs::path> found;
  std::error_code error;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error))
    found.push_back(it->path());
  // A folder that cannot be read is not an empty one: a run would begin anew over it.
  if (error && error != std::errc::no_such_file_or_directory && error != std::errc::not_a_directory)
    throw RunError(printable(folder.string(), 400), error.message());
  return found;
}

}  // namespace

fs::path checkpoint_path(const fs::path& run, int64_t step) {
  return run / "checkpoints" / (std::string(kStep) + std::to_string(step));
}

std::vector<int64_t> list_checkpoints(const fs::path& run) {
  std::vector<int64_t> steps;
  for (const fs::path& path : entries_of(run / "checkpoints")) {
    const std::string name = path.filename().string();
    int64_t step = 0;
    const char* const end = name.data() + name.size();
    if (!name.starts_with(kStep)) continue;
    const auto [stop, error] = std::from_chars(name.data() + kStep.size(), end, step);
    if (error == std::errc() && stop == end && checkpoint_path(run, step) == path) steps.push_back(step);
  }
  std::ranges::sort(steps, std::greater{});
  return steps;
}

void remove_unfinished(const fs::path& run) {
  for (const fs::path& path : entries_of(run / "checkpoints")) {
    const std::string name = path.filename().string();
    std::error_code ignored;
    if (name.starts_with(kStep) && name.ends_with(".tmp")) fs::remove_all(path, ignored);
  }
}

void set_aside_after(const fs::path& run, int64_t step) {
  for (const int64_t later : list_checkpoints(run)) {
    if (later <= step) break;
    const fs::path from = checkpoint_path(run, later), to = from.string() + ".passed";
    std::error_code ignored;  // what stays in the way fails the rename
    fs::remove_all(to, ignored);
    rename_synced(from, to);
  }
}

void copy_tokenizer(const fs::path& tokenizer, const fs::path& folder) {
  std::error_code error;
  const bool is_folder = fs::is_directory(tokenizer, error);
  const fs::path file = is_folder ? tokenizer / "tokenizer.json" : tokenizer;
  if (!fs::is_regular_file(file, error)) return;
  write_atomically(folder / "tokenizer.json", read_text(file, kMaxTokenizer));
  for (const char* name :
       {"tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja", "generation_config.json"})
    if (const fs::path beside = file.parent_path() / name; fs::is_regular_file(beside, error))
      write_atomically(folder / name, read_text(beside, kMaxTokenizer));
}

}  // namespace dsv3
