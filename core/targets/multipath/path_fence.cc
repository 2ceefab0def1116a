// SPDX-License-Identifier: Apache-2.0
#include "core/targets/multipath/path_fence.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <utility>

#include "core/io/buffer_source.h"

namespace dmfs {
namespace {

uint64_t next_id() {
  static std::atomic<uint64_t> last{0};
  return last.fetch_add(1, std::memory_order_relaxed) + 1;
}

bool overlap(Sectors a, Sectors a_count, Sectors b, Sectors b_count) {
  return a < b + b_count && b < a + a_count;
}

// Whether the bio has just these bytes.
bool same_bytes(const Bio& bio, const std::byte* bytes) {
  size_t skip = bio.data.offset, left = bio.bytes();
  for (uint32_t i = 0; i < bio.data.segment_count && left > 0; ++i) {
    const iovec& segment = bio.data.segments[i];
    if (skip >= segment.iov_len) {
      skip -= segment.iov_len;
      continue;
    }
    size_t length = std::min(segment.iov_len - skip, left);
    if (std::memcmp(static_cast<const std::byte*>(segment.iov_base) + skip, bytes, length) != 0) {
      return false;
    }
    bytes += length;
    left -= length;
    skip = 0;
  }
  return left == 0;
}

}  // namespace

std::shared_ptr<PathFence::Data> PathFence::Data::copy_of(const Bio& bio) {
  std::byte* bytes = BufferSource::heap().get(bio.bytes());
  if (!bytes) return nullptr;
  copy_from_bio(bio.data, 0, {bytes, bio.bytes()});
  return std::shared_ptr<Data>(new Data(bytes, bio.bytes()));
}

PathFence::Data::~Data() { BufferSource::heap().put(bytes_); }

PathFence::Hold* PathFence::find_same(const Bio& bio) {
  for (Hold& hold : holds_) {
    if (hold.op != bio.op || hold.at != bio.sector || hold.count != bio.count) continue;
    // Of a write it can only be told when the data is there.
    if (bio.op != Op::Write || (hold.data && same_bytes(bio, hold.data->bytes()))) return &hold;
  }
  return nullptr;
}

bool PathFence::waiter_in(Sectors at, Sectors count) const {
  for (const Bio* other = waiting_.front(); other; other = other->next) {
    if (overlap(other->sector, other->count, at, count)) return true;
  }
  return false;
}

bool PathFence::blocked(const Bio& bio) const {
  for (const Hold& hold : holds_) {
    if (overlap(hold.at, hold.count, bio.sector, bio.count)) return true;
  }
  return waiter_in(bio.sector, bio.count);
}

PathFence::Hold& PathFence::add(const Bio& bio) {
  holds_.push_back({next_id(), bio.op, bio.sector, bio.count, nullptr, 1, 0, {}});
  return holds_.back();
}

PathFence::Hold* PathFence::enter(Bio& bio, int& refused, bool& tell) {
  MutexLock lock(mutex_);
  refused = 0;
  Hold* same = find_same(bio);
  // Without an overdue one in it there is a turn to keep.
  if (same && (same->stale > 0 || !waiter_in(bio.sector, bio.count))) {
    ++same->users;
    return same;
  }
  if (!blocked(bio)) return &add(bio);
  if (host_.may_wait()) {
    refused = waiting_.keep(bio, tell);
  } else {
    refused = kRequeue;
  }
  return nullptr;
}

bool PathFence::provide_data(Hold& hold, const Bio& bio) {
  if (data(hold)) return true;  // who joins finds it there
  auto copy = Data::copy_of(bio);
  MutexLock lock(mutex_);
  hold.data = std::move(copy);
  return hold.data != nullptr;
}

std::shared_ptr<PathFence::Data> PathFence::data(const Hold& hold) const {
  MutexLock lock(mutex_);
  return hold.data;
}

void PathFence::note_stale(Hold& hold) {
  MutexLock lock(mutex_);
  ++hold.stale;
}

// Those that wait and can go now, each with a hold.
std::vector<PathFence::Admitted> PathFence::admit() {
  std::vector<Admitted> admitted;
  BioList all = waiting_.take_all();
  while (Bio* bio = all.pop_front()) {
    if (blocked(*bio)) {
      waiting_.force(*bio);
    } else {
      bio->held_since = 0;
      admitted.push_back({bio, &add(*bio)});
    }
  }
  return admitted;
}

void PathFence::leave(Hold& hold, Was was) {
  std::vector<Heir> heirs;
  std::vector<Admitted> admitted;
  std::shared_ptr<Data> data;  // goes with no lock held
  {
    MutexLock lock(mutex_);
    if (was == Was::Stale) --hold.stale;
    if (--hold.users > 0) return;
    heirs = std::move(hold.heirs);
    data = std::move(hold.data);
    Sectors at = hold.at, count = hold.count;
    holds_.remove_if([&](const Hold& other) { return &other == &hold; });
    if (waiter_in(at, count)) admitted = admit();
  }
  for (const Heir& heir : heirs) heir.fence->leave(*heir.hold, Was::Stale);
  for (const Admitted& next : admitted) host_.let_in(*next.bio, *next.hold);
}

BioList PathFence::take(const BioCancel& cancel) {
  BioList taken;
  std::vector<Admitted> admitted;
  {
    MutexLock lock(mutex_);
    taken = waiting_.take(cancel);
    if (!taken.empty()) admitted = admit();  // what waited for nothing but those
  }
  for (const Admitted& next : admitted) host_.let_in(*next.bio, *next.hold);
  return taken;
}

BioList PathFence::take_all() {
  MutexLock lock(mutex_);
  return waiting_.take_all();
}

void PathFence::list_held(HeldList& list, Sectors begin) const {
  MutexLock lock(mutex_);
  for (const Bio* bio = waiting_.front(); bio; bio = bio->next) {
    list.add("multipath", *bio, begin + bio->sector);
  }
}

size_t PathFence::waiting() const {
  MutexLock lock(mutex_);
  return waiting_.size();
}

bool PathFence::empty() const {
  MutexLock lock(mutex_);
  return holds_.empty() && waiting_.empty();
}

void PathFence::inherit(PathFence& from) {
  if (&from == this) return;
  MutexLock theirs(from.mutex_);
  MutexLock ours(mutex_);
  for (Hold& hold : from.holds_) {
    auto at = std::find_if(holds_.begin(), holds_.end(),
                           [&](const Hold& own) { return own.id == hold.id; });
    if (at != holds_.end()) {
      ++at->users;  // by another way
      ++at->stale;
    } else {
      holds_.push_back({hold.id, hold.op, hold.at, hold.count, hold.data, 1, 1, {}});
      at = std::prev(holds_.end());
    }
    hold.heirs.push_back({shared_from_this(), &*at});
  }
}

}  // namespace dmfs
