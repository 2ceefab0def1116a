// SPDX-License-Identifier: Apache-2.0
#include "fs/default_paths.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

namespace dmfs {
namespace {

// A relative path in an XDG variable is to be ignored.
std::string directory_variable(const char* name) {
  const char* value = std::getenv(name);
  return value && value[0] == '/' ? value : "";
}

bool is_directory(const std::string& path) {
  struct stat st {};
  return stat(path.c_str(), &st) == 0 && S_ISDIR(st.st_mode);
}

}  // namespace

DefaultPaths default_paths() {
  DefaultPaths paths;
  if (geteuid() == 0) {
    paths = {"/var/lib/dmfs/dmfs.db", "/run/dmfs/mapper", "/run/dmfs/control.sock"};
  } else {
    std::string run = fmt::format("/run/user/{}", geteuid());
    if (std::string set = directory_variable("XDG_RUNTIME_DIR"); !set.empty()) {
      run = set + "/dmfs";
    } else if (is_directory(run)) {
      run += "/dmfs";
    } else {
      run = fmt::format("/tmp/dmfs-{}", geteuid());
    }
    paths.mount = run + "/mapper";
    paths.socket = run + "/control.sock";
    if (std::string state = directory_variable("XDG_STATE_HOME"); !state.empty()) {
      paths.store = state + "/dmfs/dmfs.db";
    } else if (std::string home = directory_variable("HOME"); !home.empty()) {
      paths.store = home + "/.local/state/dmfs/dmfs.db";
    }
  }
  if (const char* socket = std::getenv("DMFS_SOCKET"); socket && *socket) paths.socket = socket;
  return paths;
}

Status make_private_directory(const std::string& path) {
  for (size_t slash = path.find('/', 1);; slash = path.find('/', slash + 1)) {
    std::string part = path.substr(0, slash);
    // What is there need not be ours to write to.
    if (mkdir(part.c_str(), 0700) != 0 && errno != EEXIST && errno != EROFS && errno != EACCES) {
      int code = errno;
      return Error{code, fmt::format("cannot make {}: {}", part, std::strerror(code))};
    }
    if (slash == std::string::npos) break;
  }
  struct stat st {};
  if (lstat(path.c_str(), &st) != 0) {
    int code = errno;
    return Error{code, fmt::format("cannot make {}: {}", path, std::strerror(code))};
  }
  if (!S_ISDIR(st.st_mode)) return Error{ENOTDIR, path + ": not a directory"};
  if (st.st_uid != geteuid()) {
    return Error{EPERM, fmt::format("{}: belongs to uid {}, not to you", path, st.st_uid)};
  }
  if ((st.st_mode & 022) != 0) return Error{EPERM, path + ": others may write to it"};
  return {};
}

}  // namespace dmfs
