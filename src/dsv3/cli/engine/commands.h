#pragma once
// The engine's commands. Arguments after the name; the exit code is returned, errors are thrown.

#include <string>
#include <vector>

namespace dsv3 {

int train_command(std::vector<std::string> args);
int eval_command(std::vector<std::string> args);
int generate_command(std::vector<std::string> args);
int trace_command(std::vector<std::string> args);
int doctor_command(std::vector<std::string> args);
int bench_steps_command(std::vector<std::string> args);

}  // namespace dsv3
