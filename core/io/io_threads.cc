// SPDX-License-Identifier: Apache-2.0
#include "core/io/io_threads.h"

#include <cassert>
#include <system_error>
#include <utility>

namespace dmfs {

IoThreads::~IoThreads() {
  std::vector<std::thread> threads;
  {
    MutexLock lock(mutex_);
    assert(ready_.empty());
    stopping_ = true;
    work_.notify_all();
    threads.swap(threads_);
  }
  for (std::thread& thread : threads) thread.join();
}

void IoThreads::make_ready(IoQueue& queue) {
  if (queue.ready_ || queue.waiting_.empty() || queue.running_ >= kMaxThreadsPerFile) return;
  queue.ready_ = true;
  ready_.push_back(&queue);
}

void IoThreads::summon() {
  if (ready_.empty()) return;
  if (spare_ >= ready_.size()) {
    work_.notify_one();
  } else if (threads_.size() < kMaxThreads) {
    try {
      threads_.emplace_back([this] { run(); });
      ++spare_;
    } catch (const std::system_error&) {
      // No thread to be had (EAGAIN). The ones there are get to it; the very first must exist.
      if (threads_.empty()) throw;
    }
  }
}

void IoThreads::submit(IoQueue& queue, Bio& bio) {
  int cancelled;
  {
    MutexLock lock(mutex_);
    cancelled = bio.cancelled();
    if (cancelled == 0) {
      queue.waiting_.push_back(bio);
      if (queue.ready_) return;
      make_ready(queue);
      summon();
      return;
    }
  }
  bio.complete(cancelled);
}

size_t IoThreads::cancel(IoQueue& queue, const BioCancel& cancel) {
  BioList taken;
  {
    MutexLock lock(mutex_);
    taken = queue.waiting_.take(cancel);
    if (queue.waiting_.empty()) {
      if (std::exchange(queue.ready_, false)) std::erase(ready_, &queue);
      if (queue.running_ == 0) drained_.notify_all();
    }
  }
  return taken.complete_all(cancel.error);
}

void IoThreads::drain(IoQueue& queue) {
  MutexLock lock(mutex_);
  while (!queue.waiting_.empty() || queue.running_ > 0) drained_.wait(mutex_);
}

size_t IoThreads::thread_count() const {
  MutexLock lock(mutex_);
  return threads_.size();
}

void IoThreads::run() {
  mutex_.lock();
  while (true) {
    while (ready_.empty() && !stopping_) work_.wait(mutex_);
    if (ready_.empty()) break;
    --spare_;
    IoQueue& queue = *ready_.front();
    ready_.pop_front();
    queue.ready_ = false;
    Bio* bio = queue.waiting_.pop_front();
    ++queue.running_;
    make_ready(queue);  // at the end of the line: files take turns
    summon();
    mutex_.unlock();
    queue.perform(*bio);
    mutex_.lock();
    --queue.running_;
    make_ready(queue);
    ++spare_;
    if (queue.waiting_.empty() && queue.running_ == 0) drained_.notify_all();
  }
  mutex_.unlock();
}

}  // namespace dmfs
