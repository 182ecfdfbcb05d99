#pragma once
// The fields of config.json that ModelConfig reads, each with its limits, in the order in which they are
// written. Private to this room.

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "dsv3/config/model_config.h"

namespace dsv3 {

struct IntField {
  const char* key;
  int64_t ModelConfig::*member;
  int64_t min, max;
  bool moe = false;  // meaningless in a model without experts
};
struct RealField {
  const char* key;
  double ModelConfig::*member;
  double above;  // the value must be finite and greater than this
  bool moe = false;
};
struct BoolField {
  const char* key;
  bool ModelConfig::*member;
};
struct OptionalField {  // null and absent differ: absent keeps the default
  const char* key;
  std::optional<int64_t> ModelConfig::*member;
};

std::span<const IntField> int_fields();
std::span<const RealField> real_fields();
std::span<const BoolField> bool_fields();
std::span<const OptionalField> optional_fields();

// Every key that a run file may write under [model]: the fields above, RoPE's and those with one accepted
// value.
const std::vector<std::string>& known_model_keys();

// A JSON value in an error message: one short printable line.
std::string shown(const Json& value);

// InputError when the value is outside the field's limits.
void check_range(const IntField& field, const ModelConfig& config, std::string_view file);

// Keys of config.json that change the mathematics and have one accepted value. InputError names the first
// other one.
void check_fixed_keys(const Json& json, std::string_view file);

// Fills rope_theta and yarn from rope_scaling, rope_parameters, rope_theta and
// original_max_position_embeddings.
void read_rope(const Json& json, std::string_view file, ModelConfig& config);
// Writes rope_theta and rope_scaling.
void write_rope(const ModelConfig& config, Json& json);

}  // namespace dsv3
