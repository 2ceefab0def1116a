// SPDX-License-Identifier: Apache-2.0
// Byte ranges on a mapped device: the edges, the range lock, interrupts, and a model in memory.
#include <gtest/gtest.h>

#include <cstring>
#include <deque>
#include <memory>
#include <random>
#include <thread>

#include "fs/byte_io.h"
#include "core/io/range_lock.h"
#include "tests/support/harness.h"

namespace dmfs::test {
namespace {

using Mode = RangeLock::Mode;

// ---- the range lock -------------------------------------------------------------------------

struct TestClaim : RangeLock::Claim {
  TestClaim() : Claim([](Claim& claim) { ++static_cast<TestClaim&>(claim).grants; }) {}
  std::atomic<int> grants{0};
};

TEST(RangeLockTest, SharedClaimsNeedNothingFromOneAnother) {
  RangeLock lock;
  TestClaim a, b;
  EXPECT_TRUE(lock.acquire(a, {0}, {8}, Mode::Shared));
  EXPECT_TRUE(lock.acquire(b, {0}, {8}, Mode::Shared));
  EXPECT_EQ(lock.listed(), 0u);
  lock.release(a);
  lock.release(b);
}

TEST(RangeLockTest, AnExclusiveClaimWaitsForWhoCameTheFastWay) {
  RangeLock lock;
  TestClaim fast, edit;
  ASSERT_TRUE(lock.acquire(fast, {100}, {108}, Mode::Shared));
  EXPECT_FALSE(lock.acquire(edit, {0}, {1}, Mode::Exclusive));
  EXPECT_EQ(edit.grants, 0);
  lock.release(fast);
  EXPECT_EQ(edit.grants, 1);
  lock.release(edit);
  EXPECT_EQ(lock.listed(), 0u);
}

TEST(RangeLockTest, OnlyOverlappingClaimsWaitAndInOrder) {
  RangeLock lock;
  TestClaim first, apart, over, after, behind;
  ASSERT_TRUE(lock.acquire(first, {0}, {4}, Mode::Exclusive));
  EXPECT_TRUE(lock.acquire(apart, {4}, {8}, Mode::Exclusive));
  EXPECT_FALSE(lock.acquire(over, {3}, {5}, Mode::Shared));
  EXPECT_TRUE(lock.acquire(after, {8}, {16}, Mode::Shared));
  EXPECT_FALSE(lock.acquire(behind, {4}, {5}, Mode::Exclusive));
  lock.release(first);
  EXPECT_EQ(over.grants, 0);
  lock.release(apart);
  EXPECT_EQ(over.grants, 1);
  EXPECT_EQ(behind.grants, 0);
  lock.release(over);
  EXPECT_EQ(behind.grants, 1);
  lock.release(behind);
  lock.release(after);
  EXPECT_EQ(lock.listed(), 0u);
}

TEST(RangeLockTest, TheFastWayComesBackThoughSharedClaimsOverlapInTime) {
  RangeLock lock;
  TestClaim edit, listed, fast, again;
  ASSERT_TRUE(lock.acquire(edit, {0}, {1}, Mode::Exclusive));
  ASSERT_TRUE(lock.acquire(listed, {5}, {6}, Mode::Shared));
  lock.release(edit);
  ASSERT_TRUE(lock.acquire(fast, {5}, {6}, Mode::Shared));
  EXPECT_EQ(lock.listed(), 1u);  // fast is not in the list
  // The one that stayed in the list still counts.
  EXPECT_FALSE(lock.acquire(again, {5}, {6}, Mode::Exclusive));
  lock.release(fast);
  EXPECT_EQ(again.grants, 0);
  lock.release(listed);
  EXPECT_EQ(again.grants, 1);
  lock.release(again);
}

TEST(RangeLockTest, AWaitingClaimCanBeTakenOut) {
  RangeLock lock;
  TestClaim first, second, third;
  ASSERT_TRUE(lock.acquire(first, {0}, {1}, Mode::Exclusive));
  ASSERT_FALSE(lock.acquire(second, {0}, {2}, Mode::Exclusive));
  ASSERT_FALSE(lock.acquire(third, {1}, {2}, Mode::Exclusive));
  EXPECT_FALSE(lock.cancel(first));
  EXPECT_TRUE(lock.cancel(second));
  EXPECT_EQ(third.grants, 1);  // it had waited for the second only
  EXPECT_FALSE(lock.cancel(second));
  EXPECT_FALSE(lock.cancel(third));
  lock.release(first);
  EXPECT_EQ(second.grants, 0);
  lock.release(third);
}

// Each grant releases at once; recursion would need a frame for each waiter.
TEST(RangeLockTest, ALongQueueIsNotADeepStack) {
  struct Chained : RangeLock::Claim {
    explicit Chained(RangeLock& of)
        : Claim([](Claim& claim) {
            auto& self = static_cast<Chained&>(claim);
            char frame[4096];
            std::memset(frame, self.done ? 1 : 2, sizeof(frame));
            self.done = frame[100] == 2;
            self.lock.release(self);
          }),
          lock(of) {}
    RangeLock& lock;
    bool done = false;
  };
  RangeLock lock;
  TestClaim first;
  ASSERT_TRUE(lock.acquire(first, {0}, {1}, Mode::Exclusive));
  std::deque<Chained> waiters;
  for (int i = 0; i < 5000; ++i) {
    waiters.emplace_back(lock);
    // Not one behind the other, else the set-up is quadratic.
    ASSERT_FALSE(lock.acquire(waiters.back(), {0}, {1}, Mode::Shared));
  }
  lock.release(first);
  for (const Chained& waiter : waiters) ASSERT_TRUE(waiter.done);
  EXPECT_EQ(lock.listed(), 0u);
}

TEST(RangeLockTest, AnExclusiveHolderIsAloneOnItsSectors) {
  constexpr int kSectors = 16;
  struct Shop {
    RangeLock lock;
    std::atomic<int> readers[kSectors]{};
    std::atomic<int> owners[kSectors]{};
    std::atomic<int> bad{0};
    std::atomic<int> left{0};
  };
  struct Job : RangeLock::Claim {
    explicit Job(Shop& of)
        : Claim([](Claim& claim) { static_cast<Job&>(claim).work(); }), shop(of) {}
    void begin() {
      if (shop.lock.acquire(*this, {from}, {to}, mode)) work();
    }
    void work() {
      for (uint64_t i = from; i < to; ++i) {
        if (mode == Mode::Exclusive) {
          if (shop.owners[i].fetch_add(1) != 0 || shop.readers[i] != 0) ++shop.bad;
        } else {
          shop.readers[i].fetch_add(1);
          if (shop.owners[i] != 0) ++shop.bad;
        }
      }
      std::this_thread::yield();
      for (uint64_t i = from; i < to; ++i) {
        (mode == Mode::Exclusive ? shop.owners : shop.readers)[i].fetch_sub(1);
      }
      shop.lock.release(*this);
      shop.left.fetch_sub(1);
    }
    Shop& shop;
    uint64_t from = 0, to = 0;
    Mode mode = Mode::Shared;
  };
  Shop shop;
  constexpr int kThreads = 4, kJobs = 3000;
  shop.left = kThreads * kJobs;
  std::deque<std::deque<Job>> jobs(kThreads);
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      std::mt19937 random(static_cast<unsigned>(t) + 1);
      for (int i = 0; i < kJobs; ++i) {
        Job& job = jobs[static_cast<size_t>(t)].emplace_back(shop);
        job.from = random() % kSectors;
        job.to = job.from + 1 + random() % (kSectors - job.from);
        job.mode = random() % 8 == 0 ? Mode::Exclusive : Mode::Shared;
        job.begin();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(shop.left, 0);  // whoever waited was run by the last to release
  EXPECT_EQ(shop.bad, 0);
  EXPECT_EQ(shop.lock.listed(), 0u);
}

// ---- bytes ----------------------------------------------------------------------------------

class TestIo : public ByteIo {
 public:
  TestIo() : ByteIo([](ByteIo& io) { static_cast<TestIo&>(io).ends.fetch_add(1); }) {}
  bool done() const { return ends.load() == 1; }
  std::vector<std::byte> memory;
  std::atomic<int> ends{0};
};

std::vector<std::byte> bytes_of(const std::string& text) {
  const auto* at = reinterpret_cast<const std::byte*>(text.data());
  return {at, at + text.size()};
}

class ByteIoTest : public testing::Test {
 protected:
  void make(const std::string& table, bool read_only = false) {
    ASSERT_TRUE(rig_.load(table, read_only));
    ASSERT_TRUE(rig_.resume());
  }
  std::shared_ptr<TestIo> begin(ByteIo::Request request, std::vector<std::byte> memory = {},
                                uint64_t tag = 0) {
    auto io = std::make_shared<TestIo>();
    io->memory = std::move(memory);
    if (request.op == Op::Read) io->memory.resize(request.length);
    if (request.op == Op::Write) request.length = io->memory.size();
    request.memory = io->memory.data();
    io->start(rig_.device(), lock_, request, tag);
    io->finish_start();
    return io;
  }
  std::shared_ptr<TestIo> read(uint64_t at, uint64_t length) {
    return begin({.op = Op::Read, .offset = at, .length = length});
  }
  std::shared_ptr<TestIo> write(uint64_t at, const std::string& text, uint64_t tag = 0,
                                bool fua = false) {
    return begin({.op = Op::Write, .fua = fua, .offset = at}, bytes_of(text), tag);
  }
  std::string text_at(uint64_t at, uint64_t length) {
    auto io = read(at, length);
    EXPECT_TRUE(io->done());
    EXPECT_EQ(io->error(), 0);
    return {reinterpret_cast<const char*>(io->memory.data()), io->transferred()};
  }

  Rig rig_;
  RangeLock lock_;
};

TEST_F(ByteIoTest, WritesOfAnyAlignmentReadBack) {
  rig_.file("a", 100);
  make("0 100 linear a 0");
  write(0, std::string(4096, '.'));
  for (auto [at, text] :
       std::vector<std::pair<uint64_t, std::string>>{{3, "abc"},
                                                     {510, "over"},
                                                     {1024, "start"},
                                                     {1530, "1234567"},
                                                     {700, std::string(900, 'x')}}) {
    auto io = write(at, text);
    ASSERT_TRUE(io->done());
    EXPECT_EQ(io->error(), 0);
    EXPECT_EQ(io->transferred(), text.size());
    EXPECT_EQ(text_at(at, text.size()), text);
  }
  EXPECT_EQ(text_at(0, 10), "...abc....");
  EXPECT_EQ(lock_.listed(), 0u);
}

TEST_F(ByteIoTest, TheEndsOfTheVolumeAreThoseOfABlockDevice) {
  rig_.file("a", 2);
  make("0 2 linear a 0");
  EXPECT_EQ(text_at(1024, 10), "");
  EXPECT_EQ(text_at(1020, 10).size(), 4u);
  EXPECT_EQ(text_at(512, 1024).size(), 512u);
  auto past = write(1024, "x");
  EXPECT_EQ(past->error(), ENOSPC);
  auto over = write(1020, "123456");
  EXPECT_EQ(over->error(), 0);
  EXPECT_EQ(over->transferred(), 4u);
  EXPECT_EQ(text_at(1018, 10), std::string("\0\0", 2) + "1234");
  auto huge = begin({.op = Op::Read, .offset = 1000, .length = 100});
  EXPECT_EQ(huge->transferred(), 24u);
  auto far = begin({.op = Op::WriteZeroes, .offset = 512, .length = UINT64_MAX - 100});
  EXPECT_EQ(far->error(), 0);
  EXPECT_EQ(far->transferred(), 512u);
  auto nothing = write(5000, "");
  EXPECT_EQ(nothing->error(), 0);
}

TEST_F(ByteIoTest, AReadOnlyVolumeRefusesChangesWithEperm) {
  rig_.file("a", 2);
  make("0 2 linear a 0", true);
  EXPECT_EQ(write(0, "x")->error(), EPERM);
  EXPECT_EQ(write(0, std::string(512, 'x'))->error(), EPERM);
  EXPECT_EQ(begin({.op = Op::WriteZeroes, .offset = 0, .length = 5})->error(), EPERM);
  EXPECT_EQ(text_at(0, 4).size(), 4u);
}

TEST_F(ByteIoTest, AnAlignedRequestIsOneBio) {
  HeldFile& file = rig_.file("a", 100);
  make("0 100 linear a 0");
  file.forget_seen();
  write(512, std::string(1024, 'x'), 0, true);
  read(0, 4096);
  begin({.op = Op::Flush});
  auto seen = file.seen();
  ASSERT_EQ(seen.size(), 3u);
  EXPECT_EQ(seen[0], (SeenBio{Op::Write, kBioFua, 0, {1}, {2}}));
  EXPECT_EQ(seen[1], (SeenBio{Op::Read, 0, 0, {0}, {8}}));
  EXPECT_EQ(seen[2].op, Op::Flush);
}

TEST_F(ByteIoTest, ARaggedWriteKeepsFua) {
  HeldFile& file = rig_.file("a", 100);
  make("0 100 linear a 0");
  file.forget_seen();
  write(100, std::string(2000, 'x'), 0, true);
  auto seen = file.seen();
  ASSERT_EQ(seen.size(), 3u);
  EXPECT_EQ(seen[0], (SeenBio{Op::Read, 0, 0, {0}, {1}}));
  EXPECT_EQ(seen[1], (SeenBio{Op::Read, 0, 0, {4}, {1}}));
  EXPECT_EQ(seen[2], (SeenBio{Op::Write, kBioFua, 0, {0}, {5}}));
}

TEST_F(ByteIoTest, TwoWritersOfOneSectorLoseNothing) {
  HeldFile& file = rig_.file("a", 8);
  make("0 8 linear a 0");
  file.hold(true);
  auto one = write(0, "one");
  auto two = write(3, "two");
  auto whole = begin({.op = Op::Write, .offset = 512}, std::vector<std::byte>(512));
  auto apart = write(1025, "apart");
  // The first reads its edge; the second waits; the third touches other sectors, and so does the
  // last.
  ASSERT_EQ(file.held(), 3u);
  EXPECT_TRUE(file.complete_next());  // one has read, and writes
  ASSERT_EQ(file.held(), 3u);
  EXPECT_FALSE(one->done());
  file.complete_all();
  EXPECT_TRUE(one->done() && two->done() && whole->done() && apart->done());
  file.hold(false);
  EXPECT_EQ(text_at(0, 6), "onetwo");
  EXPECT_EQ(text_at(1025, 5), "apart");
}

TEST_F(ByteIoTest, AWholeSectorWriteWaitsForTheEditOfThatSector) {
  HeldFile& file = rig_.file("a", 8);
  make("0 8 linear a 0");
  file.hold(true);
  auto edit = write(1, "edit");
  auto whole = write(0, std::string(512, 'w'));
  EXPECT_EQ(file.held(), 1u);
  file.complete_all();
  file.hold(false);
  EXPECT_TRUE(edit->done() && whole->done());
  EXPECT_EQ(text_at(0, 6), "wwwwww");
}

TEST_F(ByteIoTest, AFailedEdgeFailsTheWriteAndFreesTheRange) {
  HeldFile& file = rig_.file("a", 8);
  make("0 8 linear a 0");
  write(0, "before");
  file.fail_nth(1, EIO);
  auto bad = write(0, "after!");
  EXPECT_EQ(bad->error(), EIO);
  EXPECT_EQ(bad->transferred(), 0u);
  EXPECT_EQ(text_at(0, 6), "before");
  EXPECT_EQ(write(0, "again!")->error(), 0);
  EXPECT_EQ(lock_.listed(), 0u);
}

TEST_F(ByteIoTest, RaggedDiscardsAndZeroesEndAtTheByte) {
  rig_.file("a", 16);
  make("0 16 linear a 0");
  for (Op op : {Op::Discard, Op::WriteZeroes}) {
    for (auto [from, to] : std::vector<std::pair<uint64_t, uint64_t>>{
             {10, 20}, {10, 1034}, {512, 1034}, {10, 1024}, {500, 520}, {0, 5}, {1000, 8192}}) {
      write(0, std::string(8192, 'x'));
      auto io = begin({.op = op, .offset = from, .length = to - from});
      ASSERT_TRUE(io->done());
      ASSERT_EQ(io->error(), 0);
      std::string want(8192, 'x');
      std::fill(want.begin() + static_cast<long>(from), want.begin() + static_cast<long>(to), '\0');
      ASSERT_EQ(text_at(0, 8192), want) << op_name(op) << " " << from << ".." << to;
    }
  }
}

TEST_F(ByteIoTest, ADiscardThatIsNotSupportedChangesNothing) {
  make("0 16 error");
  EXPECT_EQ(begin({.op = Op::Discard, .offset = 10, .length = 2000})->error(), EOPNOTSUPP);
}

// ---- interrupts -----------------------------------------------------------------------------

TEST_F(ByteIoTest, WhatASuspendedDeviceHoldsCanBeInterrupted) {
  rig_.file("a", 8);
  make("0 8 linear a 0");
  ASSERT_TRUE(rig_.suspend());
  auto whole = begin({.op = Op::Write, .offset = 0}, std::vector<std::byte>(512), 7);
  auto edit = write(600, "x", 8);
  auto behind = write(601, "y", 9);           // waits for the range
  EXPECT_EQ(rig_.device().held_count(), 1u);  // edit waits for whole, which came the fast way
  EXPECT_FALSE(whole->interrupt(8)) << "another request's tag";
  EXPECT_TRUE(behind->interrupt(9));
  EXPECT_TRUE(behind->done());
  EXPECT_EQ(behind->error(), EINTR);
  EXPECT_TRUE(whole->interrupt(7));
  EXPECT_TRUE(whole->done());
  EXPECT_EQ(whole->error(), EINTR);
  EXPECT_EQ(rig_.device().held_count(), 1u);  // now edit's read
  EXPECT_TRUE(edit->interrupt(8));
  EXPECT_EQ(edit->error(), EINTR);
  EXPECT_EQ(rig_.device().held_count(), 0u);
  EXPECT_FALSE(edit->interrupt(8)) << "over";
  ASSERT_TRUE(rig_.resume());
  EXPECT_EQ(text_at(600, 2), std::string(2, '\0'));
}

TEST_F(ByteIoTest, AnInterruptThatComesBeforeTheBioIsHeldStillWorks) {
  HeldFile& file = rig_.file("a", 8);
  make("0 8 linear a 0");
  file.hold(true);
  auto edit = write(1, "x", 5);  // its read is in flight, so not to be cancelled
  EXPECT_TRUE(edit->interrupt(5));
  EXPECT_FALSE(edit->done());
  // Meanwhile somebody suspends; the read ends, and the write that follows would be held.
  std::thread suspender([&] { ASSERT_TRUE(rig_.suspend()); });
  while (!rig_.device().defers()) std::this_thread::yield();
  file.complete_all();
  suspender.join();
  EXPECT_TRUE(edit->done());
  EXPECT_EQ(edit->error(), EINTR);
  EXPECT_EQ(rig_.device().held_count(), 0u);
  file.hold(false);
  ASSERT_TRUE(rig_.resume());
}

// Interrupts from one thread against completions from another: each request ends once.
TEST_F(ByteIoTest, InterruptsRaceWithCompletions) {
  rig_.file("a", 8);
  make("0 8 linear a 0");
  for (int round = 0; round < 300; ++round) {
    ASSERT_TRUE(rig_.suspend());
    std::vector<std::shared_ptr<TestIo>> all;
    for (uint64_t i = 0; i < 8; ++i) {
      all.push_back(
          write(i % 2 ? 3 * i : 512 * (i % 8), i % 2 ? "abc" : std::string(512, 'w'), i + 1));
    }
    std::thread interrupter([&] {
      for (uint64_t i = 0; i < all.size(); ++i) all[i]->interrupt(i + 1);
    });
    ASSERT_TRUE(rig_.resume());
    interrupter.join();
    for (auto& io : all) {
      ASSERT_EQ(io->ends, 1);
      ASSERT_TRUE(io->error() == 0 || io->error() == EINTR) << io->error();
    }
    ASSERT_EQ(lock_.listed(), 0u);
  }
}

// ---- against a model ------------------------------------------------------------------------

TEST_F(ByteIoTest, RandomRequestsMatchAModel) {
  rig_.file("a", 64);
  rig_.file("b", 64);
  make("0 33 linear a 7\n33 24 striped 2 4 a 40 b 0\n57 7 linear b 50");
  constexpr uint64_t kSize = 64 * 512;
  std::vector<std::byte> model(kSize);
  const unsigned seed = 4711;
  std::mt19937 random(seed);
  write(0, std::string(kSize, '\0'));
  for (int i = 0; i < 4000; ++i) {
    uint64_t at = random() % kSize;
    uint64_t length = random() % (random() % 3 == 0 ? 9000 : 700);
    if (random() % 4 == 0) at &= ~uint64_t{511};
    if (random() % 4 == 0) length &= ~uint64_t{511};
    uint64_t fits = std::min(length, kSize - at);
    auto begin_at = model.begin() + static_cast<long>(at);
    auto end_at = begin_at + static_cast<long>(fits);
    switch (random() % 5) {
      case 0:
      case 1: {
        auto io = read(at, length);
        ASSERT_EQ(io->error(), 0);
        ASSERT_EQ(io->transferred(), fits);
        ASSERT_TRUE(std::equal(begin_at, end_at, io->memory.begin()))
            << "seed " << seed << " step " << i << " at " << at << "+" << length;
        break;
      }
      case 2:
      case 3: {
        std::vector<std::byte> data(length);
        for (std::byte& b : data) b = static_cast<std::byte>(random());
        std::copy(data.begin(), data.begin() + static_cast<long>(fits), begin_at);
        auto io = begin({.op = Op::Write, .offset = at}, data);
        ASSERT_EQ(io->error(), 0);
        ASSERT_EQ(io->transferred(), fits);
        break;
      }
      case 4: {
        std::fill(begin_at, end_at, std::byte{0});
        Op op = random() % 2 ? Op::Discard : Op::WriteZeroes;
        auto io = begin({.op = op, .offset = at, .length = length});
        ASSERT_EQ(io->error(), 0);
        break;
      }
    }
  }
}

// Each thread owns some bytes of the same few sectors and must always find them as it left them.
TEST_F(ByteIoTest, ThreadsWithBytesOfTheSameSectorsLoseNone) {
  rig_.file("a", 8);
  make("0 8 linear a 0");
  constexpr int kThreads = 4;
  constexpr uint64_t kOwn = 100;
  std::atomic<int> lost{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      std::mt19937 random(static_cast<unsigned>(t) + 99);
      uint64_t base = 450 + static_cast<uint64_t>(t) * kOwn;  // crosses a sector for the first
      std::string mine(kOwn, static_cast<char>('a' + t));
      auto run = [&](ByteIo::Request request, void* memory) {
        TestIo io;
        request.memory = memory;
        io.start(rig_.device(), lock_, request, 0);
        io.finish_start();
        while (!io.done()) std::this_thread::yield();
        if (io.error() != 0) ++lost;
      };
      run({.op = Op::Write, .offset = base, .length = kOwn}, mine.data());
      for (int i = 0; i < 500; ++i) {
        uint64_t from = random() % kOwn;
        uint64_t length = 1 + random() % (kOwn - from);
        for (uint64_t k = 0; k < length; ++k) mine[from + k] = static_cast<char>(random());
        run({.op = Op::Write, .offset = base + from, .length = length}, mine.data() + from);
        std::string back(kOwn, '\0');
        run({.op = Op::Read, .offset = base, .length = kOwn}, back.data());
        if (back != mine) ++lost;
      }
    });
  }
  // And whole sectors beside them, the fast way.
  threads.emplace_back([&] {
    std::string sector(512, 'z');
    for (int i = 0; i < 1000; ++i) {
      TestIo io;
      io.start(rig_.device(), lock_,
               {.op = Op::Write, .offset = 2048, .length = 512, .memory = sector.data()}, 0);
      io.finish_start();
      while (!io.done()) std::this_thread::yield();
    }
  });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(lost, 0);
  EXPECT_EQ(lock_.listed(), 0u);
}

}  // namespace
}  // namespace dmfs::test
