// SPDX-License-Identifier: Apache-2.0
// delay, and the alarm that it waits for. The clock moves only when a test says so.
#include <gtest/gtest.h>

#include <future>
#include <optional>
#include <thread>

#include "core/base/alarm.h"
#include "tests/support/harness.h"

namespace dmfs::test {
namespace {

using namespace std::chrono_literals;

TEST(Alarm, RunsAtTheEarliestTimeThatWasAskedFor) {
  FakeClock clock;
  int ran = 0;
  Alarm alarm(clock, [&] { ++ran; });
  Clock::Time start = clock.now();
  alarm.set(start + 20ms);
  alarm.set(start + 10ms);
  alarm.set(start + 30ms);
  EXPECT_EQ(clock.pending(), 1u);
  clock.advance(9ms);
  EXPECT_EQ(ran, 0);
  clock.advance(1ms);
  EXPECT_EQ(ran, 1);
  clock.advance(1h);
  EXPECT_EQ(ran, 1);
  alarm.set(start);
  clock.advance({});
  EXPECT_EQ(ran, 2);
}

TEST(Alarm, WorkMaySetItAgain) {
  FakeClock clock;
  int ran = 0;
  std::optional<Alarm> alarm;
  alarm.emplace(clock, [&] {
    if (++ran < 5) alarm->set(clock.now() + 1s);
  });
  alarm->set(clock.now());
  clock.advance(3s);
  EXPECT_EQ(ran, 4);
  alarm.reset();
  EXPECT_EQ(clock.pending(), 0u);
}

// Whatever the thread of the clock is doing, nothing runs after the destructor.
TEST(Alarm, NothingRunsAfterItsEnd) {
  SystemClock clock;
  for (int i = 0; i < 2000; ++i) {
    auto alive = std::make_unique<std::atomic<int>>(0);
    std::optional<Alarm> alarm;
    alarm.emplace(clock, [&, mine = alive.get()] {
      ++*mine;
      alarm->set(clock.now());
    });
    alarm->set(clock.now() + 10us);
    alarm->set(clock.now());
    for (int turn = 0; turn < i % 7; ++turn) std::this_thread::yield();
    if (i % 2) alarm->set(clock.now() - 1s);
    alarm.reset();
    alive.reset();
  }
}

class DelayTest : public ::testing::Test {
 protected:
  DelayTest() {
    for (const char* name : {"a", "b", "c"}) rig_.file(name, 1000);
  }
  void load(const std::string& params) {
    ASSERT_TRUE(rig_.load("0 50 linear c 900\n50 100 delay " + params));
    ASSERT_TRUE(rig_.resume());
  }
  std::string status() { return device().live_table()->status().targets[1].params; }
  MappedDevice& device() { return rig_.device(); }
  void advance(Clock::Duration by) { rig_.clock().advance(by); }
  Rig rig_;
};

TEST_F(DelayTest, EachKindHasItsOwnWay) {
  load("a 10 300 b 20 600 c 30 900");
  auto r = rig_.read(50, 8);
  auto w = rig_.write(51, 8), d = rig_.send(Op::Discard, 60, 4), z = rig_.send(Op::WriteZeroes, 64, 4);
  auto f = rig_.send(Op::Flush);
  EXPECT_EQ(status(), "1 3 1");
  advance(299ms);
  EXPECT_FALSE(r->done());
  advance(1ms);
  EXPECT_TRUE(r->done());
  EXPECT_FALSE(w->done() || d->done() || z->done() || f->done());
  EXPECT_EQ(status(), "0 3 1");
  advance(300ms);
  EXPECT_TRUE(w->done() && d->done() && z->done());
  EXPECT_EQ(status(), "0 0 1");
  advance(299ms);
  EXPECT_FALSE(f->done());
  advance(1ms);
  EXPECT_TRUE(f->done());
  EXPECT_EQ(status(), "0 0 0");
  EXPECT_EQ(rig_.file("a").seen(), (std::vector<SeenBio>{{Op::Read, 0, 0, {10}, {8}}}));
  EXPECT_EQ(rig_.file("b").seen(), (std::vector<SeenBio>{{Op::Write, 0, 0, {21}, {8}},
                                                         {Op::Discard, 0, 0, {30}, {4}},
                                                         {Op::WriteZeroes, 0, 0, {34}, {4}}}));
  EXPECT_EQ(rig_.clock().pending(), 0u);
}

TEST_F(DelayTest, ShorterLinesSpeakForTheOthersToo) {
  load("a 0 100");
  auto r = rig_.read(50, 1), w = rig_.write(50, 1);
  auto f = rig_.send(Op::Flush);
  EXPECT_EQ(status(), "1 1 1");
  advance(100ms);
  EXPECT_TRUE(r->done() && w->done() && f->done());
  EXPECT_EQ(rig_.file("a").seen().size(), 3u);

  load("a 0 100 b 0 50");
  w = rig_.write(50, 1);
  f = rig_.send(Op::Flush);
  EXPECT_EQ(status(), "0 1 1");
  advance(50ms);
  EXPECT_TRUE(w->done() && f->done());
  EXPECT_EQ(rig_.file("b").seen().size(), 2u);
}

TEST_F(DelayTest, NoDelayPassesAtOnce) {
  load("a 0 0 b 0 10");
  EXPECT_TRUE(rig_.read(50, 8)->done());
  EXPECT_EQ(rig_.clock().pending(), 0u);
  auto w = rig_.write(50, 8);
  EXPECT_FALSE(w->done());
  EXPECT_TRUE(rig_.read(50, 8)->done());
  EXPECT_TRUE(rig_.write(0, 8)->done());  // on the other target
  advance(10ms);
  EXPECT_TRUE(w->done());
}

TEST_F(DelayTest, KeepsTheOrder) {
  load("a 0 100");
  std::vector<std::shared_ptr<TestBio>> bios;
  for (uint64_t i = 0; i < 10; ++i) {
    bios.push_back(i % 3 ? rig_.write(50 + i, 1) : rig_.read(50 + i, 1));
    if (i % 4 == 0) advance(1ms);
  }
  advance(1h);  // one wake-up for each time, none too many
  auto seen = rig_.file("a").seen();
  ASSERT_EQ(seen.size(), 10u);
  for (uint64_t i = 0; i < 10; ++i) EXPECT_EQ(seen[i].sector.n, i);
  for (auto& bio : bios) EXPECT_TRUE(bio->done());
}

TEST_F(DelayTest, ASuspendSendsAtOnceAndNothingWaitsUntilTheResume) {
  for (bool noflush : {false, true}) {
    load("a 0 3000 b 0 1000");
    auto r = rig_.read(50, 8), w = rig_.write(50, 8);
    auto across = rig_.read(45, 10);
    rig_.file("a").hold(true);
    auto suspended = std::async(std::launch::async, [&] {
      return bool(rig_.suspend({.noflush = noflush, .lockfs = false}));
    });
    ASSERT_TRUE(rig_.file("a").wait_held(2));
    while (!device().defers()) std::this_thread::yield();
    EXPECT_TRUE(w->done());
    EXPECT_EQ(status(), "0 0 0");
    EXPECT_FALSE(device().suspended());
    // A clone that gets in late is not delayed.
    Bio late([](Bio&) {});
    late.sector = {60};
    late.count = {1};
    auto table = device().live_table();
    EXPECT_EQ(table->find({60}).target->map(late), MapResult::Remapped);
    rig_.file("a").hold(false);
    rig_.file("a").complete_all();
    EXPECT_TRUE(suspended.get());
    EXPECT_TRUE(r->done() && across->done());
    ASSERT_TRUE(rig_.resume());
    auto again = rig_.read(50, 8);
    EXPECT_EQ(status(), "1 0 0");
    advance(3s);
    EXPECT_TRUE(again->done());
  }
}

TEST_F(DelayTest, AnInterruptedSuspendDelaysAgain) {
  load("a 0 3000");
  rig_.file("a").hold(true);
  auto r = rig_.read(50, 8);
  CancelToken cancel;
  auto suspended = std::async(std::launch::async, [&] { return rig_.suspend({}, &cancel); });
  ASSERT_TRUE(rig_.file("a").wait_held(1));
  while (!device().defers()) std::this_thread::yield();
  cancel.cancel();
  EXPECT_FALSE(suspended.get());
  auto again = rig_.read(50, 8);
  EXPECT_EQ(status(), "1 0 0");
  rig_.file("a").hold(false);
  rig_.file("a").complete_all();
  EXPECT_TRUE(r->done());
  advance(3s);
  EXPECT_TRUE(again->done());
}

TEST_F(DelayTest, ASwapEndsWhatWaitsOnTheOldTable) {
  load("a 0 3000");
  auto r = rig_.read(50, 8);
  load("b 0 3000");
  EXPECT_TRUE(r->done());
  EXPECT_EQ(rig_.file("a").seen().size(), 1u);
  EXPECT_EQ(rig_.file("b").seen().size(), 0u);
  advance(3s);  // the old target's alarm is gone with it
}

TEST_F(DelayTest, WhatWaitsCanBeCancelledOrFailed) {
  load("a 0 100");
  auto one = rig_.read(50, 8), two = rig_.write(50, 8), three = rig_.read(50, 8);
  EXPECT_TRUE(device().cancel_held(*two, EINTR));
  EXPECT_EQ(two->error(), EINTR);
  EXPECT_TRUE(two->done());
  EXPECT_EQ(status(), "2 0 0");
  TestBio early(Op::Read, {60}, {1});
  EXPECT_FALSE(device().cancel_held(early, EINTR));
  device().submit(early);
  EXPECT_EQ(early.error(), EINTR);
  EXPECT_EQ(device().fail_held(ENXIO), 2u);
  EXPECT_EQ(one->error(), ENXIO);
  EXPECT_EQ(three->error(), ENXIO);
  EXPECT_EQ(status(), "0 0 0");
  advance(1h);
  EXPECT_TRUE(rig_.file("a").seen().empty());
}

// Writers, a clock that runs, suspend and cancel at once.
TEST_F(DelayTest, AllAtOnce) {
  load("a 0 1 b 0 2");
  std::atomic<bool> stop{false};
  std::atomic<unsigned> ended{0}, gone{0};
  auto user = [&](Op op) {
    while (!stop) {
      TestBio bio(op, {60}, {8});
      device().submit(bio);
      for (int spin = 0; !bio.done(); ++spin) {
        if (spin == 500) device().cancel_held(bio, EINTR);
        std::this_thread::yield();
      }
      EXPECT_TRUE(bio.error() == 0 || bio.error() == EINTR);
      ++ended;
    }
    ++gone;
  };
  std::thread one(user, Op::Read), two(user, Op::Write), three(user, Op::Write);
  for (unsigned i = 0; i < 300; ++i) {
    advance(1ms);
    if (i % 3 == 0) {
      ASSERT_TRUE(rig_.suspend());
      ASSERT_TRUE(rig_.resume());
    }
    if (i % 10 == 0) load(i % 20 ? "a 0 1 b 0 2" : "b 0 1");
    unsigned before = ended;
    while (ended < before + 2) {
      advance(1ms);
      std::this_thread::yield();
    }
  }
  stop = true;
  while (gone < 3) advance(1ms);
  for (std::thread* thread : {&one, &two, &three}) thread->join();
}

}  // namespace
}  // namespace dmfs::test
