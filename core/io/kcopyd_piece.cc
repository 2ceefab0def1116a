// SPDX-License-Identifier: Apache-2.0
// What happens to a piece of a copy: which destinations need what, request by request.
#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

#include "core/io/kcopyd_core.h"

namespace dmfs {
namespace {

constexpr uint64_t bit(unsigned index) { return uint64_t{1} << index; }

uint64_t all_of(const CopyJob& job) {
  size_t count = job.destinations.size();
  return count == 64 ? ~uint64_t{0} : bit(static_cast<unsigned>(count)) - 1;
}

}  // namespace

void KcopydCore::Piece::notified(const IoNotice& notice) {
  if (notice.state == RegionState::Timeout) {
    overdue |= bit(notice.region);
    return;
  }
  errors[notice.region] = notice.error;
  if (!notice.last) return;
  KcopydCore& all = *core;
  {
    MutexLock lock(all.mutex_);
    next = nullptr;
    (all.done_tail_ ? all.done_tail_->next : all.done_) = this;
    all.done_tail_ = this;
  }
  all.schedule();
}

int KcopydCore::Piece::error_of(unsigned region) const {
  int error = errors[region];
  return error == ECANCELED && (overdue & bit(region)) ? ETIMEDOUT : error;
}

// How far the piece goes, and what its destinations need.
void KcopydCore::plan(Piece& piece) {
  CopyJob& job = *piece.job;
  Sectors left = job.count - piece.at;
  piece.count = std::min(left, options_.piece);
  piece.discard = piece.zeroes = piece.kernel = piece.write = 0;
  piece.zero = !job.source.file;
  piece.loaded = piece.read_failed = piece.gave_up = false;
  piece.written = {};
  Sectors far = std::min(left, Sectors{options_.piece.n * kHolePieces});
  if (job.source.file) {
    Extent extent = job.source.file->extent_at(job.source.sector + piece.at, far);
    piece.zero = !extent.data;
    if (piece.zero) {
      far = std::min(far, extent.length);
    } else {
      piece.count = std::min(piece.count, extent.length);
    }
  }
  if (piece.zero) {
    piece.count = far;
    plan_zeroes(piece);
    return;
  }
  bool by_kernel = job.source.file->copy_fd() >= 0;
  piece.kernel = by_kernel ? all_of(job) & ~job.not_in_kernel_ : 0;
  piece.write = all_of(job) & ~piece.kernel;
}

void KcopydCore::plan_zeroes(Piece& piece) {
  CopyJob& job = *piece.job;
  for (unsigned i = 0; i < job.destinations.size(); ++i) {
    const CopyJob::Place& place = job.destinations[i];
    Extent there = place.file->extent_at(place.sector + piece.at, piece.count);
    if (!there.data && there.length >= piece.count) continue;
    bool discard = place.file->discard_zeroes() && place.file->supports_discard();
    (discard ? piece.discard : piece.zeroes) |= bit(i);
  }
}

void KcopydCore::advance(Piece& piece) {
  bool more = piece.discard || piece.zeroes || piece.kernel ||
              (piece.write && piece.written < piece.count);
  if (more) {
    MutexLock lock(mutex_);
    piece.gave_up = piece.job->stopping_;
  }
  if (!more || piece.gave_up) return end_piece(piece);
  next_request(piece);
}

// Something is left to do.
void KcopydCore::next_request(Piece& piece) {
  auto ask = [&](Piece::Step step, uint64_t destinations, Op op) {
    piece.step = step;
    send(piece, destinations, op);
  };
  piece.chunk = piece.count;
  if (piece.discard) return ask(Piece::Step::Discard, piece.discard, Op::Discard);
  if (piece.zeroes) return ask(Piece::Step::Zeroes, piece.zeroes, Op::WriteZeroes);
  if (piece.kernel) return ask(Piece::Step::Kernel, piece.kernel, Op::Write);
  piece.chunk = std::min(piece.count - piece.written, options_.piece);
  if (!piece.loaded) {
    if (!piece.zero) return ask(Piece::Step::Read, 0, Op::Read);
    std::memset(piece.buffer, 0, static_cast<size_t>(piece.chunk.bytes()));
    piece.loaded = true;
  }
  ask(Piece::Step::Write, piece.write, Op::Write);
}

void KcopydCore::fill_regions(Piece& piece, uint64_t destinations) {
  CopyJob& job = *piece.job;
  piece.used = 0;
  Sectors at = piece.at + (piece.step == Piece::Step::Write ? piece.written : Sectors{});
  if (piece.step == Piece::Step::Read) {
    piece.regions[piece.used++] = {*job.source.file, job.source.sector + at, piece.chunk};
  }
  for (; destinations != 0; destinations &= destinations - 1) {
    auto i = static_cast<unsigned>(std::countr_zero(destinations));
    const CopyJob::Place& place = job.destinations[i];
    piece.target[piece.used] = i;
    piece.regions[piece.used++] = {*place.file, place.sector + at, piece.chunk};
  }
}

void KcopydCore::send(Piece& piece, uint64_t destinations, Op op) {
  CopyJob& job = *piece.job;
  fill_regions(piece, destinations);
  IoRequest& request = piece.request;
  request.op = op;
  request.regions = {piece.regions.get(), piece.used};
  bool by_kernel = piece.step == Piece::Step::Kernel;
  request.source = by_kernel ? job.source.file : nullptr;
  request.source_sector = by_kernel ? job.source.sector + piece.at : Sectors{};
  request.memory = op_has_data(op) && !by_kernel
                       ? IoMemory::contiguous(piece.buffer, static_cast<size_t>(piece.chunk.bytes()))
                       : IoMemory();
  request.notify = &piece;
  request.timeout = job.timeout;
  request.cancel_on_timeout = true;
  piece.overdue = 0;
  IoHandle handle = client_.submit(request);
  // By now the request may be done, but who looks at that is this thread, later. A cancel of the job
  // has not seen the handle if it came before this:
  bool cancelled;
  {
    MutexLock lock(mutex_);
    piece.handle = handle;
    cancelled = job.outcome_.cancelled;
  }
  if (cancelled) (void)client_.cancel(handle);
}

// Takes in how the request has ended.
void KcopydCore::note_request(Piece& piece) {
  CopyJob& job = *piece.job;
  if (piece.step == Piece::Step::Read) {
    int error = piece.error_of(0);
    piece.loaded = error == 0;
    if (error == 0) return;
    piece.read_failed = true;
    piece.write = 0;  // there is nothing that could be written
    return note_error(job, error, true, 0);
  }
  for (unsigned region = 0; region < piece.used; ++region) {
    unsigned i = piece.target[region];
    int error = piece.error_of(region);
    bool cannot = error == EOPNOTSUPP;
    switch (piece.step) {
      case Piece::Step::Discard:
        piece.discard &= ~bit(i);
        if (cannot) piece.zeroes |= bit(i);
        break;
      case Piece::Step::Zeroes:
        piece.zeroes &= ~bit(i);
        if (cannot) piece.write |= bit(i);
        break;
      case Piece::Step::Kernel:
        piece.kernel &= ~bit(i);
        // Reading and writing will tell which of the two is at fault.
        cannot = error != 0 && error != ECANCELED && error != ETIMEDOUT;
        if (cannot) piece.write |= bit(i);
        if (error == EOPNOTSUPP || error == EXDEV) {
          MutexLock lock(mutex_);
          job.not_in_kernel_ |= bit(i);
        }
        break;
      case Piece::Step::Write:
        cannot = false;
        if (error != 0) piece.write &= ~bit(i);
        break;
      case Piece::Step::Read:
      case Piece::Step::None:
        break;
    }
    if (error != 0 && !cannot) note_error(job, error, false, i);
  }
  if (piece.step == Piece::Step::Write) piece.written += piece.chunk;
}

}  // namespace dmfs
