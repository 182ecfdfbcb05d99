#pragma once
// A whole checkpoint folder against its manifest.json.

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "dsv3/base/error.h"

namespace dsv3 {

struct Damage {
  std::string file;             // its name in the folder
  uint64_t begin = 0, end = 0;  // bytes, as manifest.json counts them; the whole file when it is missing
  std::string what;             // "is missing", "differs", or why it could not be read
  ExitCode code = ExitCode::content;  // failed: reading failed for a reason that says nothing about the file
  bool operator==(const Damage&) const = default;
};

struct FolderCheck {
  uint64_t bytes = 0;                 // of all files that manifest.json lists
  std::vector<Damage> damaged;        // by name, then by byte; neighbours with the same trouble are one range
  std::vector<std::string> unlisted;  // in the folder and not in manifest.json, sorted
  bool is_whole() const { return damaged.empty(); }
};

// Bytes checked so far and in all; called from one thread at a time, and may throw to end the check.
using CheckProgress = std::function<void(uint64_t done, uint64_t total)>;

// Reads every block of every listed file, `threads` at a time (at least one), 256 KiB in memory for each.
// UsageError when there is no such folder; InputError when manifest.json is missing or itself damaged. Damage
// of the other files is the result, all of it, never an exception.
FolderCheck verify_folder(const std::filesystem::path& folder, const CheckProgress& progress = {},
                          int threads = 1);

}  // namespace dsv3
