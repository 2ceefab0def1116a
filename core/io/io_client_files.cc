// SPDX-License-Identifier: Apache-2.0
// How the regions of requests get into files, behind one another where they have to, and out.
#include <algorithm>
#include <atomic>
#include <cassert>

#include "core/io/io_client_core.h"

namespace dmfs {
namespace {

// Never that of a mapped device's own cancels, which count from 1.
uint64_t next_cancel_round() {
  static std::atomic<uint64_t> last{uint64_t{1} << 63};
  return last.fetch_add(1, std::memory_order_relaxed) + 1;
}

}  // namespace

// The first thing that happens to a request that has a slot.
void IoClientCore::start(IoRequest& request, IoWork& work) {
  request.started_ = true;
  IoSlot& slot = *request.slot_;
  BioData data;
  bool wanted = std::any_of(request.regions.begin(), request.regions.end(), [](const IoRegion& r) {
    return r.phase_ == IoRegion::Phase::Waiting;
  });
  if (wanted && request.bytes_ > 0) {
    mutex_.unlock();
    if (request.cancellable) {
      slot.buffer_segment = {slot.buffer, request.bytes_};
      data = {&slot.buffer_segment, 1, 0};
      if (request.op == Op::Write) request.memory.copy_out({slot.buffer, request.bytes_});
    } else {
      size_t count = request.memory.describe(request.bytes_, {slot.segments, slot.size.segments});
      data = {slot.segments, static_cast<uint32_t>(count), 0};
    }
    mutex_.lock();
  }
  for (size_t i = 0; i < request.regions.size(); ++i) {
    IoRegion& region = request.regions[i];
    if (region.phase_ != IoRegion::Phase::Waiting) continue;  // cancelled
    IoEntry& entry = slot.entries[i];
    entry.reset();
    entry.cancel_error.store(0, std::memory_order_relaxed);
    entry.end_io = bio_ended;
    entry.op = request.op;
    entry.flags = request.flags;
    entry.sector = region.sector;
    entry.count = request.op == Op::Flush ? Sectors{} : region.count;
    entry.data = data;
    entry.pid = request.pid;
    entry.held_since = 0;
    entry.region = &region;
    entry.file = region.file;
    entry.source = request.source;
    entry.source_sector = request.source_sector;
    ++slot.users;
    Bucket& bucket = bucket_of(entry.file);
    if (may_enter(bucket, entry)) {
      enter_file(entry, work);
    } else {
      region.phase_ = IoRegion::Phase::Fenced;
      bucket.fenced.push_back(entry);
    }
  }
}

// `entry` is in the line, or would become its last.
bool IoClientCore::may_enter(const Bucket& bucket, const IoEntry& entry) const {
  if (late_ > 0 && count_late(bucket, entry.file) >= late_limit_) return false;
  if (!op_modifies(entry.op)) return true;
  for (const IoEntry* other = bucket.in_file.first; other; other = other->next_entry) {
    if (other->collides(entry)) return false;
  }
  for (const IoEntry* other = bucket.fenced.first; other && other != &entry;
       other = other->next_entry) {
    if (other->collides(entry)) return false;
  }
  return true;
}

void IoClientCore::enter_file(IoEntry& entry, IoWork& work) {
  entry.in_file = true;
  entry.region->phase_ = IoRegion::Phase::InFile;
  bucket_of(entry.file).in_file.push_back(entry);
  ++in_files_;
  entry.next_submit = nullptr;
  (work.last_submit ? work.last_submit->next_submit : work.first_submit) = &entry;
  work.last_submit = &entry;
}

void IoClientCore::let_in(Bucket& bucket, IoWork& work) {
  bucket.changed = false;
  for (IoEntry* entry = bucket.fenced.first; entry;) {
    IoEntry* next = entry->next_entry;
    if (may_enter(bucket, *entry)) {
      bucket.fenced.remove(*entry);
      enter_file(*entry, work);
    }
    entry = next;
  }
}

void IoClientCore::let_in_changed(IoWork& work) {
  for (Bucket& bucket : buckets_) {
    if (bucket.changed) let_in(bucket, work);
  }
}

void IoClientCore::bio_ended(Bio& bio) {
  auto& entry = static_cast<IoEntry&>(bio);
  entry.slot->core->entry_ended(entry);
}

void IoClientCore::entry_ended(IoEntry& entry) {
  IoWork work;
  mutex_.lock();
  if (entry.asking) {
    // Who asks still uses the file: its owner must not learn before that has ended.
    entry.ended = true;
  } else {
    end_entry(entry, work);
  }
  finish(work);
}

void IoClientCore::end_entry(IoEntry& entry, IoWork& work) {
  Bucket& bucket = bucket_of(entry.file);
  bucket.in_file.remove(entry);
  entry.in_file = false;
  --in_files_;
  if (entry.late) {
    entry.late = false;
    --late_;
  } else {
    IoRequest& request = *entry.slot->request;
    IoRegion& region = *std::exchange(entry.region, nullptr);
    bool given_up = entry.status == ECANCELED && entry.cancelled() != 0;
    RegionState state = entry.status == 0 ? RegionState::Ok
                        : given_up       ? RegionState::Cancelled
                                         : RegionState::Error;
    set_final(request, region, state, entry.status, entry.sense);
    touch(request, work);
  }
  put_slot(*entry.slot, work);
  let_in(bucket, work);
  if (waiters_ > 0) changed_.notify_all();
}

// True: it is final now.
bool IoClientCore::cancel_region(IoRequest& request, IoRegion& region, IoWork& work) {
  auto entry_of = [&]() -> IoEntry& { return request.slot_->entries[&region - request.regions.data()]; };
  switch (region.phase_) {
    case IoRegion::Phase::Ended:
      return false;
    case IoRegion::Phase::Waiting:
      break;
    case IoRegion::Phase::Fenced: {
      IoEntry& entry = entry_of();
      Bucket& bucket = bucket_of(entry.file);
      bucket.fenced.remove(entry);
      bucket.changed = true;
      entry.region = nullptr;
      put_slot(*entry.slot, work);
      break;
    }
    case IoRegion::Phase::InFile: {
      IoEntry& entry = entry_of();
      if (entry.cancel_error.exchange(ECANCELED) == 0) {
        entry.asking = true;
        entry.next_ask = work.asks;
        work.asks = &entry;
      }
      if (!request.cancellable) return false;
      entry.late = true;
      ++late_;
      entry.region = nullptr;
      break;
    }
  }
  set_final(request, region, RegionState::Cancelled, ECANCELED, {});
  return true;
}

// Whether the file gives the bio back, so that little is late.
void IoClientCore::ask(IoEntry& entry) {
  IoWork work;
  (void)entry.file->cancel({&entry, ECANCELED, next_cancel_round()});
  mutex_.lock();
  entry.asking = false;
  if (std::exchange(entry.ended, false)) end_entry(entry, work);
  finish(work);
}

size_t IoClientCore::count_late(const Bucket& bucket, const BackingFile* file) const {
  size_t count = 0;
  for (const IoEntry* entry = bucket.in_file.first; entry; entry = entry->next_entry) {
    if (entry->late && entry->file == file) ++count;
  }
  return count;
}

size_t IoClientCore::late(const BackingFile* file) const {
  MutexLock lock(mutex_);
  return file ? count_late(buckets_[bucket_index(file)], file) : late_;
}

void IoClientCore::wait_late(BackingFile& file) {
  MutexLock lock(mutex_);
  ++waiters_;
  while (count_late(buckets_[bucket_index(&file)], &file) > 0) changed_.wait(mutex_);
  --waiters_;
}

}  // namespace dmfs
