#pragma once
// The files that a conversion writes, of either format.

#include <functional>
#include <string>
#include <vector>

#include "dsv3/convert/convert_source.h"
#include "dsv3/convert/dcp_part.h"
#include "dsv3/convert/hf_plan.h"

namespace dsv3 {

constexpr int64_t kConvertPiece = 8 << 20;  // elements that travel at a time: 16 MiB of bf16

// Counts what is written, for who watches.
class Meter {
 public:
  Meter(uint64_t total, const ConvertProgress& progress) : total_(total), progress_(progress) {}
  void add(uint64_t bytes) {
    done_ += bytes;
    if (progress_) progress_(done_, total_);
  }

 private:
  uint64_t done_ = 0, total_;
  const ConvertProgress& progress_;
};

// A file of the result: its name, the bytes of its tensors, and how it is written.
struct OutputFile {
  std::string name;
  uint64_t bytes = 0;
  std::function<DcpPart(const std::filesystem::path&, Meter&)> write;
};

using DTypeOf = std::function<DType(const ParamSpec&)>;
// source and shards outlive the result.
std::vector<OutputFile> plan_hf_output(const ConvertSource& source, const std::vector<HfShard>& shards);
std::vector<OutputFile> plan_dcp_output(const ConvertSource& source, const DTypeOf& dtype_of,
                                        uint64_t max_bytes);

}  // namespace dsv3
