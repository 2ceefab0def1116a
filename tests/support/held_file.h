// SPDX-License-Identifier: Apache-2.0
// Backing files for tests: MemoryFile completes inside submit; HeldFile keeps each bio
// outstanding until the test completes it. Both may be used from several threads.
#pragma once

#include <array>
#include <chrono>
#include <map>
#include <string>
#include <vector>

#include "core/base/mutex.h"
#include "core/io/backing_file.h"

namespace dmfs::test {

// What a bio looked like when it was submitted.
struct SeenBio {
  Op op;
  uint8_t flags;
  uint16_t slot;
  Sectors sector;
  Sectors count;
  bool operator==(const SeenBio&) const = default;
};

// Sparse memory: a sector that was never written, or was discarded or zeroed, is a hole. Size and
// traits are set before the first submit, except where noted.
class MemoryFile : public BackingFile {
 public:
  MemoryFile(std::string name, Sectors size) : name_(std::move(name)), size_(size) {}

  void submit(Bio& bio) override;
  std::string name() const override { return name_; }
  Sectors size() const override;
  bool read_only() const override { return read_only_; }
  bool needs_flush() const override { return needs_flush_; }
  bool supports_discard() const override { return supports_discard_; }
  bool discard_zeroes() const override { return discard_zeroes_; }
  Extent extent_at(Sectors start, Sectors length) const override;
  Sectors allocated(Sectors start, Sectors length) const override;

  void set_read_only(bool value) { read_only_ = value; }
  void set_needs_flush(bool value) { needs_flush_ = value; }
  void set_supports_discard(bool value) { supports_discard_ = value; }
  void set_discard_zeroes(bool value) { discard_zeroes_ = value; }
  void set_supports_write_zeroes(bool value) { supports_write_zeroes_ = value; }
  void set_size(Sectors size);  // any time: a file that shrinks or grows

  // The nth bio from now (1: the next) ends with `error`, once. Any time.
  void fail_nth(unsigned n, int error);
  // Every bio ends with `error` from now on; 0 ends that. Any time.
  void fail_all(int error);

  // Straight access to the contents.
  void poke(Sectors at, std::span<const std::byte> bytes);
  std::vector<std::byte> peek(Sectors at, Sectors count) const;

  // Every bio that was submitted, in order.
  std::vector<SeenBio> seen() const;
  void forget_seen();

 protected:
  void record(const Bio& bio);
  // Does the work and returns the errno, without completing the bio.
  int perform(Bio& bio);

 private:
  using Block = std::array<std::byte, kSectorSize>;
  int check(const Bio& bio) DM_REQUIRES(mutex_);

  // Constant after construction.
  const std::string name_;
  // Set before use.
  bool read_only_ = false;
  bool needs_flush_ = true;
  bool supports_discard_ = true;
  bool discard_zeroes_ = false;
  bool supports_write_zeroes_ = true;

  mutable Mutex mutex_;
  // Guarded by mutex_.
  Sectors size_ DM_GUARDED_BY(mutex_);
  std::map<uint64_t, Block> blocks_ DM_GUARDED_BY(mutex_);
  std::vector<SeenBio> seen_ DM_GUARDED_BY(mutex_);
  unsigned fail_in_ DM_GUARDED_BY(mutex_) = 0;
  int fail_in_error_ DM_GUARDED_BY(mutex_) = 0;
  int fail_all_ DM_GUARDED_BY(mutex_) = 0;
};

// A MemoryFile whose work is done, and whose bios complete, only when the test says so. With
// hold(false) it is a MemoryFile.
class HeldFile : public MemoryFile {
 public:
  using MemoryFile::MemoryFile;
  ~HeldFile() override;  // asserts that nothing is held

  void submit(Bio& bio) override;

  // Whether new bios are kept. What is held already stays held.
  void hold(bool value);
  size_t held() const;
  // Waits until at least `count` bios are held; false after ten seconds.
  bool wait_held(size_t count) const;
  // The bios that are held, oldest first; for looking at, not for completing.
  std::vector<Bio*> held_bios() const;

  // Ends the oldest bio, or the `index`-th: does its work if `error` is 0, then completes it on
  // this thread. False when there is none.
  bool complete_next(int error = 0, Sense sense = {}) { return complete_at(0, error, sense); }
  bool complete_at(size_t index, int error = 0, Sense sense = {});
  // Ends all, also those that arrive while it does so; returns how many.
  size_t complete_all(int error = 0);

 private:
  mutable Mutex hold_mutex_;  // taken before no other lock
  mutable CondVar arrived_;
  bool holding_ DM_GUARDED_BY(hold_mutex_) = true;
  std::vector<Bio*> held_ DM_GUARDED_BY(hold_mutex_);
};

}  // namespace dmfs::test
