// SPDX-License-Identifier: Apache-2.0
#include "core/base/alarm.h"

namespace dmfs {

Alarm::~Alarm() {
  uint64_t pending, begun;
  {
    MutexLock lock(mutex_);
    closed_ = true;
    pending = pending_;
    begun = begun_;
  }
  clock_.cancel_and_wait(pending);
  clock_.cancel_and_wait(begun);
}

void Alarm::set(Clock::Time at) {
  MutexLock lock(mutex_);
  if (closed_ || (pending_ && at_ <= at)) return;
  // One that cannot be cancelled has begun, and waits for this lock.
  if (pending_ && !clock_.cancel(pending_)) begun_ = pending_;
  uint64_t call = ++calls_;
  at_ = at;
  pending_ = clock_.call_at(at, [this, call] { fire(call); });
}

void Alarm::fire(uint64_t call) {
  {
    MutexLock lock(mutex_);
    if (closed_) return;
    if (call == calls_) begun_ = std::exchange(pending_, 0);
  }
  work_();
}

}  // namespace dmfs
