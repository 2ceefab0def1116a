// SPDX-License-Identifier: Apache-2.0
// -o cache=on: the kernel keeps pages of volumes, and this sees to it that none of them is old once
// a command, or a change that came by another way, has been acknowledged:
//  - a resume (with a new table or not) of the volume or of one that it lies on,
//  - a change made through a volume above,
//  - a change of a volume below, or of another one that lies on the same volume,
//  - a direct write beside buffered readers (the kernel drops the pages itself after synchronous
//    direct writes, not after asynchronous ones).
//
// Telling the kernel to drop pages blocks while one of them is being read, which a suspended volume
// may hold up, and while a dirty one is written back. So it is done on threads of a pool, a queue
// for each volume, and whoever is to be acknowledged waits in a continuation: kMaxDelay at the
// most. Two writers, each with a locked page that the other's change makes old, would be a knot:
// who waits for a volume that has such a writer waits kKnotDelay only. Pages that could not be
// dropped by then are dropped when the lock goes.
#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <thread>
#include <vector>

#include "core/base/cancel.h"
#include "core/base/mutex.h"
#include "core/dm/change_observer.h"
#include "core/dm/device_manager.h"
#include "core/io/io_threads.h"
#include "fs/volume_node.h"

namespace dmfs {

class PageCache final : public ChangeObserver {
 public:
  using Then = std::function<void()>;
  // Tells the kernel to drop [at, at + length) of an inode; length 0: all from there on.
  using Drop = std::function<void(uint64_t inode, int64_t at, int64_t length)>;

  enum class Way : uint8_t {
    Buffered,  // write(2): the pages are in the cache already; perhaps locked until the reply
    Direct,    // O_DIRECT, fallocate: past the cache
    Mmap,      // writeback of a page, which waits for the reply
  };
  class Volume;
  // A change of a volume through its own file.
  struct Change {
    uint32_t minor = 0;
    Way way = Way::Buffered;
    uint64_t offset = 0;
    uint64_t length = 0;
    int64_t since = 0;  // now() when it arrived; set by arrived(), as what follows
    Volume* volume = nullptr;
  };

  static constexpr std::chrono::seconds kMaxDelay{2};
  static constexpr std::chrono::milliseconds kKnotDelay{20};
  static constexpr std::chrono::seconds kMaxCommandDelay{30};

  PageCache(DeviceManager& manager, VolumeTable& volumes, Drop drop);
  ~PageCache() override;  // closed, nothing pending
  PageCache(const PageCache&) = delete;
  PageCache& operator=(const PageCache&) = delete;

  static int64_t now();  // a coarse clock that only goes forward, in nanoseconds

  // The volume's file is open and the reply has not been sent. False: pages of an earlier open may
  // be old, do not keep them.
  bool opened(uint32_t minor);
  // A change begins; its kernel request may hold a lock on pages until replied().
  void arrived(Change& change);
  void replied(const Change& change);
  // It is complete but not replied to. `then` as below.
  void changed(const Change& change, Then then);
  // `then` runs once, on any thread, perhaps before this returns.
  void changed_from_above(uint32_t minor, Sectors begin, Sectors count, Then then) override;
  // After each command, before it is acknowledged.
  void after_command(CancelToken& cancel);

  // From here on nothing is dropped and nobody waits.
  void close();
  size_t pending() const { return pending_.load(); }  // drops that are under way

 private:
  struct Batch;
  struct Job;
  // What lies below a volume, itself included, and the latest generation of that.
  struct Stack {
    std::vector<uint32_t> minors;  // sorted
    uint64_t generation = 0;
  };
  struct Range {
    Volume* volume;
    int64_t at = 0;
    int64_t length = 0;  // 0: all
    bool own = false;    // of the volume's own writer: not a change by another way
  };
  using Related = std::map<uint32_t, std::vector<Volume*>>;

  Stack stack_of(uint32_t minor) const;
  // Brings related_ up to date; the volumes whose contents may have changed since they were told.
  std::vector<std::pair<Volume*, uint64_t>> refresh() DM_REQUIRES(refresh_mutex_);
  Volume* cached(uint32_t minor) DM_EXCLUDES(mutex_);
  std::shared_ptr<Batch> start(const std::vector<Range>& ranges, Then then, bool limited);
  void job_ended(Job& job);
  void end_early();
  bool take(Batch& batch, Then& then) DM_REQUIRES(mutex_);

  // constant after construction
  DeviceManager& manager_;
  VolumeTable& volumes_;
  const Drop drop_;

  // own synchronisation
  IoThreads threads_;
  std::atomic<size_t> pending_{0};
  std::atomic<bool> any_related_{false};
  std::atomic<bool> closed_{false};

  Mutex refresh_mutex_;  // > mutex_ and the manager's locks

  Mutex mutex_;  // leaf
  CondVar changed_;
  std::map<uint32_t, std::unique_ptr<Volume>> known_ DM_GUARDED_BY(mutex_);  // only added to
  Related related_ DM_GUARDED_BY(mutex_);  // who else has to be told of a change to a volume
  std::list<std::shared_ptr<Batch>> waiting_ DM_GUARDED_BY(mutex_);  // in the order of deadlines
  bool sleeps_ DM_GUARDED_BY(mutex_) = false;  // the thread below, until it is woken
  bool stopping_ DM_GUARDED_BY(mutex_) = false;
  std::thread ends_early_;  // last: uses all of the above
};

}  // namespace dmfs
