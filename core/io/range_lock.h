// SPDX-License-Identifier: Apache-2.0
// The range lock of a volume: a read-modify-write of a sector (exclusive) keeps every other change
// of that sector out. Changes of whole sectors (shared) need nothing from one another and cost one
// uncontended increment and decrement while no read-modify-write is about.
//
// Nothing here blocks a thread: a holder of the lock may itself wait in a suspended device, so
// whoever has to wait leaves a continuation.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>

#include "core/base/mutex.h"
#include "core/base/units.h"

namespace dmfs {

class RangeLock {
 public:
  enum class Mode : uint8_t { Shared, Exclusive };

  // One holder or waiter; belongs to the caller, who keeps it until release() (or until cancel()
  // has answered true). Must not be moved meanwhile.
  class Claim {
   public:
    using Granted = void (*)(Claim& claim);
    Claim() = default;
    // `granted` is called when acquire() answered false and the claim's turn has come: once, on
    // the thread of another claim's release or cancel, no lock held.
    explicit Claim(Granted granted) : granted_(granted) {}
    Claim(const Claim&) = delete;
    Claim& operator=(const Claim&) = delete;

   private:
    friend class RangeLock;
    // constant after construction
    Granted granted_ = nullptr;
    // the holder's
    uint8_t line_ = 0;
    bool fast_ = false;  // counted in lines_, not in the list
    // guarded by the lock's mutex_
    bool waiting_ = false;
    Mode mode_ = Mode::Shared;
    uint64_t begin_ = 0, end_ = 0;
    uint32_t blockers_ = 0;  // earlier claims in the list that this one has to wait for
    Claim* prev_ = nullptr;
    Claim* next_ = nullptr;
    // the queue of a thread that runs continuations
    Claim* next_granted_ = nullptr;
  };

  RangeLock() = default;
  ~RangeLock();  // nobody holds or waits
  RangeLock(const RangeLock&) = delete;
  RangeLock& operator=(const RangeLock&) = delete;

  // True: the claim holds [begin, end) now. False: it waits, and its function will be called
  // (perhaps before this returns).
  bool acquire(Claim& claim, Sectors begin, Sectors end, Mode mode);
  // Gives back what is held; runs the continuations of those who may go now.
  void release(Claim& claim);
  // Takes a waiting claim out; its function will not be called. False when it does not wait.
  bool cancel(Claim& claim);

  // For tests: how many claims are in the list (holders and waiters of the slow way).
  size_t listed() const;

 private:
  static constexpr unsigned kLines = 16;
  struct alignas(64) Line {
    std::atomic<int64_t> count{0};
  };
  // Claims to be told, first to last.
  struct Grants {
    Claim* first = nullptr;
    Claim* last = nullptr;
    void add(Claim& claim);
  };

  bool fast_drained() const;
  bool may_go(const Claim& claim) DM_REQUIRES(mutex_);
  void unlink(Claim& claim, Grants& grants) DM_REQUIRES(mutex_);
  void grant_waiting(Grants& grants) DM_REQUIRES(mutex_);
  static void run(Grants grants);

  // own synchronisation
  std::array<Line, kLines> lines_;
  alignas(64) std::atomic<bool> slow_{false};

  mutable Mutex mutex_;  // leaf: take no lock while holding this
  Claim* head_ DM_GUARDED_BY(mutex_) = nullptr;
  Claim* tail_ DM_GUARDED_BY(mutex_) = nullptr;
  // slow_ is raised while this is not 0. Shared claims that are in the list when it drops stay
  // there until they are released.
  uint64_t exclusives_ DM_GUARDED_BY(mutex_) = 0;
  // Since slow_ was raised, everybody who had come the fast way has left.
  bool drained_ DM_GUARDED_BY(mutex_) = false;
};

}  // namespace dmfs
