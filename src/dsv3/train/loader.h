#pragma once
// Samples as batches of tensors.

#include "dsv3/data/loader.h"
#include "dsv3/model/micro_batch.h"

namespace dsv3 {

class Loader {
 public:
  // The training stream of [data], or with `valid` the evaluation split in file order.
  // InputError when a token is outside the model's vocabulary.
  Loader(const RunConfig& run, bool valid = false);

  // Sequences [cursor, cursor + sequences) of the stream, cut into micro-batches of at most micro_batch.
  Batch at(int64_t cursor, int64_t sequences) const;
  int64_t samples_per_epoch() const { return stream_.samples_per_epoch(); }

 private:
  MicroBatch micro_batch(int64_t cursor, int64_t sequences) const;

  SampleStream stream_;
  int64_t micro_batch_;
  bool document_mask_;
  at::Device device_;
};

}  // namespace dsv3
