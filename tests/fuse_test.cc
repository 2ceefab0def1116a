// SPDX-License-Identifier: Apache-2.0
// A real mount: what a user of a volume file sees. Needs /dev/fuse and the right to mount; exits
// with 77 and says why where there is none.
#include <functional>
#include <chrono>
#include <dirent.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/aio_abi.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <future>
#include <thread>

#include "fs/fuse_mount.h"
#include "fs/mount_options.h"
#include "tests/support/manager_rig.h"

namespace dmfs::test {
namespace {

class FuseTest : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_EQ(::mkdir(rig_.dir().path("m").c_str(), 0755), 0);
    rig_.dir().file("a", 2048);
    rig_.dir().file("b", 2048);
    FuseMount::Options options;
    options.request.path = rig_.dir().path("m");
    options.request.fsname = "test";
    options.front.max_background = 512;
    options.front.uid = geteuid();
    options.front.gid = getegid();
    auto mounted = FuseMount::mount(rig_.manager(), options, [this] { ended_.set_value(); });
    ASSERT_TRUE(mounted) << mounted.error().message;
    mount_ = *std::move(mounted);
    rig_.manager().set_own_mount(mount_.get());
  }
  void TearDown() override {
    if (!mount_) return;
    mount_->stop_serving();
    rig_.manager().set_own_mount(nullptr);
    rig_.manager().stop();
    EXPECT_TRUE(mount_->finish());
    mount_.reset();
    ended_.get_future().wait();
  }

  std::string path(const std::string& name) { return rig_.dir().path("m/" + name); }
  // Opens for reading and writing; -1 fails the test.
  int open(const std::string& name, int flags = O_RDWR) {
    int fd = ::open(path(name).c_str(), flags | O_CLOEXEC);
    EXPECT_GE(fd, 0) << name << ": " << strerror(errno);
    return fd;
  }
  std::vector<std::string> names() {
    std::vector<std::string> all;
    DIR* dir = opendir(rig_.dir().path("m").c_str());
    while (dirent* entry = readdir(dir)) {
      if (entry->d_name[0] != '.') all.push_back(entry->d_name);
    }
    closedir(dir);
    std::sort(all.begin(), all.end());
    return all;
  }
  struct stat stat_of(const std::string& name) {
    struct stat st {};
    EXPECT_EQ(::stat(path(name).c_str(), &st), 0) << name << ": " << strerror(errno);
    return st;
  }
  int stat_error(const std::string& name) {
    struct stat st {};
    return ::stat(path(name).c_str(), &st) == 0 ? 0 : errno;
  }
  // Until the state is there; the bound only ends a test that has failed.
  static bool wait_until(const std::function<bool()>& state) {
    auto bound = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (!state()) {
      if (std::chrono::steady_clock::now() > bound) return false;
      std::this_thread::yield();
    }
    return true;
  }
  size_t held(const std::string& name) { return rig_.manager().find(name)->held_count(); }
  void wait_held(const std::string& name, size_t count) {
    wait_until([&] { return held(name) == count; });
    ASSERT_EQ(held(name), count);
  }

  ManagerRig rig_;
  std::promise<void> ended_;
  std::unique_ptr<FuseMount> mount_;
};

// The errno of a call that must fail.
#define EXPECT_ERRNO(call, code)               \
  do {                                         \
    errno = 0;                                 \
    EXPECT_LT((call), 0);                      \
    EXPECT_EQ(errno, code) << strerror(errno); \
  } while (false)

