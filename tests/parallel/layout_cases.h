#pragma once
// Layouts, and what a run may vary on them: every pair of values of the columns behind the layout is in some
// row.

#include <ostream>
#include <string>
#include <vector>

#include "dsv3/comm/mesh.h"

namespace dsv3::test {

struct LayoutCase {
  MeshLayout layout;  // replicate, shard, ep
  int depth;          // of MTP
  bool tied;
  const char* recompute;
  const char* accumulate;
  const char* reshard;
  int batch;  // sequences: 8 for all ranks alike, 5: some rank has fewer, 3: some has none
  const char* prefetch_backward;
  bool freeze;
  const char* hidden;  // of MTP

  // "R2S4E2_5_depth2_tied_block_unsharded_after_forward"
  std::string name() const {
    return "R" + std::to_string(layout.replicate) + "S" + std::to_string(layout.shard) + "E" +
           std::to_string(layout.ep) + "_" + std::to_string(batch) + "_depth" + std::to_string(depth) +
           (tied ? "_tied_" : "_") + (*recompute == 'e' ? "every2" : recompute) + "_" + accumulate + "_" +
           reshard + (freeze ? "_frozen" : "");
  }

  // One-micro-batch sequences; what is frozen lies in dense and expert units, and is cut by the ranks'
  // shards.
  std::vector<std::string> flags() const {
    return {
        "model.init=",
        "train.micro_batch=1",
        "train.global_batch=" + std::to_string(batch),
        "model.num_nextn_predict_layers=" + std::to_string(depth),
        std::string("model.tie_word_embeddings=") + (tied ? "true" : "false"),
        std::string("parallel.recompute=") + recompute,
        std::string("parallel.accumulate=") + accumulate,
        std::string("parallel.reshard=") + reshard,
        std::string("parallel.prefetch_backward=") + prefetch_backward,
        "parallel.prefetch_forward=" + std::to_string(std::string(prefetch_backward) == "none"   ? 0
                                                      : std::string(prefetch_backward) == "post" ? 2
                                                                                                 : 1),
        "parallel.max_unsharded=" +
            std::to_string(std::string(reshard) == "after_forward" && batch == 3 ? 1 : 0),
        std::string("mtp.hidden=") + hidden,
        std::string("optim.freeze=") +
            (freeze ? R"(["*.q_a_proj.weight", "*.experts.down_proj", "*.input_layernorm.weight"])" : "[]")};
  }

  std::vector<std::string> columns() const {
    return {"depth " + std::to_string(depth),
            tied ? "tied" : "untied",
            recompute,
            accumulate,
            reshard,
            "batch " + std::to_string(batch),
            std::string("prefetch ") + prefetch_backward,
            freeze ? "frozen" : "free",
            hidden};
  }
};

inline void PrintTo(const LayoutCase& test, std::ostream* out) { *out << test.name(); }

inline const std::vector<LayoutCase>& layout_cases() {
  static const std::vector<LayoutCase> cases = {
      {{1, 2, 1}, 2, false, "none", "unsharded", "never", 5, "post", true, "pre_norm"},
      {{1, 2, 2}, 1, true, "attention", "sharded", "after_backward", 3, "post", false, "post_norm"},
      {{1, 4, 1}, 2, false, "every:2", "unsharded", "after_forward", 8, "none", false, "post_norm"},
      {{1, 4, 2}, 1, true, "block", "sharded", "never", 8, "pre", false, "pre_norm"},
      {{1, 4, 4}, 1, true, "moe", "unsharded", "after_forward", 3, "pre", true, "post_norm"},
      {{2, 2, 2}, 2, true, "block", "sharded", "after_backward", 5, "none", true, "post_norm"},
      {{2, 4, 2}, 2, false, "every:2", "sharded", "never", 3, "pre", true, "pre_norm"},
      {{2, 2, 1}, 2, false, "moe", "sharded", "after_backward", 5, "none", false, "pre_norm"},
      {{1, 2, 1}, 1, true, "none", "sharded", "after_forward", 8, "none", false, "post_norm"},
      {{1, 4, 2}, 2, false, "attention", "unsharded", "after_forward", 5, "pre", true, "pre_norm"},
      {{2, 4, 2}, 1, false, "block", "unsharded", "after_backward", 8, "post", true, "post_norm"},
      {{1, 2, 2}, 1, true, "every:2", "unsharded", "after_backward", 5, "post", true, "pre_norm"},
      {{1, 4, 4}, 2, false, "attention", "sharded", "never", 8, "none", true, "pre_norm"},
      {{1, 4, 1}, 2, false, "moe", "sharded", "never", 8, "post", true, "post_norm"},
      {{2, 2, 2}, 1, true, "none", "sharded", "after_backward", 8, "pre", false, "post_norm"},
      {{2, 2, 1}, 1, true, "block", "sharded", "after_forward", 3, "post", true, "post_norm"},
      {{1, 2, 2}, 1, true, "none", "sharded", "after_forward", 3, "none", true, "post_norm"},
  };
  return cases;
}

}  // namespace dsv3::test
