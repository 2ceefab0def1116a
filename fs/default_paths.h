// SPDX-License-Identifier: Apache-2.0
// Where store, mount and socket are when the user does not say: the same places as dmctl's
// (cli/paths.h; the programs share no layer above core/base).
#pragma once

#include <string>

#include "core/base/result.h"

namespace dmfs {

struct DefaultPaths {
  std::string store;  // empty: there is no home to put it in
  std::string mount;
  std::string socket;
};

// Of the effective user; DMFS_SOCKET overrides the socket.
DefaultPaths default_paths();

// Makes a directory and those above it, 0700; one that is there stays as it is. EPERM when the
// last one belongs to somebody else or others may write to it (a default may lie in /tmp).
Status make_private_directory(const std::string& path);

}  // namespace dmfs
