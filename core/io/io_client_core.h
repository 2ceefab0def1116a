// SPDX-License-Identifier: Apache-2.0
// The inside of an IoClient. Outlives it for the sake of handles.
//
// One mutex guards all requests. Whatever calls somebody else (files, notify functions, the memory
// source) is put on an IoWork under the mutex and done after it was given back. A request has at
// most one thread that is `busy` with it: that one copies its memory, starts its regions, gives
// its notices; the others leave it word (IoRegion::final_due_...) of what has come up.
#pragma once

#include <array>
#include <cstdint>
#include <memory>

#include "core/base/alarm.h"
#include "core/base/mutex.h"
#include "core/io/io_client.h"
#include "core/io/io_slot.h"

namespace dmfs {

// What a thread has to do for a client when it has given back the mutex.
struct IoWork {
  IoRequest* first_request = nullptr;  // this thread is busy with them
  IoRequest* last_request = nullptr;
  IoEntry* first_submit = nullptr;
  IoEntry* last_submit = nullptr;
  IoEntry* asks = nullptr;
  IoSlot* free_slots = nullptr;        // to be given back to the heap
  bool feed = false;                   // somebody waits for a slot that may be had now

  bool empty() const { return !first_request && !first_submit && !asks && !free_slots && !feed; }
  void append(IoWork& other);
};

struct IoSyncWait {
  CondVar returned;
  bool done = false;
  uint64_t error_bits = 0;
};

class IoClientCore : public std::enable_shared_from_this<IoClientCore> {
 public:
  explicit IoClientCore(Clock& clock, const IoClient::Options& options);
  ~IoClientCore();
  Status reserve() DM_EXCLUDES(mutex_);  // once, first
  void set_alarm(Alarm* alarm) DM_EXCLUDES(mutex_);

  IoHandle submit(IoRequest& request, IoSyncWait* waiter) DM_EXCLUDES(mutex_);
  uint64_t wait(IoSyncWait& waiter) DM_EXCLUDES(mutex_);
  size_t cancel(const IoHandle& handle) DM_EXCLUDES(mutex_);
  size_t cancel(BackingFile& file) DM_EXCLUDES(mutex_);
  void close() DM_EXCLUDES(mutex_);
  void overdue() DM_EXCLUDES(mutex_);  // the alarm's work

  bool live(uint64_t id) const DM_EXCLUDES(mutex_);
  size_t late(const BackingFile* file) const DM_EXCLUDES(mutex_);
  void wait_late(BackingFile& file) DM_EXCLUDES(mutex_);
  size_t outstanding() const DM_EXCLUDES(mutex_);
  size_t waiting() const DM_EXCLUDES(mutex_);
  const IoClient::Options& options() const { return options_; }

 private:
  static constexpr size_t kBuckets = 64;

  // Files whose addresses fall together.
  struct Bucket {
    IoEntryList in_file;
    IoEntryList fenced;    // waiting behind others, oldest first
    bool changed = false;  // what is fenced may be free to go
  };

  void release_reserve() DM_EXCLUDES(mutex_);

  static void bio_ended(Bio& bio);
  void entry_ended(IoEntry& entry) DM_EXCLUDES(mutex_);

  // Gives the mutex back, does the work, and what comes up by it on this thread.
  void finish(IoWork& work) DM_RELEASE(mutex_);
  void run(IoWork& work) DM_EXCLUDES(mutex_);
  void process(IoRequest& request, IoWork& work) DM_EXCLUDES(mutex_);
  bool give_notice(IoRequest& request, IoWork& work) DM_REQUIRES(mutex_);
  void start(IoRequest& request, IoWork& work) DM_REQUIRES(mutex_);
  void ask(IoEntry& entry) DM_EXCLUDES(mutex_);
  void feed(IoWork& work) DM_EXCLUDES(mutex_);

