// SPDX-License-Identifier: Apache-2.0
#include "core/base/executor.h"

#include <utility>

namespace dmfs {

ThreadExecutor::ThreadExecutor() : thread_([this] { run(); }) {}

ThreadExecutor::~ThreadExecutor() {
  {
    MutexLock lock(mutex_);
    stopping_ = true;
    wake_.notify_one();
  }
  thread_.join();
}

void ThreadExecutor::post(std::function<void()> work) {
  MutexLock lock(mutex_);
  queue_.push_back(std::move(work));
  wake_.notify_one();
}

void ThreadExecutor::run() {
  while (true) {
    std::function<void()> work;
    {
      MutexLock lock(mutex_);
      while (queue_.empty() && !stopping_) wake_.wait(mutex_);
      if (queue_.empty()) return;
      work = std::move(queue_.front());
      queue_.pop_front();
    }
    work();
  }
}

}  // namespace dmfs
