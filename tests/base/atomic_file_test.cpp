#include "dsv3/base/atomic_file.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "dsv3/base/file.h"
#include "support/files.h"

namespace {

int sync_error = 0;  // errno of a sync_file_range with any of sync_flags, 0: the system's own
unsigned sync_flags = 0;
std::vector<std::string> calls;  // of fsync and rename, in order

std::string name_of(const std::filesystem::path& path) {  // without the number of the process
  const std::string name = path.filename().string();
  return name.substr(0, name.find(".tmp-") == std::string::npos ? name.size() : name.find(".tmp-") + 4);
}

}  // namespace

// In place of the C library's: neither a disk that fails behind a write can be had otherwise, nor the order
// that only a power failure shows.
extern "C" int fsync(int fd) {
  calls.push_back("fsync " + name_of(std::filesystem::read_symlink("/proc/self/fd/" + std::to_string(fd))));
  return static_cast<int>(::syscall(SYS_fsync, fd));
}
extern "C" int rename(const char* from, const char* to) noexcept {
  calls.push_back("rename " + name_of(from) + " " + name_of(to));
  return static_cast<int>(::syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0));
}
extern "C" int sync_file_range(int fd, off_t offset, off_t count, unsigned flags) {
  if (sync_error != 0 && (flags & sync_flags) != 0) {
    errno = sync_error;
    return -1;
  }
  return static_cast<int>(::syscall(SYS_sync_file_range, fd, offset, count, flags));
}

namespace dsv3 {
namespace {

using test::expect_error;
using test::TempDir;
using test::write_file;

size_t count_files(const std::filesystem::path& folder) {
  return static_cast<size_t>(std::distance(std::filesystem::directory_iterator(folder), {}));
}

TEST(AtomicFile, AppearsOnCommitAndReplaces) {
  TempDir dir;
  write_file(dir / "a", "old");
  AtomicFile file(dir / "a");
  file.write("ne");
  file.write("w");
  EXPECT_EQ(file.size(), 3u);
  EXPECT_EQ(read_text(dir / "a", 100), "old");
  file.commit();
  EXPECT_EQ(read_text(dir / "a", 100), "new");
  EXPECT_EQ(count_files(dir.path()), 1u);
}

TEST(AtomicFile, OverwritesWhatItWrote) {
  TempDir dir;
  AtomicFile file(dir / "a");
  file.write("0123456789");
  const auto overwrite = [&](std::string_view text, uint64_t offset) {
    file.overwrite(std::as_bytes(std::span(text.data(), text.size())), offset);
  };
  overwrite("ab", 3);
  overwrite("z", 9);
  EXPECT_THROW(overwrite("xy", 9), std::logic_error);
  EXPECT_THROW(overwrite("x", ~0ull), std::logic_error);
  file.write("end");  // appends still
  file.commit();
  EXPECT_EQ(read_text(dir / "a", 100), "012ab5678zend");
}

TEST(AtomicFile, LeavesNothingWithoutCommit) {
  TempDir dir;
  { AtomicFile(dir / "a").write("half"); }
  EXPECT_EQ(count_files(dir.path()), 0u);
}

// While it lives no file grows beyond 4,096 bytes: the write that crosses the limit is short, the next one
// fails.
class FullDisk {
 public:
  FullDisk() : handler_(std::signal(SIGXFSZ, SIG_IGN)) {
    ::getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit small{4096, before_.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &small);
  }
  ~FullDisk() {
    ::setrlimit(RLIMIT_FSIZE, &before_);
    std::signal(SIGXFSZ, handler_);
  }
  FullDisk(const FullDisk&) = delete;
  FullDisk& operator=(const FullDisk&) = delete;

