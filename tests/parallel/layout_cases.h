#pragma once
// Layouts, and what a run may vary on them: in some row is every pair of values of two columns behind the
// layout, and every layout with each depth, tying and accumulation.

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

  // Of every rank: the batch is cut into sequences.
  int64_t micro_batches() const { return (batch + layout.world() - 1) / layout.world(); }

  std::vector<std::string> columns() const {
    return {name().substr(0, name().find('_')),
            "depth " + std::to_string(depth),
            tied ? "tied" : "untied",
            accumulate,
            recompute,
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
      {{1, 2, 1}, 1, true, "none", "sharded", "after_forward", 8, "none", false, "pre_norm"},
      {{1, 2, 1}, 2, false, "block", "unsharded", "never", 8, "pre", false, "post_norm"},
      {{1, 2, 2}, 2, true, "block", "unsharded", "after_forward", 3, "pre", true, "pre_norm"},
      {{1, 2, 2}, 2, false, "every:2", "unsharded", "after_backward", 8, "none", false, "pre_norm"},
      {{1, 2, 2}, 1, false, "none", "sharded", "never", 3, "post", false, "pre_norm"},
      {{1, 4, 1}, 2, true, "block", "unsharded", "never", 5, "post", false, "pre_norm"},
      {{1, 4, 1}, 1, false, "every:2", "sharded", "after_forward", 3, "post", false, "post_norm"},
      {{1, 4, 2}, 1, false, "none", "unsharded", "after_forward", 5, "pre", true, "pre_norm"},
      {{1, 4, 2}, 2, true, "attention", "sharded", "after_backward", 8, "post", false, "post_norm"},
      {{1, 4, 4}, 1, false, "moe", "unsharded", "after_backward", 5, "none", true, "post_norm"},
      {{1, 4, 4}, 2, true, "attention", "sharded", "never", 5, "pre", true, "post_norm"},
      {{2, 2, 1}, 1, true, "moe", "unsharded", "after_forward", 8, "pre", true, "pre_norm"},
      {{2, 2, 1}, 1, false, "block", "sharded", "after_backward", 3, "none", false, "post_norm"},
      {{2, 2, 1}, 2, false, "every:2", "unsharded", "never", 3, "post", true, "pre_norm"},
      {{2, 2, 2}, 2, false, "moe", "sharded", "after_forward", 5, "post", true, "post_norm"},
      {{2, 2, 2}, 1, true, "attention", "unsharded", "after_backward", 5, "post", true, "pre_norm"},
      {{2, 2, 2}, 1, true, "every:2", "unsharded", "never", 5, "pre", true, "post_norm"},
      {{2, 4, 2}, 1, false, "attention", "sharded", "after_forward", 3, "none", true, "post_norm"},
      {{2, 4, 2}, 1, true, "moe", "unsharded", "never", 3, "none", false, "post_norm"},
      {{2, 4, 2}, 2, true, "none", "sharded", "after_backward", 5, "pre", true, "post_norm"},
  };
  return cases;
}

}  // namespace dsv3::test
