// SPDX-License-Identifier: Apache-2.0
// The memory of an IoClient, and its lists of requests.
#include <algorithm>
#include <cassert>
#include <cstring>

#include "core/io/io_client_core.h"

namespace dmfs {

IoClientCore::IoClientCore(Clock& clock, const IoClient::Options& options)
    : clock_(clock),
      options_(options),
      source_(options.buffers ? *options.buffers : BufferSource::heap()),
      late_limit_(std::max(1u, options.min_ios / 2)) {}

IoClientCore::~IoClientCore() {
  assert(live_count_ == 0 && in_files_ == 0);
  release_reserve();  // reserve() may have failed
}

void IoClientCore::release_reserve() {
  IoSlot* slots;
  {
    MutexLock lock(mutex_);
    slots = std::exchange(free_, nullptr);
  }
  while (IoSlot* slot = slots) {
    slots = slot->next_free;
    slot->destroy(source_);
  }
}

Status IoClientCore::reserve() {
  IoSlot::Size size{options_.devices, options_.max_size, options_.max_size / kPageSize + 2};
  for (unsigned i = 0; i < options_.min_ios; ++i) {
    IoSlot* slot = IoSlot::create(*this, source_, size);
    if (!slot) return Error{ENOMEM, "no memory for the reserves of an I/O client"};
    slot->reserve = true;
    std::memset(slot->buffer, 0, size.buffer);  // the kernel has promised it; now it is there
    MutexLock lock(mutex_);
    slot->next_free = free_;
    free_ = slot;
  }
  return {};
}

void IoClientCore::set_alarm(Alarm* alarm) {
  MutexLock lock(mutex_);
  alarm_ = alarm;
}

IoSlot::Size IoClientCore::size_for(const IoRequest& request) const {
  IoSlot::Size size{static_cast<unsigned>(request.regions.size()), 0, 0};
  if (request.bytes_ == 0) return size;
  if (request.cancellable) {
    size.buffer = request.bytes_;
  } else {
    size.segments = request.memory.segment_count(request.bytes_);
  }
  return size;
}

void IoClientCore::give_slot(IoRequest& request, IoSlot& slot, IoWork& work) {
  assert(slot.users == 0);
  slot.users = 1;
  slot.request = &request;
  request.slot_ = &slot;
  touch(request, work);
}

void IoClientCore::put_slot(IoSlot& slot, IoWork& work) {
  if (--slot.users > 0) return;
  slot.request = nullptr;
  if (slot.reserve) {
    slot.next_free = free_;
    free_ = &slot;
  } else {
    slot.next_free = work.free_slots;
    work.free_slots = &slot;
  }
  if (queue_head_) work.feed = true;
}

// Gives slots to those who wait, in their order: of the reserve, or of new memory while there is
// some. When there is none, the next slot that is put feeds them.
void IoClientCore::feed(IoWork& work) {
  mutex_.lock();
  while (IoRequest* request = queue_head_) {
    IoSlot* slot = free_;
    if (slot) {
      free_ = slot->next_free;
    } else {
      IoSlot::Size size = size_for(*request);
      mutex_.unlock();
      slot = IoSlot::create(*this, source_, size);
      mutex_.lock();
      if (!slot) {
        if (free_) continue;
        break;
      }
      request = queue_head_;
      IoSlot::Size needed = request ? size_for(*request) : IoSlot::Size{};
      if (!request || needed.entries > size.entries || needed.buffer > size.buffer ||
          needed.segments > size.segments) {
        slot->next_free = work.free_slots;
        work.free_slots = slot;
        continue;
      }
    }
    dequeue(*request);
    give_slot(*request, *slot, work);
  }
  mutex_.unlock();
}

void IoClientCore::enqueue(IoRequest& request) {
  request.queued_ = true;
  ++queued_;
  request.queue_next_ = nullptr;
  request.queue_prev_ = queue_tail_;
  (queue_tail_ ? queue_tail_->queue_next_ : queue_head_) = &request;
  queue_tail_ = &request;
}

void IoClientCore::dequeue(IoRequest& request) {
  if (!request.queued_) return;
  request.queued_ = false;
  --queued_;
  (request.queue_prev_ ? request.queue_prev_->queue_next_ : queue_head_) = request.queue_next_;
  (request.queue_next_ ? request.queue_next_->queue_prev_ : queue_tail_) = request.queue_prev_;
}

void IoClientCore::link_live(IoRequest& request) {
  IoRequest*& head = live_[request.id_ % kBuckets];
  request.live_prev_ = nullptr;
  request.live_next_ = head;
  if (head) head->live_prev_ = &request;
  head = &request;
  ++live_count_;
}

void IoClientCore::unlink_live(IoRequest& request) {
  IoRequest*& head = live_[request.id_ % kBuckets];
  (request.live_prev_ ? request.live_prev_->live_next_ : head) = request.live_next_;
  if (request.live_next_) request.live_next_->live_prev_ = request.live_prev_;
  if (--live_count_ == 0 && waiters_ > 0) changed_.notify_all();
}

bool IoClientCore::live(uint64_t id) const {
  MutexLock lock(mutex_);
  for (const IoRequest* request = live_[id % kBuckets]; request; request = request->live_next_) {
    if (request->id_ == id) return true;
  }
  return false;
}

// Most requests of a client have the same timeout, and so go to the end.
void IoClientCore::link_deadline(IoRequest& request) {
  request.has_deadline_ = true;
  IoRequest* before = deadline_tail_;
  while (before && before->deadline_ > request.deadline_) before = before->deadline_prev_;
  request.deadline_prev_ = before;
  request.deadline_next_ = before ? before->deadline_next_ : deadline_head_;
  (before ? before->deadline_next_ : deadline_head_) = &request;
  (request.deadline_next_ ? request.deadline_next_->deadline_prev_ : deadline_tail_) = &request;
}

void IoClientCore::unlink_deadline(IoRequest& request) {
  if (!request.has_deadline_) return;
  request.has_deadline_ = false;
  (request.deadline_prev_ ? request.deadline_prev_->deadline_next_ : deadline_head_) =
      request.deadline_next_;
  (request.deadline_next_ ? request.deadline_next_->deadline_prev_ : deadline_tail_) =
      request.deadline_prev_;
}

size_t IoClientCore::outstanding() const {
  MutexLock lock(mutex_);
  return live_count_;
}

size_t IoClientCore::waiting() const {
  MutexLock lock(mutex_);
  return queued_;
}

}  // namespace dmfs
