// SPDX-License-Identifier: Apache-2.0
#include "fs/byte_io.h"

#include <algorithm>
#include <cstring>

namespace dmfs {
namespace {

constexpr uint64_t round_down(uint64_t bytes) {
  return bytes & ~(kSectorSize - 1);
}
constexpr uint64_t round_up(uint64_t bytes) {
  return round_down(bytes + kSectorSize - 1);
}

}  // namespace

ByteIo::ByteIo(End end) : end_(end), bio_(*this, &bio_ended), claim_(*this, &lock_granted) {}

void ByteIo::start(MappedDevice& device, RangeLock& lock, const Request& request, uint64_t tag) {
  device_ = &device;
  lock_ = &lock;
  op_ = request.op;
  flags_ = request.fua ? kBioFua : 0;
  offset_ = request.offset;
  length_ = request.length;
  memory_ = static_cast<std::byte*>(request.memory);
  error_ = 0;
  locks_ = false;
  bio_.pid = request.pid;
  interrupted_.store(false, std::memory_order_relaxed);
  bio_.cancel_error.store(0, std::memory_order_relaxed);
  state_.begin(tag);

  if (op_ != Op::Flush && !clip(device.size().bytes())) return;
  if (!sector_aligned(offset_ | length_) && op_ != Op::Flush) return start_ragged();
  if (op_modifies(op_)) {
    locks_ = true;
    if (!lock.acquire(claim_, sectors_of_bytes(offset_), sectors_of_bytes(end()),
                      RangeLock::Mode::Shared)) {
      return;
    }
  }
  locked();
}

bool ByteIo::interrupt(uint64_t tag) {
  if (tag == 0 || !state_.try_pin(tag)) return false;
  // Whoever submits looks at this after the bio may have been held; so one of us takes it off.
  interrupted_.store(true, std::memory_order_seq_cst);
  if (lock_->cancel(claim_)) {
    locks_ = false;
    complete(EINTR);
  } else {
    device_->cancel_held(bio_, EINTR);
  }
  unpin();
  return true;
}

void ByteIo::bio_ended(Bio& bio) {
  static_cast<OwnBio&>(bio).owner.step_ended(bio.status);
}

void ByteIo::lock_granted(RangeLock::Claim& claim) {
  static_cast<OwnClaim&>(claim).owner.locked();
}

// False: there is nothing to do any more, the request is complete.
bool ByteIo::clip(uint64_t size) {
  int error = 0;
  if (op_modifies(op_) && device_->read_only()) {
    error = EPERM;
  } else if (length_ > 0 && offset_ >= size) {
    if (op_ != Op::Read) error = ENOSPC;
    length_ = 0;
  } else {
    length_ = std::min(length_, length_ > 0 ? size - offset_ : 0);
    if (length_ > 0) return true;
  }
  complete(error);
  return false;
}

void ByteIo::start_ragged() {
  if (op_ == Op::Read) return start_ragged_read();
  locks_ = true;
  if (lock_->acquire(claim_, {first_sector()}, {end_sector()}, RangeLock::Mode::Exclusive)) {
    locked();
  }
}

// The whole sectors go straight to the caller's memory; only the edges are bounced. No lock: who
// reads beside a writer gets the sector as it was or as it will be.
void ByteIo::start_ragged_read() {
  uint32_t used = 0;
  uint64_t middle = round_up(offset_);
  uint64_t middle_end = round_down(end());
  if (one_sector() || head_ragged()) segments_[used++] = {head_.data(), kSectorSize};
  if (middle < middle_end) {
    segments_[used++] = {memory_ + (middle - offset_), middle_end - middle};
  }
  if (tail_ragged()) segments_[used++] = {tail_.data(), kSectorSize};
  bio_.op = Op::Read;
  bio_.flags = 0;
  bio_.sector = {first_sector()};
  bio_.count = {end_sector() - first_sector()};
  bio_.data = {segments_.data(), used, 0};
  submit(Step::Whole);
}

// The lock is ours, or not needed.
void ByteIo::locked() {
  if (op_ == Op::Flush || sector_aligned(offset_ | length_)) {
    segments_[0] = {memory_, length_};
    bio_.op = op_;
    bio_.flags = flags_;
    bio_.sector = {first_sector()};
    bio_.count = op_ == Op::Flush ? Sectors{0} : sectors_of_bytes(length_);
    bio_.data = op_has_data(op_) ? BioData{segments_.data(), 1, 0} : BioData{};
    return submit(Step::Whole);
  }
  uint64_t middle = round_up(offset_);
  uint64_t middle_end = round_down(end());
  if (op_ != Op::Write && middle < middle_end) {
    // First, so that a volume that cannot discard refuses before anything has changed.
    bio_.op = op_;
    bio_.flags = flags_;
    bio_.sector = sectors_of_bytes(middle);
    bio_.count = sectors_of_bytes(middle_end - middle);
    bio_.data = {};
    return submit(Step::Middle);
  }
  if (one_sector() || head_ragged()) {
    submit_edge(Step::ReadHead, Op::Read, head_.data(), first_sector());
  } else {
    submit_edge(Step::ReadTail, Op::Read, tail_.data(), end_sector() - 1);
  }
}

void ByteIo::step_ended(int error) {
  if (error != 0) return complete(error);
  uint64_t in_head = offset_ - round_down(offset_);  // where our bytes begin in the first sector
  uint64_t head_bytes = std::min(length_, kSectorSize - in_head);
  uint64_t tail_bytes = end() - round_down(end());
  switch (step_) {
    case Step::Whole:
      if (op_ == Op::Read && !sector_aligned(offset_ | length_)) {
        if (one_sector() || head_ragged()) {
          std::memcpy(memory_, head_.data() + in_head, head_bytes);
        }
        if (tail_ragged()) {
          std::memcpy(memory_ + (length_ - tail_bytes), tail_.data(), tail_bytes);
        }
      }
      return complete(0);

    case Step::Middle:
      if (head_ragged()) {
        return submit_edge(Step::ReadHead, Op::Read, head_.data(), first_sector());
      }
      return submit_edge(Step::ReadTail, Op::Read, tail_.data(), end_sector() - 1);

    case Step::ReadHead:
      if (op_ != Op::Write) {
        std::memset(head_.data() + in_head, 0, head_bytes);
        return submit_edge(Step::WriteHead, Op::Write, head_.data(), first_sector());
      }
      std::memcpy(head_.data() + in_head, memory_, head_bytes);
      if (!tail_ragged()) return submit_write();
      return submit_edge(Step::ReadTail, Op::Read, tail_.data(), end_sector() - 1);

    case Step::ReadTail:
      if (op_ != Op::Write) {
        std::memset(tail_.data(), 0, tail_bytes);
        return submit_edge(Step::WriteTail, Op::Write, tail_.data(), end_sector() - 1);
      }
      std::memcpy(tail_.data(), memory_ + (length_ - tail_bytes), tail_bytes);
      return submit_write();

    case Step::WriteHead:
      if (!tail_ragged()) return complete(0);
      return submit_edge(Step::ReadTail, Op::Read, tail_.data(), end_sector() - 1);

    case Step::WriteData:
    case Step::WriteTail:
      return complete(0);
  }
}

// The patched edges and what lies between them, as one write.
void ByteIo::submit_write() {
  uint32_t used = 0;
  uint64_t middle = round_up(offset_);
  uint64_t middle_end = round_down(end());
  if (one_sector() || head_ragged()) segments_[used++] = {head_.data(), kSectorSize};
  if (middle < middle_end) {
    segments_[used++] = {memory_ + (middle - offset_), middle_end - middle};
  }
  if (tail_ragged()) segments_[used++] = {tail_.data(), kSectorSize};
  bio_.op = Op::Write;
  bio_.flags = flags_;
  bio_.sector = {first_sector()};
  bio_.count = {end_sector() - first_sector()};
  bio_.data = {segments_.data(), used, 0};
  submit(Step::WriteData);
}

void ByteIo::submit_edge(Step step, Op op, std::byte* sector, uint64_t at) {
  segments_[0] = {sector, kSectorSize};
  bio_.op = op;
  bio_.flags = op == Op::Write ? flags_ : 0;
  bio_.sector = {at};
  bio_.count = {1};
  bio_.data = {segments_.data(), 1, 0};
  submit(step);
}

// The pin keeps the object ours past a completion inside submit().
void ByteIo::submit(Step step) {
  step_ = step;
  bio_.slot = 0;
  bio_.reset();
  state_.pin();
  device_->submit(bio_);
  if (interrupted_.load(std::memory_order_seq_cst)) device_->cancel_held(bio_, EINTR);
  unpin();
}

void ByteIo::complete(int error) {
  error_ = error;
  // Before the request counts as complete, for the claim is a part of it.
  if (locks_) lock_->release(claim_);
  if (state_.complete()) {
    state_.end_life();
    end_(*this);
  }
}

void ByteIo::unpin() {
  if (state_.unpin()) {
    state_.end_life();
    end_(*this);
  }
}

}  // namespace dmfs
