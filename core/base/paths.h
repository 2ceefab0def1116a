// SPDX-License-Identifier: Apache-2.0
// Where an instance's store, mount and socket are when the user does not say; for the daemon and
// for dmctl, which have to agree.
#pragma once

#include <sys/types.h>

#include <functional>
#include <optional>
#include <string>

#include "core/base/result.h"

namespace dmfs {

// The world as seen by default_paths; tests give their own.
struct Environment {
  uid_t uid = 0;
  std::function<std::optional<std::string>(const char* name)> variable;
  std::function<bool(const std::string& path)> is_folder;
};

Environment process_environment();

struct Paths {
  std::string store;   // empty when a user has neither HOME nor XDG_STATE_HOME
  std::string mount;
  std::string socket;
  // Set when the run-time folder is /tmp/dmfs-UID, a name that anybody may have taken first: it has
  // to pass check_private_folder before it is trusted.
  std::string shared_folder;
};

// DMFS_SOCKET, then root's fixed places, then the XDG folders.
Paths default_paths(const Environment& environment);

// EPERM unless `path` is a folder, no symbolic link, that is ours alone; a folder that is not there
// passes.
Status check_private_folder(const std::string& path);

// Makes a folder, and those above it, with mode 0700. One that is there stays as it is.
Status make_folders(const std::string& path);

}  // namespace dmfs
