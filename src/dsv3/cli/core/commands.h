#pragma once
// The commands that need no engine, a file each. Arguments after the name; exit code; may throw Error.

#include <string>
#include <vector>

namespace dsv3 {

int ckpt_command(std::vector<std::string> args);
int config_command(std::vector<std::string> args);
int convert_command(std::vector<std::string> args);
int data_command(std::vector<std::string> args);
int export_command(std::vector<std::string> args);
int prepare_command(std::vector<std::string> args);
int tokenizer_command(std::vector<std::string> args);
int tokenizer_train_command(std::vector<std::string> args);  // called by tokenizer_command

}  // namespace dsv3
