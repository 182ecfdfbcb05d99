#include "dsv3/comm/agreement.h"

#include <algorithm>
#include <string>

#include "dsv3/base/error.h"

namespace dsv3 {
namespace {

constexpr size_t kMessage = 2048;  // bytes that travel

// An error whose text is whole already.
struct Repeated : Error {
  Repeated(ExitCode code, const std::string& text) : Error(code, "", text) {}
};

}  // namespace

void on_all_ranks(const Mesh& mesh, const std::function<void()>& fn) {
  int64_t code = 0;  // 0: all is well here
  std::string text;
  try {
    fn();
  } catch (const Error& error) {
    if (mesh.world_size() == 1) throw;
    code = static_cast<int64_t>(error.code());
    text = error.what();
  } catch (const std::exception& error) {
    code = static_cast<int64_t>(ExitCode::failed);
    text = error.what();
  }
  std::vector<int64_t> codes(static_cast<size_t>(mesh.world_size()), 0);
  codes[static_cast<size_t>(mesh.rank())] = code;
  codes = mesh.sum(codes, "agreement");
  const auto first = std::ranges::find_if(codes, [](int64_t c) { return c != 0; });
  if (first == codes.end()) return;
  // The text as integers that are summed: every other rank gives zeros.
  std::vector<int64_t> message(kMessage, 0);
  if (first - codes.begin() == mesh.rank())
    for (size_t i = 0; i < std::min(kMessage, text.size()); ++i)
      message[i] = static_cast<unsigned char>(text[i]);
  message = mesh.sum(message, "agreement");
  text.clear();
  for (const int64_t byte : message)
    if (byte != 0) text += static_cast<char>(byte);
  throw Repeated(static_cast<ExitCode>(*first), text);
}

void on_rank_zero(const Mesh& mesh, const std::function<void()>& fn) {
  on_all_ranks(mesh, [&] {
    if (mesh.rank() == 0) fn();
  });
}

}  // namespace dsv3
