// SPDX-License-Identifier: Apache-2.0
#include "core/io/file_backing.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <vector>

#include <fmt/format.h>

namespace dmfs {
namespace {

constexpr size_t kMaxSegments = 64;
constexpr int kMaxExtentsCounted = 1024;

// File systems whose operations wait for something outside this kernel.
bool is_remote(int fd) {
  struct statfs fs;
  if (fstatfs(fd, &fs) != 0) return true;
  switch (static_cast<uint32_t>(fs.f_type)) {
    case 0x65735546:  // FUSE
    case 0x6969:      // NFS
    case 0xFF534D42:  // CIFS
    case 0xFE534D42:  // SMB2
    case 0x517B:      // SMB
    case 0x01021997:  // 9p
    case 0x00C36400:  // Ceph
    case 0x5346414F:  // AFS
    case 0x0BD00BD0:  // Lustre
    case 0x47504653:  // GPFS
    case 0x7461636F:  // OCFS2
    case 0x01161970:  // GFS2
      return true;
    default:
      return false;
  }
}

}  // namespace

Result<std::unique_ptr<FileBacking>> FileBacking::open(IoThreads& threads, int path_fd,
                                                       const std::string& path, bool read_only) {
  struct stat st;
  if (fstat(path_fd, &st) != 0) return Error{errno, fmt::format("'{}': {}", path, strerror(errno))};
  // Looked at before it is opened: opening a FIFO would block, opening a tape would rewind it.
  if (S_ISDIR(st.st_mode)) return Error{EISDIR, fmt::format("'{}': is a directory", path)};
  if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode)) {
    return Error{ENOTBLK,
                 fmt::format("'{}': neither a regular file nor a block device", path)};
  }
  std::string link = fmt::format("/proc/self/fd/{}", path_fd);
  int flags = (read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_LARGEFILE;
  int fd = ::open(link.c_str(), flags);
  if (fd < 0 && (errno == ENOENT || errno == ENOTDIR)) fd = ::open(path.c_str(), flags);  // no /proc
  if (fd < 0) {
    int error = errno;
    bool write_refused = !read_only && (error == EACCES || error == EROFS || error == EPERM);
    if (write_refused && faccessat(AT_FDCWD, link.c_str(), R_OK, AT_EACCESS) == 0) {
      return Error{error, fmt::format("'{}': is read-only; load the table read-only (-r)", path)};
    }
    return Error{error, fmt::format("'{}': {}", path, strerror(error))};
  }
  std::unique_ptr<FileBacking> file(new FileBacking(threads, fd, path, read_only));
  struct stat opened;
  if (fstat(fd, &opened) != 0) {
    return Error{errno, fmt::format("'{}': {}", path, strerror(errno))};
  }
  if (opened.st_dev != st.st_dev || opened.st_ino != st.st_ino) {
    return Error{EAGAIN, fmt::format("'{}': was replaced while it was opened", path)};
  }
  file->is_block_device_ = S_ISBLK(opened.st_mode);
  file->device_number_ = file->is_block_device_ ? opened.st_rdev : opened.st_dev;
  file->id_ = file->is_block_device_ ? FileId{opened.st_rdev, 0}
                                     : FileId{opened.st_dev, opened.st_ino};
  file->kind_ = is_remote(fd) ? Kind::Remote : Kind::Local;
  file->size_at_open_ = file->size();
  return file;
}

FileBacking::FileBacking(IoThreads& threads, int fd, std::string path, bool read_only)
    : threads_(threads), fd_(fd), path_(std::move(path)), read_only_(read_only) {}

FileBacking::~FileBacking() {
  threads_.drain(*this);
  close(fd_);
}

Sectors FileBacking::size() const {
  if (is_block_device_) {
    uint64_t bytes = 0;
    if (ioctl(fd_, BLKGETSIZE64, &bytes) != 0) return {};
    return sectors_of_bytes(bytes);
  }
  struct stat st;
  if (fstat(fd_, &st) != 0) return {};
  return sectors_of_bytes(static_cast<uint64_t>(st.st_size));
}

std::string FileBacking::fault() const {
  MutexLock lock(fault_mutex_);
  return fault_;
}

void FileBacking::set_fault(std::string fault) {
  MutexLock lock(fault_mutex_);
  fault_ = std::move(fault);
}

void FileBacking::submit(Bio& bio) {
  int error = 0;
  if (kind_ == Kind::Local && try_inline(bio, error)) {
    bio.complete(error);
  } else {
    threads_.submit(*this, bio);
  }
}

void FileBacking::perform(Bio& bio) {
  int error = 0;
  bool would_block = false;
  switch (bio.op) {
    case Op::Read:
    case Op::Write:
      error = transfer(bio, (bio.flags & kBioFua) && bio.op == Op::Write ? RWF_DSYNC : 0, would_block);
      break;
    case Op::Flush:
      if (fdatasync(fd_) != 0) error = errno;
      break;
    case Op::Discard:
      error = check_size(bio);
      if (!error && fallocate(fd_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                              static_cast<off_t>(bio.sector.bytes()),
                              static_cast<off_t>(bio.count.bytes())) != 0) {
        error = errno == ENOSYS ? EOPNOTSUPP : errno;
      }
      break;
    case Op::WriteZeroes:
      error = write_zeroes(bio);
      if (!error && (bio.flags & kBioFua) && fdatasync(fd_) != 0) error = errno;
      break;
  }
  bio.complete(error);
}

