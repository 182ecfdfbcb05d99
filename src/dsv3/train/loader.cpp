#include "dsv3/train/loader.h"

#include "dsv3/base/error.h"
#include "dsv3/base/json.h"
#include "dsv3/ops/torch_pch.h"

namespace dsv3 {

namespace {

// PREFIX.json of `dsv3 prepare` knows the largest id, so a model that is too small is refused before it
// trains.
void check_vocabulary(const DataSource& source, int64_t vocab_size) {
  const std::filesystem::path path = source.path + ".json";
  if (!std::filesystem::exists(path)) return;
  const Json json = read_json(path);
  const auto found = json.find("largest_id");
  if (found == json.end() || !found->is_number_integer() || found->get<int64_t>() < vocab_size) return;
  throw InputError(
      path.string(), "largest_id",
      "is " + found->dump() + ", the model's vocabulary ends at " + std::to_string(vocab_size - 1),
      "raise model.vocab_size or prepare with another tokenizer");
}

}  // namespace

Loader::Loader(const RunConfig& run, const Mesh& mesh, bool valid)
    : stream_(valid ? run.data.valid : run.data.train, run.data.seq_len, run.data.seed,
              run.data.shuffle && !valid, run.model.vocab_size),
      rank_(mesh.rank()),
      world_(mesh.world_size()),
      micro_batch_(run.train.micro_batch),
      global_batch_(run.train.global_batch),
      steps_(run.train.steps),
      document_mask_(run.data.mask == "document"),
      device_(run.train.device) {
  for (const DataSource& source : valid ? run.data.valid : run.data.train)
    check_vocabulary(source, run.model.vocab_size);
  micro_batch(0, 1);  // what stands wrong in the files shows now, before a run folder exists
}

MicroBatch Loader::micro_batch(int64_t cursor, int64_t sequences) const {
  const int64_t S = stream_.seq_len();
  // [sequences, S + 1]: the last token of a sample is a target only.
  at::Tensor ids = at::empty({sequences, S + 1}, at::kLong);
  at::Tensor documents = document_mask_ ? at::empty_like(ids) : at::Tensor();
  for (int64_t row = 0; row < sequences; ++row) {
    const size_t length = static_cast<size_t>(S + 1);
    std::span<int64_t> row_documents;
    if (document_mask_) row_documents = {documents[row].mutable_data_ptr<int64_t>(), length};
    stream_.read(cursor + row, {ids[row].mutable_data_ptr<int64_t>(), length}, row_documents);
  }
  MicroBatch micro;
  micro.tokens_BS = ids.narrow(1, 0, S).contiguous().to(device_);
  micro.targets_BS = ids.narrow(1, 1, S).contiguous();
  if (document_mask_) {
    micro.documents_BS = documents.narrow(1, 0, S).contiguous();
    micro.targets_BS.masked_fill_(documents.narrow(1, 1, S).ne(micro.documents_BS), kIgnoredTarget);
    micro.documents_BS = micro.documents_BS.to(device_);
  }
  micro.targets_BS = micro.targets_BS.to(device_);
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

}  // namespace dsv3
