// SPDX-License-Identifier: Apache-2.0
#include "core/io/file_backing.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <vector>

#include <fmt/format.h>

#include "core/base/object_pool.h"
#include "core/io/file_facts.h"

namespace dmfs {
namespace {

constexpr size_t kMaxSegments = 64;
constexpr int kMaxExtentsCounted = 1024;

Error no_direct_io(const std::string& path) {
  return Error{EINVAL, fmt::format("'{}': its file system has no O_DIRECT (-o direct_backing)", path)};
}

}  // namespace

// A bio on its way through io_uring.
class FileBacking::Transfer : public UringTransfer {
 public:
  static void start(FileBacking& file, Bio& bio) {
    Transfer& transfer = *ObjectPool<Transfer>::get();
    transfer.file_ = &file;
    transfer.bio_ = &bio;
    transfer.owner = &file;
    transfer.bio = &bio;
    transfer.data_ = bio.data;
    transfer.left_ = bio.bytes();
    transfer.ended = on_ended;
    transfer.read = bio.op == Op::Read;
    transfer.fd = file.fd_;
    transfer.offset = static_cast<off_t>(bio.sector.bytes());
    transfer.rw_flags = !transfer.read && (bio.flags & kBioFua) ? RWF_DSYNC : 0;
    transfer.submit();
  }

  Transfer* pool_next = nullptr;

 private:
  static void on_ended(UringTransfer& base, ssize_t result) {
    static_cast<Transfer&>(base).advance(result);
  }
  void submit() {
    size_t covered = 0;
    segment_count = static_cast<unsigned>(data_.slice(left_, segments_, covered));
    segments = segments_.data();
    file_->service_.uring()->submit(*this);
  }
  void advance(ssize_t result) {
    int cancelled = bio_->cancelled();
    if (cancelled == 0 && (result == -EINTR || result == -EAGAIN)) return submit();
    if (result > 0) {
      data_.offset += static_cast<size_t>(result);
      offset += result;
      left_ -= static_cast<size_t>(result);
      if (left_ > 0 && cancelled == 0) return submit();
    }
    int error = static_cast<int>(result < 0 ? -result : 0);
    if (cancelled != 0 && left_ > 0) error = cancelled;
    if (result == 0) {
      if (read) error = file_->check_size(*bio_);
      if (error == 0) error = EIO;
    }
    Bio& bio = *bio_;
    ObjectPool<Transfer>::put(this);
    bio.complete(error);
  }

  FileBacking* file_ = nullptr;
  Bio* bio_ = nullptr;
  BioData data_;
  size_t left_ = 0;
  std::array<iovec, kMaxSegments> segments_;
};

// Copies into a file within the kernel. They have threads of their own: what is read and written
// does not wait for them.
class FileBacking::Copies : public IoQueue {
 public:
  explicit Copies(FileBacking& file) : file_(file) {}

  void submit(Bio& bio, int from, Sectors at) {
    Copy& copy = *ObjectPool<Copy>::get();
    copy.reset();
    copy.original = &bio;
    copy.origin = bio.origin;
    copy.op = bio.op;
    copy.from = from;
    copy.at = at;
    file_.service_.threads().submit(*this, copy);
  }
  void perform(Bio& bio) override {
    auto& copy = static_cast<Copy&>(bio);
    copy.complete(copy_file(*copy.original, copy.from, copy.at));
  }

 private:
  struct Copy : Bio {
    Copy() : Bio(ended) {}
    static void ended(Bio& bio) {
      auto& copy = static_cast<Copy&>(bio);
      Bio& original = *copy.original;
      int error = copy.status;
      ObjectPool<Copy>::put(&copy);
      original.complete(error);
    }
    Bio* original = nullptr;
    int from = -1;
    Sectors at;
    Copy* pool_next = nullptr;
  };

  int copy_file(Bio& bio, int from, Sectors at) {
    if (int error = file_.check_size(bio)) return error;
    auto in = static_cast<off_t>(at.bytes());
    auto out = static_cast<off_t>(bio.sector.bytes());
    for (size_t left = bio.bytes(); left > 0;) {
      if (int error = bio.cancelled()) return error;
      ssize_t n = copy_file_range(from, &in, file_.fd_, &out, left, 0);
      if (n < 0 && errno == EINTR) continue;
      // Old kernels say so between file systems, and where one of the files is not for this.
      if (n < 0) return errno == ENOSYS || errno == EINVAL ? EOPNOTSUPP : errno;
      if (n == 0) return EIO;  // the source is shorter
      left -= static_cast<size_t>(n);
    }
    if ((bio.flags & kBioFua) && fdatasync(file_.fd_) != 0) return errno;
    return 0;
  }

