#include "dsv3/data/text_inputs.h"

#include <fmt/format.h>
#include <fnmatch.h>

#include <algorithm>
#include <optional>

#include "dsv3/base/error.h"
#include "dsv3/base/file.h"

namespace dsv3 {
namespace {

namespace fs = std::filesystem;

struct Choice {
  std::optional<TextFormat> format;  // nothing: by the name
  std::string glob;
};

std::optional<TextFormat> format_named(const std::string& name) {
  if (name == "auto") return std::nullopt;
  if (name == "text") return TextFormat::text;
  if (name == "lines") return TextFormat::lines;
  if (name == "jsonl") return TextFormat::jsonl;
  throw UsageError("--format", fmt::format("'{}', expected auto, text, lines or jsonl", printable(name, 64)));
}

// Nothing when neither the name nor the choice says how the file is read.
std::optional<TextInput> input_of(const fs::path& path, const Choice& choice) {
  TextInput input{.path = path};
  fs::path name = path.filename();
  if (name.extension() == ".gz") input.compression = Compression::gzip;
  if (name.extension() == ".zst") input.compression = Compression::zstd;
  if (input.compression != Compression::none) name = name.stem();
  const fs::path extension = name.extension();
  if (choice.format) {
    input.format = *choice.format;
  } else if (extension == ".jsonl") {
    input.format = TextFormat::jsonl;
  } else if (extension != ".txt" && extension != ".md") {
    return std::nullopt;
  }
  return input;
}

[[noreturn]] void refuse_unknown(const fs::path& path) {
  throw UsageError(printable(path.string(), 400),
                   "is no .txt, .md or .jsonl, also with .gz or .zst behind, and no folder",
                   "say what it is with --format text, lines or jsonl");
}

bool matches(const std::string& glob, const fs::path& folder, const fs::path& file) {
  const bool whole = glob.find('/') != glob.npos;
  const fs::path name = whole ? file.lexically_relative(folder) : file.filename();
  return ::fnmatch(glob.c_str(), name.c_str(), 0) == 0;
}

std::vector<TextInput> list_folder(const fs::path& folder, const Choice& choice) {
  std::vector<TextInput> inputs;
  try {
    for (const fs::directory_entry& entry : fs::recursive_directory_iterator(folder)) {
      if (entry.is_directory()) continue;
      if (!choice.glob.empty() && !matches(choice.glob, folder, entry.path())) continue;
      // Other files may lie beside texts; --format alone does not make texts of them.
      const Choice by_name;
      std::optional<TextInput> input = input_of(entry.path(), choice.glob.empty() ? by_name : choice);
      if (!input && !choice.glob.empty()) refuse_unknown(entry.path());
      if (!input) continue;
      if (choice.format) input->format = *choice.format;
      inputs.push_back(std::move(*input));
    }
  } catch (const fs::filesystem_error& error) {
    throw RunError(printable(folder.string()), error.code().message());
  }
  std::sort(inputs.begin(), inputs.end(),
            [](const TextInput& a, const TextInput& b) { return a.path < b.path; });
  return inputs;
}

}  // namespace

std::vector<TextInput> list_text_inputs(const std::vector<fs::path>& inputs, const std::string& format,
                                        const std::string& glob) {
  if (inputs.empty()) throw UsageError("INPUT", "no input", "name text files or folders of them");
  if (std::count(inputs.begin(), inputs.end(), "-") > 1)
    throw UsageError("-", "standard input is named twice");
  const Choice choice{.format = format_named(format), .glob = glob};
  std::vector<TextInput> files;
  for (const fs::path& path : inputs) {
    if (path == "-") {
      files.push_back({.path = path, .format = choice.format.value_or(TextFormat::text)});
      continue;
    }
    require_exists(path);
    if (fs::is_directory(path)) {
      for (TextInput& input : list_folder(path, choice)) files.push_back(std::move(input));
      continue;
    }
    std::optional<TextInput> input = input_of(path, choice);
    if (!input) refuse_unknown(path);
    files.push_back(std::move(*input));
  }
  return files;
}

}  // namespace dsv3