bool FileBacking::try_inline(Bio& bio, int& error) {
  bool read = bio.op == Op::Read;
  // Flushes, zeroing and FUA wait for the medium: a thread of the pool does that.
  if (!read && (bio.op != Op::Write || (bio.flags & kBioFua))) return false;
  std::atomic<bool>& nowait = read ? nowait_read_ : nowait_write_;
  if (nowait.load(std::memory_order_relaxed)) {
    bool would_block = false;
    error = transfer(bio, RWF_NOWAIT, would_block);
    if (error == EOPNOTSUPP) {
      nowait.store(false, std::memory_order_relaxed);
    } else {
      return !would_block;
    }
  }
  bool would_block = false;
  error = transfer(bio, 0, would_block);
  return true;
}

int FileBacking::transfer(Bio& bio, int rw_flags, bool& would_block) {
  bool read = bio.op == Op::Read;
  if (!read) {
    if (int error = check_size(bio)) return error;
  }
  std::array<iovec, kMaxSegments> segments;
  size_t left = bio.bytes();
  auto offset = static_cast<off_t>(bio.sector.bytes());
  BioData data = bio.data;
  while (left > 0) {
    size_t covered = 0;
    size_t count = data.slice(left, segments, covered);
    assert(covered > 0 && "a bio has memory for all its sectors");
    ssize_t n = read ? preadv2(fd_, segments.data(), static_cast<int>(count), offset, rw_flags)
                     : pwritev2(fd_, segments.data(), static_cast<int>(count), offset, rw_flags);
    if (n < 0) {
      if (errno == EINTR) continue;
      if ((rw_flags & RWF_NOWAIT) && errno == EAGAIN) {
        would_block = true;
        return 0;
      }
      return errno;
    }
    if (n == 0) {
      int error = read ? check_size(bio) : EIO;
      return error ? error : EIO;
    }
    data.offset += static_cast<size_t>(n);
    offset += n;
    left -= static_cast<size_t>(n);
  }
  return 0;
}

int FileBacking::check_size(const Bio& bio) {
  if (is_block_device_) return 0;
  // A write past the end of a file that has shrunk would make it long again, with holes where
  // data was: refuse it. This costs a system call at every write; to look only now and then let
  // such writes through. Not fstat(): where timestamps are multigrain (Linux 6.13) it makes the
  // next write fetch a fine one, half a microsecond for both.
  off_t end = lseek(fd_, 0, SEEK_END);
  if (end < 0) return errno;
  if (static_cast<uint64_t>(end) >= (bio.sector + bio.count).bytes()) return 0;
  set_fault(fmt::format("{}: has shrunk to {} sectors, was {} when it was opened", path_,
                        end >> kSectorShift, size_at_open_.n));
  return EIO;
}

int FileBacking::write_zeroes(Bio& bio) {
  if (int error = check_size(bio)) return error;
  auto start = static_cast<off_t>(bio.sector.bytes());
  auto length = static_cast<off_t>(bio.count.bytes());
  if (fallocate(fd_, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, start, length) == 0) return 0;
  if (fallocate(fd_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, start, length) == 0) return 0;
  if (errno != EOPNOTSUPP && errno != ENOSYS) return errno;
  static const std::vector<char> zeroes(1 << 20);
  while (length > 0) {
    ssize_t n = pwrite(fd_, zeroes.data(), std::min<size_t>(zeroes.size(), length), start);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return n < 0 ? errno : EIO;
    start += n;
    length -= n;
  }
  return 0;
}

Extent FileBacking::extent_at(Sectors start, Sectors length) const {
  if (is_block_device_) return {true, length};
  auto at = static_cast<off_t>(start.bytes());
  off_t end = at + static_cast<off_t>(length.bytes());
  off_t data = lseek(fd_, at, SEEK_DATA);
  if (data < 0) {
    // ENXIO: nothing but hole from here to the end of the file.
    return errno == ENXIO ? Extent{false, length} : Extent{true, length};
  }
  // Extents are whole sectors; one that holds any data is data.
  Sectors first_data = sectors_of_bytes(static_cast<uint64_t>(std::min(data, end)));
  if (first_data > start) return {false, first_data - start};
  off_t hole = lseek(fd_, at, SEEK_HOLE);
  if (hole < 0 || hole >= end) return {true, length};
  Sectors data_end{(static_cast<uint64_t>(hole) + kSectorSize - 1) >> kSectorShift};
  return {true, std::min(std::max(data_end - start, Sectors{1}), length)};
}

Sectors FileBacking::allocated(Sectors start, Sectors length) const {
  struct stat st;
  if (is_block_device_ || fstat(fd_, &st) != 0) return length;
  Sectors all{static_cast<uint64_t>(st.st_blocks)};
  Sectors file_size = sectors_of_bytes(static_cast<uint64_t>(st.st_size));
  if (all.n == 0) return {};
  if (all >= file_size) return length;
  if (start.n == 0 && length >= file_size) return std::min(all, length);
  Sectors sum;
  Sectors at = start;
  Sectors end = start + length;
  for (int i = 0; at < end; ++i) {
    if (i == kMaxExtentsCounted) {  // enough: go on in proportion
      return {static_cast<uint64_t>(static_cast<double>(sum.n) / static_cast<double>((at - start).n) *
                                    static_cast<double>(length.n))};
    }
    Extent extent = extent_at(at, end - at);
    if (extent.data) sum += extent.length;
    at += extent.length;
  }
  return sum;
}

}  // namespace dmfs
