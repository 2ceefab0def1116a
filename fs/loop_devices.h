// SPDX-License-Identifier: Apache-2.0
// Which loop devices lie over a file, and which block devices lie on these: partitions, and what
// device-mapper, md and the like have made of them, as far as sysfs tells.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "core/base/result.h"

namespace dmfs {

struct BlockDevice {
  std::string path;  // in /dev
  dev_t number = 0;
};

// A loop device and everything on it: whatever lies on another one comes after that.
using BlockStack = std::vector<BlockDevice>;

struct LoopFile {
  dev_t device = 0;
  uint64_t inode = 0;
  std::string path;  // where loop devices cannot be asked, theirs is compared with this
};

class LoopDevices {
 public:
  struct Folders {
    std::string sysfs = "/sys";
    std::string dev = "/dev";
  };

  LoopDevices() = default;
  explicit LoopDevices(Folders folders) : folders_(std::move(folders)) {}

  // Asks each loop device of the machine, which asks the file system that its file is on: may block
  // where that does. Fails when sysfs cannot be read.
  Result<std::vector<BlockStack>> over(const LoopFile& file) const;
  // The device, and those that are one btrfs with it.
  std::vector<dev_t> btrfs_of(const BlockDevice& device) const;

 private:
  bool lies_over(const std::string& name, const LoopFile& file) const;
  BlockStack stack_on(const std::string& name) const;

  Folders folders_;  // constant after construction
};

}  // namespace dmfs
