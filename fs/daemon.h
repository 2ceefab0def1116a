// SPDX-License-Identifier: Apache-2.0
// The daemon put together: store, core, mount and control socket, from start to end.
#pragma once

#include <string>

#include "fs/daemonize.h"
#include "fs/mount_options.h"

namespace dmfs {

// What dmfs exits with; in dmfs(8).
enum ExitCode : int {
  kExitOk = 0,
  kExitFailed = 1,  // could not start
  kExitUsage = 2,
  kExitHung = 3,  // ended, though a backing file still had not answered
};

struct DaemonOptions {
  std::string store;  // absolute, all three
  std::string mount;
  std::string socket;
  bool foreground = false;
  MountOptions mount_options;
};

// Serves until it is told to end. What goes wrong before it is ready is said through `background`.
// Returns an exit code.
int run_daemon(const DaemonOptions& options, Background& background);

}  // namespace dmfs
