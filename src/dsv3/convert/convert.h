#pragma once
// One checkpoint format into the other, streaming: a model of any size through a few pieces of 16 MiB.

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "dsv3/formats/dtype.h"

namespace dsv3 {

enum class FolderFormat { hf, dcp };

struct ConvertOptions {
  FolderFormat to = FolderFormat::dcp;
  // F32, BF16, F16, or F8_E4M3 (Hugging Face alone); the router's correction bias stays as it is. Nothing: as
  // stored, and FP8 as BF16. To F8_E4M3, what is stored so is copied byte for byte; of a DCP folder that
  // was made of it the values come back, those that the folder's dtype keeps (fp8.h).
  std::optional<DType> dtype;
  std::optional<int64_t> layers;  // the first N blocks, and the MTP modules
  bool from_reference = false;    // the source is a DCP folder in the layout of reference_store.h
  std::optional<std::filesystem::path> config;  // where the source holds no config.json
  int64_t part = 1, parts = 1;                  // this process writes every parts-th file; all parts are run
  bool dry_run = false;                         // reads headers, writes nothing
  uint64_t max_file_bytes = 5ull << 30;
};

struct ConvertSummary {
  int64_t tensors = 0, files = 0;  // of the result
  uint64_t bytes = 0;              // of its tensors
  int64_t files_kept = 0;          // of them written by an earlier run that was interrupted
  bool complete = false;           // false: other parts have files to write yet, or a dry run
  bool was_complete = false;       // before this run, which had nothing to do
  int64_t missing_mtp = 0;         // MTP modules that the source lacks; left out
  // Files beside the weights that are not carried over, each with the reason.
  std::vector<std::string> left_out = {};
};

// Bytes written so far and in all, of this part. Called from the caller's thread.
using ConvertProgress = std::function<void(uint64_t done, uint64_t total)>;

// What convert() says of its paths without a look at their content: source is no folder; target has no name,
// is the source, or lies in it.
void require_paths(const std::filesystem::path& source, const std::filesystem::path& target);

// source: a Hugging Face folder, a DCP folder or a run (its newest checkpoint). Written into TARGET.partial
// and renamed when it is whole, synced and has its manifest.json; an interrupted conversion goes on where it
// was. A part of a conversion that is complete finds nothing to do. UsageError: target is empty, exists, is
// the source or is being written by another process that is no other part, TARGET.partial is of another
// conversion, no config.json, from_reference and no DCP folder. InputError: the weights do not fit
// config.json, a byte differs from a manifest or a CRC.
ConvertSummary convert(const std::filesystem::path& source, const std::filesystem::path& target,
                       const ConvertOptions& options, const ConvertProgress& progress = {});

}  // namespace dsv3
