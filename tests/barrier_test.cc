// SPDX-License-Identifier: Apache-2.0
// Barriers: what is in flight ends, then flush, bio, flush, and only then what came later; against
// suspend, pushback, errors and cancels. Files hold their I/O, so each step is where the test looks.
#include <gtest/gtest.h>

#include <future>
#include <thread>

#include "tests/support/harness.h"

namespace dmfs::test {
namespace {

constexpr uint64_t kSize = 100;

template <typename Condition>
void until(Condition condition) {
  while (!condition()) std::this_thread::yield();
}

class Barrier : public ::testing::Test {
 protected:
  void SetUp() override {
    rig_.file("a", kSize);
    start("0 100 linear a 0");
    file().hold(true);
  }
  void TearDown() override {
    file().hold(false);
    (void)rig_.resume();
    // A barrier may send more.
    until([&] {
      file().complete_all();
      return !rig_.device().sequencing() && rig_.device().in_flight() == 0;
    });
    EXPECT_EQ(rig_.device().held_count(), 0u);
    EXPECT_FALSE(rig_.device().defers());
  }

  void start(const std::string& table, bool ordered = false) {
    ASSERT_TRUE(rig_.load(table, false, ordered));
    ASSERT_TRUE(rig_.resume());
  }
  HeldFile& file() { return rig_.file("a"); }
  std::shared_ptr<TestBio> barrier(uint64_t at, char tag = 'B') {
    return rig_.write(at, 1, tag, kBioBarrier | kBioFua);
  }
  // The one bio that the file holds, once there is one.
  SeenBio next() {
    EXPECT_TRUE(file().wait_held(1));
    auto held = file().held_bios();
    if (held.size() != 1) return {Op::Discard, 255, 0, {}, {}};
    return {held[0]->op, held[0]->flags, held[0]->slot, held[0]->sector, held[0]->count};
  }
  void end(int error = 0, Sense sense = {}) { EXPECT_TRUE(file().complete_next(error, sense)); }
  // Everything that has waited is through.
  void settle() {
    until([&] { return !rig_.device().sequencing() && rig_.device().in_flight() == 0; });
  }

  static constexpr SeenBio kFlush{Op::Flush, 0, 0, {0}, {0}};
  static SeenBio written(uint64_t at) { return {Op::Write, 0, 0, {at}, {1}}; }

