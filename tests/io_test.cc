// SPDX-License-Identifier: Apache-2.0
// Files below targets, and the threads that wait for them.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <future>
#include <thread>

#include "core/io/file_backing.h"
#include "tests/support/harness.h"
#include "tests/support/temp_dir.h"

namespace dmfs::test {
namespace {

class FileRig {
 public:
  Result<std::unique_ptr<FileBacking>> open(const std::string& path, bool read_only = false) {
    int fd = ::open(path.c_str(), O_PATH | O_CLOEXEC);
    if (fd < 0) return Error{errno, path};
    auto file = FileBacking::open(threads, fd, path, read_only);
    ::close(fd);
    return file;
  }
  static int run(BackingFile& file, TestBio& bio) {
    file.submit(bio);
    while (!bio.done()) std::this_thread::yield();
    return bio.error();
  }
  TempDir dir;
  IoThreads threads;
};

TEST(FileBacking, DoesEveryOperation) {
  FileRig rig;
  auto file = rig.open(rig.dir.file("a", 64));
  ASSERT_TRUE(file);
  EXPECT_EQ((*file)->size().n, 64u);
  TestBio write(Op::Write, {8}, {16});
  write.fill('A');
  EXPECT_EQ(rig.run(**file, write), 0);
  TestBio fua(Op::Write, {24}, {8}, kBioFua);
  fua.fill('A');
  EXPECT_EQ(rig.run(**file, fua), 0);
  TestBio flush(Op::Flush, {0}, {0});
  EXPECT_EQ(rig.run(**file, flush), 0);
  TestBio read(Op::Read, {8}, {24});
  EXPECT_EQ(rig.run(**file, read), 0);
  EXPECT_TRUE(read.holds('A', 8));
  TestBio discard(Op::Discard, {8}, {8});
  EXPECT_EQ(rig.run(**file, discard), 0);
  TestBio zero(Op::WriteZeroes, {16}, {8}, kBioFua);
  EXPECT_EQ(rig.run(**file, zero), 0);
  TestBio gone(Op::Read, {8}, {16});
  EXPECT_EQ(rig.run(**file, gone), 0);
  EXPECT_TRUE(gone.holds_zeroes());
  EXPECT_EQ((*file)->size().n, 64u);
  TestBio past(Op::Read, {60}, {8});
  EXPECT_EQ(rig.run(**file, past), EIO);
}

TEST(FileBacking, ReadOnlyIsKept) {
  FileRig rig;
  auto file = rig.open(rig.dir.file("a", 8), true);
  ASSERT_TRUE(file);
  EXPECT_TRUE((*file)->read_only());
  TestBio write(Op::Write, {0}, {1});
  EXPECT_EQ(rig.run(**file, write), EBADF);
}

TEST(FileBacking, KnowsHoles) {
  FileRig rig;
  auto file = rig.open(rig.dir.file("a", 4096));
  ASSERT_TRUE(file);
  EXPECT_FALSE((*file)->extent_at({0}, {4096}).data);
  EXPECT_EQ((*file)->extent_at({0}, {4096}).length.n, 4096u);
  EXPECT_EQ((*file)->allocated({0}, {4096}).n, 0u);
  TestBio write(Op::Write, {1024}, {8});
  write.fill('A');
  ASSERT_EQ(rig.run(**file, write), 0);
  Extent hole = (*file)->extent_at({0}, {4096});
  if (hole.data) GTEST_SKIP() << "this file system does not report holes";
  EXPECT_EQ(hole.length.n, 1024u);
  EXPECT_TRUE((*file)->extent_at({1024}, {8}).data);
  EXPECT_EQ((*file)->allocated({1024}, {64}).n, 8u);
}

// Hangs until it is let go.
class HangingQueue : public IoQueue {
 public:
  void perform(Bio& bio) override {
    ++inside;
    gate.wait();
    --inside;
    bio.complete(0);
  }
  std::promise<void> open;
  std::shared_future<void> gate = open.get_future().share();
  std::atomic<unsigned> inside{0};
};

class QuickQueue : public IoQueue {
 public:
  void perform(Bio& bio) override { bio.complete(0); }
};

TEST(IoThreads, AHangingFileTakesABoundedNumberOfThreads) {
  IoThreads threads;
  HangingQueue hanging;
  QuickQueue quick;
  std::vector<std::unique_ptr<TestBio>> stuck;
  for (int i = 0; i < 200; ++i) {
    stuck.push_back(std::make_unique<TestBio>(Op::Flush, Sectors{0}, Sectors{0}));
    threads.submit(hanging, *stuck.back());
  }
  while (hanging.inside < IoThreads::kMaxThreadsPerFile) std::this_thread::yield();
  for (int i = 0; i < 1000; ++i) {
    TestBio bio(Op::Flush, {0}, {0});
    threads.submit(quick, bio);
    while (!bio.done()) std::this_thread::yield();
  }
  EXPECT_EQ(hanging.inside, IoThreads::kMaxThreadsPerFile);
  EXPECT_LE(threads.thread_count(), 2 * IoThreads::kMaxThreadsPerFile);
  EXPECT_FALSE(stuck.back()->done());
  hanging.open.set_value();
  threads.drain(hanging);
  for (auto& bio : stuck) EXPECT_TRUE(bio->done());
  threads.drain(quick);
}

TEST(IoThreads, ManyFilesManySubmitters) {
  IoThreads threads;
  std::array<QuickQueue, 20> files;
  std::vector<std::thread> submitters;
  std::atomic<int> ended{0};
  for (int t = 0; t < 4; ++t) {
    submitters.emplace_back([&, t] {
      for (int i = 0; i < 500; ++i) {
        TestBio bio(Op::Flush, {0}, {0});
        threads.submit(files[(i * 7 + t) % files.size()], bio);
        while (!bio.done()) std::this_thread::yield();
        ++ended;
      }
    });
  }
  for (auto& thread : submitters) thread.join();
  EXPECT_EQ(ended, 2000);
  for (auto& file : files) threads.drain(file);
}

}  // namespace
}  // namespace dmfs::test