TEST_F(FuseTest, DevicesAreListedAndSeenAtOnce) {
  EXPECT_TRUE(names().empty());
  ASSERT_TRUE(rig_.create("one", "0 8 linear a 0"));
  ASSERT_TRUE(rig_.create("two", "0 16 zero"));
  EXPECT_EQ(names(), (std::vector<std::string>{"one", "two"}));
  struct stat one = stat_of("one");
  EXPECT_EQ(one.st_size, 8 * 512);
  EXPECT_EQ(one.st_mode, S_IFREG | 0600u);
  EXPECT_EQ(one.st_uid, geteuid());
  EXPECT_EQ(one.st_nlink, 1u);
  EXPECT_EQ(one.st_blksize, 4096);
  EXPECT_EQ(one.st_blocks, 0);  // the file below is sparse
  EXPECT_EQ(one.st_ino, rig_.info("one").minor + 2);

  ASSERT_TRUE(rig_.rename("one", "uno"));
  EXPECT_EQ(stat_error("one"), ENOENT);
  EXPECT_EQ(stat_of("uno").st_ino, one.st_ino);
  ASSERT_TRUE(rig_.load("uno", "0 24 linear a 0"));
  ASSERT_TRUE(rig_.resume("uno"));
  EXPECT_EQ(stat_of("uno").st_size, 24 * 512);
  ASSERT_TRUE(rig_.remove("uno"));
  EXPECT_EQ(stat_error("uno"), ENOENT);
  EXPECT_EQ(names(), std::vector<std::string>{"two"});
  EXPECT_EQ(stat_error("control"), ENOENT);
}

TEST_F(FuseTest, AnOpenFileFollowsATableSwap) {
  ASSERT_TRUE(rig_.create("v", "0 8 linear a 0"));
  int fd = open("v");
  ASSERT_EQ(pwrite(fd, "old", 3, 0), 3);
  ASSERT_TRUE(rig_.load("v", "0 16 linear b 0"));
  ASSERT_TRUE(rig_.resume("v"));
  char text[4] = "xxx";
  EXPECT_EQ(pread(fd, text, 3, 0), 3);
  EXPECT_EQ(std::memcmp(text, "\0\0\0", 3), 0);
  EXPECT_EQ(lseek(fd, 0, SEEK_END), 16 * 512);
  EXPECT_EQ(pwrite(fd, "end", 3, 16 * 512 - 3), 3);
  ::close(fd);
}

// The kernel answers these from the size that it knows.
TEST_F(FuseTest, AsynchronousDirectReadsSeeTheNewSize) {
  ASSERT_TRUE(rig_.create("v", "0 8 linear a 0"));
  int fd = open("v", O_RDWR | O_DIRECT);
  alignas(4096) static char page[4096];
  auto read_at = [&](off_t at) {
    aio_context_t context = 0;
    EXPECT_EQ(syscall(SYS_io_setup, 1, &context), 0);
    iocb request{};
    request.aio_lio_opcode = IOCB_CMD_PREAD;
    request.aio_fildes = static_cast<uint32_t>(fd);
    request.aio_buf = reinterpret_cast<uint64_t>(page);
    request.aio_nbytes = sizeof(page);
    request.aio_offset = at;
    iocb* list = &request;
    EXPECT_EQ(syscall(SYS_io_submit, context, 1, &list), 1);
    io_event event{};
    EXPECT_EQ(syscall(SYS_io_getevents, context, 1, 1, &event, nullptr), 1);
    syscall(SYS_io_destroy, context);
    return event.res;
  };
  EXPECT_EQ(read_at(0), 4096);
  ::close(open("v", O_WRONLY | O_TRUNC));
  EXPECT_EQ(read_at(0), 4096);
  ASSERT_TRUE(rig_.load("v", "0 16 linear a 0"));
  ASSERT_TRUE(rig_.resume("v"));
  mount_->tell_sizes();
  EXPECT_EQ(read_at(4096), 4096);
  ::close(fd);
}

TEST_F(FuseTest, ADirectoryOfManyDevicesIsReadInPieces) {
  for (int i = 0; i < 700; ++i) {
    CreateArgs args;
    args.name = "device-with-a-rather-long-name-" + std::to_string(i);
    ASSERT_TRUE(rig_.commands().create(args));
  }
  EXPECT_EQ(names().size(), 700u);
  // Positions stay right though devices go.
  DIR* dir = opendir(rig_.dir().path("m").c_str());
  std::set<std::string> seen;
  for (dirent* entry; (entry = readdir(dir));) {
    EXPECT_TRUE(seen.insert(entry->d_name).second) << entry->d_name << " twice";
    if (seen.size() == 100) {
      for (int i = 0; i < 20; ++i) {
        ASSERT_TRUE(rig_.remove("device-with-a-rather-long-name-" + std::to_string(i)));
      }
    }
  }
  closedir(dir);
  EXPECT_TRUE(seen.count("device-with-a-rather-long-name-699"));
}

