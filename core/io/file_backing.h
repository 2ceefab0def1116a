// SPDX-License-Identifier: Apache-2.0
// A regular file or a block device below a target.
#pragma once

#include <sys/stat.h>

#include <atomic>
#include <memory>
#include <string>

#include "core/base/mutex.h"
#include "core/base/result.h"
#include "core/io/backing_file.h"
#include "core/io/file_facts.h"
#include "core/io/io_service.h"

namespace dmfs {

class FileBacking final : public BackingFile, private IoQueue {
 public:
  struct Options {
    bool read_only = false;
    bool direct = false;  // O_DIRECT: bios and their memory are aligned to direct_alignment()
  };
  // `path_fd` is an O_PATH descriptor of what `path` (absolute) names, and stays the caller's. May
  // block (a network file system). Errors: EISDIR, ENOTBLK (neither a regular file nor a block
  // device), EACCES or EROFS (also: writable wanted, read-only there), EINVAL (no O_DIRECT there),
  // with a sentence.
  static Result<std::unique_ptr<FileBacking>> open(IoService& service, int path_fd,
                                                   const std::string& path, const Options& options);
  // Nothing may be outstanding.
  ~FileBacking() override;

  void submit(Bio& bio) override;
  // What waits for a thread ends at once, what io_uring has soon, if the kernel can.
  size_t cancel(const BioCancel& cancel) override;
  // Between local files that are opened buffered, on one file system.
  bool copy_from(Bio& bio, BackingFile& from, Sectors at) override;
  int copy_fd() const override;
  std::string name() const override { return path_; }
  Sectors size() const override;
  bool read_only() const override { return read_only_; }
  bool discard_zeroes() const override { return true; }  // holes are punched
  Extent extent_at(Sectors start, Sectors length) const override;
  Sectors allocated(Sectors start, Sectors length) const override;
  uint64_t device_number() const override { return device_number_; }
  FileId id() const override { return id_; }
  std::string fault() const override DM_EXCLUDES(fault_mutex_);

  // What offsets, lengths and memory have to be multiples of when opened direct, in bytes.
  uint32_t direct_alignment() const { return direct_alignment_; }

 private:
  // Where a read or write goes first. No thread of the front goes to a remote file.
  enum class Route { Inline, Uring, Threads };
  class Transfer;
  class Copies;

  FileBacking(IoService& service, int fd, std::string path, const Options& options);
  Status learn(const struct stat& st);

  void perform(Bio& bio) override;
  // Without blocking, or for no longer than memory takes. True: done, `error` is set.
  bool try_inline(Bio& bio, int& error);
  int transfer(Bio& bio, int rw_flags, bool& would_block);
  int write_zeroes(Bio& bio);
  // EIO when the file has become shorter than what the bio needs.
  int check_size(const Bio& bio);
  void set_fault(std::string fault) DM_EXCLUDES(fault_mutex_);

  // constant after construction
  IoService& service_;
  const int fd_;
  const std::string path_;
  const bool read_only_;
  const bool direct_;
  bool is_block_device_ = false;
  FileSystem file_system_ = FileSystem::Local;
  Route route_ = Route::Inline;
  uint32_t direct_alignment_ = 0;
  uint64_t device_number_ = 0;
  FileId id_;
  Sectors size_at_open_;

  // own synchronisation
  std::atomic<bool> nowait_read_{true};   // the file system knows RWF_NOWAIT, as far as we know
  std::atomic<bool> nowait_write_{true};

  const std::unique_ptr<Copies> copies_;  // copies that wait for a thread

  mutable Mutex fault_mutex_;  // leaf
  std::string fault_ DM_GUARDED_BY(fault_mutex_);
};

}  // namespace dmfs
