// SPDX-License-Identifier: Apache-2.0
#include "fs/mount_point.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <spawn.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <optional>
#include <vector>

#include "fs/mount_info.h"

namespace dmfs {
namespace {

constexpr const char* kFuseDevice = "/dev/fuse";
constexpr const char* kType = "fuse.dmfs";
constexpr int kMaxStacked = 16;  // stale mounts on top of one another

Error system_error(const std::string& what, int code) {
  return {code, fmt::format("{}: {}", what, std::strerror(code))};
}

// What is mounted on `path` (topmost), as far as the kernel tells us.
std::optional<Mounted> mounted_at(const std::string& path) {
  std::optional<Mounted> found;
  for (Mounted& mounted : list_mounts()) {
    if (mounted.point == path) found = std::move(mounted);
  }
  return found;
}

// Runs fusermount3; `comm` (or -1) is inherited as the descriptor that it answers on.
Status run_fusermount(std::vector<std::string> args, int comm) {
  args.insert(args.begin(), "fusermount3");
  std::vector<char*> argv;
  for (std::string& arg : args) argv.push_back(arg.data());
  argv.push_back(nullptr);
  std::vector<char*> env;
  std::string comm_variable = fmt::format("_FUSE_COMMFD={}", comm);
  for (char** at = environ; *at; ++at) env.push_back(*at);
  if (comm >= 0) env.push_back(comm_variable.data());
  env.push_back(nullptr);

  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  sigset_t none;  // we block signals, fusermount3 should not
  sigemptyset(&none);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
  pid_t child = 0;
  int failed = posix_spawnp(&child, "fusermount3", nullptr, &attributes, argv.data(), env.data());
  posix_spawnattr_destroy(&attributes);
  if (failed != 0) {
    return Error{failed, fmt::format("cannot run fusermount3: {} (Debian package fuse3)",
                                     std::strerror(failed))};
  }
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return {};
  return Error{EPERM, "fusermount3 refused"};
}

Result<int> receive_descriptor(int socket) {
  char byte = 0;
  iovec part{&byte, 1};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))];
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  ssize_t got;
  while ((got = recvmsg(socket, &message, MSG_CMSG_CLOEXEC)) < 0 && errno == EINTR) {
  }
  cmsghdr* header = got > 0 ? CMSG_FIRSTHDR(&message) : nullptr;
  if (!header || header->cmsg_type != SCM_RIGHTS) {
    return Error{EPROTO, "fusermount3 sent no descriptor"};
  }
  int fd = -1;
  std::memcpy(&fd, CMSG_DATA(header), sizeof(fd));
  return fd;
}

bool fuse_conf_allows_other() {
  std::ifstream conf("/etc/fuse.conf");
  for (std::string line; std::getline(conf, line);) {
    if (line.substr(0, line.find_last_not_of(" \t\r") + 1) == "user_allow_other") return true;
  }
  return false;
}

Result<int> mount_by_helper(const MountRequest& request) {
  std::string fsname;
  for (char c : request.fsname) {
    if (c == ',' || c == '\\') fsname += '\\';
    fsname += c;
  }
  std::string options = fmt::format("{},nosuid,nodev,subtype=dmfs,fsname={}",
                                    request.read_only ? "ro" : "rw", fsname);
  if (request.allow_other) options += ",allow_other";
  if (request.default_permissions) options += ",default_permissions";
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
    return system_error("socketpair", errno);
  }
  fcntl(ends[0], F_SETFD, 0);  // fusermount3's
  Status ran = run_fusermount({"-o", options, "--", request.path}, ends[0]);
  close(ends[0]);
  Result<int> fd = ran ? receive_descriptor(ends[1]) : Result<int>(ran.error());
  close(ends[1]);
  if (!fd && request.allow_other && getuid() != 0 && !fuse_conf_allows_other()) {
    return Error{EPERM,
                 "-o allow_other and allow_root need the line 'user_allow_other' in "
                 "/etc/fuse.conf, unless root mounts"};
  }
  if (!fd)
    return Error{fd.error().code,
                 fmt::format("cannot mount on {}: {}", request.path, fd.error().message)};
  return fd;
}

}  // namespace

Result<int> prepare_mount_point(const std::string& path) {
  for (int tries = 0; tries < kMaxStacked; ++tries) {
    struct stat st {};
    if (stat(path.c_str(), &st) == 0) {
      if (!S_ISDIR(st.st_mode)) return Error{ENOTDIR, path + ": not a directory"};
      auto mounted = mounted_at(path);
      if (mounted && mounted->type == kType) {
        return Error{EBUSY, fmt::format("{}: a dmfs is mounted here already (store {})", path,
                                        mounted->source)};
      }
      return tries;
    }
    int code = errno;
    if (code == ENOENT) return Error{ENOENT, fmt::format("mount point {}: does not exist", path)};
    if (code != ENOTCONN) return system_error("mount point " + path, code);
    DM_TRY_STATUS(unmount_fuse(path, Unmount::Lazy));
  }
  return Error{ENOTCONN, path + ": dead mounts that do not go away"};
}

Result<int> mount_fuse(const MountRequest& request) {
  int fd = open(kFuseDevice, O_RDWR | O_CLOEXEC);
  int code = errno;
  if (fd < 0 && (code == ENOENT || code == ENODEV || code == ENXIO)) {
    return Error{code,
                 fmt::format("{}: {}: the kernel has no FUSE (modprobe fuse), or the container "
                             "was started without --device /dev/fuse",
                             kFuseDevice, std::strerror(code))};
  }
  if (fd >= 0) {
    std::string data =
        fmt::format("fd={},rootmode=40000,user_id={},group_id={}", fd, getuid(), getgid());
    if (request.allow_other) data += ",allow_other";
    if (request.default_permissions) data += ",default_permissions";
    unsigned long flags = MS_NOSUID | MS_NODEV;
    if (request.read_only) flags |= MS_RDONLY;
    if (mount(request.fsname.c_str(), request.path.c_str(), kType, flags, data.c_str()) == 0) {
      return fd;
    }
    code = errno;
    close(fd);
    if (code != EPERM) return system_error("cannot mount on " + request.path, code);
  } else if (code != EACCES && code != EPERM) {
    return system_error(kFuseDevice, code);
  }
  return mount_by_helper(request);
}

Status unmount_fuse(const std::string& path, Unmount how) {
  int flags = UMOUNT_NOFOLLOW | (how == Unmount::Lazy ? MNT_DETACH : 0);
  if (umount2(path.c_str(), flags) == 0) return {};
  int code = errno;
  if (code == EINVAL || code == ENOENT) return {};
  if (code != EPERM) return system_error("cannot unmount " + path, code);
  std::vector<std::string> args = {"-u", "-q", "--", path};
  if (how == Unmount::Lazy) args.insert(args.begin(), "-z");
  if (run_fusermount(args, -1)) return {};
  // It does not say why.
  return Error{how == Unmount::Lazy ? EPERM : EBUSY,
               fmt::format("cannot unmount {}: {}", path,
                           how == Unmount::Lazy ? "fusermount3 refused" : "in use")};
}

}  // namespace dmfs