TEST_F(FuseTest, ReadsAndWritesOfAnyAlignment) {
  ASSERT_TRUE(rig_.create("v", "0 2048 striped 2 8 a 0 b 0"));
  int fd = open("v");
  std::string data(700'000, '\0');
  for (size_t i = 0; i < data.size(); ++i) data[i] = static_cast<char>(i * 7 + i / 251);
  ASSERT_EQ(pwrite(fd, data.data(), data.size(), 12'345), ssize_t(data.size()));
  std::string back(data.size(), '\0');
  ASSERT_EQ(pread(fd, back.data(), back.size(), 12'345), ssize_t(back.size()));
  EXPECT_TRUE(back == data);
  ASSERT_EQ(pwrite(fd, "abc", 3, 13'000), 3);
  data.replace(13'000 - 12'345, 3, "abc");
  ASSERT_EQ(pread(fd, back.data(), back.size(), 12'345), ssize_t(back.size()));
  EXPECT_TRUE(back == data);
  // Past the end.
  EXPECT_EQ(pread(fd, back.data(), 100, 2048 * 512), 0);
  EXPECT_EQ(pread(fd, back.data(), 100, 2048 * 512 - 30), 30);
  EXPECT_EQ(pwrite(fd, back.data(), 100, 2048 * 512 - 30), 30);
  EXPECT_ERRNO(pwrite(fd, "x", 1, 2048 * 512), ENOSPC);
  // Scattered memory, O_DIRECT, O_DSYNC.
  iovec parts[2] = {{data.data(), 5}, {data.data() + 5, 1000}};
  EXPECT_EQ(pwritev(fd, parts, 2, 1), 1005);
  EXPECT_EQ(fsync(fd), 0);
  EXPECT_EQ(fdatasync(fd), 0);
  ::close(fd);
  int direct = open("v", O_RDWR | O_DIRECT | O_DSYNC);
  alignas(4096) static char page[4096];
  EXPECT_EQ(pread(direct, page, 4096, 0), 4096);
  EXPECT_EQ(std::memcmp(page + 1, data.data(), 1005), 0);
  EXPECT_EQ(pwrite(direct, page, 4096, 8192), 4096);
  ::close(direct);
}

TEST_F(FuseTest, OpenTruncateIsIgnoredAsByABlockDevice) {
  ASSERT_TRUE(rig_.create("v", "0 8 linear a 0"));
  int fd = open("v", O_WRONLY | O_CREAT | O_TRUNC);
  EXPECT_EQ(stat_of("v").st_size, 4096);
  EXPECT_EQ(::write(fd, "shell", 5), 5);
  struct stat st {};
  EXPECT_EQ(fstat(fd, &st), 0);
  EXPECT_EQ(st.st_size, 4096);
  ::close(fd);
  int rc = system(("echo from the shell > " + path("v") + " && dd if=/dev/zero of=" + path("v") +
                   " bs=512 count=1 status=none && [ $(stat -c %s " + path("v") + ") = 4096 ]")
                      .c_str());
  EXPECT_EQ(rc, 0);
}

TEST_F(FuseTest, WhatABlockDeviceRefusesIsRefused) {
  ASSERT_TRUE(rig_.create("v", "0 8 linear a 0"));
  ASSERT_TRUE(rig_.create("w", "0 8 zero"));
  int fd = open("v");
  EXPECT_ERRNO(ftruncate(fd, 100), EINVAL);
  EXPECT_ERRNO(ftruncate(fd, 0), EINVAL);
  EXPECT_ERRNO(truncate(path("v").c_str(), 100), EINVAL);
  EXPECT_EQ(ftruncate(fd, 4096), 0);
  EXPECT_ERRNO(unlink(path("v").c_str()), EPERM);
  EXPECT_ERRNO(rename(path("v").c_str(), path("w").c_str()), EPERM);
  EXPECT_ERRNO(link(path("v").c_str(), path("x").c_str()), EPERM);
  EXPECT_ERRNO(symlink("v", path("x").c_str()), EPERM);
  EXPECT_ERRNO(mkdir(path("d").c_str(), 0755), EPERM);
  EXPECT_ERRNO(mknod(path("n").c_str(), S_IFREG | 0600, 0), EPERM);
  EXPECT_ERRNO(::open(path("new").c_str(), O_CREAT | O_RDWR, 0600), EPERM);
  EXPECT_ERRNO(rmdir(path("v").c_str()), ENOTDIR);
  EXPECT_ERRNO(chmod(path("v").c_str(), 0644), EPERM);
  EXPECT_EQ(chmod(path("v").c_str(), 0600), 0);
  EXPECT_EQ(futimens(fd, nullptr), 0);
  EXPECT_ERRNO(setxattr(path("v").c_str(), "user.x", "1", 1, 0), EOPNOTSUPP);
  EXPECT_EQ(access(path("v").c_str(), R_OK | W_OK), 0);
  ::close(fd);
}

TEST_F(FuseTest, AReadOnlyVolumeRefusesWrites) {
  ASSERT_TRUE(rig_.create("r", "0 8 linear a 0", true));
  EXPECT_EQ(stat_of("r").st_mode & 0777, 0400u);
  int fd = open("r");  // as root, or without default_permissions
  EXPECT_ERRNO(pwrite(fd, "x", 1, 0), EPERM);
  EXPECT_ERRNO(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 512), EPERM);
  char c;
  EXPECT_EQ(pread(fd, &c, 1, 0), 1);
  ::close(fd);
}

TEST_F(FuseTest, ADeviceWithoutATableCannotBeOpened) {
  CreateArgs args;
  args.name = "empty";
  ASSERT_TRUE(rig_.commands().create(args));
  EXPECT_EQ(stat_of("empty").st_size, 0);
  EXPECT_ERRNO(::open(path("empty").c_str(), O_RDONLY), ENXIO);
  EXPECT_TRUE(rig_.remove("empty"));
}

TEST_F(FuseTest, AnOpenVolumeCannotBeRemoved) {
  ASSERT_TRUE(rig_.create("v", "0 8 linear a 0"));
  int one = open("v"), two = open("v");
  EXPECT_EQ(rig_.info("v").open_count, 2u);
  EXPECT_EQ(rig_.remove("v").error().code, EBUSY);
  EXPECT_EQ(mount_->unmount().error().code, EBUSY);
  EXPECT_NE(mount_->unmount().error().message.find("open volumes: v"), std::string::npos);
  ASSERT_TRUE(rig_.remove("v", true));
  EXPECT_EQ(stat_error("v"), 0);
  ::close(one);
  ::close(two);
  EXPECT_TRUE(wait_until([&] { return !rig_.exists("v"); }));  // the release is asynchronous
  EXPECT_EQ(stat_error("v"), ENOENT);
}

TEST_F(FuseTest, FallocateDiscardsAndZeroes) {
  ASSERT_TRUE(rig_.create("v", "0 2048 linear a 0"));
  int fd = open("v");
  std::string data(1 << 20, 'x');
  ASSERT_EQ(pwrite(fd, data.data(), data.size(), 0), ssize_t(data.size()));
  blkcnt_t before = stat_of("v").st_blocks;
  EXPECT_GE(before, 2048);
  ASSERT_EQ(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 1000, 500'000), 0);
  EXPECT_LT(stat_of("v").st_blocks, before);
  ASSERT_EQ(fallocate(fd, FALLOC_FL_ZERO_RANGE, 600'001, 1000), 0);
  ASSERT_EQ(fallocate(fd, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, 700'000, 7), 0);
  std::fill(data.begin() + 1000, data.begin() + 501'000, '\0');
  std::fill(data.begin() + 600'001, data.begin() + 601'001, '\0');
  std::fill(data.begin() + 700'000, data.begin() + 700'007, '\0');
  std::string back(data.size(), '?');
  ASSERT_EQ(pread(fd, back.data(), back.size(), 0), ssize_t(back.size()));
  EXPECT_TRUE(back == data);
  EXPECT_EQ(fallocate(fd, 0, 0, 1 << 20), 0);
  EXPECT_EQ(fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, 4096), 0);
  EXPECT_ERRNO(fallocate(fd, 0, 0, (1 << 20) + 1), ENOSPC);
  EXPECT_ERRNO(fallocate(fd, FALLOC_FL_ZERO_RANGE, 1 << 20, 512), ENOSPC);
  EXPECT_ERRNO(fallocate(fd, FALLOC_FL_COLLAPSE_RANGE, 0, 4096), EOPNOTSUPP);
  EXPECT_EQ(stat_of("v").st_size, 1 << 20);
  ::close(fd);
}

TEST_F(FuseTest, SeekFindsDataAndHoles) {
  ASSERT_TRUE(rig_.create("v", "0 2048 linear a 0\n2048 1024 zero"));
  int fd = open("v");
  char page[4096] = {1};
  ASSERT_EQ(pwrite(fd, page, 4096, 65'536), 4096);
  EXPECT_EQ(lseek(fd, 0, SEEK_DATA), 65'536);
  EXPECT_EQ(lseek(fd, 65'600, SEEK_DATA), 65'600);
  EXPECT_EQ(lseek(fd, 65'600, SEEK_HOLE), 65'536 + 4096);
  EXPECT_EQ(lseek(fd, 10, SEEK_HOLE), 10);
  EXPECT_ERRNO(lseek(fd, 100'000, SEEK_DATA), ENXIO);
  EXPECT_ERRNO(lseek(fd, 3072 * 512, SEEK_HOLE), ENXIO);
  EXPECT_EQ(lseek(fd, 0, SEEK_END), 3072 * 512);
  ::close(fd);
}

TEST_F(FuseTest, IoctlPollAndStatfs) {
  ASSERT_TRUE(rig_.create("v", "0 2048 linear a 0"));
  int fd = open("v");
  uint64_t size = 0;
  EXPECT_EQ(ioctl(fd, BLKGETSIZE64, &size), 0);
  EXPECT_EQ(size, 2048u * 512);
  int sector = 0;
  EXPECT_ERRNO(ioctl(fd, BLKSSZGET, &sector), ENOTTY);
  pollfd ready{fd, POLLIN | POLLOUT, 0};
  EXPECT_EQ(poll(&ready, 1, 10'000), 1);
  EXPECT_EQ(ready.revents, POLLIN | POLLOUT);
  ::close(fd);
  struct statvfs st {};
  ASSERT_EQ(statvfs(rig_.dir().path("m").c_str(), &st), 0);
  EXPECT_EQ(st.f_blocks * st.f_frsize, 2048u * 512);
  EXPECT_EQ(st.f_bfree, 0u);
  EXPECT_EQ(st.f_namemax, 127u);
}

TEST_F(FuseTest, TheTimeOfTheLastWriteMovesAndStays) {
  ASSERT_TRUE(rig_.create("v", "0 8 linear a 0"));
  struct stat before = stat_of("v");
  int fd = open("v");
  auto later = [&](const struct stat& a, const struct stat& b) {
    return std::pair(a.st_mtim.tv_sec, a.st_mtim.tv_nsec) >
           std::pair(b.st_mtim.tv_sec, b.st_mtim.tv_nsec);
  };
  for (int i = 0; i < 1000 && !later(stat_of("v"), before); ++i)
    ASSERT_EQ(pwrite(fd, "x", 1, 0), 1);
  struct stat after = stat_of("v");
  EXPECT_TRUE(later(after, before));
  ::close(fd);
  EXPECT_TRUE(wait_until([&] { return rig_.info("v").open_count == 0; }));
  EXPECT_EQ(stat_of("v").st_mtim.tv_nsec, after.st_mtim.tv_nsec);
}

TEST_F(FuseTest, APathIntoOurMountIsTheVolumeItself) {
  ASSERT_TRUE(rig_.create("below", "0 64 linear a 0"));
  ASSERT_TRUE(rig_.create("above", "0 32 linear " + path("below") + " 8"));
  EXPECT_EQ(rig_.table("above"), "0 32 linear below 8\n");
  EXPECT_EQ(rig_.load("below", "0 8 linear " + path("above") + " 0").error().code, ELOOP);
}

TEST_F(FuseTest, ASuspendedVolumeHoldsAndLetsGo) {
  ASSERT_TRUE(rig_.create("v", "0 2048 linear a 0"));
  ASSERT_TRUE(rig_.create("free", "0 8 linear b 0"));
  ASSERT_TRUE(rig_.suspend("v"));
  int fd = open("v");
  std::vector<std::thread> writers;
  constexpr int kWriters = 24;  // more than there are threads to serve them
  for (int i = 0; i < kWriters; ++i) {
    writers.emplace_back([fd, i] {
      std::string data(i % 2 ? 512 : 65'536, static_cast<char>('a' + i));
      EXPECT_EQ(pwrite(fd, data.data(), data.size(), i * 4096 % 65536), ssize_t(data.size()));
    });
  }
  wait_held("v", kWriters);
  // The neighbour does not notice, and the front still answers.
  int other = open("free");
  char c = 'n';
  EXPECT_EQ(pwrite(other, &c, 1, 5), 1);
  EXPECT_EQ(pread(other, &c, 1, 5), 1);
  EXPECT_EQ(stat_of("v").st_size, 2048 * 512);
  ::close(other);
  ASSERT_TRUE(rig_.resume("v"));
  for (std::thread& writer : writers) writer.join();
  EXPECT_EQ(held("v"), 0u);
  ::close(fd);
}

// Starts a program that gets stuck on the volume; kill it, and see that it goes and that nothing
// of it stays.
void kill_and_reap(pid_t child, int signal) {
  ASSERT_EQ(kill(child, signal), 0);
  int status = 0;
  auto bound = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (std::chrono::steady_clock::now() < bound) {
    pid_t got = waitpid(child, &status, WNOHANG);
    if (got == child) {
      EXPECT_TRUE(WIFSIGNALED(status));
      return;
    }
    std::this_thread::yield();
  }
  ADD_FAILURE() << "the process did not die";
}

pid_t spawn(std::vector<std::string> words) {
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  pid_t child = -1;
  EXPECT_EQ(posix_spawnp(&child, argv[0], nullptr, nullptr, argv.data(), environ), 0);
  return child;
}

TEST_F(FuseTest, AProcessThatWaitsOnAHeldBioCanBeKilled) {
  ASSERT_TRUE(rig_.create("v", "0 2048 linear a 0"));
  ASSERT_TRUE(rig_.suspend("v"));
  for (int signal : {SIGKILL, SIGINT, SIGTERM}) {
    pid_t reader = spawn({"dd", "if=" + path("v"), "of=/dev/null", "bs=4k", "count=1"});
    wait_held("v", 1);
    kill_and_reap(reader, signal);
    wait_held("v", 0);
    pid_t writer =
        spawn({"dd", "if=/dev/zero", "of=" + path("v"), "bs=1M", "count=1", "conv=notrunc"});
    wait_held("v", 1);
    kill_and_reap(writer, signal);
    wait_held("v", 0);
    // (notrunc: an open with O_TRUNC waits in the kernel for the writes that are under way.)
    // A ragged write is held in its first read; a second one waits for the range lock.
    pid_t ragged =
        spawn({"dd", "if=/dev/zero", "of=" + path("v"), "bs=7", "count=1", "conv=notrunc"});
    wait_held("v", 1);
    pid_t behind =
        spawn({"dd", "if=/dev/zero", "of=" + path("v"), "bs=9", "count=1", "conv=notrunc"});
    ASSERT_TRUE(wait_until([&] { return rig_.info("v").open_count >= 2; }));
    kill_and_reap(behind, signal);
    kill_and_reap(ragged, signal);
    wait_held("v", 0);
  }
  EXPECT_TRUE(wait_until([&] { return rig_.info("v").open_count == 0; }));
  EXPECT_EQ(rig_.info("v").open_count, 0u);
  ASSERT_TRUE(rig_.resume("v"));
}

TEST_F(FuseTest, ASignalHandlerGetsEintrAndMayTryAgain) {
  ASSERT_TRUE(rig_.create("v", "0 2048 linear a 0"));
  ASSERT_TRUE(rig_.suspend("v"));
  struct sigaction act {
  }, old{};
  act.sa_handler = [](int) {};
  sigaction(SIGUSR2, &act, &old);
  int fd = open("v");
  std::atomic<int> error{0};
  std::thread reader([&] {
    char c;
    if (pread(fd, &c, 1, 0) < 0) error = errno;
  });
  wait_held("v", 1);
  pthread_kill(reader.native_handle(), SIGUSR2);
  reader.join();
  EXPECT_EQ(error, EINTR);
  wait_held("v", 0);
  ASSERT_TRUE(rig_.resume("v"));
  char c;
  EXPECT_EQ(pread(fd, &c, 1, 0), 1);
  ::close(fd);
  sigaction(SIGUSR2, &old, nullptr);
}

TEST_F(FuseTest, GoingDownFailsWhatIsHeld) {
  ASSERT_TRUE(rig_.create("v", "0 2048 linear a 0"));
  ASSERT_TRUE(rig_.suspend("v"));
  int fd = open("v");
  std::atomic<int> errors[3]{};
  std::vector<std::thread> users;
  users.emplace_back([&] {
    char c;
    if (pread(fd, &c, 1, 0) < 0) errors[0] = errno;
  });
  users.emplace_back([&] {
    if (pwrite(fd, "ragged", 6, 3) < 0) errors[1] = errno;
  });
  users.emplace_back([&] {
    if (pwrite(fd, "behind", 6, 9) < 0) errors[2] = errno;  // waits for the range
  });
  wait_held("v", 2);
  mount_->stop_serving();
  rig_.manager().set_own_mount(nullptr);
  rig_.manager().stop();
  EXPECT_TRUE(mount_->finish());
  mount_.reset();
  for (std::thread& user : users) user.join();
  for (auto& error : errors) EXPECT_TRUE(error == EIO || error == ECONNABORTED) << error;
  ::close(fd);
  ended_.get_future().wait();
}

TEST(MountOptionsTest, WordsAreReadAndMistakesNamed) {
  auto all = parse_mount_options({"ro,allow_other,threads=3",
                                  "log=/a\\,b,max_background=9,mode=640,"
                                  "nosuid,_netdev,x-systemd.automount,uid=5"});
  ASSERT_TRUE(all);
  EXPECT_TRUE(all->read_only && all->allow_other);
  EXPECT_EQ(all->threads, 3u);
  EXPECT_EQ(all->max_background, 9u);
  EXPECT_EQ(all->log, "/a,b");
  EXPECT_EQ(all->mode, mode_t{0640});
  EXPECT_EQ(all->uid, uid_t{5});
  for (const char* bad :
       {"bogus", "threads=0", "threads=x", "threads", "max_background=65536", "mode=999",
        "mode=1777", "log=", "log_level=loud", "ro=yes", "allow_other,allow_root", "cache=maybe"}) {
    auto refused = parse_mount_options({bad});
    ASSERT_FALSE(refused) << bad;
    EXPECT_EQ(refused.error().code, EINVAL);
  }
  EXPECT_NE(parse_mount_options({"nosuid,bogus=1"}).error().message.find("'bogus=1'"),
            std::string::npos);
}

}  // namespace

// Why there can be no mount here; empty when there can.
std::string no_mount() {
  TempDir dir;
  ::mkdir(dir.path("m").c_str(), 0755);
  auto fd = mount_fuse({.path = dir.path("m"), .fsname = "probe"});
  if (!fd) return fd.error().message;
  ::close(*fd);
  (void)unmount_fuse(dir.path("m"), Unmount::Lazy);
  return {};
}

}  // namespace dmfs::test

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  if (std::string why = dmfs::test::no_mount(); !why.empty()) {
    fprintf(stderr, "SKIPPED: no FUSE mount can be made here: %s\n", why.c_str());
    return 77;
  }
  return RUN_ALL_TESTS();
}
