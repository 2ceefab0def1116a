// SPDX-License-Identifier: Apache-2.0
#include "core/io/range_lock.h"

#include <cassert>

namespace dmfs {
namespace {

uint8_t own_line(unsigned lines) {
  static std::atomic<unsigned> next{0};
  thread_local uint8_t mine = static_cast<uint8_t>(next.fetch_add(1, std::memory_order_relaxed));
  return static_cast<uint8_t>(mine % lines);
}

}  // namespace

RangeLock::~RangeLock() {
  assert(fast_drained() && listed() == 0 && "a range lock ends unheld");
}

void RangeLock::Grants::add(Claim& claim) {
  claim.next_granted_ = nullptr;
  (last ? last->next_granted_ : first) = &claim;
  last = &claim;
}

// The order of "count in, then look at slow_" against "raise slow_, then look at the counts" is
// what makes either side see the other; all four are sequentially consistent. A visitor that turns
// back, or leaves, looks at slow_ after it has counted itself out, so the last one always tells.
bool RangeLock::acquire(Claim& claim, Sectors begin, Sectors end, Mode mode) {
  if (mode == Mode::Shared) {
    claim.line_ = own_line(kLines);
    lines_[claim.line_].count.fetch_add(1, std::memory_order_seq_cst);
    claim.fast_ = true;
    if (!slow_.load(std::memory_order_seq_cst)) return true;
    release(claim);
  }
  claim.fast_ = false;
  MutexLock lock(mutex_);
  if (mode == Mode::Exclusive) {
    if (exclusives_++ == 0) {
      slow_.store(true, std::memory_order_seq_cst);
      drained_ = false;
    }
  } else if (exclusives_ == 0) {
    // The last exclusive one has left meanwhile. The flag is changed under this mutex only, so
    // counting in here is as good as the fast way.
    lines_[claim.line_].count.fetch_add(1, std::memory_order_seq_cst);
    claim.fast_ = true;
    return true;
  }
  claim.mode_ = mode;
  claim.begin_ = begin.n;
  claim.end_ = end.n;
  claim.blockers_ = 0;
  for (Claim* at = head_; at; at = at->next_) {
    bool exclusive = mode == Mode::Exclusive || at->mode_ == Mode::Exclusive;
    if (exclusive && at->begin_ < claim.end_ && claim.begin_ < at->end_) ++claim.blockers_;
  }
  claim.prev_ = tail_;
  claim.next_ = nullptr;
  (tail_ ? tail_->next_ : head_) = &claim;
  tail_ = &claim;
  claim.waiting_ = !may_go(claim);
  return !claim.waiting_;
}

void RangeLock::release(Claim& claim) {
  if (claim.fast_) {
    int64_t before = lines_[claim.line_].count.fetch_sub(1, std::memory_order_seq_cst);
    if (before != 1 || !slow_.load(std::memory_order_seq_cst)) return;
    Grants grants;
    {
      MutexLock lock(mutex_);
      grant_waiting(grants);
    }
    run(grants);
    return;
  }
  Grants grants;
  {
    MutexLock lock(mutex_);
    assert(!claim.waiting_);
    unlink(claim, grants);
  }
  run(grants);
}

bool RangeLock::cancel(Claim& claim) {
  Grants grants;
  {
    MutexLock lock(mutex_);
    if (!claim.waiting_) return false;
    claim.waiting_ = false;
    unlink(claim, grants);
  }
  run(grants);
  return true;
}

size_t RangeLock::listed() const {
  MutexLock lock(mutex_);
  size_t count = 0;
  for (Claim* at = head_; at; at = at->next_) ++count;
  return count;
}

bool RangeLock::fast_drained() const {
  for (const Line& line : lines_) {
    if (line.count.load(std::memory_order_seq_cst) != 0) return false;
  }
  return true;
}

// Shared claims need not wait for those who came the fast way: those are shared too.
bool RangeLock::may_go(const Claim& claim) {
  if (claim.blockers_ > 0) return false;
  if (claim.mode_ == Mode::Shared) return true;
  if (!drained_) drained_ = fast_drained();
  return drained_;
}

void RangeLock::unlink(Claim& claim, Grants& grants) {
  (claim.prev_ ? claim.prev_->next_ : head_) = claim.next_;
  (claim.next_ ? claim.next_->prev_ : tail_) = claim.prev_;
  if (claim.mode_ == Mode::Exclusive && --exclusives_ == 0) {
    slow_.store(false, std::memory_order_seq_cst);
  }
  for (Claim* at = claim.next_; at; at = at->next_) {
    bool exclusive = claim.mode_ == Mode::Exclusive || at->mode_ == Mode::Exclusive;
    if (exclusive && at->begin_ < claim.end_ && claim.begin_ < at->end_) --at->blockers_;
  }
  grant_waiting(grants);
}

void RangeLock::grant_waiting(Grants& grants) {
  for (Claim* at = head_; at; at = at->next_) {
    if (!at->waiting_ || !may_go(*at)) continue;
    at->waiting_ = false;
    grants.add(*at);
  }
}

// A continuation may release at once and so grant the next: a queue of this thread instead of
// recursion, whose depth would be the number of waiters.
void RangeLock::run(Grants grants) {
  thread_local Grants* running = nullptr;
  if (!grants.first) return;
  if (running) {
    (running->last ? running->last->next_granted_ : running->first) = grants.first;
    running->last = grants.last;
    return;
  }
  running = &grants;
  while (Claim* claim = grants.first) {
    grants.first = claim->next_granted_;
    if (!grants.first) grants.last = nullptr;
    claim->granted_(*claim);
  }
  running = nullptr;
}

}  // namespace dmfs
