// SPDX-License-Identifier: Apache-2.0
// Time, and work that is done later. A seam: tests put a FakeClock here and choose what time it is.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <thread>
#include <unordered_map>
#include <utility>

#include "core/base/mutex.h"

namespace dmfs {

class Clock {
 public:
  using Time = std::chrono::steady_clock::time_point;
  using Duration = std::chrono::steady_clock::duration;

  virtual ~Clock() = default;

  // Any thread.
  virtual Time now() const = 0;
  // Runs `work` once, on the clock's thread, as soon as `at` has come; in order of time, and what
  // has the same time in order of the calls. No lock is held while it runs, it may call the clock
  // again, and it must not block: all others wait for it. Any thread, and the caller may hold its
  // own locks. The result is never 0, and no other call ever gets it.
  virtual uint64_t call_at(Time at, std::function<void()> work) = 0;
  // True: it will not run and is not running. False: it has run, is running, or was cancelled.
  // Never waits; the caller may hold its own locks.
  virtual bool cancel(uint64_t id) = 0;
  // As cancel(), but waits for the end of work that is running, unless it is that work which
  // calls. When it returns nothing of it runs or will. The caller holds no lock that work takes.
  virtual void cancel_and_wait(uint64_t id) = 0;
};

// What a clock keeps: work by its time. Not thread-safe.
class ClockQueue {
 public:
  using Work = std::function<void()>;

  uint64_t add(Clock::Time at, Work work);
  bool remove(uint64_t id);
  bool empty() const { return calls_.empty(); }
  size_t size() const { return calls_.size(); }
  Clock::Time first() const { return calls_.begin()->first.first; }  // not empty
  // Takes out the first; its id and its work.
  std::pair<uint64_t, Work> take_first();

 private:
  std::map<std::pair<Clock::Time, uint64_t>, Work> calls_;
  std::unordered_map<uint64_t, Clock::Time> times_;
  uint64_t last_id_ = 0;
};

// The real time. One thread, which starts with the first call_at() and sleeps until something is
// due: no wake-ups while nothing is. The destructor drops what is not due yet.
class SystemClock final : public Clock {
 public:
  SystemClock() = default;
  ~SystemClock() override;
  SystemClock(const SystemClock&) = delete;
  SystemClock& operator=(const SystemClock&) = delete;

  Time now() const override { return std::chrono::steady_clock::now(); }
  uint64_t call_at(Time at, std::function<void()> work) override;
  bool cancel(uint64_t id) override;
  void cancel_and_wait(uint64_t id) override;

 private:
  void run();

  Mutex mutex_;  // leaf: take no lock while holding this
  CondVar wake_;
  CondVar ended_;
  ClockQueue queue_ DM_GUARDED_BY(mutex_);
  uint64_t running_ DM_GUARDED_BY(mutex_) = 0;  // the id of the work that runs now
  bool stopping_ DM_GUARDED_BY(mutex_) = false;
  std::optional<std::thread> thread_ DM_GUARDED_BY(mutex_);
};

}  // namespace dmfs
