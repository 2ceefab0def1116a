// SPDX-License-Identifier: Apache-2.0
// Copies ranges of files in the background, in pieces (sub-jobs): from one file, or from nothing
// (zeroes), to one or several. For resynchronising mirrors and for snapshots.
//
// Holes stay holes: where the source has one, a destination that reads as zeroes already is left
// alone, and else is discarded where a discard leaves zeroes, or zeroed. Pieces between local
// files of one file system are copied by the kernel where the job allows it (which may share blocks,
// so not what a mirror wants for its redundancy); all others are read and written.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>

#include "core/base/clock.h"
#include "core/base/executor.h"
#include "core/base/result.h"
#include "core/base/units.h"
#include "core/io/backing_file.h"
#include "core/io/io_client.h"

namespace dmfs {

class KcopydCore;

// One copy. Belongs to the caller, who leaves it alone from submit() on until its `ended` runs,
// save for the counters. May be used again then.
class CopyJob {
 public:
  struct Place {
    BackingFile* file = nullptr;
    Sectors sector;
  };
  struct Outcome {
    bool read_error = false;     // some of the source could not be read
    uint64_t write_errors = 0;   // bit i: some of destination i could not be written
    int error = 0;               // the first errno of these, or ECANCELED; 0: all is well
    bool cancelled = false;
    bool ok() const { return error == 0; }
  };

  CopyJob() = default;
  virtual ~CopyJob() = default;
  CopyJob(const CopyJob&) = delete;
  CopyJob& operator=(const CopyJob&) = delete;

  // Runs once, on `queue`, no lock held; the job is the caller's again.
  virtual void ended(const Outcome& outcome) = 0;

  Place source;                     // file nullptr: zeroes
  std::span<const Place> destinations;  // 1 to what the client's `devices` says; kept by the caller
  Sectors count;
  Executor* queue = nullptr;        // must outlive the job
  int priority = 0;                 // higher ones go first; equal ones take turns
  // False: the first error ends the job, with nothing new started. True: it goes on with the other
  // pieces and destinations. What could not be read is not written.
  bool ignore_errors = false;
  bool in_kernel = true;            // copy_file_range and reflinks may be used
  // Of each read or write of a piece; one that is overdue is cancelled and counts as an error
  // (ETIMEDOUT). 0: for ever.
  Clock::Duration timeout{};

  // Any thread, while it runs and after. Sectors that are the same at all destinations now, but for
  // those that failed; never goes down.
  Sectors copied() const { return {copied_.load(std::memory_order_relaxed)}; }
  Sectors total() const { return {total_.load(std::memory_order_relaxed)}; }

 private:
  friend class KcopydCore;
  std::atomic<uint64_t> copied_{0};
  std::atomic<uint64_t> total_{0};
  // guarded by the mutex of the Kcopyd
  Outcome outcome_;
  Sectors next_;               // where the next piece begins, from the start of the job
  unsigned running_ = 0;       // pieces
  bool submitted_ = false;     // and not ended
  bool stopping_ = false;      // no more pieces
  uint64_t not_in_kernel_ = 0; // bit i: the kernel cannot copy to destination i
  CopyJob* prev_job_ = nullptr;
  CopyJob* next_job_ = nullptr;
};

class Kcopyd {
 public:
  struct Options {
    unsigned pieces = 8;       // under way at a time, all jobs together; so many buffers are reserved
    Sectors piece{1024};       // of one job at a time at most; no more than the client's max_size
    unsigned throttle = 100;   // see set_throttle()
    BufferSource* buffers = nullptr;  // nullptr: the heap
  };
  // `client` does the I/O, and is to be the one through which others write to the same files, or a
  // cancelled copy may overtake them. `work` is a queue for decisions (where the holes are), not
  // one of the clock or of I/O. All outlive this. EINVAL, ENOMEM.
  static Result<std::unique_ptr<Kcopyd>> create(IoClient& client, Clock& clock, Executor& work,
                                                const Options& options);
  // Cancels all jobs and waits until they have been posted to their queues; not from `work`, which
  // runs meanwhile. The client may then still have late I/O.
  ~Kcopyd();
  Kcopyd(const Kcopyd&) = delete;
  Kcopyd& operator=(const Kcopyd&) = delete;

  // Any thread; never blocks. Destinations do not overlap the source or each other. A job that
  // cannot be is ended with EINVAL.
  void submit(CopyJob& job);
  // Ends the job, however much of it a file still has: `ended` is posted as soon as `work` gets to
  // it. What is late stays with the client, see there. False: it had ended (been posted) already.
  // The caller knows that the job has not been freed. Any thread.
  bool cancel(CopyJob& job);

  // Copying goes on for at most this percentage of the time, 0 (pause) to 100, in bursts of about
  // kBurst. Holds at once, for jobs that run too; what has been begun is ended. Any thread.
  static constexpr std::chrono::milliseconds kBurst{100};
  void set_throttle(unsigned percent);
  unsigned throttle() const;

  // Jobs that have not ended.
  size_t jobs() const;

 private:
  explicit Kcopyd(std::unique_ptr<KcopydCore> core);
  const std::unique_ptr<KcopydCore> core_;
};

}  // namespace dmfs
