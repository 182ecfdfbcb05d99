#include "dsv3/train/loader.h"

#include "dsv3/ops/torch_pch.h"

namespace dsv3 {

Loader::Loader(const RunConfig& run, const Mesh& mesh, bool valid)
    : stream_(SampleStream::open(run, valid)),
      rank_(mesh.rank()),
      world_(mesh.world_size()),
      micro_batch_(run.train.micro_batch),
      global_batch_(run.train.global_batch),
      steps_(run.train.steps),
      document_mask_(run.data.mask == "document"),
      device_(run.train.device) {
  micro_batch(0, 1);  // what stands wrong in the files shows now, before a run folder exists
}

MicroBatch Loader::micro_batch(int64_t cursor, int64_t sequences) const {
  const int64_t S = stream_.seq_len();
  MicroBatch micro;
  micro.tokens_BS = at::empty({sequences, S}, at::kLong);
  micro.targets_BS = at::empty({sequences, S}, at::kLong);
  if (document_mask_) micro.documents_BS = at::empty({sequences, S}, at::kLong);
  // The last token of a sample is a target only. Plain loops: an operator on the thread of LoaderAhead could
  // start a second pool of OpenMP threads.
  std::vector<int64_t> ids(static_cast<size_t>(S + 1)), documents(document_mask_ ? ids.size() : 0);
  for (int64_t row = 0; row < sequences; ++row) {
    stream_.read(cursor + row, ids, documents);
    std::copy(ids.begin(), ids.end() - 1, micro.tokens_BS[row].mutable_data_ptr<int64_t>());
    int64_t* targets = micro.targets_BS[row].mutable_data_ptr<int64_t>();
    std::copy(ids.begin() + 1, ids.end(), targets);
    if (!document_mask_) continue;
    std::copy(documents.begin(), documents.end() - 1, micro.documents_BS[row].mutable_data_ptr<int64_t>());
    for (size_t i = 0; i + 1 < documents.size(); ++i)
      if (documents[i + 1] != documents[i]) targets[i] = kIgnoredTarget;
  }
  micro.tokens_BS = micro.tokens_BS.to(device_);
  micro.targets_BS = micro.targets_BS.to(device_);
  if (document_mask_) micro.documents_BS = micro.documents_BS.to(device_);
  return micro;
}

Batch Loader::at(int64_t cursor, int64_t sequences) const {
  Batch batch;
  batch.first_sample = cursor + sequences * rank_ / world_;
  const int64_t end = cursor + sequences * (rank_ + 1) / world_;
  const int64_t largest = (sequences + world_ - 1) / world_;
  int64_t next = batch.first_sample;
  for (int64_t done = 0; done < largest; done += micro_batch_) {
    const int64_t rows = std::min(micro_batch_, end - next);
    batch.micro.push_back(micro_batch(next, rows));
    next += rows;
  }
  return batch;
}

Batch LoaderAhead::take(int64_t cursor, int64_t sequences) {
  std::future<Batch> batch = std::move(batch_);
  if (batch.valid() && cursor == cursor_ && sequences == sequences_) return batch.get();
  return loader_.at(cursor, sequences);
}

void LoaderAhead::begin(int64_t cursor, int64_t sequences) {
  cursor_ = cursor;
  sequences_ = sequences;
  batch_ = std::async(std::launch::async,
                      [&loader = loader_, cursor, sequences] { return loader.at(cursor, sequences); });
}

}  // namespace dsv3
