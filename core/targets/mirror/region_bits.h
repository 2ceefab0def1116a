// SPDX-License-Identifier: Apache-2.0
// A bit for each region of a mirror. Any thread may look at a bit while another changes it.
#pragma once

#include <atomic>
#include <bit>
#include <cassert>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace dmfs {

class RegionBits {
 public:
  RegionBits(uint64_t count, bool value) : count_(count), words_((count + 63) / 64) { fill(value); }

  uint64_t count() const { return count_; }
  bool test(uint64_t i) const {
    assert(i < count_);
    return words_[i / 64].load(std::memory_order_acquire) & mask(i);
  }
  // Both say whether that changed the bit.
  bool set(uint64_t i) {
    return !(words_[i / 64].fetch_or(mask(i), std::memory_order_acq_rel) & mask(i));
  }
  bool clear(uint64_t i) {
    return words_[i / 64].fetch_and(~mask(i), std::memory_order_acq_rel) & mask(i);
  }
  void fill(bool value) {
    for (auto& word : words_) word.store(value ? ~uint64_t{0} : 0, std::memory_order_release);
    // What lies behind the last region is never set.
    if (value && count_ % 64) words_.back().store(mask(count_ % 64) - 1, std::memory_order_release);
  }
  void copy_from(const RegionBits& other) {
    assert(count_ == other.count_);
    for (size_t i = 0; i < words_.size(); ++i) {
      words_[i].store(other.words_[i].load(std::memory_order_acquire), std::memory_order_release);
    }
  }
  uint64_t count_set() const {
    uint64_t sum = 0;
    for (const auto& word : words_) {
      sum += static_cast<uint64_t>(std::popcount(word.load(std::memory_order_relaxed)));
    }
    return sum;
  }
  // The first clear bit from `from` on; count() when there is none.
  uint64_t first_clear(uint64_t from) const {
    for (uint64_t i = from; i < count_;) {
      uint64_t left = ~words_[i / 64].load(std::memory_order_acquire) >> (i % 64);
      if (left) {
        i += static_cast<uint64_t>(std::countr_zero(left));
        return i < count_ ? i : count_;
      }
      i = (i / 64 + 1) * 64;
    }
    return count_;
  }

  // As on disk: bit i is bit i % 8 of byte i / 8. `first` is the number of the first byte; bytes
  // behind the last region are zeroes, and are not read.
  void to_bytes(size_t first, std::span<std::byte> out) const {
    for (size_t i = 0; i < out.size(); ++i) {
      size_t at = first + i;
      uint64_t word = at / 8 < words_.size() ? words_[at / 8].load(std::memory_order_acquire) : 0;
      out[i] = static_cast<std::byte>(word >> (at % 8 * 8));
    }
  }
  void from_bytes(std::span<const std::byte> in) {
    fill(false);
    for (uint64_t i = 0; i < count_ && i / 8 < in.size(); ++i) {
      if ((static_cast<unsigned>(in[i / 8]) >> (i % 8)) & 1) set(i);
    }
  }

 private:
  static uint64_t mask(uint64_t i) { return uint64_t{1} << (i % 64); }

  const uint64_t count_;
  std::vector<std::atomic<uint64_t>> words_;
};

}  // namespace dmfs
