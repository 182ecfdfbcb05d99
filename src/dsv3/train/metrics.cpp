#include "dsv3/train/metrics.h"

#include <fmt/format.h>

#include <cmath>
#include <fstream>

namespace dsv3 {
namespace {

constexpr double kWaitShown = 0.05;  // of a step: from there on a wait is worth a word

std::string number(double value) { return std::isfinite(value) ? fmt::format("{:.17g}", value) : "null"; }

const LayerLoad* worst(const std::vector<LayerLoad>& load) {
  const LayerLoad* found = nullptr;
  for (const LayerLoad& layer : load)
    if (!found || layer.max_violation > found->max_violation) found = &layer;
  return found;
}

std::string duration(double seconds) {
  const auto total = static_cast<int64_t>(seconds);
  if (total < 3600) return fmt::format("{}:{:02}", total / 60, total % 60);
  return fmt::format("{}:{:02}:{:02}", total / 3600, total / 60 % 60, total % 60);
}

}  // namespace

std::string json_line(const StepMetrics& m) {
  const LayerLoad* load = worst(m.load);
  int64_t dead = 0;
  for (const LayerLoad& layer : m.load) dead += layer.dead;
  std::string comm;
  for (const StepMetrics::Comm& group : m.comm)
    comm += fmt::format(R"({}"{}":{{"calls":{},"bytes":{}}})", comm.empty() ? "" : ",", group.group,
                        group.calls, group.bytes);
  return fmt::format(
      R"({{"step":{},"tokens":{},"loss":{},"lm_loss":{},"mtp_loss":{},"balance_loss":{},"lr":{},"grad_norm":{},)"
      R"("tokens_per_s":{},"step_s":{},"data_s":{},"comm_s":{},"save_s":{},"mem_bytes":{},"max_vio":{},)"
      R"("dead_experts":{},"skipped":{},"comm":{{{}}}}})",
      m.step, m.tokens, number(m.loss), number(m.lm_loss), number(m.mtp_loss), number(m.balance_loss),
      number(m.lr), number(m.grad_norm), number(static_cast<double>(m.step_tokens) / m.step_s),
      number(m.step_s), number(m.data_s), number(m.comm_s), number(m.save_s), m.mem_bytes,
      number(load ? load->max_violation : 0), dead, m.skipped, comm);
}

std::string json_line(const EvalResult& eval, int64_t step, int64_t tokens) {
  return fmt::format(R"({{"step":{},"tokens":{},"eval_loss":{},"eval_targets":{}}})", step, tokens,
                     number(eval.loss), eval.targets);
}

std::string json_line(const std::vector<LayerLoad>& load, int64_t step) {
  std::string layers;
  for (const LayerLoad& layer : load)
    layers += fmt::format(R"({}{{"layer":{},"max_vio":{},"dead":{},"bias_min":{},"bias_max":{}}})",
                          layers.empty() ? "" : ",", layer.layer, number(layer.max_violation), layer.dead,
                          number(layer.bias_min), number(layer.bias_max));
  return fmt::format(R"({{"step":{},"load":[{}]}})", step, layers);
}

std::string step_header() {
  return fmt::format("{:>11} {:>8} {:>8} {:>8} {:>8} {:>9} {:>8} {:>7} {:>13} {:>8}", "step", "loss", "lm",
                     "mtp", "grad", "lr", "tok/s", "memory", "worst load", "left");
}

std::string step_line(const StepMetrics& m, int64_t total_steps, double remaining_s) {
  const LayerLoad* load = worst(m.load);
  const std::string loaded =
      load ? fmt::format("{:.2f}x layer {}", 1 + load->max_violation, load->layer) : "-";
  auto waited = [&](const char* what, double seconds) {
    return seconds > kWaitShown * m.step_s ? fmt::format("  {} {:.2f}s", what, seconds) : "";
  };
  return fmt::format(
      "{:>11} {:>8.4f} {:>8.4f} {:>8.4f} {:>8.3f} {:>9.2e} {:>8.0f} {:>6.2f}G {:>13} {:>8}{}{}{}",
      total_steps > 0 ? fmt::format("{}/{}", m.step, total_steps) : fmt::format("{}", m.step), m.loss,
      m.lm_loss, m.mtp_loss, m.grad_norm, m.lr, static_cast<double>(m.step_tokens) / m.step_s,
      static_cast<double>(m.mem_bytes) / (1 << 30), loaded, remaining_s < 0 ? "-" : duration(remaining_s),
      waited("data", m.data_s), waited("save", m.save_s),
      m.skipped ? fmt::format("  skipped {}", m.skipped) : "");
}

int64_t memory_bytes(const char* field) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.starts_with(field)) return std::stoll(line.substr(6)) * 1024;
  return 0;
}

}  // namespace dsv3
