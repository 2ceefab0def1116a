// SPDX-License-Identifier: Apache-2.0
// IoClient over real files, with every engine; and the cancels of the engines themselves.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <future>
#include <random>
#include <thread>

#include "core/io/open_backing.h"
#include "tests/support/every_engine.h"
#include "tests/support/harness.h"
#include "tests/support/io_rig.h"
#include "tests/support/temp_dir.h"

namespace dmfs::test {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;

// A file whose I/O blocks its thread until it is let go, as that of a dead server does.
class BlockingFile final : public BackingFile, private IoQueue {
 public:
  explicit BlockingFile(IoThreads& threads) : threads_(threads) {}
  ~BlockingFile() override { threads_.drain(*this); }
  void submit(Bio& bio) override { threads_.submit(*this, bio); }
  size_t cancel(const BioCancel& cancel) override { return threads_.cancel(*this, cancel); }
  std::string name() const override { return "blocking"; }
  Sectors size() const override { return {1 << 20}; }

  void let_go() { open_.set_value(); }
  unsigned inside() const { return inside_; }
  unsigned performed() const { return performed_; }

 private:
  void perform(Bio& bio) override {
    ++inside_;
    gate_.wait();
    --inside_;
    ++performed_;
    bio.complete(0);
  }
  IoThreads& threads_;
  std::promise<void> open_;
  std::shared_future<void> gate_ = open_.get_future().share();
  std::atomic<unsigned> inside_{0};
  std::atomic<unsigned> performed_{0};
};

class IoClientFiles : public EveryEngine {
 protected:
  std::unique_ptr<BackingFile> open(const std::string& name, uint64_t sectors) {
    std::string path = dir_.file(name, sectors);
    int fd = ::open(path.c_str(), O_PATH | O_CLOEXEC);
    auto file = open_backing(service_, fd, path, false);
    ::close(fd);
    if (!file) {
      ADD_FAILURE() << file.error().message;
      return nullptr;
    }
    return *std::move(file);
  }

