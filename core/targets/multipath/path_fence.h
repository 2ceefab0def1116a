// SPDX-License-Identifier: Apache-2.0
// Keeps the changes of a device apart that is changed on several paths, some of which may answer at
// any later time, or never.
//
// All paths lead to the same data. A write that is overdue on one path, and has been sent again on
// another, may still land; if a newer one of that range had landed before, it would be undone. So a
// change holds its range from when the first path is given it until all paths that were given it have
// ended it, and no other change of the range goes to any path before. Of the changes of a sector,
// then, two are never under way at a time; a change that lands late lands on nothing newer.
//
// The one thing that may pass is the very same change: same range, same data. That is what lets a
// write go another path while the first still has it: whichever of the two lands last, the file is
// the same. It needs no memory of who sent it, so it works for a write that a suspend has pushed
// back into a new table, too.
//
// A table that takes the place of another inherits what that one still has out (Heirloom).
#pragma once

#include <cstddef>
#include <cstdint>
#include <list>
#include <memory>
#include <vector>

#include "core/base/mutex.h"
#include "core/dm/target.h"

namespace dmfs {

class PathFence final : public Heirloom, public std::enable_shared_from_this<PathFence> {
 public:
  // The data of a change, in memory that does not go before all paths have ended it.
  class Data {
   public:
    static std::shared_ptr<Data> copy_of(const Bio& bio);  // nullptr: no memory
    ~Data();
    std::byte* bytes() const { return bytes_; }
    size_t size() const { return size_; }

   private:
    Data(std::byte* bytes, size_t size) : bytes_(bytes), size_(size) {}
    std::byte* const bytes_;  // aligned to a page
    const size_t size_;
  };
  // A change that some path has, or is about to be given. Belongs to the fence; guarded by its mutex,
  // but for `data`, which stays once it is there.
  struct Hold;

  class Host {
   public:
    // Whether a bio that finds its range taken may be kept; called with the fence locked.
    virtual bool may_wait() = 0;
    // A bio that has waited may go. On the thread that ends a change; no lock held.
    virtual void let_in(Bio& bio, Hold& hold) = 0;

   protected:
    ~Host() = default;
  };

  // `host` and `budget` are not used any more when no bio waits.
  PathFence(Host& host, HeldBudget& budget) : host_(host), waiting_(budget) {}

  // Any thread. The bio changes the range that it has on a path. A hold: it may go now, and
  // leave() follows. nullptr: it waits, if `refused` is 0; or it cannot, for that reason: an errno
  // (see KeptBios::keep), or kRequeue if the host does not want it to.
  Hold* enter(Bio& bio, int& refused, bool& tell) DM_EXCLUDES(mutex_);
  // The data for a hold that has none yet, from a bio that was let in; false: no memory.
  bool provide_data(Hold& hold, const Bio& bio) DM_EXCLUDES(mutex_);
  std::shared_ptr<Data> data(const Hold& hold) const DM_EXCLUDES(mutex_);
  // One path is overdue with it: from here to its leave() the same change passes whoever waits.
  void note_stale(Hold& hold) DM_EXCLUDES(mutex_);
  // One path has ended it. May let others in.
  enum class Was : uint8_t { InTime, Stale };
  void leave(Hold& hold, Was was) DM_EXCLUDES(mutex_);

  // What waits, taken out. May let others in.
  BioList take(const BioCancel& cancel) DM_EXCLUDES(mutex_);
  BioList take_all() DM_EXCLUDES(mutex_);
  // `begin`: of the target on the device.
  void list_held(HeldList& list, Sectors begin) const DM_EXCLUDES(mutex_);
  size_t waiting() const DM_EXCLUDES(mutex_);
  bool empty() const DM_EXCLUDES(mutex_);  // no path has anything, and nothing waits

  // Changes that `from`, of an older table, has out hold their ranges here too. Nothing waits there.
  void inherit(PathFence& from) DM_EXCLUDES(mutex_);

 private:
  struct Heir {
    std::shared_ptr<PathFence> fence;  // outlives its own table for this
    Hold* hold;
  };
  struct Admitted {
    Bio* bio;
    Hold* hold;
  };

  Hold* find_same(const Bio& bio) DM_REQUIRES(mutex_);
  bool blocked(const Bio& bio) const DM_REQUIRES(mutex_);
  Hold& add(const Bio& bio) DM_REQUIRES(mutex_);
  bool waiter_in(Sectors at, Sectors count) const DM_REQUIRES(mutex_);
  std::vector<Admitted> admit() DM_REQUIRES(mutex_);

  Host& host_;

  // Of two fences that of the older table is locked first. Otherwise a leaf.
  mutable Mutex mutex_;
  std::list<Hold> holds_ DM_GUARDED_BY(mutex_);
  KeptBios waiting_ DM_GUARDED_BY(mutex_);
};

struct PathFence::Hold {
  uint64_t id;     // the same wherever it was inherited
  Op op;
  Sectors at, count;
  std::shared_ptr<Data> data;  // shared by the paths that have it; nullptr: none, or not yet
  size_t users = 1;            // paths, and fences that it was inherited from
  size_t stale = 0;            // of the users
  std::vector<Heir> heirs;
};

}  // namespace dmfs
