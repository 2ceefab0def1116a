// SPDX-License-Identifier: Apache-2.0
// The inside of a Kcopyd. Everything is decided on the queue `work`, one thing at a time; notices of
// I/O, the clock and callers only leave word and post it.
#pragma once

#include <memory>
#include <vector>

#include "core/base/alarm.h"
#include "core/base/mutex.h"
#include "core/io/duty_cycle.h"
#include "core/io/kcopyd.h"

namespace dmfs {

class KcopydCore {
 public:
  KcopydCore(IoClient& client, Clock& clock, Executor& work, const Kcopyd::Options& options);
  ~KcopydCore();
  Status reserve();  // once, first

  void submit(CopyJob& job) DM_EXCLUDES(mutex_);
  bool cancel(CopyJob& job) DM_EXCLUDES(mutex_);
  void set_throttle(unsigned percent) DM_EXCLUDES(mutex_);
  unsigned throttle() const DM_EXCLUDES(mutex_);
  size_t jobs() const DM_EXCLUDES(mutex_);

 private:
  // Holes are looked for this far ahead of data, in pieces.
  static constexpr uint64_t kHolePieces = 64;

  // A part of a job on its way. Belongs to `work` but for what the notices write, and they only
  // come while a request is out.
  struct Piece : IoNotify {
    void notified(const IoNotice& notice) override;
    // What became of the last request for a region: an errno or 0.
    int error_of(unsigned region) const;

    KcopydCore* core = nullptr;  // constant
    std::byte* buffer = nullptr;
    std::unique_ptr<IoRegion[]> regions;
    std::unique_ptr<int[]> errors;       // of each region
    std::unique_ptr<unsigned[]> target;  // which destination it is

    CopyJob* job = nullptr;
    Sectors at;                // from the start of the job
    Sectors count;
    bool zero = false;         // a hole or zeroes
    // What there is to do yet, a bit for each destination: in this order.
    uint64_t discard = 0, zeroes = 0, kernel = 0, write = 0;
    bool loaded = false;       // `buffer` has what is to be written
    Sectors written;           // by pieces of the buffer's size
    bool read_failed = false;
    bool gave_up = false;      // the job is stopping
    enum class Step : uint8_t { None, Discard, Zeroes, Kernel, Read, Write } step = Step::None;
    Sectors chunk;             // of the request that is out
    unsigned used = 0;         // regions
    uint64_t overdue = 0;      // a bit for each region
    IoRequest request;
    IoHandle handle;           // guarded by mutex_
    Piece* next = nullptr;     // guarded by mutex_: free, or its request is done
  };

  // On `work`, one at a time.
  void run() DM_EXCLUDES(mutex_);
  bool begin_piece() DM_EXCLUDES(mutex_);
  void plan(Piece& piece);
  void plan_zeroes(Piece& piece);
  void advance(Piece& piece) DM_EXCLUDES(mutex_);  // to its next request, or its end
  void note_request(Piece& piece) DM_EXCLUDES(mutex_);
  void next_request(Piece& piece) DM_EXCLUDES(mutex_);
  void send(Piece& piece, uint64_t destinations, Op op) DM_EXCLUDES(mutex_);
  void fill_regions(Piece& piece, uint64_t destinations);
  void end_piece(Piece& piece) DM_EXCLUDES(mutex_);

  void note_error(CopyJob& job, int error, bool read, unsigned destination) DM_EXCLUDES(mutex_);
  // Posts the work, unless it has been.
  void schedule() DM_EXCLUDES(mutex_);
  bool valid(const CopyJob& job) const;
  void link(CopyJob& job) DM_REQUIRES(mutex_);
  void unlink(CopyJob& job) DM_REQUIRES(mutex_);
  // Takes the job off the list if nothing of it is left to do.
  bool take_ended(CopyJob& job) DM_REQUIRES(mutex_);
  static void post_ended(CopyJob& job);

  // constant after construction
  IoClient& client_;
  Clock& clock_;
  Executor& work_;
  const Kcopyd::Options options_;
  BufferSource& source_;
  std::vector<std::unique_ptr<Piece>> pieces_;

  // Taken before the alarm's. The client's, the executors' and the files' are not taken with it.
  mutable Mutex mutex_;
  CondVar changed_;
  // guarded by mutex_
  CopyJob* first_ DM_GUARDED_BY(mutex_) = nullptr;  // by priority, then in turn
  CopyJob* last_ DM_GUARDED_BY(mutex_) = nullptr;
  size_t jobs_ DM_GUARDED_BY(mutex_) = 0;
  Piece* free_ DM_GUARDED_BY(mutex_) = nullptr;
  Piece* done_ DM_GUARDED_BY(mutex_) = nullptr;       // their requests are; oldest first
  Piece* done_tail_ DM_GUARDED_BY(mutex_) = nullptr;
  size_t active_ DM_GUARDED_BY(mutex_) = 0;           // pieces
  bool scheduled_ DM_GUARDED_BY(mutex_) = false;      // run() has been posted
  unsigned entered_ DM_GUARDED_BY(mutex_) = 0;        // threads in cancel(), schedule(), run()
  DutyCycle duty_ DM_GUARDED_BY(mutex_){Kcopyd::kBurst};

  bool closing_ DM_GUARDED_BY(mutex_) = false;        // the alarm goes

  // own synchronisation; set only while mutex_ is held and not closing_
  std::unique_ptr<Alarm> alarm_;  // the end of a rest
};

}  // namespace dmfs
