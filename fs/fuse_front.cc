// SPDX-License-Identifier: Apache-2.0
#include "fs/fuse_front.h"

#include <algorithm>

namespace dmfs {
namespace {

constexpr blksize_t kBlockSize = 4096;

timespec to_timespec(int64_t ns) {
  return {ns / 1'000'000'000, ns % 1'000'000'000};
}

}  // namespace

std::shared_ptr<MappedDevice> FuseFront::device(uint64_t inode) const {
  if (!is_volume_inode(inode)) return nullptr;
  return manager_.find(minor_of_inode(inode));
}

struct stat FuseFront::attributes(const MappedDevice& device) const {
  struct stat attr {};
  attr.st_ino = inode_of(device.minor());
  mode_t mode = device.read_only() ? options_.mode & ~mode_t{0222} : options_.mode;
  attr.st_mode = S_IFREG | mode;
  attr.st_nlink = 1;
  attr.st_uid = options_.uid;
  attr.st_gid = options_.gid;
  attr.st_size = static_cast<off_t>(device.size().bytes());
  attr.st_blksize = kBlockSize;
  if (std::shared_ptr<const Table> table = device.live_table()) {
    attr.st_blocks = static_cast<blkcnt_t>(table->allocated().n);
  }
  VolumeNode* node = volumes_.find(device.minor());
  attr.st_mtim = to_timespec(node ? node->mtime() : volumes_.mtime(device.minor()));
  attr.st_atim = attr.st_ctim = attr.st_mtim;
  return attr;
}

struct stat FuseFront::root_attributes() const {
  struct stat attr {};
  attr.st_ino = kRootInode;
  attr.st_mode = S_IFDIR | 0755;
  attr.st_nlink = 2;
  attr.st_uid = options_.uid;
  attr.st_gid = options_.gid;
  attr.st_blksize = kBlockSize;
  attr.st_atim = attr.st_mtim = attr.st_ctim = to_timespec(born_);
  return attr;
}

std::shared_ptr<const std::vector<DeviceManager::Listing>> FuseFront::listing(bool fresh) {
  if (!fresh) {
    MutexLock lock(listing_mutex_);
    if (listing_) return listing_;
  }
  auto made = std::make_shared<std::vector<DeviceManager::Listing>>(manager_.list());
  std::sort(made->begin(), made->end(),
            [](const auto& a, const auto& b) { return a.minor < b.minor; });
  MutexLock lock(listing_mutex_);
  listing_ = made;
  return made;
}

}  // namespace dmfs
