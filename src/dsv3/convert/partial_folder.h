#pragma once
// TARGET.partial: a folder under construction that survives its builder, and may have several. Beside it
// TARGET.partial.work says what it is and what is done. The result says what it is by `.conversion`, the hash
// of its identity (base/hash.h).

#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "dsv3/convert/dcp_part.h"

namespace dsv3 {

inline constexpr const char* kConversionName = ".conversion";

// Whether target is the whole result of a conversion of this identity.
bool is_result_of(const std::filesystem::path& target, const std::string& identity);

// UsageError when target exists.
void require_new(const std::filesystem::path& target);
// The same, and TARGET.partial.work goes that a process left which died just behind the rename to target.
void require_new_and_tidy(const std::filesystem::path& target);

class PartialFolder {
 public:
  // Creates it, or goes on with one of the same identity (what is converted into what; any text). UsageError:
  // target exists, or the folder there is of another identity.
  PartialFolder(const std::filesystem::path& target, const std::string& identity);
  ~PartialFolder();
  PartialFolder(const PartialFolder&) = delete;
  PartialFolder& operator=(const PartialFolder&) = delete;

  const std::filesystem::path& path() const { return path_; }
  // Takes the file that is the conversion's `number`-th, from 0, until this object ends. UsageError when
  // another process that lives has it: an equal conversion, or a part that shares files with this one.
  void claim(int64_t number) const;
  // Whether a file is there whole, by an earlier run or another process.
  bool has(const std::string& file) const;
  // To be called when a file is written and synced; what it holds.
  void record(const std::string& file, const DcpPart& part) const;
  // When all of these files are there, and nobody else was first: finish(what they hold), then the rename to
  // target. False while some are missing.
  bool complete(const std::vector<std::string>& files, const std::function<void(DcpPart&&)>& finish) const;

 private:
  std::filesystem::path record_path(const std::string& file) const;

  std::filesystem::path target_, path_, work_;
  std::string identity_;
  int claims_ = -1;  // an open file whose byte N is locked while file N is claimed
};

}  // namespace dsv3