 private:
  sighandler_t handler_;
  rlimit before_{};
};

TEST(AtomicFile, GoesOnWithAFileThatWasLeft) {
  TempDir dir;
  const auto left = dir / "left";
  AtomicFile(dir / "a", left, 0).write("0123456789");
  EXPECT_EQ(read_text(left, 100), "0123456789");
  {
    AtomicFile file(dir / "a", left, 4);
    EXPECT_EQ(file.size(), 4u);
    file.write("abc");
    file.overwrite(std::as_bytes(std::span("X", 1)), 1);
    EXPECT_FALSE(std::filesystem::exists(dir / "a"));
    file.commit();
  }
  EXPECT_EQ(read_text(dir / "a", 100), "0X23abc");
  EXPECT_EQ(count_files(dir.path()), 1u);

  expect_error(ExitCode::failed, {"/left: cannot be written"}, [&] { AtomicFile(dir / "b", left, 1); });
  write_file(left, "abc");
  expect_error(ExitCode::failed, {"/left: has 3 bytes, expected at least 4"},
               [&] { AtomicFile(dir / "b", left, 4); });
  std::filesystem::create_symlink(left, dir / "link");
  expect_error(ExitCode::failed, {"/link: cannot be written"},
               [&] { AtomicFile(dir / "b", dir / "link", 0); });
  EXPECT_EQ(read_text(left, 100), "abc");
}

TEST(AtomicFile, FullDiskIsARunErrorThatNamesThePath) {
  TempDir dir;
  {
    const FullDisk full;
    expect_error(ExitCode::failed, {"/a: writing: "},
                 [&] { write_atomically(dir / "a", std::string(10000, 'x')); });
  }
  EXPECT_EQ(count_files(dir.path()), 0u);
  expect_error(ExitCode::failed, {"/none/a: cannot be written"}, [&] { AtomicFile file(dir / "none/a"); });
}

TEST(AtomicFile, BytesAreOnTheDiskBeforeTheirNameAndTheNameBeforeCommitReturns) {
  TempDir dir;
  AtomicFile file(dir / "a");
  file.write("bytes");
  calls.clear();
  file.commit();
  EXPECT_EQ(calls,
            (std::vector<std::string>{"fsync a.tmp", "rename a.tmp a", "fsync " + name_of(dir.path())}));
}

// Bytes of the file that the page cache holds.
uint64_t bytes_in_memory(const std::filesystem::path& path) {
  const auto size = std::filesystem::file_size(path), page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  void* map = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, fd, 0);
  std::vector<unsigned char> pages((size + page - 1) / page);
  EXPECT_EQ(::mincore(map, size, pages.data()), 0);
  ::munmap(map, size);
  ::close(fd);
  return page * static_cast<uint64_t>(std::ranges::count_if(pages, [](unsigned char in) { return in & 1; }));
}

void write_long(AtomicFile& file) {  // 192 MiB
  std::string piece(4 << 20, '\0');
  for (int i = 0; i < 48; ++i) {
    piece.front() = piece.back() = static_cast<char>(i);
    file.write(piece);
  }
}

TEST(AtomicFile, ALongFileLeavesTheMemoryWhileItIsWritten) {
  TempDir dir;
  AtomicFile file(dir / "a");
  write_long(file);
  file.commit();
  const InputFile written(dir / "a");
  EXPECT_EQ(written.size(), 192u << 20);
  struct statfs status {};
  ASSERT_EQ(::statfs((dir / "a").c_str(), &status), 0);
  if (status.f_type != TMPFS_MAGIC) {
    EXPECT_LE(bytes_in_memory(dir / "a"), 150u << 20);
  }
  std::string piece(4 << 20, '\0');
  for (int i = 0; i < 48; ++i) {
    written.read(std::as_writable_bytes(std::span(piece)), static_cast<uint64_t>(i) << 22);
    EXPECT_TRUE(piece.front() == i && piece.back() == i) << i;
  }
}

TEST(AtomicFile, WhatTheDiskRefusesBehindAWriteIsAnError) {
  TempDir dir;
  for (const auto& [error, flags] :
       {std::pair(EIO, SYNC_FILE_RANGE_WAIT_AFTER), {ENOSPC, SYNC_FILE_RANGE_WRITE}}) {
    sync_error = error, sync_flags = flags;
    expect_error(ExitCode::failed, {"/a: writing: ", std::strerror(error)}, [&] {
      AtomicFile file(dir / "a");
      write_long(file);
      sync_error = 0;
      file.commit();
    });
    EXPECT_EQ(count_files(dir.path()), 0u);
  }
  sync_error = ENOSYS;  // this file system cannot say
  AtomicFile file(dir / "a");
  write_long(file);
  file.commit();
  sync_error = 0;
  EXPECT_EQ(InputFile(dir / "a").size(), 192u << 20);
}

TEST(LineFile, WhatAFullDiskRefusesWaitsForRoom) {
  TempDir dir;
  const std::filesystem::path path = dir / "lines";
  const std::string first(4000, 'a'), second(200, 'b');
  std::string all = "before\n";
  {
    write_atomically(path, all);
    LineFile file(path);
    {
      const FullDisk full;
      for (const std::string& line : {first, second, std::string("c")}) {
        file.append(line + "\n");
        all += line + "\n";
      }
      EXPECT_EQ(read_text(path, 10000), all.substr(0, 4096));
      expect_error(ExitCode::failed, {"/lines: writing: File too large", "make room"},
                   [&] { file.settle(); });
    }
    file.append("d\n");
    all += "d\n";
    EXPECT_EQ(read_text(path, 10000), all);
    file.settle();
    const FullDisk full;
    file.append("e\n");
  }
  EXPECT_EQ(read_text(path, 10000), all + "e\n");  // what waits is tried once more at the end
  expect_error(ExitCode::failed, {"/none/a: cannot be opened"}, [&] { LineFile file(dir / "none/a"); });
}

}  // namespace
}  // namespace dsv3