  TempDir dir_;
  IoService service_{options()};
  SystemClock clock_;
};

TEST_P(IoClientFiles, DoesEveryOperationOnSeveralFiles) {
  auto a = open("a", 256), b = open("b", 256);
  auto client = make_client(clock_, {.devices = 2});
  for (bool cancellable : {true, false}) {
    TestRequest write(Op::Write, {{*a, {3}, {64}}, {*b, {7}, {32}}}, 'w');
    write.flags = kBioFua;
    write.cancellable = cancellable;
    EXPECT_EQ(client->submit_and_wait(write), 0u);
    // Read back to an odd place, from pages in disorder.
    std::vector<std::byte> memory(12 * kPageSize, std::byte{'-'});
    std::vector<std::byte*> pages;
    for (size_t i = 0; i < 12; ++i) pages.push_back(memory.data() + (i * 5 % 12) * kPageSize);
    TestRequest read(Op::Read, {{*a, {3}, {64}}});
    read.memory = IoMemory::pages(pages, 1234);
    read.cancellable = cancellable;
    EXPECT_EQ(client->submit_and_wait(read), 0u);
    EXPECT_EQ(std::count(memory.begin(), memory.end(), std::byte{'w'}), 64 * 512);
    std::vector<std::byte> seen(64 * 512);
    read.memory.copy_out(seen);
    EXPECT_EQ(std::count(seen.begin(), seen.end(), std::byte{'w'}), 64 * 512);
    TestRequest flush(Op::Flush, {{*a, {}, {}}, {*b, {}, {}}});
    EXPECT_EQ(client->submit_and_wait(flush), 0u);
    TestRequest zero(Op::WriteZeroes, {{*a, {3}, {32}}, {*b, {7}, {32}}});
    EXPECT_EQ(client->submit_and_wait(zero), 0u);
    TestRequest discard(Op::Discard, {{*a, {35}, {32}}});
    EXPECT_EQ(client->submit_and_wait(discard), 0u);
    TestRequest gone(Op::Read, {{*a, {3}, {64}}});
    EXPECT_EQ(client->submit_and_wait(gone), 0u);
    EXPECT_TRUE(gone.holds(0));
    TestRequest past(Op::Write, {{*a, {250}, {8}}, {*b, {0}, {8}}});
    EXPECT_EQ(client->submit_and_wait(past), 1u);
    EXPECT_EQ(past.recorder.told(0)[0].error, EIO);
  }
}

// Threads that write, give up and write again, each in its own part of one file. A sector must hold
// what the last successful write put there, or a later one that was given up.
TEST_P(IoClientFiles, NothingStaleWinsUnderLoad) {
  constexpr unsigned kThreads = 3;
  constexpr uint64_t kPart = 64;
  auto file = open("a", kThreads * kPart);
  auto client = make_client(clock_, {.min_ios = 4, .max_size = 16384});
  std::vector<std::vector<std::unique_ptr<TestRequest>>> all(kThreads);
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      std::mt19937 random(t + 1);
      std::vector<IoHandle> handles;
      for (int i = 0; i < 100; ++i) {
        uint64_t at = random() % (kPart - 16), count = 1 + random() % 16;
        all[t].push_back(std::make_unique<TestRequest>(
            Op::Write, std::vector<IoRegion>{{*file, {t * kPart + at}, {count}}},
            static_cast<char>(i + 1)));
        TestRequest& request = *all[t].back();
        if (random() % 3 == 0) request.timeout = microseconds(1 + random() % 200);
        request.cancel_on_timeout = random() % 2;
        request.cancellable = random() % 4 != 0;
        handles.push_back(client->submit(request));
        if (random() % 3 == 0) (void)client->cancel(handles[random() % handles.size()]);
        if (random() % 50 == 0) (void)client->cancel(*file);
      }
    });
  }
  for (auto& thread : threads) thread.join();
  while (client->outstanding() > 0) std::this_thread::yield();
  client.reset();
  auto reader = make_client(clock_, {.max_size = kThreads * kPart * 512});
  TestRequest read(Op::Read, {{*file, {0}, {kThreads * kPart}}});
  ASSERT_EQ(reader->submit_and_wait(read), 0u);
  for (uint64_t sector = 0; sector < kThreads * kPart; ++sector) {
    size_t last_ok = 0;
    auto& writes = all[sector / kPart];
    for (size_t i = 0; i < writes.size(); ++i) {
      ASSERT_TRUE(writes[i]->returned());
      const IoRegion& region = writes[i]->regions[0];
      bool covers = region.sector.n <= sector && sector < (region.sector + region.count).n;
      if (covers && writes[i]->state() == RegionState::Ok) last_ok = i + 1;
    }
    EXPECT_GE(static_cast<size_t>(read.data[sector * 512]), last_ok) << "sector " << sector;
  }
}

TEST_P(IoClientFiles, AFileThatHangsTakesFewThreadsAndHoldsUpNobody) {
  auto file = open("a", 4096);
  BlockingFile hanging(service_.threads());
  auto client = make_client(clock_, {.devices = 2, .min_ios = 64, .max_size = 4096});
  std::vector<std::unique_ptr<TestRequest>> stuck;
  for (uint64_t i = 0; i < 200; ++i) {
    stuck.push_back(std::make_unique<TestRequest>(
        Op::Write, std::vector<IoRegion>{{hanging, {i * 8}, {8}}, {*file, {i * 8}, {8}}}));
    stuck.back()->timeout = milliseconds(1);
    stuck.back()->cancel_on_timeout = true;
    (void)client->submit(*stuck.back());
  }
  while (client->outstanding() > 0) std::this_thread::yield();
  for (auto& request : stuck) {
    EXPECT_EQ(request->recorder.told(0).back().state, RegionState::Cancelled);
  }
  // A thread takes up what it can, and what it cannot is given back.
  EXPECT_LE(hanging.inside(), IoThreads::kMaxThreadsPerFile);
  EXPECT_LE(client->late(hanging), IoThreads::kMaxThreadsPerFile);
  EXPECT_LE(service_.threads().thread_count(), 2 * IoThreads::kMaxThreadsPerFile + 1);
  for (uint64_t i = 0; i < 100; ++i) {
    TestRequest write(Op::Write, {{*file, {i * 8}, {8}}});
    EXPECT_EQ(client->submit_and_wait(write), 0u);
  }
  unsigned inside = hanging.inside();
  hanging.let_go();
  client->wait_late(hanging);
  EXPECT_GE(hanging.performed(), inside);
  client.reset();
}

