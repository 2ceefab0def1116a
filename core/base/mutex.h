// SPDX-License-Identifier: Apache-2.0
// Mutex, MutexLock, CondVar with clang's thread-safety annotations. Nothing else in the tree may
// name std::mutex; clang's -Wthread-safety is part of the build.
#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>

#if defined(__clang__)
#define DM_ATTRIBUTE(x) __attribute__((x))
#else
#define DM_ATTRIBUTE(x)
#endif

#define DM_CAPABILITY(x) DM_ATTRIBUTE(capability(x))
#define DM_SCOPED_CAPABILITY DM_ATTRIBUTE(scoped_lockable)
#define DM_GUARDED_BY(x) DM_ATTRIBUTE(guarded_by(x))
#define DM_PT_GUARDED_BY(x) DM_ATTRIBUTE(pt_guarded_by(x))
#define DM_REQUIRES(...) DM_ATTRIBUTE(requires_capability(__VA_ARGS__))
#define DM_EXCLUDES(...) DM_ATTRIBUTE(locks_excluded(__VA_ARGS__))
#define DM_ACQUIRE(...) DM_ATTRIBUTE(acquire_capability(__VA_ARGS__))
#define DM_RELEASE(...) DM_ATTRIBUTE(release_capability(__VA_ARGS__))
#define DM_TRY_ACQUIRE(...) DM_ATTRIBUTE(try_acquire_capability(__VA_ARGS__))
#define DM_ACQUIRED_BEFORE(...) DM_ATTRIBUTE(acquired_before(__VA_ARGS__))
#define DM_ACQUIRED_AFTER(...) DM_ATTRIBUTE(acquired_after(__VA_ARGS__))
#define DM_NO_THREAD_SAFETY_ANALYSIS DM_ATTRIBUTE(no_thread_safety_analysis)

namespace dmfs {

class DM_CAPABILITY("mutex") Mutex {
 public:
  Mutex() = default;
  Mutex(const Mutex&) = delete;
  Mutex& operator=(const Mutex&) = delete;

  void lock() DM_ACQUIRE() { mutex_.lock(); }
  void unlock() DM_RELEASE() { mutex_.unlock(); }
  bool try_lock() DM_TRY_ACQUIRE(true) { return mutex_.try_lock(); }

 private:
  friend class CondVar;
  std::mutex mutex_;
};

class DM_SCOPED_CAPABILITY MutexLock {
 public:
  explicit MutexLock(Mutex& mutex) DM_ACQUIRE(mutex) : mutex_(mutex) { mutex_.lock(); }
  ~MutexLock() DM_RELEASE() { mutex_.unlock(); }
  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;

 private:
  Mutex& mutex_;
};

// Waits with a Mutex that the caller holds; spurious wake-ups happen, so loop on the condition.
class CondVar {
 public:
  void wait(Mutex& mutex) DM_REQUIRES(mutex) {
    std::unique_lock<std::mutex> held(mutex.mutex_, std::adopt_lock);
    cv_.wait(held);
    held.release();
  }
  // False when `deadline` has passed.
  bool wait_until(Mutex& mutex, std::chrono::steady_clock::time_point deadline)
      DM_REQUIRES(mutex) {
    std::unique_lock<std::mutex> held(mutex.mutex_, std::adopt_lock);
    bool in_time = cv_.wait_until(held, deadline) == std::cv_status::no_timeout;
    held.release();
    return in_time;
  }
  void notify_one() { cv_.notify_one(); }
  void notify_all() { cv_.notify_all(); }

 private:
  std::condition_variable cv_;
};

}  // namespace dmfs
