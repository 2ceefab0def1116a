// SPDX-License-Identifier: Apache-2.0
// Threads for I/O that may block: cold reads, flushes, files on file systems that can hang. Files
// take turns, and one file never has more than kMaxThreadsPerFile threads: a file that hangs
// holds up nobody else.
#pragma once

#include <cstddef>
#include <deque>
#include <thread>
#include <vector>

#include "core/base/mutex.h"
#include "core/io/bio.h"

namespace dmfs {

class IoThreads;

// The bios of one file that wait for a thread. Belongs to the file; derive and say how to do one.
class IoQueue {
 public:
  virtual ~IoQueue() = default;
  // On a thread of the pool, no lock held: does the I/O, which may block, and completes the bio.
  virtual void perform(Bio& bio) = 0;

 private:
  friend class IoThreads;
  // guarded by the pool's mutex_
  BioList waiting_;
  unsigned running_ = 0;
  bool ready_ = false;  // in the pool's list of files that have work and may have another thread
};

class IoThreads {
 public:
  static constexpr unsigned kMaxThreadsPerFile = 8;
  static constexpr unsigned kMaxThreads = 256;

  IoThreads() = default;
  ~IoThreads();  // every queue is idle
  IoThreads(const IoThreads&) = delete;
  IoThreads& operator=(const IoThreads&) = delete;

  // Any thread; never blocks for long. A bio that has been cancelled is completed at once.
  void submit(IoQueue& queue, Bio& bio) DM_EXCLUDES(mutex_);
  // Completes those bios that `cancel` wants and that no thread has taken up yet; how many.
  size_t cancel(IoQueue& queue, const BioCancel& cancel) DM_EXCLUDES(mutex_);
  // Returns when nothing of the queue waits or runs; nothing may be submitted to it meanwhile.
  void drain(IoQueue& queue) DM_EXCLUDES(mutex_);

  size_t thread_count() const DM_EXCLUDES(mutex_);

 private:
  void run() DM_EXCLUDES(mutex_);
  void make_ready(IoQueue& queue) DM_REQUIRES(mutex_);
  // Sees to it that somebody comes for each file in ready_.
  void summon() DM_REQUIRES(mutex_);

  mutable Mutex mutex_;  // leaf
  CondVar work_;
  CondVar drained_;
  std::deque<IoQueue*> ready_ DM_GUARDED_BY(mutex_);
  std::vector<std::thread> threads_ DM_GUARDED_BY(mutex_);
  unsigned spare_ DM_GUARDED_BY(mutex_) = 0;  // threads that wait for work or come for it
  bool stopping_ DM_GUARDED_BY(mutex_) = false;
};

}  // namespace dmfs
