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

#include "core/base/fd.h"
#include "core/base/result.h"

namespace dmfs {

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
