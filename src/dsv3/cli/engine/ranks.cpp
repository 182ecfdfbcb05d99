#include "dsv3/cli/engine/ranks.h"

#include <cstdio>
#include <cstring>

#include "dsv3/base/error.h"
#include "dsv3/ops/torch_pch.h"

namespace dsv3 {
namespace {

constexpr int64_t kMessage = 2048;  // bytes that travel; a longer message is cut

// An error whose text is whole already.
struct Repeated : Error {
  Repeated(ExitCode code, const std::string& text) : Error(code, "", text) {}
};

}  // namespace

void speak_on_rank_zero(const Mesh& mesh) {
  if (mesh.rank() == 0) return;
  std::fflush(stdout);
  if (!std::freopen("/dev/null", "w", stdout)) throw RunError("/dev/null", "cannot be opened");
}

void on_rank_zero(const Mesh& mesh, const std::function<void()>& fn) {
  // [code, bytes of text …], as integers that are summed: every other rank gives zeros.
  std::vector<int64_t> message(1 + kMessage, 0);
  if (mesh.rank() == 0) {
    try {
      fn();
    } catch (const Error& error) {
      if (mesh.world_size() == 1) throw;
      message[0] = static_cast<int64_t>(error.code());
      for (size_t i = 0; i < std::min<size_t>(kMessage, std::strlen(error.what())); ++i)
        message[1 + i] = static_cast<unsigned char>(error.what()[i]);
    }
  }
  if (mesh.world_size() == 1) return;
  message = mesh.sum(message, "rank 0's work");
  if (message[0] == 0) return;
  std::string text;
  for (size_t i = 1; i < message.size() && message[i] != 0; ++i) text += static_cast<char>(message[i]);
  throw Repeated(static_cast<ExitCode>(message[0]), text);
}

}  // namespace dsv3
