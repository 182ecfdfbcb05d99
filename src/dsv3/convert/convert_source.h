#pragma once
// The model that a conversion writes, and where its parameters stand in the source.

#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "dsv3/convert/convert.h"
#include "dsv3/convert/model_weights.h"

namespace dsv3 {

class ConvertSource {
 public:
  // As convert() says of source, options.config and options.layers.
  ConvertSource(const std::filesystem::path& folder, const ConvertOptions& options);

  const ModelConfig& config() const {
    return config_;
  }  // of the result: fewer layers, the MTP modules there are
  const ParamTable& table() const { return table_; }
  int64_t missing_mtp() const { return missing_mtp_; }
  DType dtype(const ParamSpec& spec) const { return weights_->dtype(origin_.at(spec.name)); }  // as stored
  const std::string& file() const { return weights_->file(); }                                 // for messages
  // Elements [begin, begin + count) of a parameter of table(), in dtype; out gets their size. Safe from
  // several threads.
  void read(const ParamSpec& spec, int64_t begin, int64_t count, DType dtype,
            std::vector<std::byte>& out) const;
  void read(const ParamSpec& spec, int64_t begin, std::span<float> out) const;
  // As ModelWeights::read_fp8().
  bool read_fp8(const ParamSpec& spec, int64_t begin, std::span<std::byte> codes,
                std::span<float> scales) const {
    return weights_->read_fp8(origin_.at(spec.name), begin, codes, scales);
  }

 private:
  std::unique_ptr<ModelWeights> weights_;
  int64_t missing_mtp_ = 0;
  ModelConfig config_;
  ParamTable table_;
  std::map<std::string, ParamSpec> origin_;  // in the source, by name in table_
};

}  // namespace dsv3
