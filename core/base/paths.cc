// SPDX-License-Identifier: Apache-2.0
#include "core/base/paths.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>

namespace dmfs {
namespace {

// XDG says that a relative path in its variables is to be ignored.
std::optional<std::string> absolute_variable(const Environment& environment, const char* name) {
  auto value = environment.variable(name);
  if (!value || value->empty() || value->front() != '/') return std::nullopt;
  while (value->size() > 1 && value->back() == '/') value->pop_back();
  return value;
}

}  // namespace

Environment process_environment() {
  return {.uid = geteuid(),
          .variable = [](const char* name) -> std::optional<std::string> {
            const char* value = std::getenv(name);
            if (!value) return std::nullopt;
            return value;
          },
          .is_folder =
              [](const std::string& path) {
                struct stat st;
                return stat(path.c_str(), &st) == 0 && S_ISDIR(st.st_mode);
              }};
}

Paths default_paths(const Environment& environment) {
  Paths paths;
  if (environment.uid == 0) {
    paths = {.store = "/var/lib/dmfs/dmfs.db",
             .mount = "/run/dmfs/mapper",
             .socket = "/run/dmfs/control.sock",
             .shared_folder = ""};
  } else {
    std::string folder = fmt::format("/run/user/{}", environment.uid);
    if (auto runtime = absolute_variable(environment, "XDG_RUNTIME_DIR")) {
      folder = *runtime + "/dmfs";
    } else if (environment.is_folder(folder)) {
      folder += "/dmfs";
    } else {
      folder = fmt::format("/tmp/dmfs-{}", environment.uid);
      paths.shared_folder = folder;
    }
    paths.mount = folder + "/mapper";
    paths.socket = folder + "/control.sock";
    if (auto state = absolute_variable(environment, "XDG_STATE_HOME")) {
      paths.store = *state + "/dmfs/dmfs.db";
    } else if (auto home = absolute_variable(environment, "HOME")) {
      paths.store = *home + "/.local/state/dmfs/dmfs.db";
    }
  }
  if (auto socket = environment.variable("DMFS_SOCKET"); socket && !socket->empty()) {
    paths.socket = *socket;
  }
  return paths;
}

Status check_private_folder(const std::string& path) {
  struct stat st;
  if (lstat(path.c_str(), &st) != 0) {
    if (errno == ENOENT) return {};
    int code = errno;
    return Error{code, fmt::format("{}: {}", path, strerror(code))};
  }
  if (!S_ISDIR(st.st_mode)) return Error{ENOTDIR, path + ": not a folder"};
  if (st.st_uid != geteuid()) {
    return Error{EPERM, fmt::format("{}: belongs to uid {}, not to you", path, st.st_uid)};
  }
  if ((st.st_mode & 022) != 0) return Error{EPERM, path + ": others may write to it"};
  return {};
}

Status make_folders(const std::string& path) {
  for (size_t slash = path.find('/', 1);; slash = path.find('/', slash + 1)) {
    std::string part = path.substr(0, slash);
    if (mkdir(part.c_str(), 0700) != 0 && errno != EEXIST && errno != EROFS && errno != EACCES) {
      int code = errno;
      return Error{code, fmt::format("cannot make {}: {}", part, strerror(code))};
    }
    if (slash == std::string::npos) break;
  }
  struct stat st;
  // ENOTCONN: a dead daemon's mount, which the new one will clear away.
  if (lstat(path.c_str(), &st) != 0 && errno != ENOTCONN) {
    int code = errno;
    return Error{code, fmt::format("cannot make {}: {}", path, strerror(code))};
  }
  return {};
}

}  // namespace dmfs
