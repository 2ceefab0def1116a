// SPDX-License-Identifier: Apache-2.0
// A read, write, flush, discard or write-zeroes of the kernel's, from its arrival to its reply.
// Requests are recycled, never freed before their pool: an interrupt may look at any of them.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "fs/buffer_pool.h"
#include "fs/byte_io.h"
#include "fs/page_cache.h"
#include "fs/volume_node.h"

namespace dmfs {

class RequestPool;

// A read or a payload up to this size lies in the request's own buffer.
inline constexpr size_t kOwnBufferSize = 32 << 10;

// Sends a reply without data, for request `unique`; `error` is a positive errno or 0.
void reply_error(int fuse_fd, uint64_t unique, int error);

class FuseRequest final : public ByteIo {
 public:
  // What an operation is found by; a request that is sent again (bit 63) keeps it.
  static uint64_t tag_of(uint64_t unique) { return (unique & ~(uint64_t{1} << 63)) >> 1; }

  FuseRequest();

  // A worker of the pool: starts it and keeps a pin, as ByteIo::start(). When it ends, it replies
  // to `unique` on whatever thread that is, and goes back to its pool.
  void begin(int fuse_fd, uint64_t unique, VolumeNode& node, const ByteIo::Request& request);
  // Before begin(): a change, of which the page cache is told before the reply.
  void tell(PageCache& cache, const PageCache::Change& change) {
    cache_ = &cache;
    change_ = change;
    cache.arrived(change_);
  }
  void finish_begin() { finish_start(); }

  std::byte* own_buffer() const { return own_buffer_; }
  // Memory that lives as long as the request. Before begin(), or (a receive buffer that was used
  // for it) before finish_begin().
  void keep(BufferPool::Buffer buffer) { large_ = std::move(buffer); }

 private:
  friend class RequestPool;

  static void ended(ByteIo& io);
  void reply();
  void finish();

  // constant after construction
  RequestPool* home_ = nullptr;
  std::byte* own_buffer_ = nullptr;

  int fuse_fd_ = -1;
  uint64_t unique_ = 0;
  Op op_ = Op::Read;
  void* memory_ = nullptr;
  BufferPool::Buffer large_;
  PageCache* cache_ = nullptr;
  PageCache::Change change_;
  FuseRequest* next_ = nullptr;  // in the pool
};

// The requests of one worker, who alone takes them out; they come back from any thread.
class RequestPool {
 public:
  RequestPool() = default;
  ~RequestPool();  // all are back
  RequestPool(const RequestPool&) = delete;
  RequestPool& operator=(const RequestPool&) = delete;

  // nullptr when there is no memory.
  FuseRequest* take();
  // Any thread.
  void put(FuseRequest& request);

  // Any thread: interrupts the request if it is one of these.
  bool interrupt(uint64_t unique);
  // How many are out. Any thread; a number of the past.
  size_t in_use() const { return taken_.load() - returned_.load(); }

 private:
  static constexpr size_t kPerSlab = 16;
  struct Slab {
    ~Slab();
    FuseRequest requests[kPerSlab];
    std::byte* memory = nullptr;  // of their own buffers
    Slab* next = nullptr;
  };

  bool grow();

  // the worker's
  FuseRequest* free_ = nullptr;

  // own synchronisation
  std::atomic<uint64_t> taken_{0};     // written by the worker only
  std::atomic<Slab*> slabs_{nullptr};  // only ever added to
  alignas(64) std::atomic<FuseRequest*> back_{nullptr};
  std::atomic<uint64_t> returned_{0};
};

}  // namespace dmfs
