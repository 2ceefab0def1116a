// SPDX-License-Identifier: Apache-2.0
// What a request of an IoClient needs to be under way, and what stays of it while something is late.
#pragma once

#include <memory>

#include "core/io/buffer_source.h"
#include "core/io/io_request.h"

namespace dmfs {

// One region on its way to a file. Fields without a word belong to the client's mutex.
struct IoEntry : Bio {
  IoSlot* slot = nullptr;         // constant
  IoRegion* region = nullptr;     // nullptr: the caller has been, or is being, told
  BackingFile* file = nullptr;
  BackingFile* source = nullptr;  // see IoRequest::source
  Sectors source_sector;
  bool in_file = false;           // in the bucket's list of those; from before submit() on
  bool late = false;              // in the file, and cancelled
  bool asking = false;            // BackingFile::cancel() is being called for it
  bool ended = false;             // the bio has, while `asking`
  IoEntry* prev = nullptr;        // of a bucket's list
  IoEntry* next_entry = nullptr;
  IoEntry* next_submit = nullptr; // of an IoWork
  IoEntry* next_ask = nullptr;

  // Whether two changes must not pass one another.
  bool collides(const IoEntry& other) const {
    return file == other.file && op_modifies(op) && op_modifies(other.op) &&
           sector < other.sector + other.count && other.sector < sector + count;
  }
};

// A doubly linked list of entries.
struct IoEntryList {
  IoEntry* first = nullptr;
  IoEntry* last = nullptr;
  void push_back(IoEntry& entry);
  void remove(IoEntry& entry);
};

struct IoSlot {
  struct Size {
    unsigned entries = 0;
    size_t buffer = 0;    // bytes
    size_t segments = 0;
  };
  // nullptr: no memory. No lock is held.
  static IoSlot* create(IoClientCore& core, BufferSource& source, const Size& size);
  void destroy(BufferSource& source);

  // constant
  IoClientCore* core = nullptr;
  Size size;
  std::unique_ptr<IoEntry[]> entries;
  std::byte* buffer = nullptr;
  iovec* segments = nullptr;
  bool reserve = false;

  // guarded by the client's mutex
  unsigned users = 0;             // the request, and each entry that is in a line or in a file
  IoRequest* request = nullptr;   // nullptr when it has been returned
  iovec buffer_segment{};
  IoSlot* next_free = nullptr;
};

}  // namespace dmfs
