// SPDX-License-Identifier: Apache-2.0
// The threads that do the I/O which may block.
#include <gtest/gtest.h>

#include <future>
#include <thread>

#include "core/io/io_threads.h"
#include "tests/support/harness.h"

namespace dmfs::test {
namespace {

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
