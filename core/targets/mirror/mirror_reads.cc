// SPDX-License-Identifier: Apache-2.0
// Bio::mark of a read: the leg that is asked and one, and from kFailedShift on which legs have
// failed it. 0: nothing more can be done.
#include "core/base/object_pool.h"
#include "core/targets/mirror/mirror.h"

namespace dmfs {
namespace {

constexpr unsigned kFailedShift = 8;

unsigned leg_of(const Bio& bio) { return (bio.mark & 0xff) - 1; }
Legs::Mask failed_of(const Bio& bio) { return bio.mark >> kFailedShift; }

}  // namespace

struct Mirror::TimedRead final : IoNotify {
  void notified(const IoNotice& notice) override {
    Mirror& to = *mirror;
    if (notice.state == RegionState::Timeout) return to.leg_overdue(leg_of(*bio));
    if (!notice.last) return;
    Bio& read = *bio;
    RegionState state = notice.state;
    ObjectPool<TimedRead>::put(this);
    to.timed_read_ended(read, state);
  }
  Mirror* mirror = nullptr;
  Bio* bio = nullptr;
  IoRegion region;
  IoRequest request;
  TimedRead* pool_next = nullptr;
};

std::optional<unsigned> Mirror::leg_to_read(Sectors offset) const {
  // Elsewhere than on the primary leg only what is in sync can be read.
  if (log_->in_sync(region_of(offset))) return legs_.choose();
  unsigned primary = legs_.primary();
  return legs_.failed(primary) ? std::nullopt : std::optional(primary);
}

bool Mirror::choose_leg_for(Bio& bio) const {
  std::optional<unsigned> leg = leg_to_read(context_.offset(bio));
  if (!leg || failed_of(bio) >> *leg & 1) return false;
  bio.mark = failed_of(bio) << kFailedShift | (*leg + 1);
  return true;
}

MapResult Mirror::map_read(Bio& bio) {
  bio.mark = 0;
  if (!choose_leg_for(bio)) return MapResult::Kill;
  if (times_out()) {
    send_timed_read(bio);
    return MapResult::Submitted;
  }
  const Legs::Leg& leg = legs_[leg_of(bio)];
  bio.remap(leg.file, leg.start + context_.offset(bio));
  return MapResult::Remapped;
}

EndIo Mirror::end_io(Bio& bio, int& error) {
  if (bio.op != Op::Read || bio.mark == 0) return EndIo::Done;
  bio.sector = bio.sector - legs_[leg_of(bio)].start + context_.begin();
  if (error == 0) note_repairs(bio);
  if (error == 0 || error == EOPNOTSUPP || !read_failed(bio, kReadError)) {
    bio.mark = 0;
    if (error && error != EOPNOTSUPP) error = EIO;
    return EndIo::Done;
  }
  const Legs::Leg& leg = legs_[leg_of(bio)];
  bio.remap(leg.file, leg.start + context_.offset(bio));
  leg.file.submit(bio);
  return EndIo::Incomplete;
}

void Mirror::send_timed_read(Bio& bio) {
  TimedRead& read = *ObjectPool<TimedRead>::get();
  const Legs::Leg& leg = legs_[leg_of(bio)];
  read.mirror = this;
  read.bio = &bio;
  read.region = IoRegion(leg.file, leg.start + context_.offset(bio), bio.count);
  read.request.op = Op::Read;
  read.request.memory =
      IoMemory::scatter({bio.data.segments, bio.data.segment_count}, bio.data.offset);
  read.request.regions = {&read.region, 1};
  read.request.notify = &read;
  read.request.timeout = features_.io_timeout;
  read.request.cancel_on_timeout = false;  // leg_overdue() decides
  read.request.pid = bio.pid;
  client_->submit(read.request);
}

void Mirror::timed_read_ended(Bio& bio, RegionState state) {
  int error = 0;
  if (state == RegionState::Ok) {
    note_repairs(bio);
  } else if (read_failed(bio, state == RegionState::Cancelled ? kLate : kReadError)) {
    return send_timed_read(bio);
  } else {
    error = EIO;
  }
  bio.mark = 0;
  bio.complete(error);
}

bool Mirror::read_failed(Bio& bio, LegError how) {
  unsigned leg = leg_of(bio);
  fail_leg(leg, how);
  // A leg that is late has not said that it cannot read.
  if (how == kReadError) bio.mark |= Legs::Mask{1} << (kFailedShift + leg);
  return choose_leg_for(bio);
}

void Mirror::note_repairs(const Bio& bio) {
  constexpr size_t kMaxRepairs = 1024;
  Legs::Mask failed = failed_of(bio);
  if (!failed || !features_.handle_errors) return;
  {
    MutexLock lock(mutex_);
    for (unsigned leg = 0; leg < legs_.size(); ++leg) {
      if (!(failed >> leg & 1) || repairs_.size() >= kMaxRepairs) continue;
      repairs_.push_back({leg, context_.offset(bio), bio.count});
    }
  }
  kick_recovery();
}

}  // namespace dmfs