  FileBacking& file_;
};

Result<std::unique_ptr<FileBacking>> FileBacking::open(IoService& service, int path_fd,
                                                       const std::string& path,
                                                       const Options& options) {
  struct stat st;
  if (fstat(path_fd, &st) != 0) return Error{errno, fmt::format("'{}': {}", path, strerror(errno))};
  // Looked at before it is opened: opening a FIFO would block, opening a tape would rewind it.
  if (S_ISDIR(st.st_mode)) return Error{EISDIR, fmt::format("'{}': is a directory", path)};
  if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode)) {
    return Error{ENOTBLK,
                 fmt::format("'{}': neither a regular file nor a block device", path)};
  }
  std::string link = fmt::format("/proc/self/fd/{}", path_fd);
  int flags = (options.read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_LARGEFILE;
  if (options.direct) flags |= O_DIRECT;
  int fd = ::open(link.c_str(), flags);
  if (fd < 0 && (errno == ENOENT || errno == ENOTDIR)) fd = ::open(path.c_str(), flags);  // no /proc
  if (fd < 0) {
    int error = errno;
    bool write_refused = !options.read_only && (error == EACCES || error == EROFS || error == EPERM);
    if (write_refused && faccessat(AT_FDCWD, link.c_str(), R_OK, AT_EACCESS) == 0) {
      return Error{error, fmt::format("'{}': is read-only; load the table read-only (-r)", path)};
    }
    if (options.direct && error == EINVAL) return no_direct_io(path);
    return Error{error, fmt::format("'{}': {}", path, strerror(error))};
  }
  std::unique_ptr<FileBacking> file(new FileBacking(service, fd, path, options));
  struct stat opened;
  if (fstat(fd, &opened) != 0) {
    return Error{errno, fmt::format("'{}': {}", path, strerror(errno))};
  }
  if (opened.st_dev != st.st_dev || opened.st_ino != st.st_ino) {
    return Error{EAGAIN, fmt::format("'{}': was replaced while it was opened", path)};
  }
  DM_TRY_STATUS(file->learn(opened));
  return file;
}

FileBacking::FileBacking(IoService& service, int fd, std::string path, const Options& options)
    : service_(service),
      fd_(fd),
      path_(std::move(path)),
      read_only_(options.read_only),
      direct_(options.direct),
      copies_(std::make_unique<Copies>(*this)) {}

FileBacking::~FileBacking() {
  service_.threads().drain(*copies_);
  service_.threads().drain(*this);
  close(fd_);
}

Status FileBacking::learn(const struct stat& st) {
  is_block_device_ = S_ISBLK(st.st_mode);
  device_number_ = is_block_device_ ? st.st_rdev : st.st_dev;
  id_ = is_block_device_ ? FileId{st.st_rdev, 0} : FileId{st.st_dev, st.st_ino};
  file_system_ = is_block_device_ ? FileSystem::Local : file_system_of(fd_);
  size_at_open_ = size();
  if (direct_) {
    direct_alignment_ = find_direct_alignment(fd_, is_block_device_);
    if (direct_alignment_ == 0) return no_direct_io(path_);
  }
  bool inlined = service_.engine() == Engine::Auto || service_.engine() == Engine::Inline;
  if (file_system_ == FileSystem::Remote) {
    route_ = Route::Threads;
  } else if (inlined && (!direct_ || file_system_ == FileSystem::Memory)) {
    route_ = Route::Inline;
  } else {
    route_ = service_.uring() ? Route::Uring : Route::Threads;
  }
  return {};
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
  if (route_ == Route::Inline && try_inline(bio, error)) return bio.complete(error);
  if (route_ == Route::Threads || !op_has_data(bio.op) || !service_.uring()) {
    return service_.threads().submit(*this, bio);
  }
  if (bio.op == Op::Write) {
    if (int shrunk = check_size(bio)) return bio.complete(shrunk);
  }
  Transfer::start(*this, bio);
}

size_t FileBacking::cancel(const BioCancel& cancel) {
  size_t count = service_.threads().cancel(*this, cancel);
  count += service_.threads().cancel(*copies_, cancel);
  if (route_ == Route::Uring || (route_ == Route::Inline && service_.uring())) {
    service_.uring()->cancel(this, cancel);
  }
  return count;
}

bool FileBacking::copy_from(Bio& bio, BackingFile& from, Sectors at) {
  int fd = from.copy_fd();
  if (fd < 0 || copy_fd() < 0 || read_only_ || from.id().device != id_.device) return false;
  copies_->submit(bio, fd, at);
  return true;
}

int FileBacking::copy_fd() const {
  return is_block_device_ || direct_ || file_system_ == FileSystem::Remote ? -1 : fd_;
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
  bool would_block = false;
  if (file_system_ == FileSystem::Memory) {
    if (bio.op == Op::Flush) return true;
    if (!op_has_data(bio.op)) return false;  // freeing gigabytes takes its time
    error = transfer(bio, 0, would_block);
    return true;
  }
  bool read = bio.op == Op::Read;
  // Flushes, zeroing and FUA wait for the medium.
  if (!read && (bio.op != Op::Write || (bio.flags & kBioFua))) return false;
  std::atomic<bool>& nowait = read ? nowait_read_ : nowait_write_;
  if (nowait.load(std::memory_order_relaxed)) {
    error = transfer(bio, RWF_NOWAIT, would_block);
    if (error != EOPNOTSUPP) return !would_block;
    nowait.store(false, std::memory_order_relaxed);
  }
  IoService::BlockingInline blocking(service_);
  if (!blocking) return false;
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
    ssize_t n;
    if (count == 1 && rw_flags == 0) {
      n = read ? pread(fd_, segments[0].iov_base, segments[0].iov_len, offset)
               : pwrite(fd_, segments[0].iov_base, segments[0].iov_len, offset);
    } else {
      n = read ? preadv2(fd_, segments.data(), static_cast<int>(count), offset, rw_flags)
               : pwritev2(fd_, segments.data(), static_cast<int>(count), offset, rw_flags);
    }
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
  // Who asks is a thread of the front, which a remote file may not keep.
  if (is_block_device_ || file_system_ == FileSystem::Remote) return {true, length};
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
  if (is_block_device_ || file_system_ == FileSystem::Remote || fstat(fd_, &st) != 0) return length;
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
