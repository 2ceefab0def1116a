// SPDX-License-Identifier: Apache-2.0
// Lets somebody else end a wait: a client that is gone, a daemon that stops.
#pragma once

#include <atomic>
#include <functional>
#include <vector>

#include "core/base/mutex.h"

namespace dmfs {

// One source, many waiters. A waiter registers a wake-up function, which cancel() calls once, on
// the canceller's thread, while it holds this object's lock: it may take only leaf locks.
class CancelToken {
 public:
  CancelToken() = default;
  CancelToken(const CancelToken&) = delete;
  CancelToken& operator=(const CancelToken&) = delete;

  bool cancelled() const { return cancelled_.load(std::memory_order_acquire); }
  void cancel();

  // While it lives, cancel() calls `wake`. If cancel() came first, wake runs at once.
  class Waker {
   public:
    Waker(CancelToken& token, std::function<void()> wake);
    ~Waker();
    Waker(const Waker&) = delete;
    Waker& operator=(const Waker&) = delete;

   private:
    friend class CancelToken;
    CancelToken& token_;
    std::function<void()> wake_;
  };

 private:
  std::atomic<bool> cancelled_{false};
  Mutex mutex_;
  std::vector<Waker*> wakers_ DM_GUARDED_BY(mutex_);
};

}  // namespace dmfs
