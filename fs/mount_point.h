// SPDX-License-Identifier: Apache-2.0
// Mounting and unmounting a FUSE file system: with mount(2) where we may (root, or a user
// namespace of our own), else through fusermount3.
#pragma once

#include <string>

#include "core/base/result.h"

namespace dmfs {

struct MountRequest {
  std::string path;    // absolute
  std::string fsname;  // the source column of /proc/mounts
  bool read_only = false;
  bool allow_other = false;
  bool default_permissions = false;
};

// Sees to it that `path` can be mounted on: it is a directory, and no dmfs is there already
// (EBUSY). The mount of a dmfs that is dead is detached first; the value is how many of those.
Result<int> prepare_mount_point(const std::string& path);

// The descriptor of /dev/fuse that serves the mount; the caller closes it, which aborts whatever
// still waits.
Result<int> mount_fuse(const MountRequest& request);

enum class Unmount { IfFree, Lazy };
// EBUSY when somebody has something open there (IfFree). Not mounted any more: fine.
Status unmount_fuse(const std::string& path, Unmount how);

}  // namespace dmfs
