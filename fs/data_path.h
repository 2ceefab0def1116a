// SPDX-License-Identifier: Apache-2.0
// The requests that move data, straight from the kernel's message: libfuse would allocate for each
// and take a lock that all threads share. Everything else is libfuse's (fuse_front.h).
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "fs/buffer_pool.h"
#include "fs/request.h"
#include "fs/volume_node.h"

namespace dmfs {

// What a worker thread works with. A message is received so that the payload of a write is page
// aligned.
struct WorkerMemory {
  BufferPool::Buffer receive;
  BufferPool::Buffer spare;  // takes the place of `receive` when a request keeps that
  RequestPool requests;

  static constexpr size_t kWriteHeaderSize = 80;
  std::byte* message() const { return receive.data() + kPayloadAlign - kWriteHeaderSize; }
  static constexpr size_t capacity() { return kWriteHeaderSize + kMaxPayload; }
};

class DataPath {
 public:
  // `workers`: all of them, whose requests an interrupt may mean; filled before the first message.
  // `cache`: nullptr when the kernel keeps no pages.
  DataPath(int fuse_fd, VolumeTable& volumes, PageCache* cache, BufferPool& buffers,
           const std::vector<WorkerMemory*>& workers)
      : fuse_fd_(fuse_fd), volumes_(volumes), cache_(cache), buffers_(buffers), workers_(workers) {}

  // `size` bytes of a message lie at worker.message(). False: not of this kind.
  bool handle(WorkerMemory& worker, size_t size);

 private:
  struct Message;

  VolumeNode* node_of(const Message& message) const;
  int read(WorkerMemory& worker, const Message& message);
  int write(WorkerMemory& worker, const Message& message);
  int flush(WorkerMemory& worker, const Message& message);
  int fallocate(WorkerMemory& worker, const Message& message);
  void interrupt(const Message& message);

  // constant after construction
  const int fuse_fd_;
  VolumeTable& volumes_;
  PageCache* const cache_;
  BufferPool& buffers_;
  const std::vector<WorkerMemory*>& workers_;

  // own synchronisation
  std::atomic<uint64_t> unknown_interrupt_{0};
  std::atomic<int> unknown_times_{0};
};

}  // namespace dmfs
