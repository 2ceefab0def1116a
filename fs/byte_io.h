// SPDX-License-Identifier: Apache-2.0
// Any range of bytes of a volume, turned into bios of whole sectors. An aligned request is one bio
// over the caller's memory. A ragged write reads the sectors at its edges, patches them, and
// writes, under the volume's range lock, so that two writers of one sector never lose each other's
// bytes. A ragged discard or write-zeroes does the whole sectors with one bio and writes zeroes
// into the sectors at the edges.
//
// Ends of the volume, as with a block device: a read past the end is short, a write past it is
// short, or ENOSPC when not one byte of it fits. A change of a read-only volume is EPERM.
#pragma once

#include <sys/uio.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "core/dm/mapped_device.h"
#include "core/io/bio.h"
#include "fs/op_state.h"
#include "core/io/range_lock.h"

namespace dmfs {

// One request in flight. Reused without being constructed again. The memory of a read or write
// stays the caller's and valid until the end.
class ByteIo {
 public:
  // Called once for each start(), on any thread (also before start() has returned), with no lock
  // held. Nobody touches the object after this call, which may start() it again or recycle it.
  using End = void (*)(ByteIo& io);

  struct Request {
    Op op = Op::Read;
    bool fua = false;
    pid_t pid = 0;
    uint64_t offset = 0;     // bytes
    uint64_t length = 0;     // bytes; not used by a flush
    void* memory = nullptr;  // of a read or write
  };

  explicit ByteIo(End end);
  ByteIo(const ByteIo&) = delete;
  ByteIo& operator=(const ByteIo&) = delete;

  // `device` and `lock` (the device's) must live until the end. `tag`: see OpState; what
  // interrupt() asks for, 0 for none.
  //
  // The caller is left with a pin: it may look at completed() and hand over memory; then it must
  // call finish_start(), after which the object is not its own any more.
  void start(MappedDevice& device, RangeLock& lock, const Request& request, uint64_t tag);
  bool completed() const { return state_.completed(); }
  void finish_start() { unpin(); }

  // Any thread, any time, on any object whose memory is there: if it is the request `tag` and
  // still waits (for the lock, or held by the device), it ends with EINTR. False: it is not
  // (perhaps not yet) that request, or over.
  bool interrupt(uint64_t tag);

  // Valid in End.
  int error() const { return error_; }                           // a positive errno, or 0
  uint64_t transferred() const { return error_ ? 0 : length_; }  // after clipping

 private:
  // What the bio that is on its way does.
  enum class Step : uint8_t { Whole, Middle, ReadHead, ReadTail, WriteData, WriteHead, WriteTail };

  // First, so that a Bio or Claim leads back to the object that it is part of.
  struct OwnBio : Bio {
    OwnBio(ByteIo& io, EndIo end_io) : Bio(end_io), owner(io) {}
    ByteIo& owner;
  };
  struct OwnClaim : RangeLock::Claim {
    OwnClaim(ByteIo& io, Granted granted) : Claim(granted), owner(io) {}
    ByteIo& owner;
  };

  static void bio_ended(Bio& bio);
  static void lock_granted(RangeLock::Claim& claim);

  bool clip(uint64_t size);
  void start_ragged();
  void start_ragged_read();
  void locked();
  void step_ended(int error);
  void submit_write();
  void submit_edge(Step step, Op op, std::byte* sector, uint64_t at);
  void submit(Step step);
  void complete(int error);
  void unpin();

  bool head_ragged() const { return !sector_aligned(offset_); }
  // A request inside one sector has a head only.
  bool tail_ragged() const { return !sector_aligned(end()) && !one_sector(); }
  bool one_sector() const { return end() <= first_sector() * kSectorSize + kSectorSize; }
  uint64_t end() const { return offset_ + length_; }
  uint64_t first_sector() const { return offset_ >> kSectorShift; }
  uint64_t end_sector() const { return (end() + kSectorSize - 1) >> kSectorShift; }

  // constant after construction
  const End end_;

  // own synchronisation
  OpState state_;
  std::atomic<bool> interrupted_{false};

  // the one thread's that drives the request at a time
  OwnBio bio_;
  OwnClaim claim_;
  MappedDevice* device_ = nullptr;
  RangeLock* lock_ = nullptr;
  Op op_ = Op::Read;
  uint8_t flags_ = 0;
  Step step_ = Step::Whole;
  bool locks_ = false;  // holds claim_
  int error_ = 0;
  uint64_t offset_ = 0;
  uint64_t length_ = 0;
  std::byte* memory_ = nullptr;
  std::array<iovec, 3> segments_{};
  std::array<std::byte, kSectorSize> head_;
  std::array<std::byte, kSectorSize> tail_;
};

}  // namespace dmfs
