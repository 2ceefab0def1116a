// SPDX-License-Identifier: Apache-2.0
// Runs work on another thread. A seam: tests put a ManualExecutor here and choose the moment.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <thread>

#include "core/base/mutex.h"

namespace dmfs {

class Executor {
 public:
  virtual ~Executor() = default;
  // Any thread. Work that was posted runs, in order, unless the executor is destroyed first.
  virtual void post(std::function<void()> work) = 0;
};

// One thread of its own; sleeps while there is nothing to do. The destructor runs what is queued.
class ThreadExecutor final : public Executor {
 public:
  ThreadExecutor();
  ~ThreadExecutor() override;
  void post(std::function<void()> work) override;

 private:
  void run();

  Mutex mutex_;  // leaf
  CondVar wake_;
  std::deque<std::function<void()>> queue_ DM_GUARDED_BY(mutex_);
  bool stopping_ DM_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace dmfs
