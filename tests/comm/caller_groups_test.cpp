// A mesh over groups that a program has already.
#include <gtest/gtest.h>

#include <thread>
#include <torch/csrc/distributed/c10d/HashStore.hpp>

#include "dsv3/base/error.h"
#include "dsv3/comm/c10d.h"

namespace dsv3 {
namespace {

// A group whose collectives run out of time, as Gloo's do: without saying who is missing.
class LateBackend : public c10d::Backend {
 public:
  using Backend::Backend;
  const std::string getBackendName() const override { return "late"; }
  c10::intrusive_ptr<c10d::Work> allreduce(std::vector<at::Tensor>& /*tensors*/,
                                           const c10d::AllreduceOptions& /*options*/) override {
    return c10::make_intrusive<Late>();
  }

 private:
  struct Late : c10d::Work {
    bool wait(std::chrono::milliseconds /*timeout*/) override {
      throw std::runtime_error("Timed out waiting 1000ms for recv operation to complete");
    }
  };
};

std::string error_of_rank(int rank, const c10::intrusive_ptr<c10d::Store>& store) {
  const auto all = c10::make_intrusive<LateBackend>(rank, 3), own = c10::make_intrusive<LateBackend>(0, 1);
  const Mesh mesh = mesh_from_groups(
      {.data = all, .expert_data = own, .expert = all, .replicate = {}, .world = {}, .store = store});
  try {
    mesh.sum(std::vector<int64_t>{1}, "counts");
  } catch (const RunError& error) {
    return error.what();
  }
  return "";
}

TEST(CallerGroups, NameTheSilentRank) {
  const auto store = c10::make_intrusive<c10d::HashStore>();
  std::string errors[2];
  std::thread two([&] { errors[1] = error_of_rank(2, store); });
  errors[0] = error_of_rank(0, store);
  two.join();
  for (const std::string& error : errors)
    EXPECT_NE(error.find("all_reduce of counts in group world failed: missing rank 1: "), std::string::npos)
        << error;
}

TEST(CallerGroups, NameNobodyWithoutAStore) {
  const std::string error = error_of_rank(0, {});
  EXPECT_NE(error.find("all_reduce of counts in group world failed"), std::string::npos) << error;
  EXPECT_EQ(error.find("missing"), std::string::npos) << error;
}

}  // namespace
}  // namespace dsv3
