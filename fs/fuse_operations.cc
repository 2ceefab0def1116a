// SPDX-License-Identifier: Apache-2.0
// libfuse's callbacks. What is not here gets ENOSYS, after which the kernel no longer asks and
// does the right thing itself: access (allowed), flush, extended attributes (not supported), poll
// (always ready), copy_file_range (reads and writes).
#define FUSE_USE_VERSION 35

#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <linux/fs.h>
#include <linux/fuse.h>
#include <sys/ioctl.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <memory>
#include <new>

#include "fs/buffer_pool.h"
#include "fs/fuse_front.h"

namespace dmfs {
namespace {

constexpr double kNoTimeout = 0;
constexpr uint32_t kParallelDirectWrites = 1 << 6;  // FOPEN_PARALLEL_DIRECT_WRITES, Linux 6.2
constexpr int kMaxExtentSteps = 1 << 20;

FuseFront& front_of(fuse_req_t req) {
  return *static_cast<FuseFront*>(fuse_req_userdata(req));
}

fuse_entry_param entry_of(const FuseFront& front, const MappedDevice& device) {
  fuse_entry_param entry{};
  entry.attr = front.attributes(device);
  entry.ino = entry.attr.st_ino;
  entry.attr_timeout = kNoTimeout;
  entry.entry_timeout = kNoTimeout;
  return entry;
}

void init(void* userdata, fuse_conn_info* conn) {
  const auto& front = *static_cast<FuseFront*>(userdata);
  auto want = [&](unsigned caps) { conn->want |= conn->capable & caps; };
  want(FUSE_CAP_ASYNC_READ | FUSE_CAP_ASYNC_DIO | FUSE_CAP_PARALLEL_DIROPS | FUSE_CAP_READDIRPLUS |
       FUSE_CAP_READDIRPLUS_AUTO);
  // With ATOMIC_O_TRUNC the kernel takes the size to be 0 after any open with O_TRUNC, until
  // somebody asks for it: meanwhile asynchronous direct reads of all users are at the end of the
  // file, and writes are serialised. Without it, it asks us to set the size; see setattr.
  conn->want &= ~static_cast<unsigned>(FUSE_CAP_ATOMIC_O_TRUNC | FUSE_CAP_SPLICE_READ |
                                       FUSE_CAP_SPLICE_WRITE | FUSE_CAP_SPLICE_MOVE |
                                       FUSE_CAP_WRITEBACK_CACHE | FUSE_CAP_AUTO_INVAL_DATA |
                                       FUSE_CAP_FLOCK_LOCKS | FUSE_CAP_POSIX_LOCKS);
  // AUTO_INVAL_DATA would ask for the attributes at each buffered read; see page_cache.h.
  conn->max_write = kMaxPayload;
  if (front.options().max_background != 0) {
    conn->max_background = front.options().max_background;
    conn->congestion_threshold = conn->max_background / 4 * 3;
  }
}

void lookup(fuse_req_t req, fuse_ino_t parent, const char* name) {
  FuseFront& front = front_of(req);
  if (parent != kRootInode) {
    fuse_reply_err(req, ENOTDIR);
    return;
  }
  std::shared_ptr<MappedDevice> device = front.manager().find(std::string(name));
  if (!device) {
    fuse_reply_err(req, ENOENT);
    return;
  }
  fuse_entry_param entry = entry_of(front, *device);
  fuse_reply_entry(req, &entry);
}

void getattr(fuse_req_t req, fuse_ino_t inode, fuse_file_info*) {
  FuseFront& front = front_of(req);
  struct stat attr {};
  if (inode == kRootInode) {
    attr = front.root_attributes();
  } else if (auto device = front.device(inode)) {
    attr = front.attributes(*device);
  } else {
    fuse_reply_err(req, ENOENT);
    return;
  }
  fuse_reply_attr(req, &attr, kNoTimeout);
}

// A block device's size, owner and mode are not for its users to change; times are accepted and
// follow the writes all the same.
void setattr(fuse_req_t req, fuse_ino_t inode, struct stat* wanted, int what,
             fuse_file_info* file) {
  FuseFront& front = front_of(req);
  struct stat attr {};
  if (inode == kRootInode) {
    attr = front.root_attributes();
  } else if (auto device = front.device(inode)) {
    attr = front.attributes(*device);
  } else {
    fuse_reply_err(req, ENOENT);
    return;
  }
  bool mode = (what & FUSE_SET_ATTR_MODE) && (wanted->st_mode & 07777) != (attr.st_mode & 07777);
  bool uid = (what & FUSE_SET_ATTR_UID) && wanted->st_uid != attr.st_uid;
  bool gid = (what & FUSE_SET_ATTR_GID) && wanted->st_gid != attr.st_gid;
  // An open with O_TRUNC asks for size 0 without a handle. A block device ignores O_TRUNC; the
  // answer tells the kernel that the size is what it was. (So truncate(2) to 0 passes too.)
  bool opens = !file && wanted->st_size == 0;
  bool size = (what & FUSE_SET_ATTR_SIZE) && wanted->st_size != attr.st_size && !opens;
  if (mode || uid || gid) {
    fuse_reply_err(req, EPERM);
  } else if (size) {
    fuse_reply_err(req, EINVAL);
  } else {
    fuse_reply_attr(req, &attr, kNoTimeout);
  }
}

// The offset of an entry is that of the next one: 1 and 2 for the dots, then minor + 3, so a
// position stays right whatever comes and goes.
void list(fuse_req_t req, fuse_ino_t inode, size_t size, off_t offset, bool plus) {
  FuseFront& front = front_of(req);
  if (inode != kRootInode) {
    fuse_reply_err(req, ENOTDIR);
    return;
  }
  std::unique_ptr<char[]> buffer(new (std::nothrow) char[size]);
  if (!buffer) {
    fuse_reply_err(req, ENOMEM);
    return;
  }
  size_t used = 0;
  // False: it does not fit.
  auto add = [&](const char* name, const fuse_entry_param& entry, off_t next) {
    size_t room = size - used;
    size_t need = plus ? fuse_add_direntry_plus(req, buffer.get() + used, room, name, &entry, next)
                       : fuse_add_direntry(req, buffer.get() + used, room, name, &entry.attr, next);
    if (need > room) return false;
    used += need;
    return true;
  };
  fuse_entry_param dot{};  // inode 0: the kernel looks up neither . nor ..
  dot.attr = front.root_attributes();
  bool room = true;
  if (offset < 1) room = add(".", dot, 1);
  if (room && offset < 2) room = add("..", dot, 2);
  auto entries = front.listing(offset == 0);
  auto at = std::lower_bound(entries->begin(), entries->end(), offset,
                             [](const auto& e, off_t o) { return off_t{e.minor} + 3 <= o; });
  for (; room && at != entries->end(); ++at) {
    fuse_entry_param entry{};
    if (plus) {
      std::shared_ptr<MappedDevice> device = front.manager().find(at->minor);
      if (!device) continue;
      entry = entry_of(front, *device);
    } else {
      entry.attr.st_ino = inode_of(at->minor);
      entry.attr.st_mode = S_IFREG;
    }
    room = add(at->name.c_str(), entry, off_t{at->minor} + 3);
  }
  fuse_reply_buf(req, buffer.get(), used);
}

void readdir(fuse_req_t req, fuse_ino_t inode, size_t size, off_t offset, fuse_file_info*) {
  list(req, inode, size, offset, false);
}

void readdirplus(fuse_req_t req, fuse_ino_t inode, size_t size, off_t offset, fuse_file_info*) {
  list(req, inode, size, offset, true);
}

void open(fuse_req_t req, fuse_ino_t inode, fuse_file_info*) {
  FuseFront& front = front_of(req);
  if (!is_volume_inode(inode)) {
    fuse_reply_err(req, EISDIR);
    return;
  }
  uint32_t minor = minor_of_inode(inode);
  if (Status opened = front.volumes().open(minor); !opened) {
    fuse_reply_err(req, opened.error().code);
    return;
  }
  // By hand, for libfuse 3.14 has no field for parallel writes. The handle is the same for all
  // users and for the next daemon.
  fuse_open_out out{};
  out.fh = inode;
  if (PageCache* cache = front.cache()) {
    out.open_flags = cache->opened(minor) ? FOPEN_KEEP_CACHE : 0;
  } else {
    out.open_flags = FOPEN_DIRECT_IO | kParallelDirectWrites;
  }
  // ENOENT: the opener was killed meanwhile, and there will be no release.
  if (fuse_reply_buf(req, reinterpret_cast<const char*>(&out), sizeof(out)) == -ENOENT) {
    front.volumes().release(minor);
  }
}

void release(fuse_req_t req, fuse_ino_t inode, fuse_file_info*) {
  if (is_volume_inode(inode)) front_of(req).volumes().release(minor_of_inode(inode));
  fuse_reply_err(req, 0);
}

// Data or hole, from the table; what nobody knows is data.
void lseek(fuse_req_t req, fuse_ino_t inode, off_t offset, int whence, fuse_file_info*) {
  std::shared_ptr<MappedDevice> device = front_of(req).device(inode);
  std::shared_ptr<const Table> table = device ? device->live_table() : nullptr;
  if (whence != SEEK_DATA && whence != SEEK_HOLE) {
    fuse_reply_err(req, EINVAL);
    return;
  }
  if (!table || offset < 0 || static_cast<uint64_t>(offset) >= table->size().bytes()) {
    fuse_reply_err(req, ENXIO);
    return;
  }
  Sectors at = sectors_of_bytes(static_cast<uint64_t>(offset));
  for (int step = 0; at < table->size(); ++step) {
    Extent extent = table->extent_at(at);
    if (extent.data == (whence == SEEK_DATA) || extent.length.n == 0 || step == kMaxExtentSteps) {
      uint64_t found = at.bytes();
      fuse_reply_lseek(req, std::max(offset, static_cast<off_t>(found)));
      return;
    }
    at += extent.length;
  }
  // No data up to the end; a hole is always at the end.
  if (whence == SEEK_DATA) {
    fuse_reply_err(req, ENXIO);
  } else {
    fuse_reply_lseek(req, static_cast<off_t>(table->size().bytes()));
  }
}

void ioctl(fuse_req_t req, fuse_ino_t inode, unsigned int command, void*, fuse_file_info*,
           unsigned flags, const void*, size_t, size_t out_size) {
  std::shared_ptr<MappedDevice> device = front_of(req).device(inode);
  uint64_t size = device ? device->size().bytes() : 0;
  // The others of a block device either carry no size in their number, so that FUSE gives no room
  // for an answer, or make no sense here.
  if (!device || (flags & FUSE_IOCTL_DIR) || command != BLKGETSIZE64 || out_size < sizeof(size)) {
    fuse_reply_err(req, ENOTTY);
    return;
  }
  fuse_reply_ioctl(req, 0, &size, sizeof(size));
}

// As a file system that is full: nothing can be added, every block is in use.
void statfs(fuse_req_t req, fuse_ino_t) {
  FuseFront& front = front_of(req);
  struct statvfs stat {};
  stat.f_bsize = stat.f_frsize = 4096;
  stat.f_namemax = kMaxNameLength;
  uint64_t bytes = 0;
  auto entries = front.listing(true);
  for (const auto& entry : *entries) {
    if (auto device = front.manager().find(entry.minor)) bytes += device->size().bytes();
  }
  stat.f_blocks = bytes / stat.f_frsize;
  stat.f_files = entries->size();
  fuse_reply_statfs(req, &stat);
}

// Devices come and go by command only.
void refuse(fuse_req_t req) {
  fuse_reply_err(req, EPERM);
}
void mknod(fuse_req_t req, fuse_ino_t, const char*, mode_t, dev_t) {
  refuse(req);
}
void mkdir(fuse_req_t req, fuse_ino_t, const char*, mode_t) {
  refuse(req);
}
void unlink(fuse_req_t req, fuse_ino_t, const char*) {
  refuse(req);
}
void rmdir(fuse_req_t req, fuse_ino_t, const char*) {
  refuse(req);
}
void symlink(fuse_req_t req, const char*, fuse_ino_t, const char*) {
  refuse(req);
}
void rename(fuse_req_t req, fuse_ino_t, const char*, fuse_ino_t, const char*, unsigned) {
  refuse(req);
}
void link(fuse_req_t req, fuse_ino_t, fuse_ino_t, const char*) {
  refuse(req);
}
void create(fuse_req_t req, fuse_ino_t, const char*, mode_t, fuse_file_info*) {
  refuse(req);
}

fuse_lowlevel_ops make_operations() {
  fuse_lowlevel_ops ops{};
  ops.init = init;
  ops.lookup = lookup;
  ops.getattr = getattr;
  ops.setattr = setattr;
  ops.readdir = readdir;
  ops.readdirplus = readdirplus;
  ops.open = open;
  ops.release = release;
  ops.lseek = lseek;
  ops.ioctl = ioctl;
  ops.statfs = statfs;
  ops.mknod = mknod;
  ops.mkdir = mkdir;
  ops.unlink = unlink;
  ops.rmdir = rmdir;
  ops.symlink = symlink;
  ops.rename = rename;
  ops.link = link;
  ops.create = create;
  return ops;
}

}  // namespace

const fuse_lowlevel_ops& FuseFront::operations() {
  static const fuse_lowlevel_ops ops = make_operations();
  return ops;
}

}  // namespace dmfs
