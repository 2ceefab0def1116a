// SPDX-License-Identifier: Apache-2.0
#include "core/base/clock.h"

namespace dmfs {

uint64_t ClockQueue::add(Clock::Time at, Work work) {
  uint64_t id = ++last_id_;
  calls_.emplace(std::pair{at, id}, std::move(work));
  times_.emplace(id, at);
  return id;
}

bool ClockQueue::remove(uint64_t id) {
  auto found = times_.find(id);
  if (found == times_.end()) return false;
  calls_.erase({found->second, id});
  times_.erase(found);
  return true;
}

std::pair<uint64_t, ClockQueue::Work> ClockQueue::take_first() {
  auto call = calls_.extract(calls_.begin());
  uint64_t id = call.key().second;
  times_.erase(id);
  return {id, std::move(call.mapped())};
}

SystemClock::~SystemClock() {
  std::optional<std::thread> thread;
  {
    MutexLock lock(mutex_);
    stopping_ = true;
    thread.swap(thread_);
    wake_.notify_one();
  }
  if (thread) thread->join();
}

uint64_t SystemClock::call_at(Time at, std::function<void()> work) {
  MutexLock lock(mutex_);
  bool is_first = queue_.empty() || at < queue_.first();
  uint64_t id = queue_.add(at, std::move(work));
  if (!thread_ && !stopping_) {
    thread_.emplace([this] { run(); });
  } else if (is_first) {
    wake_.notify_one();
  }
  return id;
}

bool SystemClock::cancel(uint64_t id) {
  MutexLock lock(mutex_);
  return queue_.remove(id);
}

void SystemClock::cancel_and_wait(uint64_t id) {
  MutexLock lock(mutex_);
  if (queue_.remove(id)) return;
  if (thread_ && thread_->get_id() == std::this_thread::get_id()) return;
  while (running_ == id && id != 0) ended_.wait(mutex_);
}

void SystemClock::run() {
  while (true) {
    std::pair<uint64_t, ClockQueue::Work> call;
    {
      MutexLock lock(mutex_);
      while (!stopping_ && (queue_.empty() || queue_.first() > now())) {
        if (queue_.empty()) {
          wake_.wait(mutex_);
        } else {
          (void)wake_.wait_until(mutex_, queue_.first());
        }
      }
      if (stopping_) return;
      call = queue_.take_first();
      running_ = call.first;
    }
    call.second();
    call.second = nullptr;  // what it has captured goes before anybody learns that it has ended
    MutexLock lock(mutex_);
    running_ = 0;
    ended_.notify_all();
  }
}

}  // namespace dmfs
