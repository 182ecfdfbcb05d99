#include "dsv3/config/shares.h"

#include <algorithm>
#include <charconv>
#include <numeric>
#include <optional>

#include "dsv3/base/checked.h"

namespace dsv3 {
namespace {

// digits * 10^exponent.
struct Decimal {
  int64_t digits = 0;
  int exponent = 0;
};

// The shortest decimal that reads back as value: at most 17 digits.
Decimal shortest_decimal(double value) {
  char text[32];
  const char* end = std::to_chars(text, text + sizeof text, value, std::chars_format::scientific).ptr;
  const char* at = text;
  Decimal decimal;
  int behind_point = 0;
  bool point = false;
  for (; *at != 'e'; ++at) {
    if (*at == '.') {
      point = true;
      continue;
    }
    decimal.digits = decimal.digits * 10 + (*at - '0');
    behind_point += point ? 1 : 0;
  }
  ++at;
  if (*at == '+') ++at;  // from_chars knows no plus
  std::from_chars(at, end, decimal.exponent);
  decimal.exponent -= behind_point;
  return decimal;
}

std::optional<int64_t> times_power_of_ten(int64_t digits, int power) {
  std::optional<int64_t> value = digits;
  for (; power > 0 && value; --power) value = checked_mul<int64_t>(*value, 10);
  return value;
}

}  // namespace

std::vector<int64_t> whole_shares(std::span<const double> weights) {
  std::vector<Decimal> decimals;
  for (const double weight : weights) decimals.push_back(shortest_decimal(weight));
  const auto finest = std::min_element(decimals.begin(), decimals.end(),
                                       [](const auto& a, const auto& b) { return a.exponent < b.exponent; });
  std::vector<int64_t> shares;
  int64_t divisor = 0;
  for (const Decimal& decimal : decimals) {
    const auto share = times_power_of_ten(decimal.digits, decimal.exponent - finest->exponent);
    if (!share) return {};
    shares.push_back(*share);
    divisor = std::gcd(divisor, *share);
  }
  int64_t sum = 0;
  for (int64_t& share : shares) {
    share /= divisor;
    if (share > kMaxBlendPeriod - sum) return {};
    sum += share;
  }
  return shares;
}

bool is_blend(std::span<const DataSource> sources) {
  return sources.size() > 1 && std::any_of(sources.begin(), sources.end(),
                                           [](const auto& source) { return source.weight.has_value(); });
}

std::vector<int64_t> blend_shares(std::span<const DataSource> sources) {
  std::vector<double> weights;
  for (const DataSource& source : sources) weights.push_back(source.weight.value_or(1));
  return whole_shares(weights);
}

}  // namespace dsv3
