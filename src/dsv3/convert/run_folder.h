#pragma once
// Where a run folder keeps its checkpoints.

#include <cstdint>
#include <filesystem>
#include <optional>
#include <vector>

namespace dsv3 {

// RUN/checkpoints/step-N
std::filesystem::path checkpoint_path(const std::filesystem::path& run, int64_t step);
// The steps of the run's checkpoints, newest first; whether they are valid is not looked at. Folders of
// another name, and what was never finished, are left out. RunError when the folder is there and cannot be
// read.
std::vector<int64_t> list_checkpoints(const std::filesystem::path& run);
// What a writer that died has left: step-N.tmp.
void remove_unfinished(const std::filesystem::path& run);
// Renames checkpoints behind `step` to step-N.passed: the run goes on from `step`, and they are either
// damaged or of a past that is given up. RunError when that fails.
void set_aside_after(const std::filesystem::path& run, int64_t step);

// The run's tokenizer beside its weights: data.tokenizer's tokenizer.json, and what lies beside that:
// tokenizer_config.json, special_tokens_map.json, chat_template.jinja, generation_config.json. Nothing for
// "byte" or none.
void copy_tokenizer(const std::filesystem::path& tokenizer, const std::filesystem::path& folder);

}  // namespace dsv3
