// dsv3 generate --model DIR: continues a text, or rows of tokens.
#include "dsv3/train/generate.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <filesystem>

#include "dsv3/base/error.h"
#include "dsv3/base/file.h"
#include "dsv3/cli/command.h"
#include "dsv3/cli/engine/commands.h"
#include "dsv3/cli/engine/load_model.h"
#include "dsv3/comm/agreement.h"
#include "dsv3/data/tokenizer.h"
#include "dsv3/formats/npy.h"
#include "dsv3/ops/torch_pch.h"

namespace dsv3 {
namespace {

struct Arguments {
  ModelFlags model;
  std::string prompt, tokens, out, tokenizer;
  GenerateOptions options;
};

void check_arguments(const CLI::App& app, const Arguments& arguments) {
  const bool text = app.count("--prompt") > 0, tokens = app.count("--tokens") > 0;
  if (text == tokens) throw UsageError("dsv3 generate", "takes either --prompt TEXT or --tokens FILE.npy");
  if (tokens != (app.count("--out") > 0)) throw UsageError("--out", "goes together with --tokens");
  if (tokens)
    require_output("--out", arguments.out,
                   {arguments.model.folder, arguments.model.config, arguments.tokens});
  if (text && arguments.prompt.empty())
    throw UsageError("--prompt", "is empty", "generation needs a token to start from");
}

// FILE.npy: [S] or [B, S].
at::Tensor read_tokens(const std::string& path, int64_t vocab_size) {
  const NpyArray array = read_npy_int(path);
  if (array.shape.empty() || array.shape.size() > 2 || array.values.empty())
    throw InputError(path, "shape", "is not [S] or [B, S] with tokens in it");
  for (size_t i = 0; i < array.values.size(); ++i)
    if (array.values[i] < 0 || array.values[i] >= vocab_size)
      throw InputError(path, fmt::format("element {}", i),
                       fmt::format("{}, expected a token of 0 to {}", array.values[i], vocab_size - 1));
  return at::tensor(array.values, at::kLong).view({-1, array.shape.back()});
}

void continue_tokens(Model& model, const Arguments& arguments) {
  GenerateOptions options = arguments.options;
  options.eos = model.config().eos_token_id;
  const at::Device device = model.exec().device;
  const at::Tensor prompt = read_tokens(arguments.tokens, model.config().vocab_size);
  const at::Tensor tokens = generate(model, prompt.to(device), {}, options).to(at::kCPU).contiguous();
  on_rank_zero(model.mesh(), [&] {
    write_npy_int64(arguments.out, tokens.sizes(),
                    {tokens.const_data_ptr<int64_t>(), static_cast<size_t>(tokens.numel())});
  });
}

// What --tokenizer names, else the model's own, else bytes.
std::unique_ptr<const Tokenizer> tokenizer_of(const std::filesystem::path& folder, const std::string& flag) {
  if (!flag.empty()) return open_tokenizer(flag);
  if (std::filesystem::exists(folder / "tokenizer.json"))
    return open_tokenizer((folder / "tokenizer.json").string());
  for (const char* name : {"tokenizer_config.json", "tiktoken.model"})
    if (std::filesystem::exists(folder / name))
      throw UsageError(
          "--prompt",
          "the model has a tokenizer of its own, but no tokenizer.json (" + std::string(name) + ")",
          "name one with --tokenizer, or give tokens with --tokens");
  return open_tokenizer(std::string(ByteTokenizer::kName));
}

// Documents were cut by the tokenizer's own eos, whatever the configuration calls eos.
void continue_text(const LoadedModel& loaded, const Arguments& arguments) {
  Model& model = *loaded.model;
  const auto tokenizer = tokenizer_of(loaded.folder, arguments.tokenizer);
  if (model.config().vocab_size < tokenizer->vocab_size())
    throw InputError(loaded.folder.string(), "vocab_size",
                     fmt::format("{} is smaller than the {} of the tokenizer {}", model.config().vocab_size,
                                 tokenizer->vocab_size(), tokenizer->name()),
                     "name another with --tokenizer, or give tokens with --tokens");
  std::vector<int32_t> ids;
  tokenizer->encode(arguments.prompt, /*add_special=*/true, ids, "--prompt");
  const at::Tensor prompt =
      at::tensor(at::IntArrayRef(std::vector<int64_t>(ids.begin(), ids.end())), at::kLong);
  DecodeStream stream(*tokenizer, /*skip_special=*/true);
  auto print = [](const std::string& text) {
    fmt::print("{}", text);
    std::fflush(stdout);
  };
  GenerateOptions options = arguments.options;
  const std::optional<int32_t> eos = tokenizer->eos();
  options.eos = eos ? std::optional<int64_t>(*eos) : model.config().eos_token_id;
  options.on_token = [&](int64_t, int64_t token) { print(stream.add(static_cast<int32_t>(token))); };
  generate(model, prompt.unsqueeze(0).to(model.exec().device), {}, options);
  print(stream.finish() + "\n");
}

}  // namespace

int generate_command(std::vector<std::string> args) {
  CLI::App app(
      "Continues a text, or rows of tokens. Prints or writes the new part alone, up to the end token.",
      "dsv3 generate");
  Arguments arguments;
  arguments.model.keys = {"model.",      "ops.",         "parallel.",
                          "train.dtype", "train.device", "train.deterministic"};
  GenerateOptions& options = arguments.options;
  arguments.model.add_to(app);
  app.add_option("--prompt", arguments.prompt, "text to continue");
  app.add_option("--tokens", arguments.tokens, "FILE.npy of token ids [B, S] to continue");
  app.add_option("--out", arguments.out,
                 "FILE.npy for the new ids; behind a row's end token stand end tokens");
  app.add_option("--tokenizer", arguments.tokenizer,
                 "a tokenizer.json, a folder that has one, or byte; default: the model's own");
  app.add_option("--max-new-tokens", options.max_new_tokens, "tokens a row")->capture_default_str();
  app.add_option("--temperature", options.temperature, "0: always the likeliest token")
      ->capture_default_str();
  app.add_option("--top-p", options.top_p, "sample among the likeliest that together reach this probability")
      ->capture_default_str();
  app.add_option("--top-k", options.top_k, "sample among the k likeliest; 0: all")->capture_default_str();
  app.add_option("--seed", options.seed, "of sampling")->capture_default_str()->check(at_least(0));
  const std::vector<std::string> run_flags = take_run_flags(args);
  if (!parse_args(app, args)) return 0;
  check_arguments(app, arguments);

  const LoadedModel loaded = load_model(arguments.model, run_flags);
  return reported([&] {
    if (arguments.tokens.empty()) {
      continue_text(loaded, arguments);
    } else {
      continue_tokens(*loaded.model, arguments);
    }
    return 0;
  });
}

}  // namespace dsv3
