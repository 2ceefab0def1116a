// SPDX-License-Identifier: Apache-2.0
// The threads that serve the mount: each receives a message, serves it, receives the next. None
// waits for a bio; a request that is held is finished by whoever completes it.
#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "core/base/mutex.h"
#include "core/base/result.h"
#include "fs/buffer_pool.h"
#include "fs/data_path.h"
#include "fs/volume_node.h"

struct fuse_session;

namespace dmfs {

class FuseLoop {
 public:
  // Both must outlive the loop, and the session the last request (see wait_idle()).
  // `cache`: nullptr when the kernel keeps no pages.
  FuseLoop(fuse_session& session, VolumeTable& volumes, PageCache* cache, unsigned threads);
  ~FuseLoop();  // stopped, nothing outstanding
  FuseLoop(const FuseLoop&) = delete;
  FuseLoop& operator=(const FuseLoop&) = delete;

  // `ended` is called once, on a worker, when the last one leaves: the file system is unmounted.
  Status start(std::function<void()> ended);
  // Makes the workers leave, also those that wait for a message, and joins them. Requests may be
  // outstanding still.
  void stop();
  // How many requests have not been answered. Exact once stopped and falling.
  size_t outstanding() const;

 private:
  void run(WorkerMemory& memory);

  // constant after construction
  fuse_session& session_;
  BufferPool buffers_;
  std::vector<std::unique_ptr<WorkerMemory>> memory_;
  std::vector<WorkerMemory*> workers_;
  DataPath data_path_;
  std::function<void()> ended_;  // since start()

  // the thread's of start() and stop()
  std::vector<std::thread> threads_;

  // own synchronisation
  std::atomic<bool> stopping_{false};
  Mutex mutex_;  // leaf
  CondVar left_;
  size_t running_ DM_GUARDED_BY(mutex_) = 0;
};

}  // namespace dmfs
