#pragma once
// PREFIX.partial: the output of `dsv3 prepare` while it is written, and how far it is, so that a command that
// was killed goes on.

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "dsv3/base/file_lock.h"
#include "dsv3/data/indexed_dataset.h"
#include "dsv3/data/text_job.h"

namespace dsv3 {

// What is done, all of it on disk. A record of the file `progress`, as it lies in memory.
struct PrepareProgress {
  struct Part {
    IndexedSizes files = {};
    int64_t bytes = 0;  // of text
  };
  TextPlace next = {};  // where reading goes on
  Part parts[2] = {};   // by TextJob::Part
  int64_t bad_lines = 0, empty_documents = 0;
  int64_t whole = 0;  // 1: nothing is left to write, the files are about to get their names
};

// The folder and its files; one process at a time.
class PrepareFolder {
 public:
  // What it may write.
  static std::vector<std::filesystem::path> all_files(const std::filesystem::path& prefix);

  // outputs: the prefixes that the parts get in the end, by TextJob::Part. identity: any text that says which
  // inputs and which options make the output's bytes; two that differ never continue each other. UsageError
  // naming --out when another process writes the same PREFIX.
  PrepareFolder(const std::filesystem::path& prefix, std::vector<std::filesystem::path> outputs,
                const std::string& identity);
  // Removes everything, unless there is progress to go on from, by this or an earlier process.
  ~PrepareFolder();
  PrepareFolder(const PrepareFolder&) = delete;
  PrepareFolder& operator=(const PrepareFolder&) = delete;

  // What an earlier process of the same identity had done, its files there at least as long as it says; else
  // nothing was done.
  const PrepareProgress& found() const { return found_; }
  enum class Start { fresh, resumed, discarded };  // discarded: there was progress, but of no use
  Start start() const { return start_; }

  // Prefix of the token files of a part as long as they are not whole.
  std::filesystem::path files(TextJob::Part part) const;
  // To be called when all that progress says is synced.
  void save(const PrepareProgress& progress);
  // All files are synced under files(part), with .bin, .idx and .json behind, and get their own names; those
  // that have got them before a kill keep them. What stood there is replaced, without ever showing two files
  // that do not belong together. Then nothing is left of the folder.
  void publish();

  const std::filesystem::path& path() const { return path_; }

 private:
  bool is_there(const PrepareProgress& progress) const;
  void discard();
  void remove();

  std::filesystem::path path_;
  std::vector<std::filesystem::path> outputs_;
  std::vector<std::filesystem::path> all_files_;
  std::filesystem::path progress_path_;
  std::string identity_;
  FileLock lock_;
  PrepareProgress found_;
  Start start_ = Start::fresh;
  bool saved_ = false;
};

}  // namespace dsv3
