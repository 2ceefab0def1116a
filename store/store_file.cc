// SPDX-License-Identifier: Apache-2.0
#include "store/store_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string_view>

#include "store/schema.h"

namespace dmfs {
namespace {

// SQLite's unix VFS refuses names past 512 bytes, and appends "-journal".
constexpr size_t kMaxPath = 500;
constexpr size_t kHeaderSize = 100;
constexpr std::string_view kMagic("SQLite format 3\0", 16);

struct Fd {
  int fd;
  ~Fd() {
    if (fd >= 0) close(fd);
  }
};

template <typename... Args>
Error refuse(int code, const std::string& path, fmt::format_string<Args...> why, Args&&... args) {
  return Error{code,
               fmt::format("store {} {}", path, fmt::format(why, std::forward<Args>(args)...))};
}

std::string resolved(const std::string& path) {
  std::unique_ptr<char, decltype(&free)> real(realpath(path.c_str(), nullptr), &free);
  return real ? std::string(real.get()) : std::string();
}

Status check_directory(const std::string& path, const std::string& directory) {
  struct stat st;
  if (stat(directory.c_str(), &st) != 0) {
    if (errno == ENOENT)
      return refuse(ENOENT, path, "has no directory: {} does not exist", directory);
    return refuse(errno, path, "cannot be reached: {}: {}", directory, std::strerror(errno));
  }
  if (!S_ISDIR(st.st_mode))
    return refuse(ENOTDIR, path, "has no directory: {} is a file", directory);
  // SQLite's log and our lock stand beside the store.
  if (faccessat(AT_FDCWD, directory.c_str(), W_OK | X_OK, AT_EACCESS) != 0) {
    return refuse(errno, path, "cannot be written: its directory {} is read-only: {}", directory,
                  std::strerror(errno));
  }
  return {};
}

uint32_t big_endian(const unsigned char* p, int bytes) {
  uint32_t value = 0;
  for (int i = 0; i < bytes; i++) value = value << 8 | p[i];
  return value;
}

// -1 when there is none.
int64_t size_of(const std::string& path) {
  struct stat st;
  return lstat(path.c_str(), &st) == 0 ? static_cast<int64_t>(st.st_size) : -1;
}

// The fields of https://www.sqlite.org/fileformat.html section 1.3 that tell ours from others'.
// Ours are right from the first byte on, whatever the log holds: create_store_file() sees to it.
Status check_header(const std::string& path, int fd, int64_t size, bool with_log) {
  std::array<unsigned char, kHeaderSize> h;
  ssize_t n = pread(fd, h.data(), h.size(), 0);
  if (n < 0) return refuse(errno, path, "cannot be read: {}", std::strerror(errno));
  size_t magic = std::min(static_cast<size_t>(n), kMagic.size());
  if (std::memcmp(h.data(), kMagic.data(), magic) != 0) {
    return refuse(EINVAL, path, "is not a dmfs store: not an SQLite file");
  }
  if (static_cast<size_t>(n) < h.size()) {
    return refuse(EUCLEAN, path, "is damaged: it ends after {} bytes", size);
  }
  uint32_t application = big_endian(&h[68], 4);
  if (application != kApplicationId) {
    return refuse(EINVAL, path,
                  "is not a dmfs store: an SQLite file of another program "
                  "(application id {:#x})",
                  application);
  }
  uint32_t page = big_endian(&h[16], 2);
  if (page == 1) page = 65536;
  if (page < 512 || (page & (page - 1)) != 0) {
    return refuse(EUCLEAN, path, "is damaged: its page size is {}", page);
  }
  // A crash while the log was being moved into the main file leaves it half grown, and the log
  // has the pages; without a log there is no such excuse.
  int64_t expected = static_cast<int64_t>(page) * big_endian(&h[28], 4);
  if (!with_log && (size < expected || size % page != 0)) {
    return refuse(EUCLEAN, path, "is damaged: it has {} bytes, its header says {}", size, expected);
  }
  return {};
}

// 0, or an errno.
int write_and_sync(int fd, const std::string& image, mode_t mode) {
  for (size_t done = 0; done < image.size();) {
    ssize_t n = write(fd, image.data() + done, image.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return errno;
    done += static_cast<size_t>(n);
  }
  return fchmod(fd, mode) == 0 && fsync(fd) == 0 ? 0 : errno;
}

}  // namespace

Result<std::string> resolve_store_path(const std::string& path) {
  if (path.empty() || path.find('\0') != std::string::npos) {
    return Error{EINVAL, "store '': no file is named"};
  }
  struct stat st;
  std::string real;
  if (stat(path.c_str(), &st) == 0) {
    if (S_ISDIR(st.st_mode)) return refuse(EISDIR, path, "is a directory");
    if (!S_ISREG(st.st_mode)) return refuse(EINVAL, path, "is not a regular file");
    real = resolved(path);
    if (real.empty()) return refuse(errno, path, "cannot be reached: {}", std::strerror(errno));
  } else if (errno != ENOENT && errno != ENOTDIR) {
    return refuse(errno, path, "cannot be reached: {}", std::strerror(errno));
  } else if (lstat(path.c_str(), &st) == 0) {
    return refuse(ENOENT, path, "is a symbolic link to a file that does not exist");
  }
  bool exists = !real.empty();
  std::string where = exists ? real : path;
  size_t slash = where.rfind('/');
  std::string directory = slash == std::string::npos ? "." : where.substr(0, slash + 1);
  while (directory.size() > 1 && directory.back() == '/') directory.pop_back();
  std::string name = slash == std::string::npos ? where : where.substr(slash + 1);
  if (name.empty()) return refuse(EISDIR, path, "names a directory");
  // Of the file first: its own trouble is the better message.
  if (exists && faccessat(AT_FDCWD, real.c_str(), R_OK, AT_EACCESS) != 0) {
    return refuse(errno, path, "cannot be read: {}", std::strerror(errno));
  }
  if (exists && faccessat(AT_FDCWD, real.c_str(), W_OK, AT_EACCESS) != 0) {
    return refuse(errno, path, "is read-only: {}", std::strerror(errno));
  }
  DM_TRY_STATUS(check_directory(path, directory));
  if (!exists) {
    real = resolved(directory);
    if (real.empty()) return refuse(errno, path, "cannot be reached: {}", std::strerror(errno));
    real = (real == "/" ? real : real + "/") + name;
  }
  if (real.size() > kMaxPath) {
    return refuse(ENAMETOOLONG, path, "has a path of {} bytes, more than {}", real.size(),
                  kMaxPath);
  }
  return real;
}

Result<StoreFile> inspect_store_file(const std::string& path) {
  int64_t wal = size_of(path + "-wal");
  int64_t journal = size_of(path + "-journal");
  Fd file{open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
  if (file.fd < 0 && errno != ENOENT) {
    return refuse(errno, path, "cannot be read: {}", std::strerror(errno));
  }
  struct stat st = {};
  if (file.fd >= 0 && fstat(file.fd, &st) != 0) {
    return refuse(errno, path, "cannot be read: {}", std::strerror(errno));
  }
  if (st.st_size == 0) {
    // The remains of a store that somebody removed or cut. SQLite would put them into the new one.
    if (wal > 0 || journal > 0) {
      return refuse(EUCLEAN, path, "is {}, but its log {}{} is there: move it away to start anew",
                    file.fd < 0 ? "missing" : "empty", path, wal > 0 ? "-wal" : "-journal");
    }
    return StoreFile::New;
  }
  DM_TRY_STATUS(check_header(path, file.fd, st.st_size, wal > 0));
  // We never use a rollback journal; one that lies here would be rolled back into the store.
  if (journal > 0) {
    return refuse(EUCLEAN, path, "has a rollback journal {}-journal, which dmfs does not write",
                  path);
  }
  return wal > 0 ? StoreFile::WithLog : StoreFile::Clean;
}

Status create_store_file(const std::string& path, const std::string& image) {
  struct stat st;
  bool empty_file = lstat(path.c_str(), &st) == 0;
  mode_t mode = empty_file ? st.st_mode & 0777 : 0600;
  std::string temporary = path + ".XXXXXX";
  Fd file{mkostemp(temporary.data(), O_CLOEXEC)};
  if (file.fd < 0) return refuse(errno, path, "cannot be created: {}", std::strerror(errno));
  int code = write_and_sync(file.fd, image, mode);
  // NOREPLACE where the file system knows it: whatever has appeared there meanwhile is not ours.
  if (code == 0 && !empty_file &&
      renameat2(AT_FDCWD, temporary.c_str(), AT_FDCWD, path.c_str(), RENAME_NOREPLACE) != 0) {
    code = errno;
  }
  if ((code == 0 && empty_file) || code == EINVAL || code == ENOSYS) {
    code = rename(temporary.c_str(), path.c_str()) == 0 ? 0 : errno;
  }
  if (code != 0) {
    (void)unlink(temporary.c_str());
    return refuse(code, path, "cannot be created: {}", std::strerror(code));
  }
  return {};
}

Status sync_store_directory(const std::string& path) {
  std::string directory = path.substr(0, path.rfind('/') + 1);
  Fd dir{open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
  if (dir.fd < 0 || fsync(dir.fd) != 0) {
    return refuse(errno, path, "cannot be made durable: sync of {}: {}", directory,
                  std::strerror(errno));
  }
  return {};
}

}  // namespace dmfs
