// SPDX-License-Identifier: Apache-2.0
#include "fs/request.h"

#include <linux/fuse.h>
#include <spdlog/spdlog.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cassert>
#include <cstring>
#include <utility>

namespace dmfs {
namespace {

// False: the kernel did not take it, though it waits for a reply.
bool send(int fuse_fd, const iovec* parts, int count) {
  ssize_t sent = count == 1 ? write(fuse_fd, parts[0].iov_base, parts[0].iov_len)
                            : writev(fuse_fd, parts, count);
  if (sent >= 0) return true;
  // ENOENT: the request was aborted. ENODEV: the file system is unmounted.
  return errno == ENOENT || errno == ENODEV;
}

}  // namespace

void reply_error(int fuse_fd, uint64_t unique, int error) {
  fuse_out_header header{sizeof(header), -error, unique};
  iovec part{&header, sizeof(header)};
  if (!send(fuse_fd, &part, 1)) {
    spdlog::error("the kernel refused a reply: {}", std::strerror(errno));
  }
}

FuseRequest::FuseRequest() : ByteIo(&ended) {}

void FuseRequest::begin(int fuse_fd, uint64_t unique, VolumeNode& node,
                        const ByteIo::Request& request) {
  fuse_fd_ = fuse_fd;
  unique_ = unique;
  op_ = request.op;
  memory_ = request.memory;
  start(node.device(), node.range_lock(), request, tag_of(unique));
}

void FuseRequest::ended(ByteIo& io) {
  auto& request = static_cast<FuseRequest&>(io);
  if (!request.cache_) return request.finish();
  request.cache_->changed(request.change_, [&request] { request.finish(); });
}

void FuseRequest::finish() {
  reply();
  if (PageCache* cache = std::exchange(cache_, nullptr)) cache->replied(change_);
  large_.reset();
  home_->put(*this);
}

void FuseRequest::reply() {
  if (error() != 0) return reply_error(fuse_fd_, unique_, error());
  // In one piece where it can be: the kernel pins the pages of each.
  struct {
    fuse_out_header header;
    fuse_write_out written;
  } reply{{0, 0, unique_}, {}};
  iovec parts[2] = {{&reply, sizeof(reply.header)}, {}};
  int count = 1;
  if (op_ == Op::Read) {
    parts[count++] = {memory_, transferred()};
  } else if (op_ == Op::Write) {
    reply.written.size = static_cast<uint32_t>(transferred());
    parts[0].iov_len = sizeof(reply);
  }
  reply.header.len = static_cast<uint32_t>(parts[0].iov_len + parts[1].iov_len);
  if (!send(fuse_fd_, parts, count)) {
    spdlog::error("the kernel refused a reply: {}", std::strerror(errno));
    reply_error(fuse_fd_, unique_, EIO);
  }
}

RequestPool::~RequestPool() {
  assert(in_use() == 0 && "a request pool ends with all requests back");
  for (Slab* slab = slabs_.load(); slab;) {
    std::unique_ptr<Slab> dead(slab);
    slab = slab->next;
  }
}

RequestPool::Slab::~Slab() {
  if (memory) munmap(memory, kPerSlab * kOwnBufferSize);
}

FuseRequest* RequestPool::take() {
  if (!free_) free_ = back_.exchange(nullptr, std::memory_order_acquire);
  if (!free_ && !grow()) return nullptr;
  FuseRequest* request = free_;
  free_ = request->next_;
  taken_.store(taken_.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
  return request;
}

void RequestPool::put(FuseRequest& request) {
  // The worker takes the whole list at once, so nothing comes back to the head under our eyes.
  FuseRequest* head = back_.load(std::memory_order_relaxed);
  do {
    request.next_ = head;
  } while (!back_.compare_exchange_weak(head, &request, std::memory_order_release,
                                        std::memory_order_relaxed));
  returned_.fetch_add(1, std::memory_order_release);
}

bool RequestPool::interrupt(uint64_t unique) {
  uint64_t tag = FuseRequest::tag_of(unique);
  for (Slab* slab = slabs_.load(std::memory_order_acquire); slab; slab = slab->next) {
    for (FuseRequest& request : slab->requests) {
      if (request.ByteIo::interrupt(tag)) return true;
    }
  }
  return false;
}

bool RequestPool::grow() {
  void* memory = mmap(nullptr, kPerSlab * kOwnBufferSize, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return false;
  auto slab = std::make_unique<Slab>();
  slab->memory = static_cast<std::byte*>(memory);
  for (size_t i = 0; i < kPerSlab; ++i) {
    FuseRequest& request = slab->requests[i];
    request.home_ = this;
    request.own_buffer_ = slab->memory + i * kOwnBufferSize;
    request.next_ = free_;
    free_ = &request;
  }
  slab->next = slabs_.load(std::memory_order_relaxed);
  slabs_.store(slab.release(), std::memory_order_release);
  return true;
}

}  // namespace dmfs
