// SPDX-License-Identifier: Apache-2.0
// The mount as libfuse sees it: names, attributes, opens, and what else does not move data. The
// root lists every mapped device by name; a device is a regular file of fixed size.
//
// Names and attributes are not cached by the kernel: entry and attribute timeouts are 0, so a
// device that is created, renamed, resized or removed is seen at once.
#pragma once

#include <sys/stat.h>

#include <memory>
#include <string>
#include <vector>

#include "core/base/mutex.h"
#include "core/dm/device_manager.h"
#include "fs/page_cache.h"
#include "fs/volume_node.h"

struct fuse_lowlevel_ops;

namespace dmfs {

struct FrontOptions {
  mode_t mode = 0600;  // of a volume that can be written
  uid_t uid = 0;       // owner of all files
  gid_t gid = 0;
  unsigned max_background = 0;  // 0: the kernel's default
  bool cache = false;           // -o cache=on
};

// Any worker thread, many at a time.
class FuseFront {
 public:
  // `cache`: nullptr when the kernel keeps no pages.
  FuseFront(DeviceManager& manager, VolumeTable& volumes, PageCache* cache, FrontOptions options)
      : manager_(manager),
        volumes_(volumes),
        cache_(cache),
        options_(options),
        born_(coarse_now()) {}

  // The table for fuse_session_new(), whose userdata must be the FuseFront.
  static const fuse_lowlevel_ops& operations();

  // ---- what the operations use ------------------------------------------------------------
  DeviceManager& manager() { return manager_; }
  VolumeTable& volumes() { return volumes_; }
  PageCache* cache() { return cache_; }
  const FrontOptions& options() const { return options_; }

  // The device of an inode; nullptr when there is none (any more).
  std::shared_ptr<MappedDevice> device(uint64_t inode) const;
  struct stat attributes(const MappedDevice& device) const;
  struct stat root_attributes() const;
  // What readdir lists, in the order of minors. `fresh`: as it is now; else perhaps as it was when
  // somebody last asked so, which costs nothing: a long directory is read in many pieces.
  std::shared_ptr<const std::vector<DeviceManager::Listing>> listing(bool fresh);

 private:
  // constant after construction
  DeviceManager& manager_;
  VolumeTable& volumes_;
  PageCache* const cache_;
  const FrontOptions options_;
  const int64_t born_;

  Mutex listing_mutex_;  // leaf
  std::shared_ptr<const std::vector<DeviceManager::Listing>> listing_
      DM_GUARDED_BY(listing_mutex_);  // shared with those who are reading it
};

}  // namespace dmfs
