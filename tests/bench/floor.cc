// SPDX-License-Identifier: Apache-2.0
// What FUSE itself costs: the smallest honest libfuse daemon that serves files, to compare with.
// Direct I/O, parallel direct writes, pread and pwrite inline in ten threads; no splice, no
// clone_fd. Runs in the foreground until it is unmounted or gets SIGTERM.
//   floor MOUNTPOINT FILE...       the files are shown as disk0, disk1, ...
#define FUSE_USE_VERSION 312
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <linux/fuse.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

namespace {

constexpr unsigned kThreads = 10;
constexpr unsigned kMaxBackground = 512;
constexpr unsigned kMaxWrite = 1 << 20;
constexpr double kTimeout = 86400;
constexpr fuse_ino_t kFirstInode = 2;

struct File {
  int fd;
  off_t size;
};

const std::vector<File>& files(fuse_req_t req) {
  return *static_cast<const std::vector<File>*>(fuse_req_userdata(req));
}

struct stat attributes(fuse_req_t req, fuse_ino_t inode) {
  struct stat st {};
  st.st_ino = inode;
  if (inode == FUSE_ROOT_ID) {
    st.st_mode = S_IFDIR | 0755;
    st.st_nlink = 2;
  } else {
    st.st_mode = S_IFREG | 0600;
    st.st_nlink = 1;
    st.st_size = files(req).at(inode - kFirstInode).size;
    st.st_blocks = st.st_size / 512;
  }
  st.st_uid = getuid();
  st.st_gid = getgid();
  return st;
}

void init(void*, fuse_conn_info* connection) {
  connection->want &=
      ~static_cast<unsigned>(FUSE_CAP_SPLICE_READ | FUSE_CAP_SPLICE_WRITE | FUSE_CAP_SPLICE_MOVE);
  connection->max_background = kMaxBackground;
  connection->congestion_threshold = kMaxBackground * 3 / 4;
  connection->max_write = kMaxWrite;
}

void lookup(fuse_req_t req, fuse_ino_t parent, const char* name) {
  size_t count = files(req).size();
  for (size_t i = 0; parent == FUSE_ROOT_ID && i < count; ++i) {
    if (name != "disk" + std::to_string(i)) continue;
    fuse_entry_param entry{};
    entry.ino = kFirstInode + i;
    entry.attr = attributes(req, entry.ino);
    entry.attr_timeout = entry.entry_timeout = kTimeout;
    fuse_reply_entry(req, &entry);
    return;
  }
  fuse_reply_err(req, ENOENT);
}

void getattr(fuse_req_t req, fuse_ino_t inode, fuse_file_info*) {
  struct stat st = attributes(req, inode);
  fuse_reply_attr(req, &st, kTimeout);
}

// Times and modes are nobody's business here, but a user who sets them is not refused.
void setattr(fuse_req_t req, fuse_ino_t inode, struct stat*, int, fuse_file_info*) {
  getattr(req, inode, nullptr);
}

void open(fuse_req_t req, fuse_ino_t, fuse_file_info*) {
  // libfuse 3.14 has no field for parallel direct writes, so the reply is made here.
  fuse_open_out out{};
  out.open_flags = FOPEN_DIRECT_IO | FOPEN_PARALLEL_DIRECT_WRITES;
  fuse_reply_buf(req, reinterpret_cast<const char*>(&out), sizeof(out));
}

void read(fuse_req_t req, fuse_ino_t inode, size_t size, off_t offset, fuse_file_info*) {
  thread_local std::unique_ptr<char[]> buffer(new char[kMaxWrite]);
  if (size > kMaxWrite) size = kMaxWrite;
  ssize_t n = pread(files(req)[inode - kFirstInode].fd, buffer.get(), size, offset);
  if (n < 0) {
    fuse_reply_err(req, errno);
  } else {
    fuse_reply_buf(req, buffer.get(), static_cast<size_t>(n));
  }
}

void write(fuse_req_t req, fuse_ino_t inode, const char* data, size_t size, off_t offset,
           fuse_file_info*) {
  ssize_t n = pwrite(files(req)[inode - kFirstInode].fd, data, size, offset);
  if (n < 0) {
    fuse_reply_err(req, errno);
  } else {
    fuse_reply_write(req, static_cast<size_t>(n));
  }
}

void fsync(fuse_req_t req, fuse_ino_t inode, int, fuse_file_info*) {
  fuse_reply_err(req, fdatasync(files(req)[inode - kFirstInode].fd) == 0 ? 0 : errno);
}

void discard(fuse_req_t req, fuse_ino_t inode, int mode, off_t offset, off_t length,
             fuse_file_info*) {
  int fd = files(req)[inode - kFirstInode].fd;
  fuse_reply_err(req, fallocate(fd, mode, offset, length) == 0 ? 0 : errno);
}

int serve(const char* mountpoint, std::vector<File>& served) {
  fuse_lowlevel_ops ops{};
  ops.init = init;
  ops.lookup = lookup;
  ops.getattr = getattr;
  ops.setattr = setattr;
  ops.open = open;
  ops.read = read;
  ops.write = write;
  ops.fsync = fsync;
  ops.fallocate = discard;

  fuse_args args = FUSE_ARGS_INIT(0, nullptr);
  if (fuse_opt_add_arg(&args, "floor") != 0) return 1;
  int status = 1;
  fuse_session* session = fuse_session_new(&args, &ops, sizeof(ops), &served);
  fuse_loop_config* config = fuse_loop_cfg_create();
  fuse_loop_cfg_set_max_threads(config, kThreads);
  fuse_loop_cfg_set_idle_threads(config, kThreads);
  fuse_loop_cfg_set_clone_fd(config, 0);
  if (session && fuse_set_signal_handlers(session) == 0) {
    if (fuse_session_mount(session, mountpoint) == 0) {
      status = fuse_session_loop_mt(session, config) == 0 ? 0 : 1;
      fuse_session_unmount(session);
    }
    fuse_remove_signal_handlers(session);
  }
  fuse_loop_cfg_destroy(config);
  if (session) fuse_session_destroy(session);
  fuse_opt_free_args(&args);
  return status;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) {
    fprintf(stderr, "usage: floor MOUNTPOINT FILE...\n");
    return 2;
  }
  std::vector<File> served;
  for (int i = 2; i < argc; ++i) {
    int fd = ::open(argv[i], O_RDWR | O_CLOEXEC);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) != 0) {
      fprintf(stderr, "floor: %s: %s\n", argv[i], strerror(errno));
      return 1;
    }
    served.push_back({fd, st.st_size});
  }
  return serve(argv[1], served);
}
