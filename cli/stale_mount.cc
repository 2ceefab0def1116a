// SPDX-License-Identifier: Apache-2.0
#include "cli/stale_mount.h"

#include <fmt/format.h>
#include <spawn.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>

namespace dmfs::cli {

bool is_stale_mount(const std::string& path) {
  struct stat st;
  return stat(path.c_str(), &st) != 0 && errno == ENOTCONN;
}

Status detach_stale_mount(const std::string& path) {
  if (umount2(path.c_str(), MNT_DETACH | UMOUNT_NOFOLLOW) == 0) return {};
  int code = errno;
  if (code == EPERM) {
    std::string program = "fusermount3", unmount = "-u", lazy = "-z", end = "--", where = path;
    char* args[] = {program.data(), unmount.data(), lazy.data(), end.data(), where.data(), nullptr};
    pid_t pid = 0;
    code = posix_spawnp(&pid, program.c_str(), nullptr, nullptr, args, environ);
    if (code == 0) {
      int status = 0;
      while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
      }
      if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return {};
      return Error{EPERM, fmt::format("fusermount3 could not unmount {}", path)};
    }
  }
  return Error{code, fmt::format("cannot unmount {}: {}", path, strerror(code))};
}

}  // namespace dmfs::cli