  bool valid(const IoRequest& request) const;
  IoSlot::Size size_for(const IoRequest& request) const;
  void touch(IoRequest& request, IoWork& work) DM_REQUIRES(mutex_);
  void set_final(IoRequest& request, IoRegion& region, RegionState state, int error, Sense sense)
      DM_REQUIRES(mutex_);
  size_t cancel_regions(IoRequest& request, const BackingFile* file, IoWork& work)
      DM_REQUIRES(mutex_);
  bool cancel_region(IoRequest& request, IoRegion& region, IoWork& work) DM_REQUIRES(mutex_);
  void end_entry(IoEntry& entry, IoWork& work) DM_REQUIRES(mutex_);
  void give_slot(IoRequest& request, IoSlot& slot, IoWork& work) DM_REQUIRES(mutex_);
  void put_slot(IoSlot& slot, IoWork& work) DM_REQUIRES(mutex_);
  void enter_file(IoEntry& entry, IoWork& work) DM_REQUIRES(mutex_);
  bool may_enter(const Bucket& bucket, const IoEntry& entry) const DM_REQUIRES(mutex_);
  void let_in(Bucket& bucket, IoWork& work) DM_REQUIRES(mutex_);
  void let_in_changed(IoWork& work) DM_REQUIRES(mutex_);
  size_t count_late(const Bucket& bucket, const BackingFile* file) const DM_REQUIRES(mutex_);

  Bucket& bucket_of(const BackingFile* file) DM_REQUIRES(mutex_) {
    return buckets_[bucket_index(file)];
  }
  static size_t bucket_index(const BackingFile* file) {
    return (reinterpret_cast<uintptr_t>(file) >> 6) % kBuckets;
  }
  void link_live(IoRequest& request) DM_REQUIRES(mutex_);
  void unlink_live(IoRequest& request) DM_REQUIRES(mutex_);
  void enqueue(IoRequest& request) DM_REQUIRES(mutex_);
  void dequeue(IoRequest& request) DM_REQUIRES(mutex_);
  void link_deadline(IoRequest& request) DM_REQUIRES(mutex_);
  void unlink_deadline(IoRequest& request) DM_REQUIRES(mutex_);

  // constant after construction
  Clock& clock_;
  const IoClient::Options options_;
  BufferSource& source_;
  const size_t late_limit_;  // in one file

  // Taken before those of the alarm and of the clock, and before no other.
  mutable Mutex mutex_;
  CondVar changed_;  // for close() and wait_late()
  // guarded by mutex_
  Alarm* alarm_ DM_GUARDED_BY(mutex_) = nullptr;
  uint64_t last_id_ DM_GUARDED_BY(mutex_) = 0;
  std::array<IoRequest*, kBuckets> live_ DM_GUARDED_BY(mutex_){};  // by id
  size_t live_count_ DM_GUARDED_BY(mutex_) = 0;
  std::array<Bucket, kBuckets> buckets_ DM_GUARDED_BY(mutex_);
  size_t in_files_ DM_GUARDED_BY(mutex_) = 0;
  size_t late_ DM_GUARDED_BY(mutex_) = 0;
  unsigned runs_ DM_GUARDED_BY(mutex_) = 0;     // threads in finish()
  unsigned waiters_ DM_GUARDED_BY(mutex_) = 0;  // threads in close() and wait_late()
  IoSlot* free_ DM_GUARDED_BY(mutex_) = nullptr;   // of the reserve
  IoRequest* queue_head_ DM_GUARDED_BY(mutex_) = nullptr;  // for slots
  IoRequest* queue_tail_ DM_GUARDED_BY(mutex_) = nullptr;
  size_t queued_ DM_GUARDED_BY(mutex_) = 0;
  IoRequest* deadline_head_ DM_GUARDED_BY(mutex_) = nullptr;  // soonest first
  IoRequest* deadline_tail_ DM_GUARDED_BY(mutex_) = nullptr;
};

}  // namespace dmfs
