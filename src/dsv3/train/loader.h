#pragma once
// Samples as batches of tensors.

#include <future>

#include "dsv3/comm/mesh.h"
#include "dsv3/data/loader.h"
#include "dsv3/model/micro_batch.h"

namespace dsv3 {

class Loader {
 public:
  // The training stream of [data], or with `valid` the evaluation split in file order, as this rank of the
  // mesh sees it. InputError when a token is outside the model's vocabulary.
  Loader(const RunConfig& run, const Mesh& mesh, bool valid = false);

  // This rank's part of sequences [cursor, cursor + sequences) of the stream: contiguous, sizes differing by
  // at most one, cut into micro-batches of at most train.micro_batch. Every rank gets as many micro-batches
  // as the largest part needs; those of a rank that has fewer sequences end with none (B = 0).
  Batch at(int64_t cursor, int64_t sequences) const;
  int64_t samples_per_epoch() const { return stream_.samples_per_epoch(); }
  // As SampleStream says.
  StreamPosition position(int64_t cursor) const { return stream_.position(cursor); }
  std::vector<std::string> go_on(const StreamPosition& saved, int64_t cursor) {
    return stream_.go_on(saved, cursor);
  }

  // for (Batch batch : loader): train.global_batch sequences at a time from the beginning, train.steps times
  // or without end.
  class Iterator {
   public:
    Iterator(const Loader* loader, int64_t step) : loader_(loader), step_(step) {}
    Batch operator*() const { return loader_->at(step_ * loader_->global_batch_, loader_->global_batch_); }
    Iterator& operator++() {
      ++step_;
      return *this;
    }
    bool operator!=(const Iterator& other) const { return step_ != other.step_; }

   private:
    const Loader* loader_;
    int64_t step_;
  };
  Iterator begin() const { return {this, 0}; }
  Iterator end() const { return {this, steps_ > 0 ? steps_ : -1}; }

 private:
  MicroBatch micro_batch(int64_t cursor, int64_t sequences) const;

  SampleStream stream_;
  int64_t rank_, world_;
  int64_t micro_batch_, global_batch_, steps_;
  bool document_mask_;
  at::Device device_;
};

// Reads the next batch on a thread of its own while this one is computed.
class LoaderAhead {
 public:
  explicit LoaderAhead(const Loader& loader) : loader_(loader) {}

  // loader.at(cursor, sequences): what begin() was told to read, or read now when it was told another part.
  // Throws what reading it threw.
  Batch take(int64_t cursor, int64_t sequences);
  void begin(int64_t cursor, int64_t sequences);
  // Waits for what was begun and forgets it: the loader is about to go on elsewhere.
  void drop() { batch_ = {}; }

 private:
  const Loader& loader_;
  int64_t cursor_ = 0, sequences_ = 0;
  std::future<Batch> batch_;
};

}  // namespace dsv3
