#pragma once
// Which source each sample of a blend comes from.

#include <cstdint>
#include <span>
#include <vector>

namespace dsv3 {

// An endless schedule of k >= 2 sources with whole shares, seekable: before any sample number n each source
// has given n * share / period samples, off by at most 1 - 1 / (2k - 2), so always by less than one. It
// repeats after period() = the sum of the shares and is tabulated, 8 bytes a sample of the period.
//
// The choice is Tijdeman's for the chairman assignment problem (Discrete Mathematics 32, 1980): of the
// sources whose share allows one more sample, the one that must come first. The usual greedy choice of the
// source that lags most has no such bound and cannot be entered in the middle without a table of all samples.
class Blend {
 public:
  // shares: two or more, each > 0, adding up to at most kMaxBlendPeriod (config/shares.h).
  explicit Blend(std::span<const int64_t> shares);

  // The index-th sample, from 0, of those that this source gives.
  struct Draw {
    int64_t source = 0;
    int64_t index = 0;
  };
  // Sample number cursor >= 0 of the blend.
  Draw operator()(int64_t cursor) const;
  // The sample number of a draw; the largest int64 when it is beyond.
  int64_t cursor_of(Draw draw) const;
  // How many samples each source gives before sample number cursor. Their sum is cursor.
  std::vector<int64_t> drawn(int64_t cursor) const;

  int64_t period() const { return static_cast<int64_t>(source_.size()); }
  int64_t num_sources() const { return static_cast<int64_t>(begins_.size()) - 1; }

 private:
  int64_t share(int64_t source) const { return begins_[source + 1] - begins_[source]; }
  int64_t drawn_of(int64_t source, int64_t cursor) const;

  std::vector<int32_t> source_;  // of each sample of the period
  std::vector<int32_t> places_;  // the samples of the period by source, ascending: its inverse
  std::vector<int64_t> begins_;  // of each source in places_
};

}  // namespace dsv3
