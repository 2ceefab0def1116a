// SPDX-License-Identifier: Apache-2.0
// Buffers for one whole FUSE message: what a worker receives into, what a large read is read into.
// The number is bounded: data of requests that are held lies here.
#pragma once

#include <cstddef>
#include <utility>
#include <vector>

#include "core/base/mutex.h"

namespace dmfs {

inline constexpr size_t kMaxPayload = size_t{1} << 20;  // of a read or a write
inline constexpr size_t kPayloadAlign = 4096;
inline constexpr size_t kBufferSize = kPayloadAlign + kMaxPayload;

class BufferPool {
 public:
  static constexpr size_t kDefaultMaxBuffers = 1024;  // 1 GiB

  // Owns one buffer of kBufferSize bytes, page aligned; empty when moved from. Any thread may give
  // it back.
  class Buffer {
   public:
    Buffer() = default;
    Buffer(Buffer&& other) noexcept
        : pool_(std::exchange(other.pool_, nullptr)), data_(std::exchange(other.data_, nullptr)) {}
    Buffer& operator=(Buffer&& other) noexcept {
      std::swap(pool_, other.pool_);
      std::swap(data_, other.data_);
      return *this;
    }
    ~Buffer() { reset(); }
    void reset();
    std::byte* data() const { return data_; }
    explicit operator bool() const { return data_ != nullptr; }

   private:
    friend class BufferPool;
    Buffer(BufferPool* pool, std::byte* data) : pool_(pool), data_(data) {}
    BufferPool* pool_ = nullptr;
    std::byte* data_ = nullptr;
  };

  explicit BufferPool(size_t max_buffers = kDefaultMaxBuffers) : max_buffers_(max_buffers) {}
  ~BufferPool();  // all are back
  BufferPool(const BufferPool&) = delete;
  BufferPool& operator=(const BufferPool&) = delete;

  // Empty when max_buffers are out, or memory is.
  Buffer take();

 private:
  static constexpr size_t kMaxKept = 32;  // free ones that are not given back to the system

  void put(std::byte* data);

  // constant after construction
  const size_t max_buffers_;

  Mutex mutex_;                                         // leaf
  std::vector<std::byte*> free_ DM_GUARDED_BY(mutex_);  // last in, first out: cache-warm
  size_t out_ DM_GUARDED_BY(mutex_) = 0;
  bool told_ DM_GUARDED_BY(mutex_) = false;
};

}  // namespace dmfs
