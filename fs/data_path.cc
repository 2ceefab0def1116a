// SPDX-License-Identifier: Apache-2.0
#include "fs/data_path.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fuse.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <thread>

namespace dmfs {
namespace {

static_assert(sizeof(fuse_in_header) == 40);
static_assert(sizeof(fuse_read_in) == 40);
static_assert(sizeof(fuse_write_in) == 40);
static_assert(sizeof(fuse_in_header) + sizeof(fuse_write_in) == WorkerMemory::kWriteHeaderSize);

constexpr int kReplyLater = -1;  // the request will reply
constexpr int kMaxUnknownInterrupts = 50;

}  // namespace

struct DataPath::Message {
  const fuse_in_header& header;
  std::byte* body;
  size_t body_size;

  template <typename T>
  const T* as() const {
    return body_size >= sizeof(T) ? reinterpret_cast<const T*>(body) : nullptr;
  }
};

bool DataPath::handle(WorkerMemory& worker, size_t size) {
  if (size < sizeof(fuse_in_header)) return false;
  const auto& header = *reinterpret_cast<const fuse_in_header*>(worker.message());
  Message message{header, worker.message() + sizeof(header), size - sizeof(header)};
  // The worker's buffer may be gone once a request has it.
  const uint64_t unique = header.unique;
  int error = 0;
  switch (header.opcode) {
    case FUSE_READ:
      error = read(worker, message);
      break;
    case FUSE_WRITE:
      error = write(worker, message);
      break;
    case FUSE_FSYNC:
      error = flush(worker, message);
      break;
    case FUSE_FALLOCATE:
      error = fallocate(worker, message);
      break;
    case FUSE_INTERRUPT:
      interrupt(message);
      return true;
    default:
      return false;
  }
  if (error != kReplyLater) reply_error(fuse_fd_, unique, error);
  return true;
}

VolumeNode* DataPath::node_of(const Message& message) const {
  uint64_t inode = message.header.nodeid;
  return is_volume_inode(inode) ? volumes_.find(minor_of_inode(inode)) : nullptr;
}

// Each of these returns an errno (or 0) to reply with, or kReplyLater.

int DataPath::read(WorkerMemory& worker, const Message& message) {
  const auto* in = message.as<fuse_read_in>();
  if (!in || in->size > kMaxPayload) return EINVAL;
  VolumeNode* node = node_of(message);
  if (!node) return EBADF;
  FuseRequest* request = worker.requests.take();
  if (!request) return ENOMEM;
  void* memory = request->own_buffer();
  if (in->size > kOwnBufferSize) {
    BufferPool::Buffer buffer = buffers_.take();
    if (!buffer) {
      worker.requests.put(*request);
      return ENOMEM;
    }
    memory = buffer.data();
    request->keep(std::move(buffer));
  }
  request->begin(fuse_fd_, message.header.unique, *node,
                 {.op = Op::Read,
                  .pid = static_cast<pid_t>(message.header.pid),
                  .offset = in->offset,
                  .length = in->size,
                  .memory = memory});
  request->finish_begin();
  return kReplyLater;
}

int DataPath::write(WorkerMemory& worker, const Message& message) {
  const auto* in = message.as<fuse_write_in>();
  if (!in || in->size > message.body_size - sizeof(*in)) return EINVAL;
  VolumeNode* node = node_of(message);
  if (!node) return EBADF;
  FuseRequest* request = worker.requests.take();
  if (!request) return ENOMEM;
  // A write that completes at once is written from where it was received. One that does not keeps
  // the receive buffer; but of what is likely to be held, small payloads are copied, lest each pin
  // a large buffer.
  bool small = in->size <= kOwnBufferSize;
  void* memory = message.body + sizeof(*in);
  if (!worker.spare) worker.spare = buffers_.take();
  bool copy = small && (node->device().defers() || !worker.spare);
  if (!copy && !worker.spare) {
    worker.requests.put(*request);
    return ENOMEM;
  }
  if (copy) {
    std::memcpy(request->own_buffer(), memory, in->size);
    memory = request->own_buffer();
  }
  node->touch();
  if (cache_) {
    bool of_mmap = (in->write_flags & FUSE_WRITE_CACHE) != 0;
    request->tell(*cache_, {.minor = node->device().minor(),
                            .way = of_mmap                  ? PageCache::Way::Mmap
                                   : (in->flags & O_DIRECT) ? PageCache::Way::Direct
                                                            : PageCache::Way::Buffered,
                            .offset = in->offset,
                            .length = in->size});
  }
  request->begin(fuse_fd_, message.header.unique, *node,
                 {.op = Op::Write,
                  .fua = (in->flags & O_DSYNC) != 0,
                  .pid = static_cast<pid_t>(message.header.pid),
                  .offset = in->offset,
                  .length = in->size,
                  .memory = memory});
  if (!copy && !request->completed()) {
    request->keep(std::move(worker.receive));
    std::swap(worker.receive, worker.spare);
  }
  request->finish_begin();
  return kReplyLater;
}

int DataPath::flush(WorkerMemory& worker, const Message& message) {
  VolumeNode* node = node_of(message);
  if (!node) return EBADF;
  FuseRequest* request = worker.requests.take();
  if (!request) return ENOMEM;
  request->begin(fuse_fd_, message.header.unique, *node,
                 {.op = Op::Flush, .pid = static_cast<pid_t>(message.header.pid)});
  request->finish_begin();
  return kReplyLater;
}

// The size of a volume is fixed: what would make it longer is refused, and what lies past the end
// is nobody's.
int DataPath::fallocate(WorkerMemory& worker, const Message& message) {
  const auto* in = message.as<fuse_fallocate_in>();
  if (!in) return EINVAL;
  VolumeNode* node = node_of(message);
  if (!node) return EBADF;
  uint64_t size = node->device().size().bytes();
  bool past_end = in->offset > size || in->length > size - in->offset;
  Op op = Op::Discard;
  switch (in->mode) {
    case 0:
    case FALLOC_FL_KEEP_SIZE:
      if (node->device().read_only()) return EPERM;
      return past_end ? ENOSPC : 0;
    case FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE:
      break;
    case FALLOC_FL_ZERO_RANGE:
      if (past_end) return ENOSPC;
      op = Op::WriteZeroes;
      break;
    case FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE:
      op = Op::WriteZeroes;
      break;
    default:
      return EOPNOTSUPP;
  }
  FuseRequest* request = worker.requests.take();
  if (!request) return ENOMEM;
  node->touch();
  if (cache_) {
    request->tell(*cache_, {.minor = node->device().minor(),
                            .way = PageCache::Way::Direct,
                            .offset = in->offset,
                            .length = in->length});
  }
  request->begin(fuse_fd_, message.header.unique, *node,
                 {.op = op,
                  .pid = static_cast<pid_t>(message.header.pid),
                  .offset = in->offset,
                  .length = in->length});
  request->finish_begin();
  return kReplyLater;
}

void DataPath::interrupt(const Message& message) {
  const auto* in = message.as<fuse_interrupt_in>();
  if (!in) return;
  for (WorkerMemory* worker : workers_) {
    if (worker->requests.interrupt(in->unique)) return;
  }
  // Not one of ours, or over, or another worker has received it and not begun with it yet. EAGAIN
  // makes the kernel send the interrupt again if the request still waits; not for ever, for it may
  // be one of libfuse's that takes long.
  if (unknown_interrupt_.exchange(in->unique) != in->unique) unknown_times_.store(0);
  if (unknown_times_.fetch_add(1) >= kMaxUnknownInterrupts) return;
  std::this_thread::sleep_for(std::chrono::milliseconds(1));
  reply_error(fuse_fd_, message.header.unique, EAGAIN);
}

}  // namespace dmfs
