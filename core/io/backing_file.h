// SPDX-License-Identifier: Apache-2.0
// What lies below a target: a file, a block device, or another mapped device. The seam where the
// operating system is: tests put files here whose I/O stays outstanding until they say so.
#pragma once

#include <compare>
#include <cstdint>
#include <string>

#include "core/base/units.h"
#include "core/io/bio.h"

namespace dmfs {

// A stretch of a device that is all data or all hole (reads as zeroes, nothing allocated).
struct Extent {
  bool data = true;
  Sectors length;
};

// What tells two names of one file from two files. {0, 0}: unknown, like nothing else.
struct FileId {
  uint64_t device = 0, inode = 0;
  auto operator<=>(const FileId&) const = default;
};

class BackingFile {
 public:
  virtual ~BackingFile() = default;

  // Performs the bio (its `sector` counts from the start of this file) and completes it: exactly
  // once, on any thread, possibly before submit returns, no lock held. Never blocks for long:
  // what may hang is done on a thread of the file's own. A bio past the end gets EIO.
  virtual void submit(Bio& bio) = 0;

  // Completes what is kept here without need of bios that `cancel` wants; how many. Any thread.
  virtual size_t cancel(const BioCancel& cancel) { (void)cancel; return 0; }

  // Performs a write whose data is the range of `from` that starts at `at`, without passing it
  // through this process; the bio needs no memory. Completes it as submit() does; EOPNOTSUPP and
  // EXDEV mean that these files cannot do that after all. False, with nothing done: they cannot.
  // Both files outlive the bio. Blocks of the two may become shared.
  virtual bool copy_from(Bio& bio, BackingFile& from, Sectors at) {
    (void)bio, (void)from, (void)at;
    return false;
  }
  // The descriptor that copy_from() of another file may read from; -1: none.
  virtual int copy_fd() const { return -1; }

  // As `table` prints it: an absolute path, or the name of a mapped device. Not quoted. May
  // change (a mapped device is renamed).
  virtual std::string name() const = 0;
  // What is there now; a file may shrink or grow under us.
  virtual Sectors size() const = 0;
  virtual bool read_only() const { return false; }
  // Whether there is anything that a flush could write back.
  virtual bool needs_flush() const { return true; }
  virtual bool supports_discard() const { return true; }
  // Whether what was discarded is sure to read as zeroes.
  virtual bool discard_zeroes() const { return false; }

  // The run of data or hole that starts at `start`, at most `length` long and at least one
  // sector. Where nobody knows, all is data.
  virtual Extent extent_at(Sectors start, Sectors length) const { (void)start; return {true, length}; }
  // How much of [start, start + length) is allocated; an estimate where it would cost too much.
  virtual Sectors allocated(Sectors start, Sectors length) const { (void)start; return length; }

  // What went wrong here for good, in a sentence; empty while all is well.
  virtual std::string fault() const { return {}; }

  virtual FileId id() const { return {}; }
  // If this is a mapped device, its minor; -1 for a file.
  virtual int64_t volume_minor() const { return -1; }
  // The device number that `deps` prints: of the block device, or of the file system that holds
  // the file (0 where there is none).
  virtual uint64_t device_number() const { return 0; }
};

}  // namespace dmfs
