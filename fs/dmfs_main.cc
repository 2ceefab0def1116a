// SPDX-License-Identifier: Apache-2.0
// dmfs [STORE] MOUNTPOINT: the command line of the daemon. See man/dmfs.8.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <filesystem>
#include <string>
#include <vector>

#include "core/control/protocol.h"
#include "fs/daemon.h"
#include "fs/daemonize.h"
#include "core/base/paths.h"
#include "fs/mount_options.h"

namespace dmfs {
namespace {

namespace files = std::filesystem;

// The daemon leaves this directory.
std::string absolute(const std::string& path) {
  std::error_code failed;
  files::path full = files::absolute(path, failed).lexically_normal();
  std::string text = failed ? path : full.string();
  while (text.size() > 1 && text.back() == '/') text.pop_back();
  return text;
}

// As absolute(), without symbolic links, so that it is the path in /proc/mounts.
std::string mount_path(const std::string& path) {
  std::error_code failed;
  files::path full = files::canonical(path, failed);
  return failed ? absolute(path) : full.string();
}

std::string parent_of(const std::string& path) {
  return files::path(path).parent_path().string();
}

// A default may lie in /tmp, where anybody may have made it first.
Status make_private_directory(const std::string& path) {
  DM_TRY_STATUS(make_folders(path));
  return check_private_folder(path);
}

Status use_defaults(DaemonOptions& options) {
  Paths defaults = default_paths(process_environment());
  if (options.store.empty()) {
    if (defaults.store.empty()) {
      return Error{ENOENT, "neither HOME nor XDG_STATE_HOME is set: say which STORE"};
    }
    options.store = defaults.store;
    DM_TRY_STATUS(make_private_directory(parent_of(options.store)));
  }
  if (options.mount.empty()) {
    options.mount = defaults.mount;
    DM_TRY_STATUS(make_private_directory(parent_of(options.mount)));
    std::error_code failed;  // a dead mount there is found later
    files::create_directory(options.mount, failed);
  }
  if (options.socket.empty()) {
    options.socket = defaults.socket;
    if (!std::getenv("DMFS_SOCKET")) {
      DM_TRY_STATUS(make_private_directory(parent_of(options.socket)));
    }
  }
  options.store = absolute(options.store);
  options.mount = mount_path(options.mount);
  options.socket = absolute(options.socket);
  if (!options.mount_options.log.empty()) {
    options.mount_options.log = absolute(options.mount_options.log);
  }
  return {};
}

int run(int argc, char** argv) {
  DaemonOptions options;
  std::vector<std::string> paths, lists;
  CLI::App app("Serves mapped devices as files of a FUSE mount: dmfs [[STORE] MOUNTPOINT]", "dmfs");
  app.add_option("paths", paths, "The store (an SQLite file) and the directory to mount on")
      ->expected(0, 2)
      ->option_text("[[STORE] MOUNTPOINT]");
  app.add_option("--socket", options.socket, "The control socket (DMFS_SOCKET)")->type_name("PATH");
  app.add_option("-o", lists,
                 "ro, allow_other, allow_root, default_permissions, mode=, uid=, gid=, threads=, "
                 "max_background=, handlers=, log=, log_level=, fsname=")
      ->type_name("OPT,...")
      ->expected(1)
      ->take_all();
  app.add_flag("-f,--foreground", options.foreground, "Stay in the foreground, log to stderr");
  app.set_version_flag("-V,--version", fmt::format("dmfs {}", kVersion));
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& asked) {
    return app.exit(asked);
  } catch (const CLI::Error& failed) {
    fmt::print(stderr, "dmfs: {}\nTry 'dmfs --help'.\n", failed.what());
    return kExitUsage;
  }
  auto mount_options = parse_mount_options(lists);
  if (!mount_options) {
    fmt::print(stderr, "dmfs: {}\n", mount_options.error().message);
    return kExitUsage;
  }
  options.mount_options = *mount_options;
  if (!paths.empty()) options.mount = paths.back();
  if (paths.size() == 2) options.store = paths.front();

  Background background;
  if (Status ready = use_defaults(options); !ready) {
    background.failed(ready.error().message);
    return kExitFailed;
  }
  if (!options.foreground) background.enter();
  return run_daemon(options, background);
}

}  // namespace
}  // namespace dmfs

int main(int argc, char** argv) {
  try {
    return dmfs::run(argc, argv);
  } catch (const std::exception& failed) {
    fmt::print(stderr, "dmfs: {}\n", failed.what());
    return dmfs::kExitFailed;
  }
}
