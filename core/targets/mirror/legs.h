// SPDX-License-Identifier: Apache-2.0
// The legs of a mirror: where they lie, what has gone wrong with each, and which one is asked.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <optional>
#include <string>

#include "core/base/units.h"
#include "core/io/backing_file.h"

namespace dmfs {

// What has gone wrong with a leg: bits.
enum LegError : uint32_t {
  kFlushError = 1,
  kWriteError = 2,
  kSyncError = 4,
  kReadError = 8,
  kLate = 16,  // has not answered within io_timeout, and not since
};

class Legs {
 public:
  static constexpr unsigned kMax = 9;  // as in the kernel
  using Mask = uint32_t;               // bit i: leg i

  struct Leg {
    Leg(BackingFile& of, Sectors at) : file(of), start(at) {}
    BackingFile& file;
    const Sectors start;
    std::atomic<uint32_t> errors{0};  // LegError
  };

  // Before the first I/O.
  void add(BackingFile& file, Sectors start) { legs_.emplace_back(file, start); }

  unsigned size() const { return static_cast<unsigned>(legs_.size()); }
  const Leg& operator[](unsigned i) const { return legs_[i]; }
  bool failed(unsigned i) const { return errors(i) != 0; }
  bool late(unsigned i) const { return errors(i) & kLate; }
  bool any_late() const;
  bool any_failed() const;

  // The one that all others should look like.
  unsigned primary() const { return primary_.load(std::memory_order_acquire); }
  void set_primary(unsigned i) { primary_.store(i, std::memory_order_release); }
  // The first without errors.
  std::optional<unsigned> first_valid() const;
  // Where to read what is the same on all legs: the primary one, or one without errors.
  std::optional<unsigned> choose() const;

  // False if the leg had the error already.
  bool add_error(unsigned i, LegError error) {
    return !(legs_[i].errors.fetch_or(error, std::memory_order_acq_rel) & error);
  }
  void clear_error(unsigned i, LegError error) {
    legs_[i].errors.fetch_and(~error, std::memory_order_acq_rel);
  }
  void forget_errors();

  // A letter for each leg.
  std::string letters() const;

 private:
  uint32_t errors(unsigned i) const { return legs_[i].errors.load(std::memory_order_acquire); }

  std::deque<Leg> legs_;  // constant after construction, but for what is atomic
  std::atomic<unsigned> primary_{0};
};

}  // namespace dmfs
