// SPDX-License-Identifier: Apache-2.0
// A file opened O_DIRECT, for bios of any alignment. What is aligned goes straight to the file; the
// rest through memory of our own, and a write of a part of a block as read-modify-write under a
// range lock. A last block that the file does not fill is read and written through the page cache,
// for direct I/O would make the file longer.
#pragma once

#include <memory>
#include <string>

#include "core/io/backing_file.h"
#include "core/io/range_lock.h"

namespace dmfs {

class AlignedBacking final : public BackingFile {
 public:
  // `direct` takes bios of blocks of `alignment` bytes (a power of two, at least a sector) in
  // memory aligned so; `buffered` is the same file, for any bio.
  AlignedBacking(std::unique_ptr<BackingFile> direct, std::unique_ptr<BackingFile> buffered,
                 uint32_t alignment);
  ~AlignedBacking() override;

  void submit(Bio& bio) override;
  size_t cancel(const BioCancel& cancel) override {
    return direct_->cancel(cancel) + buffered_->cancel(cancel);
  }

  std::string name() const override { return direct_->name(); }
  Sectors size() const override { return direct_->size(); }
  bool read_only() const override { return direct_->read_only(); }
  bool needs_flush() const override { return direct_->needs_flush(); }
  bool supports_discard() const override { return direct_->supports_discard(); }
  bool discard_zeroes() const override { return direct_->discard_zeroes(); }
  Extent extent_at(Sectors start, Sectors length) const override {
    return direct_->extent_at(start, length);
  }
  Sectors allocated(Sectors start, Sectors length) const override {
    return direct_->allocated(start, length);
  }
  std::string fault() const override;
  FileId id() const override { return direct_->id(); }
  uint64_t device_number() const override { return direct_->device_number(); }

 private:
  class Job;

  bool whole_blocks(const Bio& bio) const;
  bool aligned_memory(const Bio& bio) const;

  // constant after construction
  const std::unique_ptr<BackingFile> direct_;
  const std::unique_ptr<BackingFile> buffered_;
  const uint32_t alignment_;
  const uint64_t block_sectors_;
  const Sectors whole_end_;  // of the blocks that the file fills, when it was opened

  RangeLock lock_;  // of changes; own synchronisation
};

}  // namespace dmfs
