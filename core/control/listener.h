// SPDX-License-Identifier: Apache-2.0
// The socket file of a daemon: bound once, taken over from a dead daemon, never from a live one.
#pragma once

#include <sys/stat.h>

#include <memory>
#include <string>

#include "core/base/result.h"
#include "core/control/socket.h"

namespace dmfs {

// A listening Unix socket and its file. One thread at a time.
class Listener {
 public:
  // Binds and listens, non-blocking. A socket file on which nobody listens is replaced. EADDRINUSE
  // (with the pid) when a live daemon listens there, EEXIST when the path is something else than a
  // socket. Daemons that start at the same time in one directory take turns (a flock on it).
  static Result<Listener> open(const std::string& path, mode_t mode);

  Listener(Listener&&) = default;
  Listener& operator=(Listener&&) = delete;
  ~Listener() { close(); }

  int fd() const { return fd_.get(); }
  const std::string& path() const { return path_; }
  // Stops listening and removes the file, unless it is somebody else's by now. Idempotent.
  void close();

 private:
  Listener(Fd fd, std::string path, const struct stat& file)
      : fd_(std::move(fd)), path_(std::move(path)), device_(file.st_dev), inode_(file.st_ino) {}

  Fd fd_;
  std::string path_;  // absolute: the daemon may change its working directory
  dev_t device_;
  ino_t inode_;
};

}  // namespace dmfs
