// SPDX-License-Identifier: Apache-2.0
// Who may end an operation. An operation completes on one thread while others may be busy with it:
// the one that has just submitted it, or one that wants to interrupt it. Those hold a pin; the
// last of "completed" and "the last pin is gone" ends it, exactly once, and nobody waits.
//
// The memory of an operation is never given back while others may look for it by its tag, so
// try_pin() may be called on any operation, at any time, also on one that is long over.
#pragma once

#include <atomic>
#include <cassert>
#include <cstdint>

namespace dmfs {

class OpState {
 public:
  // Starts a life under `tag` (48 bits count; 0 for none), with one pin, the caller's.
  void begin(uint64_t tag) { word_.store(shifted(tag) | kPin, std::memory_order_release); }

  // By somebody who found the operation by its tag. False: another one by now, or over.
  bool try_pin(uint64_t tag) {
    uint64_t seen = word_.load(std::memory_order_acquire);
    while ((seen & ~kPins) == shifted(tag) && seen != 0) {
      if (word_.compare_exchange_weak(seen, seen + kPin, std::memory_order_acq_rel)) return true;
    }
    return false;
  }
  // By the completing side, which has not said complete() yet.
  void pin() { word_.fetch_add(kPin, std::memory_order_acq_rel); }

  // True: the caller ends the operation now (and calls end_life() before the memory is used again).
  [[nodiscard]] bool unpin() {
    uint64_t before = word_.fetch_sub(kPin, std::memory_order_acq_rel);
    assert((before & kPins) != 0);
    return (before & kDone) != 0 && (before & kPins) == kPin;
  }
  [[nodiscard]] bool complete() {
    uint64_t before = word_.fetch_or(kDone, std::memory_order_acq_rel);
    assert((before & kDone) == 0 && "an operation completes once");
    return (before & kPins) == 0;
  }
  bool completed() const { return (word_.load(std::memory_order_acquire) & kDone) != 0; }
  // Nobody can find it any more.
  void end_life() { word_.store(0, std::memory_order_release); }

 private:
  // tag << 16 | pins << 1 | done
  static constexpr uint64_t kDone = 1;
  static constexpr uint64_t kPin = 2;
  static constexpr uint64_t kPins = 0xfffe;
  static uint64_t shifted(uint64_t tag) { return tag << 16; }

  std::atomic<uint64_t> word_{0};
};

}  // namespace dmfs
