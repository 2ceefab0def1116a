// SPDX-License-Identifier: Apache-2.0
#include "core/dm/event_counter.h"

namespace dmfs {

uint32_t EventCounter::number() const {
  MutexLock lock(mutex_);
  return number_;
}

void EventCounter::restore(uint32_t number) {
  MutexLock lock(mutex_);
  number_ = number;
}

void EventCounter::raise() {
  MutexLock lock(mutex_);
  ++number_;
  changed_.notify_all();
}

void EventCounter::close() {
  MutexLock lock(mutex_);
  closed_ = true;
  changed_.notify_all();
}

EventCounter::Wait EventCounter::wait(uint32_t number, CancelToken& cancel) {
  CancelToken::Waker waker(cancel, [this] {
    MutexLock lock(mutex_);
    changed_.notify_all();
  });
  MutexLock lock(mutex_);
  while (true) {
    if (closed_) return Wait::Closed;
    if (number_ != number) return Wait::Changed;
    if (cancel.cancelled()) return Wait::Cancelled;
    changed_.wait(mutex_);
  }
}

}  // namespace dmfs
