// SPDX-License-Identifier: Apache-2.0
// The few socket calls that client and server share. Never raises SIGPIPE.
#pragma once

#include <sys/socket.h>
#include <sys/un.h>

#include <chrono>
#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "core/base/result.h"

namespace dmfs {

// Owns a file descriptor.
class Fd {
 public:
  Fd() = default;
  explicit Fd(int fd) : fd_(fd) {}
  Fd(Fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Fd& operator=(Fd&& other) noexcept;
  ~Fd() { reset(); }

  int get() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }
  void reset();

 private:
  int fd_ = -1;
};

struct UnixAddress {
  sockaddr_un raw{};
  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&raw); }
};

// EINVAL for an empty path, ENAMETOOLONG for one past the 107 bytes that a socket's name has.
Result<UnixAddress> unix_address(const std::string& path);

// A close-on-exec stream socket; `flags` as SOCK_NONBLOCK.
Result<Fd> unix_socket(int flags = 0);

// "<what>: <strerror>" with the errno.
Error errno_error(const std::string& what, int code);

inline constexpr std::chrono::milliseconds kForever{-1};

// Sends all of it. ETIMEDOUT when for `timeout` the peer has taken nothing; EPIPE or ECONNRESET
// when it is gone.
Status send_all(int fd, std::string_view bytes, std::chrono::milliseconds timeout = kForever);

// Waits for bytes; how many there are; 0 at the end of the stream.
Result<size_t> receive(int fd, std::span<char> buffer);

}  // namespace dmfs
