// SPDX-License-Identifier: Apache-2.0
// What an IoClient is asked to do, and what it tells about it.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <span>

#include "core/base/clock.h"
#include "core/base/units.h"
#include "core/io/backing_file.h"
#include "core/io/bio.h"
#include "core/io/io_memory.h"

namespace dmfs {

class IoClientCore;
struct IoSlot;
struct IoSyncWait;
struct IoWork;

// Names one request of one client. Counts as a user of the client's table of requests, which so
// outlives the client: a handle is valid for whoever holds one, copies of it too, also after the
// request has ended (it then names nothing any more) and after the client is gone. It keeps
// nothing of what a client has in reserve. Any thread; one object, one thread at a time.
class IoHandle {
 public:
  IoHandle() = default;  // names nothing
  explicit operator bool() const { return core_ != nullptr; }
  // Whether the request has been returned to its owner, or is just about to be.
  bool finished() const;
  bool operator==(const IoHandle&) const = default;

 private:
  friend class IoClientCore;
  IoHandle(std::shared_ptr<IoClientCore> core, uint64_t id) : core_(std::move(core)), id_(id) {}

  std::shared_ptr<IoClientCore> core_;  // shared by the client and all handles
  uint64_t id_ = 0;                     // never used again
};

// Where a request stands with one region. All but Timeout are final.
enum class RegionState : uint8_t {
  Ok,
  Timeout,    // overdue, and still running: a final state follows
  Cancelled,  // the client has given up on it; see IoClient for what may still happen to the file
  Error,
};

struct IoNotice {
  const IoHandle& handle;
  unsigned region;     // its index in the request
  RegionState state;
  int error;           // positive errno: of an Error; ETIMEDOUT; ECANCELED; 0 when Ok
  Sense sense;         // of an Error, where the file knows
  // Nothing follows. The request, its regions and its memory are their owner's again, who may reuse
  // or free them in this very call.
  bool last;
};

// Who is told. Called with no lock held, by any thread: the submitter's (also before submit()
// returns), one that completes I/O, the clock's, one that cancels. All of these are wanted by
// others, so it must not block; it may submit and cancel, but not wait for a request.
// The calls for one request come one at a time; the state of a region does not change during one.
class IoNotify {
 public:
  virtual ~IoNotify() = default;
  virtual void notified(const IoNotice& notice) = 0;
};

// A stretch of a file. Belongs to the caller, until the request is returned.
class IoRegion {
 public:
  IoRegion() = default;
  IoRegion(BackingFile& of, Sectors at, Sectors length) : file(&of), sector(at), count(length) {}

  BackingFile* file = nullptr;
  Sectors sector;  // on the file
  Sectors count;   // 0 for a flush

 private:
  friend class IoClientCore;
  // Waiting to be started; in a line behind other changes; in the file; final.
  enum class Phase : uint8_t { Waiting, Fenced, InFile, Ended };
  // guarded by the client's mutex
  Phase phase_ = Phase::Waiting;
  bool timeout_due_ = false;  // to be told
  bool final_due_ = false;
  RegionState state_ = RegionState::Ok;
  int error_ = 0;
  Sense sense_;
};

// Belongs to the caller, who leaves it, the regions and the memory alone from submit() on until it
// is returned: by the notice that says `last`, or by submit_and_wait(). May be used again then.
class IoRequest {
 public:
  IoRequest() = default;
  IoRequest(const IoRequest&) = delete;
  IoRequest& operator=(const IoRequest&) = delete;

  Op op = Op::Read;
  uint8_t flags = 0;             // kBioFua; files know nothing of kBioPreflush
  // At least as much as the longest region; every region is written with its beginning.
  IoMemory memory;
  // Of a write without memory: where its data is. It is copied without passing through this
  // process; EOPNOTSUPP where the files cannot do that.
  BackingFile* source = nullptr;
  Sectors source_sector;
  std::span<IoRegion> regions;   // a read has one, everything else 1 to `devices`
  IoNotify* notify = nullptr;    // nullptr: nobody wants to know
  // Counts from submit(), waiting in the client included; 0: for ever. Without `notify` a
  // request that is waited for is cancelled when it is overdue.
  Clock::Duration timeout{};
  bool cancel_on_timeout = false;  // an overdue region is told as Timeout, then as Cancelled
  // False: the file uses the caller's memory, without a copy. A cancel then ends only what the
  // file has not been given yet or gives back; the rest runs to its end. With cancel_on_timeout
  // too, therefore.
  bool cancellable = true;
  pid_t pid = 0;                 // of the process that asked, 0 if none

 private:
  friend class IoClientCore;
  friend struct IoWork;
  // guarded by the client's mutex
  IoHandle handle_;
  uint64_t id_ = 0;
  Clock::Time deadline_;
  size_t bytes_ = 0;            // of the longest region, if it goes through memory
  bool busy_ = false;           // a thread is at it, and does what comes up meanwhile
  bool started_ = false;
  bool queued_ = false;         // for a slot
  bool has_deadline_ = false;   // is in the list of those
  bool cancel_overdue_ = false;
  unsigned left_ = 0;           // regions whose final state has not been told yet
  unsigned due_ = 0;            // notices to be given
  IoSlot* slot_ = nullptr;
  IoSyncWait* waiter_ = nullptr;
  IoRequest* live_prev_ = nullptr;
  IoRequest* live_next_ = nullptr;
  IoRequest* deadline_prev_ = nullptr;
  IoRequest* deadline_next_ = nullptr;
  IoRequest* queue_prev_ = nullptr;
  IoRequest* queue_next_ = nullptr;
  IoRequest* work_next_ = nullptr;
};

}  // namespace dmfs
