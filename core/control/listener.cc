// SPDX-License-Identifier: Apache-2.0
#include "core/control/listener.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <filesystem>
#include <thread>

namespace dmfs {

namespace {

constexpr int kMaxLockTries = 250;
constexpr std::chrono::milliseconds kLockPause{20};

// Between "nobody listens" and "unlink" another daemon could bind; so it is done under a lock. Not
// a blocking one: in a shared directory anybody may hold it for ever.
Result<Fd> lock_directory(const std::filesystem::path& directory) {
  Fd fd(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd) return errno_error("cannot open the socket's directory " + directory.string(), errno);
  for (int i = 0; i < kMaxLockTries; ++i) {
    if (::flock(fd.get(), LOCK_EX | LOCK_NB) == 0) return fd;
    if (errno != EWOULDBLOCK && errno != EINTR) {
      return errno_error("cannot lock " + directory.string(), errno);
    }
    std::this_thread::sleep_for(kLockPause);
  }
  return Error{EAGAIN, "somebody holds a lock on " + directory.string()};
}

// Ok when the file at `path` is a socket on which nobody listens.
Status check_stale(const std::string& path, const UnixAddress& address) {
  struct stat file;
  if (::lstat(path.c_str(), &file) != 0) return errno_error("cannot look at " + path, errno);
  if (!S_ISSOCK(file.st_mode)) return Error{EEXIST, path + " exists and is not a socket"};
  DM_TRY(Fd probe, unix_socket(SOCK_NONBLOCK));
  if (::connect(probe.get(), address.get(), sizeof(address.raw)) == 0) {
    ucred peer{};
    socklen_t length = sizeof(peer);
    ::getsockopt(probe.get(), SOL_SOCKET, SO_PEERCRED, &peer, &length);
    return Error{EADDRINUSE,
                 "a daemon (pid " + std::to_string(peer.pid) + ") already listens on " + path};
  }
  if (errno == ECONNREFUSED) return {};
  // EAGAIN: alive, with a full backlog.
  if (errno == EAGAIN) return Error{EADDRINUSE, "a daemon already listens on " + path};
  return errno_error("cannot tell whether a daemon listens on " + path, errno);
}

}  // namespace

Result<Listener> Listener::open(const std::string& path, mode_t mode) {
  DM_TRY(UnixAddress address, unix_address(path));
  std::error_code ec;
  std::filesystem::path absolute = std::filesystem::absolute(path, ec);
  if (ec) return errno_error("cannot resolve " + path, ec.value());
  DM_TRY(Fd lock, lock_directory(absolute.parent_path()));
  DM_TRY(Fd fd, unix_socket(SOCK_NONBLOCK));
  // The file gets the socket's mode, so that it is never more open than asked for.
  if (::fchmod(fd.get(), mode) != 0) return errno_error("cannot set the socket's mode", errno);
  if (::bind(fd.get(), address.get(), sizeof(address.raw)) != 0) {
    if (errno != EADDRINUSE) return errno_error("cannot bind " + path, errno);
    DM_TRY_STATUS(check_stale(path, address));
    if (::unlink(path.c_str()) != 0) return errno_error("cannot remove stale " + path, errno);
    if (::bind(fd.get(), address.get(), sizeof(address.raw)) != 0) {
      return errno_error("cannot bind " + path, errno);
    }
  }
  struct stat file;
  if (::lstat(path.c_str(), &file) != 0) return errno_error("cannot look at " + path, errno);
  Listener listener(std::move(fd), absolute.string(), file);
  // The umask may have taken away what was asked for.
  if (::chmod(path.c_str(), mode) != 0) return errno_error("cannot set the mode of " + path, errno);
  if (::listen(listener.fd(), SOMAXCONN) != 0) {
    return errno_error("cannot listen on " + path, errno);
  }
  return listener;
}

void Listener::close() {
  if (!fd_) return;
  struct stat file;
  if (::lstat(path_.c_str(), &file) == 0 && file.st_dev == device_ && file.st_ino == inode_) {
    ::unlink(path_.c_str());
  }
  fd_.reset();
}

}  // namespace dmfs
