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
#include "dsv3/cli/engine/ranks.h"
#include "dsv3/data/tokenizer.h"
#include "dsv3/data/utf8_stream.h"
#include "dsv3/formats/npy.h"
#include "dsv3/ops/torch_pch.h"

namespace dsv3 {
namespace {

struct Arguments {
  std::string model, prompt, tokens, out, tokenizer = std::string(ByteTokenizer::kName);
  GenerateOptions options;
};

void check_arguments(const CLI::App& app, const Arguments& arguments) {
  const bool text = app.count("--prompt") > 0, tokens = app.count("--tokens") > 0;
  if (text == tokens) throw UsageError("dsv3 generate", "takes either --prompt TEXT or --tokens FILE.npy");
  if (tokens != (app.count("--out") > 0)) throw UsageError("--out", "goes together with --tokens");
  if (text && arguments.prompt.empty())
    throw UsageError("--prompt", "is empty", "generation needs a token to start from");
  if (arguments.tokenizer != ByteTokenizer::kName)
    throw UsageError("--tokenizer", printable(arguments.tokenizer) + " is not supported yet, expected byte");
  if (tokens) {
    require_exists(arguments.tokens);
    require_exists(std::filesystem::absolute(arguments.out).parent_path());
  }
  arguments.options.validate();
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

// Documents were cut by the tokenizer's own eos, whatever the configuration calls eos.
void continue_text(Model& model, const Arguments& arguments) {
  for (const char* name : {"tokenizer.json", "tokenizer_config.json", "tiktoken.model"})
    if (std::filesystem::exists(model_folder(arguments.model) / name))
      throw UsageError("--prompt",
                       "the model has a tokenizer of its own (" + std::string(name) + "), not supported yet",
                       "give tokens with --tokens");
  if (model.config().vocab_size < ByteTokenizer::kVocab)
    throw InputError(arguments.model, "vocab_size",
                     fmt::format("{} is smaller than the byte tokenizer's {}", model.config().vocab_size,
                                 ByteTokenizer::kVocab),
                     "give tokens with --tokens");
  const std::vector<int32_t> ids = ByteTokenizer::encode(arguments.prompt);
  const at::Tensor prompt =
      at::tensor(at::IntArrayRef(std::vector<int64_t>(ids.begin(), ids.end())), at::kLong);
  Utf8Stream stream;
  auto print = [](const std::string& text) {
    fmt::print("{}", text);
    std::fflush(stdout);
  };
  GenerateOptions options = arguments.options;
  options.eos = ByteTokenizer::kEos;
  options.on_token = [&](int64_t, int64_t token) {
    const int32_t id = static_cast<int32_t>(token);
    print(stream.add(ByteTokenizer::decode({&id, 1})));
  };
  generate(model, prompt.unsqueeze(0).to(model.exec().device), {}, options);
  print(stream.finish() + "\n");
}

}  // namespace

int generate_command(std::vector<std::string> args) {
  CLI::App app(
      "Continues a text, or rows of tokens. Prints or writes the new part alone, up to the end token.",
      "generate");
  Arguments arguments;
  GenerateOptions& options = arguments.options;
  app.add_option("--model", arguments.model, "Hugging Face folder or run folder")->required();
  app.add_option("--prompt", arguments.prompt, "text to continue");
  app.add_option("--tokens", arguments.tokens, "FILE.npy of token ids [B, S] to continue");
  app.add_option("--out", arguments.out,
                 "FILE.npy for the new ids; behind a row's end token stand end tokens");
  app.add_option("--tokenizer", arguments.tokenizer, "byte")->capture_default_str();
  app.add_option("--max-new-tokens", options.max_new_tokens, "tokens a row")->capture_default_str();
  app.add_option("--temperature", options.temperature, "0: always the likeliest token")
      ->capture_default_str();
  app.add_option("--top-p", options.top_p, "sample among the likeliest that together reach this probability")
      ->capture_default_str();
  app.add_option("--top-k", options.top_k, "sample among the k likeliest; 0: all")->capture_default_str();
  app.add_option("--seed", options.seed, "of sampling")->capture_default_str();
  const std::vector<std::string> run_flags = take_run_flags(args);
  if (!parse_args(app, args)) return 0;
  check_arguments(app, arguments);

  const LoadedModel loaded = load_model(arguments.model, run_flags);
  if (arguments.tokens.empty()) {
    continue_text(*loaded.model, arguments);
  } else {
    continue_tokens(*loaded.model, arguments);
  }
  return 0;
}

}  // namespace dsv3
