// SPDX-License-Identifier: Apache-2.0
#define FUSE_USE_VERSION 35
#include "fs/fuse_mount.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <fuse_lowlevel.h>
#include <spdlog/spdlog.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <thread>

namespace dmfs {
namespace {

constexpr std::chrono::seconds kMaxWaitAtEnd{10};
constexpr std::chrono::milliseconds kLookAgain{5};

void log_of_libfuse(fuse_log_level level, const char* format, va_list args) {
  char line[512];
  vsnprintf(line, sizeof(line), format, args);
  size_t length = std::strlen(line);
  while (length > 0 && line[length - 1] == '\n') line[--length] = '\0';
  spdlog::log(level <= FUSE_LOG_ERR       ? spdlog::level::err
              : level == FUSE_LOG_WARNING ? spdlog::level::warn
                                          : spdlog::level::debug,
              "libfuse: {}", line);
}

}  // namespace

FuseMount::FuseMount(Private, DeviceManager& manager, const Options& options)
    : options_(options),
      manager_(manager),
      volumes_(manager),
      cache_(options.front.cache
                 ? std::make_unique<PageCache>(manager, volumes_,
                                               [this](uint64_t inode, int64_t at, int64_t length) {
                                                 (void)fuse_lowlevel_notify_inval_inode(
                                                     session_, inode, at, length);
                                               })
                 : nullptr),
      front_(manager, volumes_, cache_.get(), options.front) {}

FuseMount::~FuseMount() {
  loop_.reset();
  if (cache_) manager_.set_change_observer(nullptr);
  cache_.reset();
  volumes_.close_all();
  if (session_) fuse_session_destroy(session_);
}

Result<std::unique_ptr<FuseMount>> FuseMount::mount(DeviceManager& manager, const Options& options,
                                                    std::function<void()> ended) {
  auto mount = std::make_unique<FuseMount>(Private{}, manager, options);
  DM_TRY_STATUS(mount->begin(std::move(ended)));
  return mount;
}

Status FuseMount::begin(std::function<void()> ended) {
  fuse_set_log_func(log_of_libfuse);
  std::vector<std::string> words = {"dmfs"};
  if (options_.root_may_enter) words.push_back("-oallow_root");
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  fuse_args args = FUSE_ARGS_INIT(static_cast<int>(argv.size()), argv.data());
  session_ = fuse_session_new(&args, &FuseFront::operations(), sizeof(fuse_lowlevel_ops), &front_);
  fuse_opt_free_args(&args);
  if (!session_) return Error{EINVAL, "libfuse makes no session"};

  const std::string& path = options_.request.path;
  DM_TRY(int fd, mount_fuse(options_.request));
  // libfuse takes over a descriptor of a mount that somebody else has made; it closes it.
  if (fuse_session_mount(session_, fmt::format("/dev/fd/{}", fd).c_str()) != 0) {
    close(fd);
    (void)unmount_fuse(path, Unmount::Lazy);
    return Error{EINVAL, "libfuse refuses the mount"};
  }
  loop_ = std::make_unique<FuseLoop>(*session_, volumes_, cache_.get(), options_.threads);
  if (cache_) manager_.set_change_observer(cache_.get());
  struct stat root {};
  Status started = loop_->start([this, ended = std::move(ended)] {
    gone_ = true;
    ended();
  });
  if (started && stat(path.c_str(), &root) != 0) {
    int code = errno;
    started =
        Error{code, fmt::format("{}: the mount does not answer: {}", path, std::strerror(code))};
  }
  if (!started) {
    (void)unmount_fuse(path, Unmount::Lazy);
    loop_->stop();
    return started;
  }
  device_number_ = root.st_dev;
  return {};
}

int64_t FuseMount::minor_of(int path_fd) const {
  // Without asking the file system, which is us.
  struct statx st {};
  if (statx(path_fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_INO, &st) != 0) return -1;
  bool ours = makedev(st.stx_dev_major, st.stx_dev_minor) == device_number_;
  return ours && is_volume_inode(st.stx_ino) ? int64_t{minor_of_inode(st.stx_ino)} : -1;
}

void FuseMount::tell_sizes() {
  for (const std::string& name : volumes_.resized()) {
    struct stat st {};
    (void)stat((options_.request.path + "/" + name).c_str(), &st);
  }
}

void FuseMount::tell_contents(CancelToken& cancel) {
  if (cache_) cache_->after_command(cancel);
}

Status FuseMount::unmount() {
  if (gone_) return {};
  Status done = unmount_fuse(options_.request.path, Unmount::IfFree);
  if (done) gone_ = true;
  if (done || done.error().code != EBUSY) return done;
  std::vector<std::string> names = volumes_.open_names();
  std::string list;
  constexpr size_t kMaxNamed = 10;
  for (size_t i = 0; i < names.size() && i < kMaxNamed; ++i) {
    list += (i > 0 ? ", " : "") + names[i];
  }
  if (names.size() > kMaxNamed) list += fmt::format(" and {} more", names.size() - kMaxNamed);
  return Error{EBUSY, fmt::format("cannot unmount {}: in use{}", options_.request.path,
                                  list.empty() ? "" : ", open volumes: " + list)};
}

void FuseMount::stop_serving() {
  Status done = unmount();
  if (!done) {
    spdlog::warn("{}", done.error().message);
    if (Status lazy = unmount_fuse(options_.request.path, Unmount::Lazy); !lazy) {
      spdlog::error("{}", lazy.error().message);
    }
  }
  if (cache_) close_cache();
  loop_->stop();
}

// While requests are still served: a page that is being dropped may have to be read or written back
// first. What stays stuck behind a backing file that hangs would keep the process from ending, so
// then the kernel has to fail it.
void FuseMount::close_cache() {
  cache_->close();
  auto deadline = std::chrono::steady_clock::now() + kMaxWaitAtEnd;
  while (cache_->pending() > 0) {
    if (std::chrono::steady_clock::now() > deadline) {
      std::ofstream abort(fmt::format("/sys/fs/fuse/connections/{}/abort", minor(device_number_)));
      abort << "1\n";
      return;
    }
    volumes_.fail_held(EIO);
    std::this_thread::sleep_for(kLookAgain);
  }
}

bool FuseMount::finish() {
  auto deadline = std::chrono::steady_clock::now() + kMaxWaitAtEnd;
  while (loop_->outstanding() > 0 || (cache_ && cache_->pending() > 0)) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    // What was under way in several steps may have been held after the manager looked.
    volumes_.fail_held(EIO);
    std::this_thread::sleep_for(kLookAgain);
  }
  volumes_.close_all();
  return true;
}

}  // namespace dmfs
