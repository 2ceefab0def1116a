// SPDX-License-Identifier: Apache-2.0
// One call on a clock that can be asked for again and again: for an owner that keeps things which
// become due, and looks for itself which are.
#pragma once

#include <cstdint>
#include <functional>
#include <utility>

#include "core/base/clock.h"
#include "core/base/mutex.h"

namespace dmfs {

class Alarm {
 public:
  // `work` runs on the clock's thread, no lock held; sometimes without need.
  Alarm(Clock& clock, std::function<void()> work) : clock_(clock), work_(std::move(work)) {}
  // When it returns, `work` is not running and will not. Not from `work`; no lock that it takes is
  // held.
  ~Alarm();
  Alarm(const Alarm&) = delete;
  Alarm& operator=(const Alarm&) = delete;

  // `work` runs once at `at`, or earlier if that was asked for and has not come yet. Any thread,
  // also from `work`; the caller may hold its own locks.
  void set(Clock::Time at);

 private:
  void fire(uint64_t call);

  // constant after construction
  Clock& clock_;
  const std::function<void()> work_;

  Mutex mutex_;  // only the clock's own lock is taken while holding this
  bool closed_ DM_GUARDED_BY(mutex_) = false;
  uint64_t calls_ DM_GUARDED_BY(mutex_) = 0;
  uint64_t pending_ DM_GUARDED_BY(mutex_) = 0;  // id of the call that is to come, 0: none
  uint64_t begun_ DM_GUARDED_BY(mutex_) = 0;    // id of one that may be running
  Clock::Time at_ DM_GUARDED_BY(mutex_);
};

}  // namespace dmfs
