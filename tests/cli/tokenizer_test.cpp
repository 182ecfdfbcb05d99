#include <poll.h>

#include "cli/run.h"

namespace dsv3::test {
namespace {

class TokenizerCommand : public testing::Test {
 protected:
  Result run(std::vector<std::string> args, std::string_view input, std::string tokenizer = golden()) {
    args.insert(args.begin(), "tokenizer");
    args.insert(args.end(), {"--tokenizer", std::move(tokenizer)});
    return dsv3(args, {.in_from = write_file(dir_ / "in", input)});
  }
  static std::string golden() { return DSV3_SOURCE_DIR "/tests/data/tokenizers/llama3"; }
  TempDir dir_;
};

TEST_F(TokenizerCommand, EncodesAndDecodes) {
  const std::string text = "The word's\n\n  end é中 12345";
  const Result ids = run({"encode"}, text);
  ASSERT_EQ(ids.code, 0) << ids.err;
  EXPECT_EQ(std::count(ids.out.begin(), ids.out.end(), '\n'), 1);
  EXPECT_EQ(run({"decode"}, ids.out).out, text);
  const Result special = run({"encode", "--special"}, text);
  EXPECT_EQ(special.out, "0 " + ids.out.substr(0, ids.out.size() - 1) + " 1\n");
  EXPECT_EQ(run({"decode"}, special.out).out, "<|bos|>" + text + "<|eos|>");
  EXPECT_EQ(run({"decode", "--skip-special"}, special.out).out, text);
  EXPECT_EQ(run({"encode"}, "a\xff", "byte").out, "97 255\n");
}

TEST_F(TokenizerCommand, JsonLinesAreTextsByThemselves) {
  const std::string lines = "\"a\\nb\"\n\"\"\n\"中\"\n";
  const Result ids = run({"encode", "--json-lines"}, lines);
  EXPECT_EQ(std::count(ids.out.begin(), ids.out.end(), '\n'), 3) << ids.err;
  EXPECT_EQ(run({"decode", "--json-lines"}, ids.out).out, lines);
}

TEST_F(TokenizerCommand, ThreadsKeepTheOrder) {
  std::string lines;
  for (int i = 0; i < 30'000; ++i) lines += "\"line " + std::to_string(i * 7919) + " of é\"\n";
  const Result one = run({"encode", "--json-lines", "--threads", "1", "--time"}, lines);
  EXPECT_EQ(std::count(one.out.begin(), one.out.end(), '\n'), 30'000) << one.err;
  EXPECT_EQ(one.err.find("dsv3: "), 0u) << one.err;
  EXPECT_EQ(run({"encode", "--json-lines", "--threads", "3"}, lines).out, one.out);
  // What stands before a bad line is printed, for any number of threads.
  lines.insert(lines.find("\"line 7919 "), "7\n");
  for (const char* threads : {"1", "3"}) {
    const Result bad = run({"encode", "--json-lines", "--threads", threads}, lines);
    expect_failure(bad, ExitCode::content, {"standard input: line 2: is no JSON string"});
    EXPECT_EQ(bad.out, one.out.substr(0, one.out.find('\n') + 1));
  }
  for (const char* threads : {"0", "-1", "x", "1025", "99999999999999999999"})
    expect_failure(run({"encode", "--threads=" + std::string(threads)}, ""), ExitCode::usage, {"--threads"});
}

TEST_F(TokenizerCommand, ErrorsOfLinesNameThem) {
  const auto encode = [&](std::string_view lines) { return run({"encode", "--json-lines"}, lines); };
  expect_failure(encode("\"a\"\n\"b\"\n\"c"), ExitCode::content, {"standard input: line 3: byte 3: "});
  expect_failure(encode("\"a\"\n\n"), ExitCode::content, {"standard input: line 2: byte 1: "});
  expect_failure(encode("\"a\"\n[\"a\"]\n"), ExitCode::content, {"standard input: line 2: "});
  expect_failure(encode("\"a\"\n\"\xff\"\n"), ExitCode::content, {"standard input: line 2: byte 2: "});
  expect_failure(encode("\"\\ud800\"\n"), ExitCode::content, {"standard input: line 1: byte ", "surrogate"});
}

// The program with a pipe at either end.
class Conversation {
 public:
  explicit Conversation(std::vector<std::string> args) {
    int in[2], out[2];
    EXPECT_EQ(::pipe(in) + ::pipe(out), 0);
    child_ = ::fork();
    if (child_ == 0) {
      ::dup2(in[0], 0);
      ::dup2(out[1], 1);
      for (const int fd : {in[0], in[1], out[0], out[1]}) ::close(fd);
      args.insert(args.begin(), dsv3_program().string());
      std::vector<char*> argv;
      for (std::string& arg : args) argv.push_back(arg.data());
      argv.push_back(nullptr);
      ::execv(argv[0], argv.data());
      ::_exit(127);
    }
    ::close(in[0]);
    ::close(out[1]);
    to_ = in[1];
    from_ = out[0];
  }
  ~Conversation() {
    ::close(to_);
    ::close(from_);
    ::waitpid(child_, nullptr, 0);
  }
  Conversation(const Conversation&) = delete;

  // Says text; what is answered until it is as long as expected, or half a minute has passed.
  std::string ask(std::string_view text, size_t expected) {
    EXPECT_EQ(::write(to_, text.data(), text.size()), static_cast<ssize_t>(text.size()));
    std::string answer;
    pollfd ready{from_, POLLIN, 0};
    while (answer.size() < expected && ::poll(&ready, 1, 30'000) == 1) {
      char piece[256];
      const ssize_t size = ::read(from_, piece, sizeof piece);
      if (size <= 0) break;
      answer.append(piece, static_cast<size_t>(size));
    }
    return answer;
  }

 private:
  pid_t child_ = 0;
  int to_ = -1, from_ = -1;
};

TEST_F(TokenizerCommand, DecodesWhileIdsArrive) {
  Conversation words({"tokenizer", "decode", "--tokenizer", "byte"});
  EXPECT_EQ(words.ask("72 105 195 ", 2), "Hi");
  EXPECT_EQ(words.ask("169 3", 2), "é");  // and the beginning of an id
  EXPECT_EQ(words.ask("3\n", 1), "!");
  Conversation lines({"tokenizer", "decode", "--tokenizer", "byte", "--json-lines"});
  EXPECT_EQ(lines.ask("72 105\n33 ", 5), "\"Hi\"\n");
  EXPECT_EQ(lines.ask("33\n", 5), "\"!!\"\n");
}

TEST_F(TokenizerCommand, Errors) {
  expect_failure(dsv3({"tokenizer"}), ExitCode::usage, {"subcommand"});
  expect_failure(dsv3({"tokenizer", "encode"}), ExitCode::usage, {"--tokenizer"});
  expect_failure(run({"encode"}, "a", "none.json"), ExitCode::usage, {"--tokenizer: none.json"});
  expect_failure(run({"encode"}, "ab\xff"), ExitCode::content, {"standard input: byte 2: is not UTF-8"});
  expect_failure(run({"encode", "--json-lines"}, "7\n"), ExitCode::content, {"standard input"});
  expect_failure(run({"decode"}, "1 2 x"), ExitCode::content, {"standard input: id 2: x, expected 0 to"});
  expect_failure(run({"decode"}, "-1"), ExitCode::content, {"id 0: -1"});
  expect_failure(run({"decode"}, "99999999999"), ExitCode::content, {"id 0: 99999999999"});
}

TEST_F(TokenizerCommand, TrainsWhatPrepareUses) {
  const auto text = write_file(dir_ / "a.txt", "In the beginning was the Word, and the Word was with God\n");
  const std::string out = dir_ / "out";
  const Result trained = dsv3({"tokenizer", "train", text, "--vocab-size", "280", "--out", out});
  EXPECT_EQ(trained.code, 0) << trained.err;
  EXPECT_EQ(trained.err.find("dsv3: warning: 2"), 0u) << trained.err;
  EXPECT_NE(trained.out.find("out/tokenizer.json: 2"), std::string::npos) << trained.out;
  EXPECT_EQ(run({"encode"}, "<｜begin▁of▁sentence｜>", out).out, "0\n");
  const Result ids = run({"encode"}, "the Word", out);
  EXPECT_EQ(run({"decode"}, ids.out, out).out, "the Word");
  EXPECT_EQ(dsv3({"prepare", text, "--tokenizer", out, "--out", dir_ / "p"}).code, 0);

  const Result again = dsv3({"tokenizer", "train", text,        "--vocab-size", "261",
                             "--out",     out,     "--special", "<a>,<b>",      "--json",
                             "--threads", "3",     "--pattern", "gpt2",         "--min-frequency",
                             "1",         "--bos", "",          "--pad",        "",
                             "--eos",     "<e>"});
  EXPECT_EQ(again.code, 0) << again.err;
  EXPECT_EQ(again.err, "");
  EXPECT_NE(again.out.find("\"vocab_size\":261,\"merges\":2,"), std::string::npos) << again.out;
  EXPECT_EQ(run({"encode"}, "<e><a><b>", out).out, "0 1 2\n");
}

TEST_F(TokenizerCommand, TrainsOnJsonLinesFoldersAndStandardInput) {
  std::filesystem::create_directory(dir_ / "in");
  write_file(dir_ / "in/a.jsonl", "{\"body\": \"the Word and the Word\"}\n{]\n");
  const auto train = [&](std::vector<std::string> args, const std::filesystem::path& input = "/dev/null") {
    args.insert(args.begin(), {"tokenizer", "train"});
    args.insert(args.end(), {"--vocab-size", "262", "--out", dir_ / "out", "--json"});
    return dsv3(args, {.in_from = input});
  };
  expect_failure(train({dir_ / "in", "--text-key", "body"}), ExitCode::content,
                 {"a.jsonl:2: no JSON", "--max-bad"});
  const Result folder = train({dir_ / "in", "--text-key", "body", "--max-bad", "1"});
  EXPECT_EQ(folder.code, 0) << folder.err;
  EXPECT_NE(folder.err.find("warning: skipped "), std::string::npos) << folder.err;
  EXPECT_NE(folder.out.find("\"merges\":3,\"bytes\":21,"), std::string::npos) << folder.out;
  const Result piped =
      train({"-", "--format", "lines"}, write_file(dir_ / "text", "the Word\nand\nthe Word"));
  EXPECT_EQ(piped.code, 0) << piped.err;
  EXPECT_NE(piped.out.find("\"bytes\":19,"), std::string::npos) << piped.out;
}

TEST_F(TokenizerCommand, TrainErrors) {
  const auto text = write_file(dir_ / "a.txt", "text\xff");
  const auto train = [&](std::vector<std::string> args) {
    args.insert(args.begin(), {"tokenizer", "train"});
    const Result result = dsv3(args);
    EXPECT_FALSE(std::filesystem::exists(dir_ / "out"));
    return result;
  };
  const std::string out = dir_ / "out";
  expect_failure(train({}), ExitCode::usage, {"dsv3 tokenizer train"});
  expect_failure(train({text, "--out", out}), ExitCode::usage, {"--vocab-size"});
  expect_failure(train({text, "--vocab-size", "300"}), ExitCode::usage, {"--out"});
  expect_failure(train({"--vocab-size", "300", "--out", out}), ExitCode::usage, {"INPUT"});
  expect_failure(train({text, "--out", out, "--vocab-size", "300", "--vocab-sise", "3"}), ExitCode::usage,
                 {"--vocab-sise: unknown flag", "did you mean --vocab-size?"});
  expect_failure(train({text, "--out", out, "--vocab-size", "256"}), ExitCode::usage,
                 {"--vocab-size: 256, expected 259"});
  expect_failure(train({text, "--out", out, "--vocab-size", "99999999999999999999"}), ExitCode::usage,
                 {"--vocab-size"});
  expect_failure(train({text, "--out", out, "--vocab-size", "300", "--special", "<a>,,<b>"}), ExitCode::usage,
                 {"--special: an empty token"});
  expect_failure(train({"none.txt", "--out", out, "--vocab-size", "300"}), ExitCode::usage, {"none.txt"});
  expect_failure(train({text, "--out", out, "--vocab-size", "300"}), ExitCode::content,
                 {"a.txt: byte 4: is not UTF-8"});
  expect_failure(train({write_file(dir_ / "e.txt", ""), "--out", out, "--vocab-size", "300"}),
                 ExitCode::content, {"e.txt: no text"});
}

TEST_F(TokenizerCommand, OtherFormatsAreRefusedByName) {
  std::filesystem::create_directory(dir_ / "folder");
  const std::string folder = dir_ / "folder";
  expect_failure(run({"encode"}, "a", folder), ExitCode::content, {"folder/tokenizer.json: is missing"});
  const std::string model = write_file(dir_ / "folder/tiktoken.model", "IQ== 0\nIg== 1\n");
  for (const std::string& name : {folder, model}) {
    expect_failure(run({"encode"}, "a", name), ExitCode::content,
                   {"folder/tiktoken.model: tiktoken's format is not supported", "TikTokenConverter"});
  }
}

}  // namespace
}  // namespace dsv3::test
