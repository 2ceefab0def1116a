// SPDX-License-Identifier: Apache-2.0
// A block I/O request, as it travels from the front through mapped devices and targets to a
// backing file. The memory of a bio belongs to whoever submits it and stays valid until its
// end_io has been called. A bio completes exactly once, on any thread, never with a lock held.
#pragma once

#include <sys/types.h>
#include <sys/uio.h>

#include <atomic>
#include <cassert>
#include <cstddef>
#include <cstdint>
#include <span>

#include "core/base/units.h"

namespace dmfs {

class BackingFile;

enum class Op : uint8_t { Read, Write, Flush, Discard, WriteZeroes };

constexpr bool op_has_data(Op op) { return op == Op::Read || op == Op::Write; }
constexpr bool op_modifies(Op op) {
  return op == Op::Write || op == Op::Discard || op == Op::WriteZeroes;
}
const char* op_name(Op op);

enum BioFlags : uint8_t {
  kBioFua = 1,        // on stable storage before it completes
  kBioPreflush = 2,   // everything that completed before is on stable storage first
  // What was submitted before has completed and is on stable storage before this bio begins; it is
  // there too before it completes, and before what was submitted after begins. To a mapped device
  // only, which never passes it on.
  kBioBarrier = 4,
};

// What a SCSI device says about an error, beside the errno: kept where a target or a path knows it,
// for hardware handlers to decode. The values are the standard's.
struct Sense {
  uint8_t key = 0;   // 4 bits: 3 is a medium error
  uint8_t asc = 0;   // additional sense code
  uint8_t ascq = 0;  // its qualifier
  bool valid = false;
  bool operator==(const Sense&) const = default;
};

// The memory of a bio: a list of segments, entered at a byte offset. The list is shared by a bio
// and all its clones, which only move the offset; the length is the bio's own.
struct BioData {
  const iovec* segments = nullptr;
  uint32_t segment_count = 0;
  size_t offset = 0;  // bytes into the segments

  // Fills `out` with what covers `bytes` from the offset on; returns how many entries, at most
  // out.size(). Bytes that did not fit into `out` are left out: the caller checks.
  size_t slice(size_t bytes, std::span<iovec> out, size_t& covered) const;
};

// Copies between the memory of a bio and a flat buffer; `at` is a byte offset from the bio's
// start. The range lies within the bio.
void copy_from_bio(const BioData& data, size_t at, std::span<std::byte> to);
void copy_to_bio(const BioData& data, size_t at, std::span<const std::byte> from);
void zero_bio(const BioData& data, size_t at, size_t bytes);

class Bio {
 public:
  using EndIo = void (*)(Bio& bio);

  Bio() = default;
  explicit Bio(EndIo end_io) : end_io(end_io) {}
  Bio(const Bio&) = delete;
  Bio& operator=(const Bio&) = delete;

  // Ends the bio with a positive errno and what sense there is of it, or 0. Calls end_io, after
  // which the bio may be gone.
  void complete(int error, Sense sense_data = {}) {
    assert(!completed_ && "a bio completes once");
    completed_ = true;
    status = error;
    sense = sense_data;
    end_io(*this);
  }
  // Points a clone at a backing file (what map() does before it answers Remapped).
  void remap(BackingFile& file, Sectors at) {
    dev = &file;
    sector = at;
  }
  // Makes a completed bio usable again.
  void reset() {
    completed_ = false;
    status = 0;
    sense = {};
  }
  size_t bytes() const { return static_cast<size_t>(count.bytes()); }
  // The errno of its origin's cancel, or 0. Whoever is about to keep a bio looks at this, under
  // the lock that its cancel function takes, and completes the bio instead if it is set.
  int cancelled() const { return origin->cancel_error.load(std::memory_order_relaxed); }

  Op op = Op::Read;
  uint8_t flags = 0;         // BioFlags
  uint16_t slot = 0;         // which of a target's num_flush_bios/num_discard_bios this clone is
  int status = 0;            // positive errno, valid in end_io
  Sense sense;               // of that error
  uint32_t mark = 0;         // of a clone: the target's own, from map() to end_io()
  int64_t note = 0;          // the same, for what needs more room; not cleared for a new clone
  Sectors sector;            // first sector, on the device that the bio is sent to
  Sectors count;             // 0 for a flush
  BioData data;              // for reads and writes
  BackingFile* dev = nullptr;
  EndIo end_io = nullptr;
  Bio* next = nullptr;       // for whoever holds the bio: a queue
  pid_t pid = 0;             // of the process that asked, 0 if none
  Bio* origin = this;        // what this is a clone of, all the way up; itself if it is none
  int64_t held_since = 0;    // ns of the steady clock; for whoever holds the bio, 0 when nobody does
  std::atomic<int> cancel_error{0};  // of an origin; its owner clears it before another use

 private:
  bool completed_ = false;
};

// Asks whoever keeps bios to give some up.
struct BioCancel {
  const Bio* origin;   // those that come from this one, which is only compared; nullptr: all
  int error;           // to complete them with
  uint64_t round = 0;  // the same number wherever one cancel comes by, no other has it

  bool wants(const Bio& bio) const { return !origin || bio.origin == origin; }
};

// A FIFO of bios, linked through Bio::next; owns nothing. Not thread-safe.
class BioList {
 public:
  bool empty() const { return head_ == nullptr; }
  size_t size() const { return size_; }
  size_t barriers() const { return barriers_; }  // how many of them are
  Bio* front() const { return head_; }
  void push_back(Bio& bio);
  // Puts all of `other` before what is here, keeping its order; `other` is empty after.
  void splice_front(BioList& other);
  Bio* pop_front();
  // Takes out what comes before the first barrier; all if there is none.
  BioList take_before_barrier();
  // Takes out those that `cancel` wants, in order.
  BioList take(const BioCancel& cancel);
  // Completes all, in order, and is empty after; how many.
  size_t complete_all(int error);

 private:
  Bio* head_ = nullptr;
  Bio* tail_ = nullptr;
  size_t size_ = 0;
  size_t barriers_ = 0;
};

}  // namespace dmfs
