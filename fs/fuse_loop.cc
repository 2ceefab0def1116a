// SPDX-License-Identifier: Apache-2.0
#define FUSE_USE_VERSION 35
#include "fs/fuse_loop.h"

#include <fmt/format.h>
#include <fuse_lowlevel.h>
#include <pthread.h>
#include <signal.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <system_error>

namespace dmfs {
namespace {

// Its handler does nothing: the signal is to end a read() that waits.
constexpr int kWakeSignal = SIGUSR1;
constexpr std::chrono::milliseconds kWakeAgain{5};

std::vector<WorkerMemory*> pointers(const std::vector<std::unique_ptr<WorkerMemory>>& owned) {
  std::vector<WorkerMemory*> all;
  for (const auto& one : owned) all.push_back(one.get());
  return all;
}

std::vector<std::unique_ptr<WorkerMemory>> make_memory(unsigned threads) {
  std::vector<std::unique_ptr<WorkerMemory>> all;
  for (unsigned i = 0; i < threads; ++i) all.push_back(std::make_unique<WorkerMemory>());
  return all;
}

}  // namespace

FuseLoop::FuseLoop(fuse_session& session, VolumeTable& volumes, PageCache* cache, unsigned threads)
    : session_(session),
      memory_(make_memory(threads)),
      workers_(pointers(memory_)),
      data_path_(fuse_session_fd(&session), volumes, cache, buffers_, workers_) {}

FuseLoop::~FuseLoop() {
  stop();
}

Status FuseLoop::start(std::function<void()> ended) {
  struct sigaction wake {};
  wake.sa_handler = [](int) {};
  sigaction(kWakeSignal, &wake, nullptr);
  ended_ = std::move(ended);
  for (WorkerMemory* worker : workers_) {
    worker->receive = buffers_.take();
    if (!worker->receive) return Error{ENOMEM, "no memory for the threads' buffers"};
  }
  {
    MutexLock lock(mutex_);
    running_ = workers_.size();
  }
  for (WorkerMemory* worker : workers_) {
    try {
      threads_.emplace_back([this, worker] { run(*worker); });
    } catch (const std::system_error& failed) {
      {
        MutexLock lock(mutex_);
        running_ -= workers_.size() - threads_.size();
      }
      stop();
      return Error{failed.code().value(), fmt::format("cannot start threads: {}", failed.what())};
    }
  }
  return {};
}

void FuseLoop::stop() {
  stopping_.store(true);
  fuse_session_exit(&session_);
  // A signal that comes just before the read() is lost; so again, until all have left.
  while (true) {
    MutexLock lock(mutex_);
    if (running_ == 0) break;
    for (std::thread& thread : threads_) pthread_kill(thread.native_handle(), kWakeSignal);
    left_.wait_until(mutex_, std::chrono::steady_clock::now() + kWakeAgain);
  }
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

size_t FuseLoop::outstanding() const {
  size_t count = 0;
  for (const WorkerMemory* worker : workers_) count += worker->requests.in_use();
  return count;
}

void FuseLoop::run(WorkerMemory& memory) {
  sigset_t wake;
  sigemptyset(&wake);
  sigaddset(&wake, kWakeSignal);
  pthread_sigmask(SIG_UNBLOCK, &wake, nullptr);

  const int fd = fuse_session_fd(&session_);
  while (!stopping_.load(std::memory_order_relaxed)) {
    ssize_t size = read(fd, memory.message(), WorkerMemory::capacity());
    if (size <= 0) {
      // ENOENT: a request was aborted while it was being handed to us.
      if (size < 0 && (errno == EINTR || errno == EAGAIN || errno == ENOENT)) continue;
      // ENODEV: unmounted. ECONNABORTED: aborted through fusectl or umount -f.
      if (size < 0 && errno != ENODEV && errno != ECONNABORTED) {
        spdlog::error("cannot receive from /dev/fuse: {}", std::strerror(errno));
      }
      break;
    }
    if (data_path_.handle(memory, static_cast<size_t>(size))) continue;
    fuse_buf message{};
    message.size = static_cast<size_t>(size);
    message.mem = memory.message();
    fuse_session_process_buf(&session_, &message);
  }

  bool last;
  {
    MutexLock lock(mutex_);
    last = --running_ == 0;
    left_.notify_all();
  }
  if (last && ended_) ended_();
}

}  // namespace dmfs
