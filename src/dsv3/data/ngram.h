#pragma once
// What counting alone achieves on a text: the baseline that a trained model must beat.

#include <cstdint>

#include "dsv3/data/indexed_dataset.h"

namespace dsv3 {

// Mean loss, in nats a token, of an n-gram model of `train` on tokens 1 to the end of `valid` (the first is
// given, as it is to a language model; document separators are tokens as any other). Smoothing is Witten and
// Bell's, as Chen and Goodman (1998, section 2.4) give it: with c = count of the context, d = number of
// different tokens seen after it,
//   p(w | context) = (count(context, w) + d * p_shorter(w)) / (c + d),
// where p_shorter drops the context's oldest token and the shortest of all is 1 / vocab_size. It has no
// weights to tune, so nothing is taken from `valid`. The second token has one token of context in every
// order.
//
// Counts are dense: memory is 4 * vocab_size^order bytes (70 MB for a trigram of bytes). UsageError when that
// passes 1 GiB; InputError for ids outside the vocabulary and for a `valid` of fewer than two tokens.
double bigram_loss(const IndexedDataset& train, const IndexedDataset& valid, int64_t vocab_size);
double trigram_loss(const IndexedDataset& train, const IndexedDataset& valid, int64_t vocab_size);

}  // namespace dsv3