  Rig rig_;
};

TEST_F(Barrier, DrainFlushBioFlushAndThenTheRest) {
  auto before = rig_.write(0, 1);
  auto b = barrier(1);
  auto after = rig_.write(2, 1);
  auto flush_after = rig_.send(Op::Flush);
  EXPECT_TRUE(rig_.device().defers());
  EXPECT_EQ(rig_.device().held_count(), 3u);
  EXPECT_EQ(file().held(), 1u);
  end();
  EXPECT_TRUE(before->done());
  EXPECT_EQ(next(), kFlush);
  end();
  EXPECT_EQ(next(), written(1));  // the flush behind it makes FUA needless
  end();
  EXPECT_EQ(next(), kFlush);
  EXPECT_FALSE(b->done());
  EXPECT_EQ(rig_.device().held_count(), 2u);
  end();
  ASSERT_TRUE(file().wait_held(2));
  EXPECT_TRUE(b->done());
  EXPECT_EQ(b->error(), 0);
  EXPECT_EQ(file().held_bios()[0]->sector.n, 2u);
  EXPECT_EQ(file().held_bios()[1]->op, Op::Flush);
  until([&] { return !rig_.device().defers(); });
  rig_.write(3, 1);
  EXPECT_EQ(file().held(), 3u);
  file().complete_all();
  until([&] { return after->done() && flush_after->done(); });
}

TEST_F(Barrier, OneSequenceAtATimeInOrder) {
  file().hold(false);
  rig_.file("a").forget_seen();
  ASSERT_TRUE(rig_.suspend());
  barrier(1);
  rig_.write(2, 1);
  rig_.write(3, 1);
  barrier(4);
  barrier(5);
  rig_.write(6, 1);
  ASSERT_TRUE(rig_.resume());
  settle();
  EXPECT_EQ(file().seen(),
            (std::vector<SeenBio>{kFlush, written(1), kFlush, written(2), written(3), kFlush,
                                  written(4), kFlush, kFlush, written(5), kFlush, written(6)}));
}

TEST_F(Barrier, OtherKinds) {
  file().hold(false);
  auto flush = std::make_shared<TestBio>(Op::Flush, Sectors{0}, Sectors{0}, kBioBarrier);
  rig_.device().submit(*flush);
  until([&] { return flush->done(); });
  EXPECT_EQ(file().seen(), (std::vector<SeenBio>{kFlush}));
  settle();
  file().forget_seen();
  TestBio read(Op::Read, {4}, {2}, kBioBarrier);
  rig_.device().submit(read);
  until([&] { return read.done(); });
  EXPECT_EQ(file().seen(), (std::vector<SeenBio>{kFlush, {Op::Read, 0, 0, {4}, {2}}}));
  settle();
  file().forget_seen();
  TestBio discard(Op::Discard, {4}, {2}, kBioBarrier);
  rig_.device().submit(discard);
  until([&] { return discard.done(); });
  EXPECT_EQ(file().seen(), (std::vector<SeenBio>{kFlush, {Op::Discard, 0, 0, {4}, {2}}, kFlush}));
  settle();
  TestBio past(Op::Write, {kSize}, {1}, kBioBarrier);
  rig_.device().submit(past);
  until([&] { return past.done(); });
  EXPECT_EQ(past.error(), EIO);
  settle();
}

TEST_F(Barrier, FirstFlushFailsAndNothingIsWritten) {
  auto b = barrier(1);
  auto after = rig_.write(2, 1);
  EXPECT_EQ(next(), kFlush);
  end(ENOSPC, {3, 0x0c, 0, true});
  ASSERT_TRUE(file().wait_held(1));
  EXPECT_EQ(next(), written(2));
  EXPECT_TRUE(b->done());
  EXPECT_EQ(b->error(), ENOSPC);
  EXPECT_EQ(b->sense, (Sense{3, 0x0c, 0, true}));
  end();
  until([&] { return after->done(); });
}

TEST_F(Barrier, WhichErrorIsKept) {
  struct Case {
    int write, flush, kept;
  };
  for (Case c : {Case{EIO, 0, EIO}, {0, EIO, EIO}, {ENOSPC, EIO, ENOSPC}, {EIO, EOPNOTSUPP, EOPNOTSUPP}}) {
    auto b = barrier(1);
    EXPECT_EQ(next(), kFlush);
    end();
    EXPECT_EQ(next(), written(1));
    end(c.write, c.write ? Sense{3, 1, 2, true} : Sense{});
    EXPECT_EQ(next(), kFlush);
    end(c.flush);
    until([&] { return b->done(); });
    EXPECT_EQ(b->error(), c.kept);
    EXPECT_EQ(b->sense.valid, c.kept == c.write);
    settle();
  }
  // No second flush for what cannot be done at all.
  auto b = barrier(1);
  EXPECT_EQ(next(), kFlush);
  end();
  EXPECT_EQ(next(), written(1));
  end(EOPNOTSUPP);
  until([&] { return b->done(); });
  EXPECT_EQ(b->error(), EOPNOTSUPP);
  settle();
  EXPECT_EQ(file().held(), 0u);
}

TEST_F(Barrier, SuspendBeforeItHasBegun) {
  auto before = rig_.write(0, 1);
  auto b = barrier(1);
  auto suspended = std::async(std::launch::async, [&] { return bool(rig_.suspend()); });
  until([&] { return rig_.device().suspending(); });
  end();
  EXPECT_TRUE(suspended.get());
  EXPECT_EQ(file().seen().size(), 1u);  // no flush
  EXPECT_EQ(rig_.device().held_count(), 1u);
  EXPECT_FALSE(b->done());
  ASSERT_TRUE(rig_.resume());
  for (int step = 0; step < 3; ++step) {
    EXPECT_EQ(next(), step == 1 ? written(1) : kFlush);
    end();
  }
  until([&] { return b->done(); });
}

// In each step: the suspend waits for the end of the sequence, and no flush comes after it.
TEST_F(Barrier, SuspendWhileItRuns) {
  for (int at = 0; at < 3; ++at) {
    auto b = barrier(1);
    for (int step = 0; step < at; ++step) {
      EXPECT_EQ(next(), step == 1 ? written(1) : kFlush);
      end();
    }
    ASSERT_TRUE(file().wait_held(1));
    auto suspended = std::async(std::launch::async, [&] { return bool(rig_.suspend()); });
    until([&] { return rig_.device().suspending(); });
    auto late = rig_.write(2, 1);
    auto late_barrier = barrier(3);
    for (int step = at; step < 3; ++step) {
      EXPECT_EQ(next(), step == 1 ? written(1) : kFlush);
      EXPECT_FALSE(rig_.device().suspended());
      end();
    }
    EXPECT_TRUE(suspended.get());
    EXPECT_TRUE(b->done());
    EXPECT_EQ(file().held(), 0u);
    EXPECT_EQ(rig_.device().held_count(), 2u);
    EXPECT_EQ(rig_.device().in_flight(), 0);
    file().hold(false);
    ASSERT_TRUE(rig_.resume());
    until([&] { return late_barrier->done(); });
    until([&] { return late->done(); });
    settle();
    file().hold(true);
  }
}

TEST_F(Barrier, InterruptedSuspendLeavesItRunning) {
  for (int at = 0; at < 3; ++at) {
    file().forget_seen();
    auto b = barrier(1);
    for (int step = 0; step < at; ++step) {
      next();
      end();
    }
    ASSERT_TRUE(file().wait_held(1));
    CancelToken cancel;
    auto suspended = std::async(std::launch::async, [&] { return rig_.suspend({}, &cancel); });
    until([&] { return rig_.device().suspending(); });
    auto late = rig_.write(2, 1);
    cancel.cancel();
    Status status = suspended.get();
    ASSERT_FALSE(status);
    EXPECT_EQ(status.error().code, EINTR);
    EXPECT_FALSE(rig_.device().suspended());
    EXPECT_EQ(file().held(), 1u);  // the late one has not passed the barrier
    auto later = rig_.write(3, 1);
    for (int step = at; step < 3; ++step) {
      EXPECT_EQ(next(), step == 1 ? written(1) : kFlush);
      end();
    }
    ASSERT_TRUE(file().wait_held(2));
    EXPECT_TRUE(b->done());
    EXPECT_EQ(file().held_bios()[0]->sector.n, 2u);
    EXPECT_EQ(file().held_bios()[1]->sector.n, 3u);
    file().complete_all();
    until([&] { return late->done() && later->done(); });
    settle();
  }
}

TEST_F(Barrier, InterruptedSuspendLeavesItWaiting) {
  auto before = rig_.write(0, 1);
  auto b = barrier(1);
  CancelToken cancel;
  auto suspended = std::async(std::launch::async, [&] { return rig_.suspend({}, &cancel); });
  until([&] { return rig_.device().suspending(); });
  cancel.cancel();
  EXPECT_FALSE(suspended.get());
  EXPECT_TRUE(rig_.device().defers());
  EXPECT_EQ(file().held(), 1u);
  end();
  for (int step = 0; step < 3; ++step) {
    EXPECT_EQ(next(), step == 1 ? written(1) : kFlush);
    end();
  }
  until([&] { return b->done(); });
  EXPECT_EQ(b->error(), 0);
}

TEST_F(Barrier, FailedCommitOfASuspend) {
  ASSERT_TRUE(rig_.suspend());
  ASSERT_TRUE(rig_.resume());
  rig_.fail_commits(EIO);
  file().hold(false);
  auto b1 = barrier(1);
  EXPECT_FALSE(rig_.suspend());
  auto b2 = barrier(2);
  until([&] { return b1->done() && b2->done(); });
  EXPECT_EQ(b1->error() + b2->error(), 0);
  rig_.fail_commits(0);
  settle();
}

// The write of a barrier is pushed back: the whole barrier comes again, before what came later.
TEST_F(Barrier, PushedBackAsAWhole) {
  file().hold(false);
  start("0 100 hang a 0");
  auto table = rig_.device().live_table();
  const std::vector<std::string> hold{"hold", "1", "1"}, release{"release"};
  Target& hang = *table->entries()[0].target;
  ASSERT_TRUE(hang.message(hold));
  file().forget_seen();
  auto held = [&] {
    HeldList list;
    hang.list_held(list);
    return list.count;
  };
  auto b = barrier(1);
  auto after = rig_.write(2, 1);
  until([&] { return held() == 1; });
  ASSERT_TRUE(rig_.suspend({.noflush = true}));
  EXPECT_FALSE(b->done());
  EXPECT_EQ(file().seen(), (std::vector<SeenBio>{kFlush}));
  EXPECT_EQ(rig_.device().held_count(), 2u);
  EXPECT_EQ(rig_.device().in_flight(), 0);
  ASSERT_TRUE(hang.message(release));
  ASSERT_TRUE(rig_.resume());
  until([&] { return after->done(); });
  EXPECT_EQ(b->error(), 0);
  EXPECT_EQ(file().seen(),
            (std::vector<SeenBio>{kFlush, kFlush, written(1), kFlush, written(2)}));
  settle();
}

// What was before the barrier is pushed back: the barrier does not go until it has gone again.
TEST_F(Barrier, WhatCameBeforeIsPushedBack) {
  file().hold(false);
  start("0 100 hang a 0");
  auto table = rig_.device().live_table();
  const std::vector<std::string> hold{"hold", "0", "1"}, release{"release"};
  Target& hang = *table->entries()[0].target;
  ASSERT_TRUE(hang.message(hold));
  file().forget_seen();
  auto before = rig_.write(0, 1);
  auto b = barrier(1);
  ASSERT_TRUE(rig_.suspend({.noflush = true}));
  EXPECT_TRUE(file().seen().empty());
  ASSERT_TRUE(hang.message(release));
  ASSERT_TRUE(rig_.resume());
  until([&] { return b->done(); });
  EXPECT_EQ(file().seen(), (std::vector<SeenBio>{written(0), kFlush, written(1), kFlush}));
  settle();
}

TEST_F(Barrier, CancelledWhileItWaits) {
  auto before = rig_.write(0, 1);
  auto b = barrier(1);
  auto after = rig_.write(2, 1);
  EXPECT_TRUE(rig_.device().cancel_held(*b, EINTR));
  EXPECT_EQ(b->error(), EINTR);
  ASSERT_TRUE(file().wait_held(2));  // what came after has nothing to wait for
  file().complete_all();
  until([&] { return before->done() && after->done(); });
  settle();
}

TEST_F(Barrier, CancelledWhileItRuns) {
  auto b = barrier(1);
  EXPECT_EQ(next(), kFlush);
  EXPECT_FALSE(rig_.device().cancel_held(*b, EINTR));
  EXPECT_FALSE(b->done());
  end();
  until([&] { return b->done(); });
  EXPECT_EQ(b->error(), EINTR);  // between two steps
  settle();
}

TEST_F(Barrier, FailHeldTakesItAndTheDoorOpens) {
  auto before = rig_.write(0, 1);
  auto b = barrier(1);
  auto after = rig_.write(2, 1);
  EXPECT_EQ(rig_.device().fail_held(EIO), 2u);
  EXPECT_EQ(b->error(), EIO);
  EXPECT_EQ(after->error(), EIO);
  until([&] { return !rig_.device().defers(); });
  EXPECT_EQ(file().held(), 1u);
}

TEST_F(Barrier, OrderedTableMakesThemOfFuaWrites) {
  file().hold(false);
  rig_.write(1, 1, 'A', kBioFua);
  EXPECT_EQ(file().seen(), (std::vector<SeenBio>{{Op::Write, kBioFua, 0, {1}, {1}}}));
  EXPECT_FALSE(rig_.device().ordered());
  start("0 100 linear a 0", true);
  EXPECT_TRUE(rig_.device().ordered());
  EXPECT_TRUE(rig_.device().live_table()->spec().ordered);
  file().forget_seen();
  auto b = rig_.write(1, 1, 'A', kBioFua);
  until([&] { return b->done(); });
  EXPECT_EQ(file().seen(), (std::vector<SeenBio>{kFlush, written(1), kFlush}));
  settle();
  start("0 100 linear a 0");
  EXPECT_FALSE(rig_.device().ordered());
}

// Splits at targets; each flush goes to each of them.
TEST_F(Barrier, OverTwoTargets) {
  file().hold(false);
  rig_.file("b", kSize);
  start("0 50 linear a 0\n50 50 linear b 0");
  file().forget_seen();
  auto b = rig_.write(40, 20, 'A', kBioBarrier);
  until([&] { return b->done(); });
  EXPECT_EQ(file().seen(), (std::vector<SeenBio>{kFlush, {Op::Write, 0, 0, {40}, {10}}, kFlush}));
  EXPECT_EQ(rig_.file("b").seen(),
            (std::vector<SeenBio>{kFlush, {Op::Write, 0, 0, {0}, {10}}, kFlush}));
  settle();
}

}  // namespace
}  // namespace dmfs::test
