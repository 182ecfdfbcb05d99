#include "dsv3/base/file.h"

#include <sys/resource.h>
#include <sys/stat.h>

#include <csignal>

#include "dsv3/base/atomic_file.h"
#include "dsv3/base/file_lock.h"
#include "support/files.h"

namespace dsv3 {
namespace {

namespace fs = std::filesystem;
using test::expect_error;
using test::expect_input_error;
using test::TempDir;
using test::write_file;

size_t count_files(const std::filesystem::path& folder) {
  return static_cast<size_t>(std::distance(std::filesystem::directory_iterator(folder), {}));
}

TEST(InputFile, ReadsAnyRange) {
  TempDir dir;
  const InputFile file(write_file(dir / "a", "0123456789"));
  EXPECT_EQ(file.size(), 10u);
  char out[4];
  file.read(std::as_writable_bytes(std::span(out)), 6);
  EXPECT_EQ(std::string_view(out, 4), "6789");
  expect_input_error({"/a: byte 7: 4 bytes wanted, the file ends at 10"},
                     [&] { file.read(std::as_writable_bytes(std::span(out)), 7); });
  expect_input_error({"byte 18446744073709551615"},
                     [&] { file.read(std::as_writable_bytes(std::span(out)), ~0ull); });
}

TEST(InputFile, ShrunkenFileIsAnErrorNotASignal) {
  TempDir dir;
  const auto path = write_file(dir / "a", std::string(9000, 'x'));
  const InputFile file(path);
  std::filesystem::resize_file(path, 4096);
  std::string out(9000, ' ');
  expect_input_error({"/a: byte 4096", "shrank"},
                     [&] { file.read(std::as_writable_bytes(std::span(out.data(), out.size())), 0); });
}

TEST(InputFile, OnlyRegularFilesAreOpenedAndNothingBlocks) {
  TempDir dir;
  ASSERT_EQ(::mkfifo((dir / "fifo").c_str(), 0600), 0);
  expect_input_error({"/fifo: is a FIFO"}, [&] { InputFile file(dir / "fifo"); });
  expect_input_error({"is a directory"}, [&] { InputFile file(dir.path()); });
  expect_input_error({"/dev/zero: is a device"}, [] { InputFile file("/dev/zero"); });
  expect_input_error({"/none: no such file"}, [&] { InputFile file(dir / "none"); });
  expect_input_error({"NUL"}, [&] { InputFile file(dir / std::string_view("a\0b", 3)); });
}

TEST(InputFile, MovesItsDescriptor) {
  TempDir dir;
  InputFile a(write_file(dir / "a", "aa")), b(write_file(dir / "b", "bb"));
  a = std::move(b);
  InputFile c(std::move(a));
  char out[2];
  c.read(std::as_writable_bytes(std::span(out)), 0);
  EXPECT_EQ(std::string_view(out, 2), "bb");
  EXPECT_EQ(c.path(), (dir / "b").string());
}

TEST(ReadText, RefusesLargerThanAllowed) {
  TempDir dir;
  write_file(dir / "a", "12345");
  EXPECT_EQ(read_text(dir / "a", 5), "12345");
  expect_input_error({"/a: 5 bytes, at most 4"}, [&] { read_text(dir / "a", 4); });
}

TEST(RequireExists, MissingPathIsUsage) {
  TempDir dir;
  require_exists(dir.path());
  expect_error(ExitCode::usage, {"/none: no such file"}, [&] { require_exists(dir / "none"); });
}

TEST(CreateFolders, MakesWhatIsMissing) {
  test::TempDir dir;
  create_folders(dir / "a/b/c/");
  EXPECT_TRUE(std::filesystem::is_directory(dir / "a/b/c"));
  EXPECT_NO_THROW(create_folders(dir / "a/b/c"));
  EXPECT_NO_THROW(create_folders(""));
  test::write_file(dir / "file", "");
  for (const char* name : {"file", "file/a", "file/a/b"})
    test::expect_error(ExitCode::failed, {"/file", "cannot be created"}, [&] { create_folders(dir / name); });
}

TEST(RenameSynced, TakesTheNameAndNamesBothWhenItCannot) {
  TempDir dir;
  write_file(dir / "a", "new");
  write_file(dir / "b", "old");
  rename_synced(dir / "a", dir / "b");
  EXPECT_EQ(read_text(dir / "b", 100), "new");
  EXPECT_EQ(count_files(dir.path()), 1u);
  expect_error(ExitCode::failed, {"/c: rename from a: No such file"},
               [&] { rename_synced(dir / "a", dir / "c"); });
  std::filesystem::create_directory(dir / "d");
  expect_error(ExitCode::failed, {"/d: rename from b: "}, [&] { rename_synced(dir / "b", dir / "d"); });
}

TEST(RequireNoInput, TheSameFileUnderAnyName) {
  TempDir dir;
  const auto a = write_file(dir / "a", "a"), b = write_file(dir / "b", "b");
  std::filesystem::create_hard_link(a, dir / "hard");
  std::filesystem::create_symlink("a", dir / "soft");
  require_no_input("--out", {b, dir / "none"}, {a, dir / "none", dir / "other"});
  for (const auto& out : {a, dir / "hard", dir / "soft", dir / "none/../a"})
    expect_error(ExitCode::usage, {"--out: ", out.filename().string() + " is an input too"}, [&] {
      require_no_input("--out", {b, out}, {dir / "none", a});
    });
  expect_error(ExitCode::usage, {"is an input too"},
               [&] { require_no_input("--out", {dir.path()}, {dir.path()}); });
}

TEST(FileLock, OneHolderOfTheFileThatHasTheName) {
  TempDir dir;
  const auto path = dir / "lock";
  std::optional<FileLock> first(std::in_place, path, FileLock::When::now);
  EXPECT_TRUE(first->held());
  EXPECT_FALSE(FileLock(path, FileLock::When::now).held());
  std::filesystem::remove(path);
  EXPECT_TRUE(FileLock(path, FileLock::When::now).held());
  first.reset();
  EXPECT_TRUE(FileLock(path, FileLock::When::wait).held());
  expect_error(ExitCode::failed, {"/none/lock"}, [&] { FileLock(dir / "none/lock", FileLock::When::now); });
}

}  // namespace
}  // namespace dsv3
