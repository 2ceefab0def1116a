// SPDX-License-Identifier: Apache-2.0
// Paths that are given up when they do not answer in time (multipath's path_timeout).
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "core/dm/target.h"
#include "core/io/io_client.h"
#include "core/targets/multipath/path_fence.h"

namespace dmfs {

// What a bio may end with on a timed path, beside an errno. Never seen outside multipath.
enum TimedStatus : int {
  kPathTimedOut = -2,    // the path is overdue; what it was given may still happen
  kPathLeft = -3,        // the bio has waited, and the path has failed meanwhile: another one
  kPathPushedBack = -4,  // the bio would have to wait, and may not: kRequeue
  kPathNoMemory = -5,    // ours is gone; says nothing of the path
};

// All paths of one multipath. Bios submitted to path() are those of the multipath that was given
// `context`; each completes when the file has ended it or is overdue, whichever comes first. What
// changes the file goes by a PathFence, and with data of its own, so that a bio is free to go while
// the file still has it.
class TimedPaths final : private PathFence::Host {
 public:
  static constexpr Sectors kMaxIo{2048};  // of a read or write
  // A path with so much overdue data in it is overdue at once, until some of that has ended.
  static constexpr uint64_t kMaxStaleBytes = uint64_t{64} << 20;

  // `works` tells whether a path is in use; any thread, no lock held. EINVAL, ENOMEM.
  static Result<std::unique_ptr<TimedPaths>> create(TargetContext& context, Clock::Duration timeout);
  // Waits for what paths still have: with one that hangs, for ever. No bio is under way.
  ~TimedPaths();

  // Before the first I/O. `works`: whether the path is in use; outlives this.
  BackingFile& add(BackingFile& file, const std::atomic<bool>& works);

  PathFence& fence() { return *fence_; }
  const PathFence& fence() const { return *fence_; }
  std::shared_ptr<PathFence> share_fence() { return fence_; }
  IoClient& client() { return *client_; }
  // Overdue changes that the path still has.
  uint64_t stale(const BackingFile& path) const;
  bool any_late() const { return client_->late() > 0 || client_->outstanding() > 0; }

 private:
  struct Request;
  class Path;

  TimedPaths(TargetContext& context, Clock::Duration timeout);
  void send(Path& path, Bio& bio, PathFence::Hold* hold);
  void notified(Request& request, const IoNotice& notice);

  // PathFence::Host
  bool may_wait() override { return !context_.noflush_suspending(); }
  void let_in(Bio& bio, PathFence::Hold& hold) override;

  // constant once the table is built
  TargetContext& context_;
  const Clock::Duration timeout_;
  std::vector<std::unique_ptr<Path>> paths_;

  // own synchronisation
  const std::shared_ptr<PathFence> fence_;  // shared with those of older and newer tables
  std::unique_ptr<IoClient> client_;        // first to go
};

}  // namespace dmfs
