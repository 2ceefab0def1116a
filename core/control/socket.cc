// SPDX-License-Identifier: Apache-2.0
#include "core/control/socket.h"

#include <poll.h>
#include <unistd.h>

#include <cstring>

namespace dmfs {

Error errno_error(const std::string& what, int code) {
  return {code, what + ": " + std::strerror(code)};
}

Result<UnixAddress> unix_address(const std::string& path) {
  UnixAddress address;
  if (path.empty()) return Error{EINVAL, "the socket path is empty"};
  if (path.find('\0') != std::string::npos) return Error{EINVAL, "the socket path has a NUL byte"};
  if (path.size() >= sizeof(address.raw.sun_path)) {
    return Error{ENAMETOOLONG, "socket path '" + path + "' has " + std::to_string(path.size()) +
                                   " bytes; at most " +
                                   std::to_string(sizeof(address.raw.sun_path) - 1) + " fit"};
  }
  address.raw.sun_family = AF_UNIX;
  path.copy(address.raw.sun_path, path.size());
  return address;
}

Result<Fd> unix_socket(int flags) {
  Fd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | flags, 0));
  if (!fd) return errno_error("socket", errno);
  return fd;
}

Status send_all(int fd, std::string_view bytes, std::chrono::milliseconds timeout) {
  while (!bytes.empty()) {
    ssize_t sent = ::send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent >= 0) {
      bytes.remove_prefix(static_cast<size_t>(sent));
      continue;
    }
    if (errno == EINTR) continue;
    if (errno != EAGAIN) return errno_error("send", errno);
    pollfd writable{fd, POLLOUT, 0};
    int ready = ::poll(&writable, 1, static_cast<int>(timeout.count()));
    if (ready == 0) return errno_error("send", ETIMEDOUT);
    if (ready < 0 && errno != EINTR) return errno_error("poll", errno);
  }
  return {};
}

Result<size_t> receive(int fd, std::span<char> buffer) {
  for (;;) {
    ssize_t got = ::recv(fd, buffer.data(), buffer.size(), 0);
    if (got >= 0) return static_cast<size_t>(got);
    if (errno != EINTR) return errno_error("receive", errno);
  }
}

}  // namespace dmfs
