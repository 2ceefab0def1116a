// SPDX-License-Identifier: Apache-2.0
#include "fs/buffer_pool.h"

#include <spdlog/spdlog.h>
#include <sys/mman.h>

#include <cassert>

namespace dmfs {

void BufferPool::Buffer::reset() {
  if (data_) pool_->put(data_);
  data_ = nullptr;
  pool_ = nullptr;
}

BufferPool::~BufferPool() {
  MutexLock lock(mutex_);
  assert(out_ == 0 && "a buffer pool ends with all buffers back");
  for (std::byte* data : free_) munmap(data, kBufferSize);
}

BufferPool::Buffer BufferPool::take() {
  bool tell = false;
  {
    MutexLock lock(mutex_);
    if (out_ < max_buffers_) {
      ++out_;
      if (!free_.empty()) {
        std::byte* data = free_.back();
        free_.pop_back();
        return {this, data};
      }
    } else {
      if (told_) return {};
      told_ = true;
      tell = true;
    }
  }
  if (tell) {
    spdlog::warn("{} MiB of requests are outstanding or held: further large ones get ENOMEM",
                 max_buffers_ * (kMaxPayload >> 20));
    return {};
  }
  void* data =
      mmap(nullptr, kBufferSize, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (data != MAP_FAILED) return {this, static_cast<std::byte*>(data)};
  MutexLock lock(mutex_);
  --out_;
  return {};
}

void BufferPool::put(std::byte* data) {
  {
    MutexLock lock(mutex_);
    --out_;
    if (out_ < max_buffers_ / 2) told_ = false;
    if (free_.size() < kMaxKept) {
      free_.push_back(data);
      return;
    }
  }
  munmap(data, kBufferSize);
}

}  // namespace dmfs
