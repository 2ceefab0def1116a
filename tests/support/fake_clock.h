// SPDX-License-Identifier: Apache-2.0
// A clock that stands still until the test moves it. advance() is the clock's thread.
#pragma once

#include <algorithm>
#include <thread>

#include "core/base/clock.h"

namespace dmfs::test {

class FakeClock final : public Clock {
 public:
  Time now() const override {
    MutexLock lock(mutex_);
    return now_;
  }
  uint64_t call_at(Time at, std::function<void()> work) override {
    MutexLock lock(mutex_);
    return queue_.add(at, std::move(work));
  }
  bool cancel(uint64_t id) override {
    MutexLock lock(mutex_);
    return queue_.remove(id);
  }
  void cancel_and_wait(uint64_t id) override {
    MutexLock lock(mutex_);
    if (queue_.remove(id) || runner_ == std::this_thread::get_id()) return;
    while (running_ == id && id != 0) ended_.wait(mutex_);
  }

  // Runs, on this thread, all that is due by then, in order, each at its own time; also what is
  // added meanwhile. One thread at a time. advance({}) runs what is due already.
  void advance(Duration by) {
    Time end;
    {
      MutexLock lock(mutex_);
      end = now_ + by;
      runner_ = std::this_thread::get_id();
    }
    while (run_one(end)) {
    }
  }
  // How many calls wait.
  size_t pending() const {
    MutexLock lock(mutex_);
    return queue_.size();
  }

 private:
  bool run_one(Time end) {
    std::pair<uint64_t, ClockQueue::Work> call;
    {
      MutexLock lock(mutex_);
      if (queue_.empty() || queue_.first() > end) {
        now_ = end;
        runner_ = {};
        return false;
      }
      now_ = std::max(now_, queue_.first());
      call = queue_.take_first();
      running_ = call.first;
    }
    call.second();
    call.second = nullptr;
    MutexLock lock(mutex_);
    running_ = 0;
    ended_.notify_all();
    return true;
  }

  mutable Mutex mutex_;  // leaf
  CondVar ended_;
  ClockQueue queue_ DM_GUARDED_BY(mutex_);
  Time now_ DM_GUARDED_BY(mutex_) = Time(std::chrono::hours(1));
  uint64_t running_ DM_GUARDED_BY(mutex_) = 0;
  std::thread::id runner_ DM_GUARDED_BY(mutex_);
};

}  // namespace dmfs::test