TEST_P(IoClientFiles, CopiesFromFileToFile) {
  auto a = open("a", 256), b = open("b", 256), c = open("c", 256);
  auto client = make_client(clock_, {.devices = 2});
  TestRequest write(Op::Write, {{*a, {8}, {64}}}, 'w');
  ASSERT_EQ(client->submit_and_wait(write), 0u);
  TestRequest copy(Op::Write, {{*b, {16}, {64}}, {*c, {24}, {64}}});
  copy.source = a.get();
  copy.source_sector = {8};
  copy.memory = {};
  copy.flags = kBioFua;
  uint64_t failed = client->submit_and_wait(copy);
  if (a->copy_fd() < 0) {
    EXPECT_EQ(failed, 3u);
    EXPECT_EQ(copy.told()[0].error, EOPNOTSUPP);
    return;
  }
  EXPECT_EQ(failed, 0u);
  for (auto [file, at] : {std::pair{b.get(), 16}, std::pair{c.get(), 24}}) {
    TestRequest read(Op::Read, {{*file, {static_cast<uint64_t>(at)}, {64}}});
    EXPECT_EQ(client->submit_and_wait(read), 0u);
    EXPECT_TRUE(read.holds('w'));
  }
  // Past the end of either.
  copy.recorder.again();
  copy.source_sector = {224};
  EXPECT_EQ(client->submit_and_wait(copy), 3u);
  TestRequest beyond(Op::Write, {{*b, {224}, {64}}});
  beyond.source = a.get();
  beyond.memory = {};
  EXPECT_EQ(client->submit_and_wait(beyond), 1u);
  EXPECT_EQ(beyond.told()[0].error, EIO);
  EXPECT_EQ(b->size().n, 256u);
}

DM_FOR_EVERY_ENGINE(IoClientFiles);

TEST(IoCancel, ThreadsDropWhatWaits) {
  IoThreads threads;
  BlockingFile file(threads);
  std::vector<std::unique_ptr<TestBio>> bios;
  for (int i = 0; i < 20; ++i) {
    bios.push_back(std::make_unique<TestBio>(Op::Write, Sectors{0}, Sectors{8}));
    file.submit(*bios.back());
  }
  while (file.inside() < IoThreads::kMaxThreadsPerFile) std::this_thread::yield();
  EXPECT_EQ(file.cancel({bios[19].get(), ECANCELED}), 1u);
  EXPECT_EQ(bios[19]->error(), ECANCELED);
  EXPECT_EQ(file.cancel({bios[19].get(), ECANCELED}), 0u);
  EXPECT_EQ(file.cancel({bios[0].get(), ECANCELED}), 0u) << "that one runs";
  EXPECT_EQ(file.cancel({nullptr, EINTR}), 20u - 1 - IoThreads::kMaxThreadsPerFile);
  EXPECT_EQ(bios[10]->error(), EINTR);
  // One that was cancelled before it came.
  TestBio never(Op::Write, {0}, {8});
  never.cancel_error = ENODEV;
  file.submit(never);
  EXPECT_TRUE(never.done());
  EXPECT_EQ(never.error(), ENODEV);
  file.let_go();
  for (auto& bio : bios) {
    while (!bio->done()) std::this_thread::yield();
  }
  // And the file goes on.
  TestBio more(Op::Write, {0}, {8});
  file.submit(more);
  while (!more.done()) std::this_thread::yield();
  EXPECT_EQ(more.error(), 0);
}

