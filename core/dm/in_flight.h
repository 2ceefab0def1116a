// SPDX-License-Identifier: Apache-2.0
// The count of bios inside a device, and the door that suspend closes. Counting is spread over
// cache lines so that threads do not fight for one; a bio leaves through the line it came by.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>

#include "core/base/mutex.h"

namespace dmfs {

class InFlight {
 public:
  using Shard = uint8_t;

  // Counts the caller in and says through which line; false when the door is closed.
  bool try_enter(Shard& shard) {
    shard = own_shard();
    lines_[shard].count.fetch_add(1, std::memory_order_seq_cst);
    if (!closed_.load(std::memory_order_seq_cst)) return true;
    leave(shard);
    return false;
  }
  // Counts the caller in through a closed door: for re-issuing what was held.
  Shard enter_closed() {
    Shard shard = own_shard();
    lines_[shard].count.fetch_add(1, std::memory_order_seq_cst);
    return shard;
  }
  void leave(Shard shard) {
    // The order of these two against close() and the waiter's look at the count is what keeps a
    // wake-up from being lost; both sides are sequentially consistent.
    int64_t before = lines_[shard].count.fetch_sub(1, std::memory_order_seq_cst);
    if (before == 1 && closed_.load(std::memory_order_seq_cst)) wake_waiter();
  }

  void close() { closed_.store(true, std::memory_order_seq_cst); }
  void open() { closed_.store(false, std::memory_order_seq_cst); }
  bool closed() const { return closed_.load(std::memory_order_seq_cst); }

  // How many are inside; exact only while the door is closed.
  int64_t count() const;
  // After close(): returns when nobody is inside (true), or `give_up` says so (false). `give_up`
  // is asked, with this object's lock held, at each wake-up; poke() makes one.
  template <typename GiveUp>
  bool wait_empty(GiveUp give_up) {
    MutexLock lock(mutex_);
    while (!empty()) {
      if (give_up()) return false;
      changed_.wait(mutex_);
    }
    return true;
  }
  void poke() { wake_waiter(); }

 private:
  static constexpr unsigned kLines = 16;  // more than the front has threads by default
  struct alignas(64) Line {
    std::atomic<int64_t> count{0};
  };

  static Shard own_shard() {
    static std::atomic<unsigned> next{0};
    thread_local Shard mine = static_cast<Shard>(next.fetch_add(1) % kLines);
    return mine;
  }
  // With the door closed a line that was seen empty only has visitors that turn back.
  bool empty() const;
  void wake_waiter();

  // own synchronisation
  std::array<Line, kLines> lines_;
  alignas(64) std::atomic<bool> closed_{false};
  Mutex mutex_;  // leaf; only makes waiting safe
  CondVar changed_;
};

}  // namespace dmfs
