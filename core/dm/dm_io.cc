// SPDX-License-Identifier: Apache-2.0
#include "core/dm/dm_io.h"

#include <algorithm>

#include "core/dm/mapped_device.h"

namespace dmfs {

Clone::Clone() : Bio(&DmIo::clone_ended) {}

DmIo& DmIo::begin(MappedDevice& device, Bio& bio, InFlight::Shard shard) {
  DmIo& io = *ObjectPool<DmIo>::get();
  io.device = &device;
  io.original = &bio;
  io.remaining.store(1, std::memory_order_relaxed);
  io.outcome.store({}, std::memory_order_relaxed);
  io.requeue.store(false, std::memory_order_relaxed);
  io.shard = shard;
  io.first_used = false;
  return io;
}

Clone& DmIo::new_clone() {
  // Only the submitting thread makes clones, so first_used needs no more than that.
  if (first_used) return *ObjectPool<Clone>::get();
  first_used = true;
  return first;
}

void DmIo::free_clone(Clone& clone) {
  if (&clone != &first) ObjectPool<Clone>::put(&clone);
}

void DmIo::send(const Table::Entry& entry, Sectors sector, Sectors count, uint64_t skip_bytes,
                uint16_t slot) {
  Clone& clone = new_clone();
  clone.io = this;
  clone.entry = &entry;
  clone.op = original->op;
  clone.flags = original->flags;
  clone.slot = slot;
  clone.sector = sector;
  clone.count = count;
  clone.data = original->data;
  clone.data.offset += skip_bytes;
  clone.dev = nullptr;
  clone.pid = original->pid;
  clone.mark = 0;
  clone.origin = original->origin;
  clone.held_since = 0;
  clone.reset();
  remaining.fetch_add(1, std::memory_order_relaxed);

  switch (entry.target->map(clone)) {
    case MapResult::Submitted:
      return;
    case MapResult::Remapped:
      clone.dev->submit(clone);
      return;
    case MapResult::Requeue:
      requeue.store(true, std::memory_order_relaxed);
      break;
    case MapResult::Kill:
      record(EIO, clone.sense);
      break;
  }
  free_clone(clone);
  put();
}

void DmIo::clone_ended(Bio& bio) {
  auto& clone = static_cast<Clone&>(bio);
  DmIo& io = *clone.io;
  int error = clone.status;
  Sense sense = clone.sense;
  clone.reset();  // before end_io: a target that keeps the clone may complete it again at once
  clone.sense = sense;
  EndIo ended = error == kRequeue ? EndIo::Requeue : clone.entry->target->end_io(clone, error);
  switch (ended) {
    case EndIo::Incomplete:
      return;
    case EndIo::Requeue:
      io.requeue.store(true, std::memory_order_relaxed);
      break;
    case EndIo::Done:
      if (error) io.record(error, clone.sense);
      break;
  }
  io.free_clone(clone);
  io.put();
}

void DmIo::record(int error, Sense sense) {
  Outcome none;
  if (outcome.compare_exchange_strong(none, {error, sense}, std::memory_order_relaxed)) return;
  if (original->op == Op::Flush && error == EOPNOTSUPP) {
    outcome.store({error, sense}, std::memory_order_relaxed);
  }
}

void DmIo::put() {
  // Release what this thread recorded; acquire what the others did.
  if (remaining.fetch_sub(1, std::memory_order_acq_rel) == 1) device->finish(*this);
}

void MappedDevice::submit(Bio& bio) {
  if (bio.flags && is_barrier(bio)) return submit_barrier(bio);
  InFlight::Shard shard;
  while (!in_flight_.try_enter(shard)) {
    int refused;
    bool tell = false;
    {
      MutexLock lock(held_mutex_);
      // The door opens under this lock, together with taking what was held: nothing is left
      // behind.
      if (!in_flight_.closed()) continue;
      refused = defer(bio, tell);
    }
    if (tell) events_.raise();
    if (refused) bio.complete(refused);
    return;
  }
  start(bio, shard);
}

void MappedDevice::start(Bio& bio, InFlight::Shard shard) {
  // Nobody swaps the table while somebody is counted in.
  const Table* table = io_table_.load(std::memory_order_acquire);
  int refused = 0;
  if (!table || bio.sector > table->size() || bio.count > table->size() - bio.sector) {
    refused = EIO;
  } else if (op_modifies(bio.op) && table->read_only()) {
    refused = EPERM;
  }
  if (refused) {
    in_flight_.leave(shard);
    bio.complete(refused);
    return;
  }

  DmIo& io = DmIo::begin(*this, bio, shard);
  if (op_has_data(bio.op)) {
    Sectors at = bio.sector;
    Sectors end = bio.sector + bio.count;
    while (at < end) {
      const Table::Entry& entry = table->find(at);
      Sectors part = std::min(end, entry.end()) - at;
      if (uint64_t limit = entry.limits.max_io_len.n) {
        uint64_t into = (at - entry.begin).n % limit;
        part = std::min(part, Sectors{limit - into});
      }
      io.send(entry, at, part, (at - bio.sector).bytes(), 0);
      at += part;
    }
  } else if (bio.op == Op::Flush) {
    for (const Table::Entry* entry : table->flush_entries()) {
      for (uint16_t slot = 0; slot < entry->limits.num_flush_bios; ++slot) {
        io.send(*entry, entry->begin, {}, 0, slot);
      }
    }
  } else {
    Sectors at = bio.sector;
    Sectors end = bio.sector + bio.count;
    while (at < end) {
      const Table::Entry& entry = table->find(at);
      Sectors part = std::min(end, entry.end()) - at;
      bool discard = bio.op == Op::Discard;
      uint16_t slots =
          discard ? entry.limits.num_discard_bios : entry.limits.num_write_zeroes_bios;
      if (slots == 0 || (discard && !entry.target->supports_discard())) io.record(EOPNOTSUPP);
      for (uint16_t slot = 0; slot < slots; ++slot) io.send(entry, at, part, 0, slot);
      at += part;
    }
  }
  io.put();
}

void MappedDevice::finish(DmIo& io) {
  Bio& bio = *io.original;
  DmIo::Outcome outcome = io.outcome.load(std::memory_order_relaxed);
  bool requeue = io.requeue.load(std::memory_order_relaxed);
  InFlight::Shard shard = io.shard;
  ObjectPool<DmIo>::put(&io);
  if (requeue && &bio == &step_) {
    // A part of a barrier, which is pushed back as a whole.
    in_flight_.leave(shard);
    return bio.complete(kRequeue);
  }
  // Pushed back before it is counted out, so that a suspend that sees the device empty finds it.
  bool pushed = requeue && push_back(bio);
  if (requeue && !pushed) outcome = {bio.cancelled() ? bio.cancelled() : EIO, {}};
  // Counted out before it completes: until then the submitter keeps this device alive.
  in_flight_.leave(shard);
  if (pushed) return;
  bio.complete(outcome.error, outcome.sense);
}

bool MappedDevice::push_back(Bio& bio) {
  MutexLock lock(held_mutex_);
  if (!noflush_suspending_ || bio.cancelled()) return false;
  bio.reset();
  stamp_held(bio);
  budget_.force(bio);
  pushback_.push_back(bio);
  return true;
}

}  // namespace dmfs
