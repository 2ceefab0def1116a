// SPDX-License-Identifier: Apache-2.0
#include "store/store_lock.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cstring>
#include <optional>
#include <utility>

namespace dmfs {
namespace {

// A holder that has just come has not written its pid yet, and one that has just gone has removed
// the file under us. Both pass in microseconds; 200 ms in all is for a machine under load.
constexpr int kMaxAttempts = 100;
constexpr timespec kPause{0, 2'000'000};

struct Fd {
  int fd;
  ~Fd() {
    if (fd >= 0) close(fd);
  }
};

enum class Content { Empty, Pid, Foreign };

// What the lock file says. Anything but "<digits>\n" was not written by us.
Content read_pid(int fd, pid_t& pid) {
  char text[24];
  ssize_t n = pread(fd, text, sizeof(text), 0);
  if (n == 0) return Content::Empty;
  if (n < 2 || n > 11 || text[n - 1] != '\n') return Content::Foreign;
  int64_t value = 0;
  for (ssize_t i = 0; i < n - 1; i++) {
    if (text[i] < '0' || text[i] > '9') return Content::Foreign;
    value = value * 10 + (text[i] - '0');
  }
  if (value < 1 || value > INT32_MAX) return Content::Foreign;
  pid = static_cast<pid_t>(value);
  return Content::Pid;
}

bool alive(pid_t pid) {
  return kill(pid, 0) == 0 || errno == EPERM;
}

// Is `fd` what the name leads to? A holder that goes removes the file, and somebody who opened it
// before would lock a file that nobody else can see.
bool still_named(int fd, const std::string& file) {
  struct stat ours, named;
  return fstat(fd, &ours) == 0 && lstat(file.c_str(), &named) == 0 && ours.st_dev == named.st_dev &&
         ours.st_ino == named.st_ino;
}

// 0, or an errno.
int write_pid(int fd) {
  std::string text = fmt::format("{}\n", getpid());
  if (ftruncate(fd, 0) != 0) return errno;
  ssize_t n = pwrite(fd, text.data(), text.size(), 0);
  if (n < 0) return errno;
  return n == static_cast<ssize_t>(text.size()) ? 0 : ENOSPC;
}

Error foreign(const std::string& store, const std::string& file) {
  return Error{
      EEXIST, fmt::format("store {} cannot be locked: {} is not a lock file of dmfs", store, file)};
}

Error failed(const std::string& store, const std::string& file, int code) {
  return Error{code,
               fmt::format("store {} cannot be locked: {}: {}", store, file, std::strerror(code))};
}

}  // namespace

Result<StoreLock> StoreLock::take(const std::string& store) {
  std::string file = store + ".lock";
  std::optional<pid_t> unseen;  // a pid that no process here has
  for (int attempt = 0; attempt < kMaxAttempts; attempt++) {
    Fd lock{open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600)};
    if (lock.fd < 0) return failed(store, file, errno);
    struct stat st;
    if (fstat(lock.fd, &st) != 0) return failed(store, file, errno);
    if (!S_ISREG(st.st_mode)) return foreign(store, file);
    struct flock whole = {};
    whole.l_type = F_WRLCK;
    whole.l_whence = SEEK_SET;
    int refused = fcntl(lock.fd, F_OFD_SETLK, &whole) == 0 ? 0 : errno;
    if (refused != 0 && refused != EAGAIN && refused != EACCES) {
      return failed(store, file, refused);
    }
    // Read after the attempt, not before: it is then the holder's, or ours to replace.
    pid_t pid = 0;
    Content content = read_pid(lock.fd, pid);
    if (content == Content::Foreign) return foreign(store, file);
    if (refused == 0) {
      if (!still_named(lock.fd, file)) continue;
      if (int code = write_pid(lock.fd); code != 0) {
        (void)unlink(file.c_str());
        return failed(store, file, code);
      }
      return StoreLock(file, std::exchange(lock.fd, -1));
    }
    if (content == Content::Pid) {
      if (alive(pid)) {
        return Error{EBUSY, fmt::format("store {} is in use by dmfs with pid {}", store, pid)};
      }
      unseen = pid;
    }
    nanosleep(&kPause, nullptr);
  }
  if (unseen) {
    return Error{EBUSY, fmt::format("store {} is in use by dmfs with pid {}, which is not visible "
                                    "from here (another pid namespace or machine)",
                                    store, *unseen)};
  }
  return Error{EBUSY, fmt::format("store {} is in use by another process", store)};
}

StoreLock::StoreLock(StoreLock&& other) noexcept : file_(std::move(other.file_)), fd_(other.fd_) {
  other.fd_ = -1;
}

StoreLock::~StoreLock() {
  if (fd_ < 0) return;
  // Removed while it is held, so that still_named() tells the others. A directory that has become
  // read-only keeps it; then the pid is stale, and the lock alone counts.
  if (still_named(fd_, file_)) (void)unlink(file_.c_str());
  close(fd_);
}

}  // namespace dmfs