TEST(IoCancel, UringEndsWhatTheKernelWaitsFor) {
  auto uring = Uring::create();
  if (!uring) GTEST_SKIP() << uring.error().message;
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  struct Transfer : UringTransfer {
    std::promise<ssize_t> result;
    char byte = 0;
    iovec segment{&byte, 1};
    Bio bio{[](Bio&) {}};
  };
  auto start = [&](Transfer& transfer) {
    transfer.ended = [](UringTransfer& base, ssize_t result) {
      static_cast<Transfer&>(base).result.set_value(result);
    };
    transfer.fd = ends[0];
    transfer.segments = &transfer.segment;
    transfer.segment_count = 1;
    transfer.offset = -1;
    transfer.owner = ends;
    static_cast<UringTransfer&>(transfer).bio = &transfer.bio;
    (*uring)->submit(transfer);
  };
  Transfer first, second, other_owner;
  start(first);
  start(second);
  start(other_owner);
  (*uring)->cancel(&uring, {nullptr, ECANCELED});  // nobody's
  (*uring)->cancel(ends, {&first.bio, ECANCELED});
  EXPECT_EQ(first.result.get_future().get(), -ECANCELED);
  // What comes after a cancel is not meant by it, though it is the same bio.
  first.result = {};
  start(first);
  (*uring)->cancel(ends, {&second.bio, ECANCELED});
  EXPECT_EQ(second.result.get_future().get(), -ECANCELED);
  ASSERT_EQ(write(ends[1], "xy", 2), 2);
  EXPECT_EQ(first.result.get_future().get(), 1);
  EXPECT_EQ(other_owner.result.get_future().get(), 1);
  // All of an owner.
  Transfer third, fourth;
  start(third);
  start(fourth);
  (*uring)->cancel(ends, {nullptr, ECANCELED});
  EXPECT_EQ(third.result.get_future().get(), -ECANCELED);
  EXPECT_EQ(fourth.result.get_future().get(), -ECANCELED);
  close(ends[0]);
  close(ends[1]);
}

TEST(IoCancel, UringUnderLoad) {
  auto uring = Uring::create();
  if (!uring) GTEST_SKIP() << uring.error().message;
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  struct Transfer : UringTransfer {
    std::atomic<bool> done{false};
    char byte = 0;
    iovec segment{&byte, 1};
    Bio bio{[](Bio&) {}};
  };
  // More than the ring holds at a time, all cancelled by two threads.
  std::vector<std::unique_ptr<Transfer>> transfers(6000);
  std::vector<std::thread> threads;
  for (size_t t = 0; t < 2; ++t) {
    threads.emplace_back([&, t] {
      for (size_t i = t; i < transfers.size(); i += 2) {
        transfers[i] = std::make_unique<Transfer>();
        Transfer& transfer = *transfers[i];
        transfer.ended = [](UringTransfer& base, ssize_t result) {
          EXPECT_EQ(result, -ECANCELED);
          static_cast<Transfer&>(base).done = true;
        };
        transfer.fd = ends[0];
        transfer.segments = &transfer.segment;
        transfer.segment_count = 1;
        transfer.offset = -1;
        transfer.owner = ends;
        static_cast<UringTransfer&>(transfer).bio = &transfer.bio;
        (*uring)->submit(transfer);
        if (i % 3 == 0) (*uring)->cancel(ends, {&transfer.bio, ECANCELED});
      }
    });
  }
  for (auto& thread : threads) thread.join();
  (*uring)->cancel(ends, {nullptr, ECANCELED});
  for (auto& transfer : transfers) {
    while (!transfer->done) std::this_thread::yield();
  }
  close(ends[0]);
  close(ends[1]);
}

}  // namespace
}  // namespace dmfs::test
