// SPDX-License-Identifier: Apache-2.0
// The life of a request, from submit() to its last notice. Where regions go meanwhile is in
// io_client_files.cc, memory and lists in io_client_slots.cc.
#include "core/io/io_client_core.h"

#include <algorithm>
#include <cassert>

namespace dmfs {
namespace {

// The run() that this thread is in, of one client; of which there may be another above.
struct ActiveRun {
  const IoClientCore* core;
  IoWork* work;
  ActiveRun* outer;
};
thread_local ActiveRun* active_run = nullptr;

IoWork* active_work(const IoClientCore* core) {
  for (ActiveRun* run = active_run; run; run = run->outer) {
    if (run->core == core) return run->work;
  }
  return nullptr;
}

}  // namespace

void IoWork::append(IoWork& other) {
  if (other.first_request) {
    (last_request ? last_request->work_next_ : first_request) = other.first_request;
    last_request = other.last_request;
  }
  if (other.first_submit) {
    (last_submit ? last_submit->next_submit : first_submit) = other.first_submit;
    last_submit = other.last_submit;
  }
  while (IoEntry* entry = other.asks) {
    other.asks = entry->next_ask;
    entry->next_ask = asks;
    asks = entry;
  }
  while (IoSlot* slot = other.free_slots) {
    other.free_slots = slot->next_free;
    slot->next_free = free_slots;
    free_slots = slot;
  }
  feed |= other.feed;
  other = {};
}

IoHandle IoClientCore::submit(IoRequest& request, IoSyncWait* waiter) {
  assert(!request.regions.empty());
  assert((!waiter || !active_work(this)) && "nobody waits inside a notice");
  IoWork work;
  Clock::Time now = request.timeout > Clock::Duration::zero() ? clock_.now() : Clock::Time();
  mutex_.lock();
  for (IoRegion& region : request.regions) {
    region.phase_ = IoRegion::Phase::Waiting;
    region.timeout_due_ = region.final_due_ = false;
  }
  request.id_ = ++last_id_;
  request.handle_ = IoHandle(shared_from_this(), request.id_);
  IoHandle handle = request.handle_;
  request.bytes_ = 0;
  request.busy_ = request.started_ = false;
  request.left_ = static_cast<unsigned>(request.regions.size());
  request.due_ = 0;
  request.slot_ = nullptr;
  request.waiter_ = waiter;
  link_live(request);
  if (!valid(request)) {
    for (IoRegion& region : request.regions) {
      set_final(request, region, RegionState::Error, EINVAL, {});
    }
    touch(request, work);
  } else {
    if (op_has_data(request.op) && !request.source) {
      for (const IoRegion& region : request.regions) {
        request.bytes_ = std::max(request.bytes_, static_cast<size_t>(region.count.bytes()));
      }
    }
    if (request.timeout > Clock::Duration::zero()) {
      request.cancel_overdue_ = request.cancel_on_timeout || (waiter && !request.notify);
      bool fits = request.timeout < Clock::Time::max() - now;
      request.deadline_ = fits ? now + request.timeout : Clock::Time::max();
      link_deadline(request);
      if (alarm_ && deadline_head_ == &request) alarm_->set(request.deadline_);
    }
    if (!queue_head_ && free_) {
      IoSlot& slot = *free_;
      free_ = slot.next_free;
      give_slot(request, slot, work);
    } else {
      enqueue(request);
      work.feed = true;
    }
  }
  finish(work);
  return handle;
}

uint64_t IoClientCore::wait(IoSyncWait& waiter) {
  MutexLock lock(mutex_);
  while (!waiter.done) waiter.returned.wait(mutex_);
  return waiter.error_bits;
}

bool IoClientCore::valid(const IoRequest& request) const {
  if (request.regions.size() > options_.devices) return false;
  if (request.op == Op::Read && request.regions.size() != 1) return false;
  if (request.source && request.op != Op::Write) return false;
  uint64_t memory = op_has_data(request.op) && !request.source ? request.memory.bytes() : 0;
  return std::all_of(request.regions.begin(), request.regions.end(), [&](const IoRegion& region) {
    if (!region.file || region.sector > kMaxDeviceSectors) return false;
    if (request.op == Op::Flush) return true;
    if (region.count.n == 0 || region.count > kMaxDeviceSectors) return false;
    if (!op_has_data(request.op) || request.source) return true;
    return region.count.bytes() <= memory && region.count.bytes() <= options_.max_size;
  });
}

void IoClientCore::touch(IoRequest& request, IoWork& work) {
  if (request.busy_) return;
  request.busy_ = true;
  request.work_next_ = nullptr;
  (work.last_request ? work.last_request->work_next_ : work.first_request) = &request;
  work.last_request = &request;
}

void IoClientCore::finish(IoWork& work) {
  if (work.empty()) {
    mutex_.unlock();
    return;
  }
  if (IoWork* outer = active_work(this)) {
    // Further up on this stack a run goes on: it does this too, instead of an ever deeper one.
    outer->append(work);
    mutex_.unlock();
    return;
  }
  ++runs_;
  mutex_.unlock();
  run(work);
  mutex_.lock();
  if (--runs_ == 0 && waiters_ > 0) changed_.notify_all();
  mutex_.unlock();
}

void IoClientCore::run(IoWork& work) {
  ActiveRun active{this, &work, active_run};
  active_run = &active;
  while (!work.empty()) {
    if (IoEntry* entry = work.first_submit) {
      work.first_submit = entry->next_submit;
      if (!work.first_submit) work.last_submit = nullptr;
      if (int error = entry->cancelled()) {
        entry->complete(error);
      } else if (!entry->source) {
        entry->file->submit(*entry);
      } else if (!entry->file->copy_from(*entry, *entry->source, entry->source_sector)) {
        entry->complete(EOPNOTSUPP);
      }
    } else if (IoEntry* asked = work.asks) {
      work.asks = asked->next_ask;
      ask(*asked);
    } else if (IoRequest* request = work.first_request) {
      work.first_request = request->work_next_;
      if (!work.first_request) work.last_request = nullptr;
      process(*request, work);
    } else if (IoSlot* slot = work.free_slots) {
      work.free_slots = slot->next_free;
      slot->destroy(source_);
    } else {
      work.feed = false;
      feed(work);
    }
  }
  active_run = active.outer;
}

// This thread is busy with the request until here nothing is left to do.
void IoClientCore::process(IoRequest& request, IoWork& work) {
  mutex_.lock();
  while (true) {
    if (request.slot_ && !request.started_) {
      start(request, work);
      // The regions are on their way before anybody is told anything.
      if (work.first_submit) {
        request.busy_ = false;
        if (request.due_ > 0) touch(request, work);
        break;
      }
    } else if (request.due_ == 0) {
      request.busy_ = false;
      break;
    } else if (give_notice(request, work)) {
      break;
    }
  }
  mutex_.unlock();
}

void IoClientCore::set_final(IoRequest& request, IoRegion& region, RegionState state, int error,
                             Sense sense) {
  assert(region.phase_ != IoRegion::Phase::Ended);
  region.phase_ = IoRegion::Phase::Ended;
  region.state_ = state;
  region.error_ = error;
  region.sense_ = sense;
  region.final_due_ = true;
  ++request.due_;
}

// True: that was the last, and the request is no longer ours.
bool IoClientCore::give_notice(IoRequest& request, IoWork& work) {
  auto region = std::find_if(request.regions.begin(), request.regions.end(), [](const IoRegion& r) {
    return r.timeout_due_ || r.final_due_;
  });
  assert(region != request.regions.end());
  --request.due_;
  auto index = static_cast<unsigned>(region - request.regions.begin());
  IoNotify* notify = request.notify;
  if (region->timeout_due_) {
    region->timeout_due_ = false;
    if (notify) {
      mutex_.unlock();
      notify->notified({request.handle_, index, RegionState::Timeout, ETIMEDOUT, {}, false});
      mutex_.lock();
    }
    return false;
  }
  region->final_due_ = false;
  RegionState state = region->state_;
  int error = region->error_;
  Sense sense = region->sense_;
  if (state == RegionState::Ok && request.op == Op::Read && request.cancellable) {
    mutex_.unlock();
    request.memory.copy_in({request.slot_->buffer, request.bytes_});
    mutex_.lock();
  }
  IoSyncWait* waiter = request.waiter_;
  if (waiter && state != RegionState::Ok && index < 64) waiter->error_bits |= uint64_t{1} << index;
  bool last = --request.left_ == 0;
  IoHandle handle = last ? std::move(request.handle_) : request.handle_;
  if (last) {
    assert(request.due_ == 0);
    unlink_live(request);
    unlink_deadline(request);
    dequeue(request);
    request.handle_ = {};
    if (request.slot_) put_slot(*std::exchange(request.slot_, nullptr), work);
  }
  if (notify) {
    mutex_.unlock();
    notify->notified({handle, index, state, error, sense, last});
    mutex_.lock();
  }
  if (last && waiter) {
    waiter->done = true;
    waiter->returned.notify_one();
  }
  return last;
}

size_t IoClientCore::cancel(const IoHandle& handle) {
  if (!handle) return 0;
  IoWork work;
  size_t count = 0;
  mutex_.lock();
  for (IoRequest* request = live_[handle.id_ % kBuckets]; request; request = request->live_next_) {
    if (request->handle_ != handle) continue;
    count = cancel_regions(*request, nullptr, work);
    break;
  }
  let_in_changed(work);
  finish(work);
  return count;
}

size_t IoClientCore::cancel(BackingFile& file) {
  IoWork work;
  size_t count = 0;
  mutex_.lock();
  for (IoRequest* first : live_) {
    for (IoRequest* request = first; request; request = request->live_next_) {
      count += cancel_regions(*request, &file, work);
    }
  }
  let_in_changed(work);
  finish(work);
  return count;
}

size_t IoClientCore::cancel_regions(IoRequest& request, const BackingFile* file, IoWork& work) {
  size_t count = 0;
  for (IoRegion& region : request.regions) {
    if (file && region.file != file) continue;
    if (cancel_region(request, region, work)) ++count;
  }
  if (request.due_ > 0) touch(request, work);
  return count;
}

void IoClientCore::overdue() {
  IoWork work;
  Clock::Time now = clock_.now();
  mutex_.lock();
  while (IoRequest* request = deadline_head_) {
    if (request->deadline_ > now) break;
    unlink_deadline(*request);
    for (IoRegion& region : request->regions) {
      if (region.phase_ == IoRegion::Phase::Ended) continue;
      region.timeout_due_ = true;
      ++request->due_;
      if (request->cancel_overdue_) (void)cancel_region(*request, region, work);
    }
    if (request->due_ > 0) touch(*request, work);
  }
  if (alarm_ && deadline_head_) alarm_->set(deadline_head_->deadline_);
  let_in_changed(work);
  finish(work);
}

// 1. What is outstanding is cancelled, if that is wanted. 2. It ends, and so does what is late:
// files may go when the client has. 3. The threads that were at it have left.
void IoClientCore::close() {
  IoWork work;
  mutex_.lock();
  if (options_.on_close == IoClient::OnClose::Cancel) {
    for (IoRequest* first : live_) {
      for (IoRequest* request = first; request; request = request->live_next_) {
        (void)cancel_regions(*request, nullptr, work);
      }
    }
    let_in_changed(work);
  }
  finish(work);
  mutex_.lock();
  ++waiters_;
  while (live_count_ > 0 || in_files_ > 0 || runs_ > 0) changed_.wait(mutex_);
  --waiters_;
  mutex_.unlock();
  release_reserve();
}

}  // namespace dmfs
