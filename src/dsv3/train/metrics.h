#pragma once
// What a step reports: a line of metrics.jsonl and a line for a person.

#include <string>
#include <vector>

#include "dsv3/config/run_config.h"
#include "dsv3/train/evaluate.h"

namespace dsv3 {

struct StepMetrics {
  int64_t step = 0;    // from 1
  int64_t tokens = 0;  // input positions without padding, cumulative
  double loss = 0, lm_loss = 0, mtp_loss = 0, balance_loss = 0;
  double lr = 0, grad_norm = 0;
  double step_s = 0, data_s = 0,
         comm_s = 0;  // data_s, comm_s: this rank's waiting for its batch, in collectives
  double save_s = 0;  // training stood still for a checkpoint since the step before
  int64_t step_tokens = 0;
  int64_t mem_bytes = 0;  // peak resident memory of the process
  std::vector<LayerLoad> load;
  int64_t skipped = 0;  // cumulative
  // What the step moved: calls of one rank, payload of all ranks (GroupCounters). Groups of one are left out.
  struct Comm {
    std::string group;
    int64_t calls = 0, bytes = 0;
  };
  std::vector<Comm> comm;
};

// One JSON object; numbers with 17 significant digits, non-finite ones null, so that runs compare bit for
// bit.
std::string json_line(const StepMetrics& metrics);
std::string json_line(const EvalResult& eval, int64_t step, int64_t tokens);
// Each layer's load at a step; the router biases are those after it.
std::string json_line(const std::vector<LayerLoad>& load, int64_t step);

// The aligned line that a person reads; remaining_s < 0: unknown. Waits for data and saves show when they
// cost a twentieth of a step.
std::string step_line(const StepMetrics& metrics, int64_t total_steps, double remaining_s);
std::string step_header();

// Of this process, from /proc/self/status: "VmHWM:" (the peak) or "VmRSS:".
int64_t memory_bytes(const char* field);

}  // namespace dsv3
