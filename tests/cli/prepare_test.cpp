#include "dsv3/data/prepare.h"

#include <sys/stat.h>

#include <algorithm>
#include <regex>

#include "cli/run.h"
#include "dsv3/base/json.h"

namespace dsv3::test {
namespace {

class PrepareCommand : public testing::Test {
 protected:
  PrepareCommand() { write_file(dir_ / "a.txt", "hello"); }
  Result prepare(std::vector<std::string> args) {
    args.insert(args.begin(), "prepare");
    return dsv3(args, {.cwd = dir_.path()});
  }
  TempDir dir_;
};

TEST_F(PrepareCommand, WritesTokenFiles) {
  const Result result = prepare({"a.txt", "--out", "text", "--json"});
  ASSERT_EQ(result.code, 0) << result.err;
  const Json json = parse_json(result.out, "stdout");
  EXPECT_EQ(json["train"]["documents"], 1);
  EXPECT_EQ(json["train"]["tokens"], 6);  // and eos
  for (const char* name : {"text.bin", "text.idx", "text.json"})
    EXPECT_TRUE(std::filesystem::exists(dir_ / name)) << name;
}

TEST_F(PrepareCommand, SumsUp) {
  write_file(dir_ / "b.txt", "longer than that");
  const std::regex lines(
      "text\\.bin, \\.idx: 2 documents, 23 tokens, 21 bytes \\(0\\.91 a token\\); the longest 17 tokens\n"
      "[0-9]+\\.[0-9]{2} s, [0-9]+\\.[0-9] MB/s\n");
  const Result result = prepare({"a.txt", "b.txt", "--out", "text"});
  EXPECT_TRUE(std::regex_match(result.out, lines)) << result.out;
  EXPECT_EQ(result.err, "");
}

TEST_F(PrepareCommand, Errors) {
  expect_failure(prepare({"a.txt"}), ExitCode::usage, {"--out"});
  for (const char* folder : {".", "..", "sub/"})
    expect_failure(prepare({"a.txt", "--out", folder}), ExitCode::usage, {"--out", "names a folder"});
  expect_failure(prepare({"none.txt", "--out", "text"}), ExitCode::usage, {"none.txt"});
  expect_failure(prepare({"a.txt", "--out", "text", "--tokenizer", "none"}), ExitCode::usage, {"none"});
  expect_failure(prepare({"a.txt", "--out", "text", "--valid-fraction", "x"}), ExitCode::usage,
                 {"--valid-fraction"});
  expect_failure(prepare({"a.txt", "--out", "text", "--out", "text"}), ExitCode::usage, {"--out"});
  expect_failure(prepare({"a.txt", "--out", "/proc/none/text"}), ExitCode::failed, {"/proc/none"});
  EXPECT_FALSE(std::filesystem::exists(dir_ / "text.bin"));
}

TEST_F(PrepareCommand, ReadsStandardInput) {
  write_file(dir_ / "in", "{\"text\": \"one\"}\n{\"text\": \"two\"}");
  const Result result = dsv3({"prepare", "-", "--format", "jsonl", "--out", "text", "--json"},
                             {.cwd = dir_.path(), .in_from = dir_ / "in"});
  ASSERT_EQ(result.code, 0) << result.err;
  const Json json = parse_json(result.out, "stdout");
  EXPECT_EQ(json["train"]["documents"], 2);
  EXPECT_EQ(json["train"]["bytes"], 6);
  // In pieces through a pipe, as text.
  const Result piped = run_program(
      "/bin/sh",
      {"-c", "(printf ab; sleep 0.1; printf c) | exec \"$0\" prepare - --out p", dsv3_program().string()},
      {.cwd = dir_.path()});
  ASSERT_EQ(piped.code, 0) << piped.err;
  EXPECT_EQ(read_file(dir_ / "p.bin"), std::string("a\0b\0c\0\x01\x01", 8));
  expect_failure(prepare({"-", "--out", "none"}), ExitCode::content, {"no text"});
  expect_failure(prepare({"-", "-", "--out", "none"}), ExitCode::usage, {"standard input is named twice"});
  expect_failure(dsv3({"prepare", "-", "--format", "jsonl", "--out", "none"},
                      {.cwd = dir_.path(), .in_from = dir_ / "a.txt"}),
                 ExitCode::content, {"standard input:1: no JSON"});
  expect_failure(dsv3({"prepare", "-", "--format", "lines", "--out", "text"},
                      {.cwd = dir_.path(), .in_from = dir_ / "text.json"}),
                 ExitCode::usage, {"--out", "text.json is an input too"});
}

TEST_F(PrepareCommand, NamesBadLinesSkipsThemAndRefusesTooMany) {
  write_file(dir_ / "a.jsonl", "{\"text\": \"a\"}\n{]\n{\"text\": \"\"}\n7\n\n{\"text\": \"b\"}\n");
  expect_failure(prepare({"a.jsonl", "--out", "text"}), ExitCode::content,
                 {"a.jsonl:2: no JSON", "--max-bad N"});
  const Result one = prepare({"a.jsonl", "--out", "text", "--max-bad", "1"});
  EXPECT_EQ(one.code, 3);
  EXPECT_NE(one.err.find("warning: skipped a.jsonl:2: no JSON"), std::string::npos) << one.err;
  EXPECT_NE(one.err.find("error: a.jsonl:4: a number, expected an object"), std::string::npos) << one.err;
  EXPECT_EQ(std::count(one.err.begin(), one.err.end(), '\n'), 2) << one.err;
  EXPECT_FALSE(std::filesystem::exists(dir_ / "text.idx"));
  const Result two = prepare({"a.jsonl", "--out", "text", "--max-bad", "2"});
  EXPECT_EQ(two.code, 0) << two.err;
  EXPECT_NE(two.err.find("warning: 2 bad lines were skipped"), std::string::npos) << two.err;
  EXPECT_NE(two.err.find("warning: 1 lines whose text is empty"), std::string::npos) << two.err;
  EXPECT_NE(two.out.find("2 documents, 4 tokens, 2 bytes"), std::string::npos) << two.out;
  expect_failure(prepare({"a.jsonl", "--out", "text", "--text-key", "body"}), ExitCode::content,
                 {"a.jsonl:1: no key 'body'"});
  for (const char* bad : {"-1", "x", "99999999999999999999"})
    expect_failure(prepare({"a.jsonl", "--out", "text", "--max-bad=" + std::string(bad)}), ExitCode::usage,
                   {"--max-bad", bad, "expected an integer of 0 or more"});
}

TEST_F(PrepareCommand, SaysHowManyBadLinesItDoesNotShow) {
  std::string lines = "{\"text\": \"a\"}\n";
  for (int i = 0; i < 25; ++i) lines += "{]\n";
  write_file(dir_ / "a.jsonl", lines);
  const std::vector<std::string> args = {"a.jsonl", "--out", "text", "--max-bad", "25", "--json"};
  const Result result = prepare(args);
  EXPECT_EQ(result.code, 0) << result.err;
  EXPECT_NE(result.err.find("skipped a.jsonl:21: no JSON"), std::string::npos) << result.err;
  EXPECT_TRUE(
      result.err.ends_with("dsv3: warning: and 5 more, not shown\n"
                           "dsv3: warning: 25 bad lines were skipped\n"))
      << result.err;
  EXPECT_EQ(std::count(result.err.begin(), result.err.end(), '\n'), 22) << result.err;
  const Json json = parse_json(result.out, "stdout");
  EXPECT_EQ(json["bad_lines"], 25);
  ASSERT_EQ(json["bad_lines_shown"].size(), 20u);
  EXPECT_TRUE(json["bad_lines_shown"][19].get<std::string>().starts_with("a.jsonl:21: no JSON"));
  EXPECT_EQ(prepare({"a.jsonl", "--out", "text", "--max-bad", "24"}).code, 3);
  // Twenty are shown, and nothing is said of more.
  write_file(dir_ / "a.jsonl", lines.substr(0, lines.size() - 5 * 3));
  EXPECT_EQ(prepare(args).err.find("not shown"), std::string::npos);
}

TEST_F(PrepareCommand, RefusesInputsThatAreNoText) {
  write_file(dir_ / "cut.jsonl.gz", std::string("\x1f\x8b\x08\0\0", 5));
  write_file(dir_ / "bad.txt.zst", "no zstd at all");
  write_file(dir_ / "latin.txt", "caf\xe9");
  write_file(dir_ / "blank.jsonl", "\n \n");
  write_file(dir_ / "page.html", "<p>");
  std::filesystem::create_directories(dir_ / "folder");
  ASSERT_EQ(::mkfifo((dir_ / "pipe.txt").c_str(), 0600), 0);
  const std::string golden = std::string(DSV3_SOURCE_DIR) + "/tests/data/tokenizers/v3/tokenizer.json";
  const auto refused = [&](std::vector<std::string> args, std::initializer_list<std::string_view> parts,
                           ExitCode code = ExitCode::content) {
    args.insert(args.end(), {"--out", "text"});
    expect_failure(prepare(args), code, parts);
  };
  refused({"cut.jsonl.gz"}, {"cut.jsonl.gz: compressed byte 5", "cut off"});
  refused({"bad.txt.zst"}, {"bad.txt.zst: compressed byte", "damaged zstd data"});
  refused({"latin.txt", "--tokenizer", golden, "--eos", "<|eos|>"}, {"latin.txt: byte 3: is not UTF-8"});
  refused({"blank.jsonl"}, {"blank.jsonl", "no text"});
  refused({"folder"}, {"folder", "no text file"});
  refused({"pipe.txt"}, {"pipe.txt", "FIFO"});
  refused({"/dev/zero", "--format", "text"}, {"/dev/zero", "device"});
  refused({"page.html"}, {"page.html", "--format"}, ExitCode::usage);
  refused({"a.txt", "--format", "xml"}, {"--format", "xml"}, ExitCode::usage);
  refused({"a.txt", "--threads", "0"}, {"--threads"}, ExitCode::usage);
  refused({"a.txt", "--max-bad", "-1"}, {"--max-bad"}, ExitCode::usage);
  EXPECT_FALSE(std::filesystem::exists(dir_ / "text.bin"));
}

TEST_F(PrepareCommand, Row79UnknownFlag) {
  expect_failure(prepare({"a.txt", "--out", "text", "--max-bat", "1"}), ExitCode::usage,
                 {"--max-bat", "--max-bad"});
}

TEST_F(PrepareCommand, Row82OutputThatIsAnInput) {
  expect_failure(prepare({"a.txt", "--out", "a.txt"}), ExitCode::usage, {"--out", "is an input too"});
  write_file(dir_ / "p.json", "{\"text\": \"x\"}");
  expect_failure(prepare({"p.json", "--format", "jsonl", "--out", "p"}), ExitCode::usage,
                 {"--out", "p.json is an input too"});
  std::filesystem::create_hard_link(dir_ / "a.txt", dir_ / "q_valid.bin");
  expect_failure(prepare({"a.txt", "--out", "q", "--valid-fraction", "0.2"}), ExitCode::usage,
                 {"--out", "q_valid.bin is an input too"});
  EXPECT_EQ(read_file(dir_ / "a.txt"), "hello");
}

// Killed at any moment and run again, it writes what an undisturbed run writes.
TEST_F(PrepareCommand, GivesTheSameFilesAfterAKill) {
  std::string lines;
  for (int i = 0; i < 200'000; ++i) lines += "{\"text\": \"document " + std::to_string(i) + "\"}\n";
  write_file(dir_ / "a.jsonl", lines);
  ASSERT_EQ(prepare({"a.jsonl", "--out", "whole"}).code, 0);
  for (const int ms : {1, 10, 40}) {
    dsv3({"prepare", "a.jsonl", "--out", "text"},
         {.cwd = dir_.path(), .signal = SIGKILL, .signal_after_ms = ms});
  }
  ASSERT_EQ(prepare({"a.jsonl", "--out", "text"}).code, 0);
  for (const char* ending : {".bin", ".idx", ".json"})
    EXPECT_TRUE(read_file(dir_ / ("text" + std::string(ending))) ==
                read_file(dir_ / ("whole" + std::string(ending))))
        << ending;
  EXPECT_FALSE(std::filesystem::exists(dir_ / "text.partial"));
}

// The rate is that of what is left of 16 MB, about a quarter.
TEST_F(PrepareCommand, SaysWhereItGoesOnAndHowFastItWent) {
  const std::string document(400, 'x');
  std::string lines;
  for (int i = 0; i < 40'000; ++i) lines += i == 30'000 ? "{]\n" : "{\"text\": \"" + document + "\"}\n";
  const auto input = write_file(dir_ / "a.jsonl", lines);
  const pid_t child = ::fork();
  if (child == 0) {
    PrepareOptions options{.inputs = {input}, .max_bad = 1, .save_every_s = 0, .out = dir_ / "text"};
    options.on_bad_line = [](const std::string&) { ::raise(SIGKILL); };
    dsv3::prepare(options);
    ::_exit(0);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  ASSERT_TRUE(WIFSIGNALED(status));
  const Result result = prepare({input, "--out", dir_ / "text", "--max-bad", "1", "--threads", "2"});
  EXPECT_EQ(result.code, 0) << result.err;
  std::smatch found;
  ASSERT_TRUE(std::regex_search(result.err, found, std::regex("text\\.partial: goes on behind (2[0-9]+) ")))
      << result.err;
  const double left = (39'999 - std::stod(found[1])) * 400 / 1e6;
  EXPECT_NE(result.out.find("39999 documents, 16039599 tokens"), std::string::npos) << result.out;
  ASSERT_TRUE(std::regex_search(result.out, found, std::regex("\n([0-9.]+) s, ([0-9.]+) MB/s")))
      << result.out;
  EXPECT_NEAR(std::stod(found[1]) * std::stod(found[2]), left, left / 2) << result.out;
  EXPECT_FALSE(std::filesystem::exists(dir_ / "text.partial"));
}

TEST_F(PrepareCommand, InterruptIs130AndTermination143) {
  std::filesystem::resize_file(write_file(dir_ / "large.txt", ""),
                               2000000000);  // long enough to be interrupted
  for (const auto& [signal, code] : {std::pair(SIGINT, 130), std::pair(SIGTERM, 143)}) {
    const Result result = dsv3({"prepare", "large.txt", "--out", "text"},
                               {.cwd = dir_.path(), .signal = signal, .signal_after_ms = 100});
    EXPECT_EQ(result.code, code) << result.err;
    EXPECT_FALSE(std::filesystem::exists(dir_ / "text.bin"));
    EXPECT_FALSE(std::filesystem::exists(dir_ / "text.idx"));
  }
}

}  // namespace
}  // namespace dsv3::test
