// SPDX-License-Identifier: Apache-2.0
// What the front keeps of a volume that somebody has open, and the way from an inode to it. Reads
// and writes find their volume without a lock.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "core/base/mutex.h"
#include "core/base/result.h"
#include "core/dm/device_manager.h"
#include "core/dm/mapped_device.h"
#include "core/io/range_lock.h"

namespace dmfs {

// The root is inode 1, a volume its minor + 2: fixed for life, and the same after a restart.
inline constexpr uint64_t kRootInode = 1;
inline constexpr uint64_t kFirstVolumeInode = 2;
inline constexpr uint32_t kMaxMinors = 1 << 20;  // as in the kernel: a minor has 20 bits

constexpr uint64_t inode_of(uint32_t minor) {
  return minor + kFirstVolumeInode;
}
constexpr bool is_volume_inode(uint64_t inode) {
  return inode >= kFirstVolumeInode && inode - kFirstVolumeInode < kMaxMinors;
}
constexpr uint32_t minor_of_inode(uint64_t inode) {
  return static_cast<uint32_t>(inode - kFirstVolumeInode);
}

// Now, in nanoseconds since the epoch, as coarse as is cheap.
int64_t coarse_now();

// Lives from the first open to the last release. The kernel releases a file only when none of its
// requests is outstanding, so whoever serves one may use the node without counting itself in.
class VolumeNode {
 public:
  VolumeNode(std::shared_ptr<MappedDevice> device, int64_t mtime)
      : device_(std::move(device)), mtime_(mtime), told_size_(device_->size()) {}

  MappedDevice& device() { return *device_; }
  RangeLock& range_lock() { return range_lock_; }
  int64_t mtime() const { return mtime_.load(std::memory_order_relaxed); }
  // Stores only what has changed: this line is shared by all writers.
  void touch() {
    int64_t now = coarse_now();
    if (mtime_.load(std::memory_order_relaxed) != now) {
      mtime_.store(now, std::memory_order_relaxed);
    }
  }

 private:
  friend class VolumeTable;

  // constant after construction
  const std::shared_ptr<MappedDevice> device_;  // shared with the manager

  // own synchronisation
  RangeLock range_lock_;
  alignas(64) std::atomic<int64_t> mtime_;

  // guarded by the table's mutex_
  uint32_t opens_ = 0;
  Sectors told_size_;
};

class VolumeTable {
 public:
  explicit VolumeTable(DeviceManager& manager) : manager_(manager), born_(coarse_now()) {}
  ~VolumeTable();  // as close_all()
  VolumeTable(const VolumeTable&) = delete;
  VolumeTable& operator=(const VolumeTable&) = delete;

  // Lock-free; nullptr when nobody has the volume open.
  VolumeNode* find(uint32_t minor) const {
    const Page* page =
        minor < kMaxMinors ? pages_[minor / kPageSize].load(std::memory_order_acquire) : nullptr;
    return page ? (*page)[minor % kPageSize].node.load(std::memory_order_acquire) : nullptr;
  }
  // When the volume was last written; the start of this table when it never was.
  int64_t mtime(uint32_t minor) const;

  // One more user. ENXIO: no such device, it is being removed, or it has no live table.
  Status open(uint32_t minor) DM_EXCLUDES(mutex_);
  // One less.
  void release(uint32_t minor) DM_EXCLUDES(mutex_);

  // Names of the open volumes whose size is not what it was at the last call (or at the open).
  std::vector<std::string> resized() DM_EXCLUDES(mutex_);
  // Names of what is open, in the order of minors.
  std::vector<std::string> open_names() const DM_EXCLUDES(mutex_);
  // At the end, when no opens or releases arrive any more: fails what the open devices hold ...
  void fail_held(int error) DM_EXCLUDES(mutex_);
  // ... and, once nothing is outstanding, gives all devices back.
  void close_all() DM_EXCLUDES(mutex_);

 private:
  static constexpr uint32_t kPageSize = 1024;
  struct Slot {
    std::atomic<VolumeNode*> node{nullptr};
    std::atomic<int64_t> mtime{0};  // while there is no node; 0: never written
  };
  using Page = std::array<Slot, kPageSize>;

  Slot& slot(uint32_t minor) DM_REQUIRES(mutex_);
  std::vector<uint32_t> open_minors() const DM_EXCLUDES(mutex_);

  // constant after construction
  DeviceManager& manager_;
  const int64_t born_;

  // own synchronisation: pages are made under mutex_ and stay until the end
  std::array<std::atomic<Page*>, kMaxMinors / kPageSize> pages_{};

  mutable Mutex mutex_;  // leaf; the manager is called without it
  std::vector<std::unique_ptr<Page>> owned_ DM_GUARDED_BY(mutex_);
};

}  // namespace dmfs
