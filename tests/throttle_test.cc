// SPDX-License-Identifier: Apache-2.0
// throttle, and its token buckets. The clock moves only when a test says so.
#include <gtest/gtest.h>

#include <future>
#include <thread>

#include "core/targets/token_bucket.h"
#include "tests/support/harness.h"

namespace dmfs::test {
namespace {

using namespace std::chrono_literals;

TEST(TokenBucket, KeepsTheRateAndSavesABurst) {
  Clock::Time now{1h};
  TokenBucket bucket;
  EXPECT_LE(bucket.ready(), now);
  bucket.set(10, 200ms, now);
  // Two at once, for they are saved up, and one for now.
  for (int i = 0; i < 3; ++i) {
    EXPECT_LE(bucket.ready(), now);
    bucket.take(1, now);
  }
  EXPECT_EQ(bucket.ready(), now + 100ms);
  now += 100ms;
  bucket.take(1, now);
  EXPECT_EQ(bucket.ready(), now + 100ms);
  now += 1h;  // a long pause saves no more
  for (int i = 0; i < 3; ++i) {
    EXPECT_LE(bucket.ready(), now);
    bucket.take(1, now);
  }
  EXPECT_EQ(bucket.ready(), now + 100ms);
}

TEST(TokenBucket, GoesIntoDebtAndIsForgiven) {
  Clock::Time now{1h};
  TokenBucket bucket;
  bucket.set(1000, 0ms, now);
  bucket.take(1 << 20, now);
  EXPECT_EQ(bucket.ready() - now, 1048576ms);
  bucket.set(1000, 0ms, now);  // no change
  EXPECT_EQ(bucket.ready() - now, 1048576ms);
  bucket.set(2000, 0ms, now);
  EXPECT_LE(bucket.ready(), now);
  bucket.set(1, 0ms, now);
  bucket.take(UINT64_MAX, now);  // within the clock's range
  EXPECT_GT(bucket.ready(), now + 24h * 365);
  bucket.set(0, 0ms, now);
  EXPECT_LE(bucket.ready(), now);
}

class ThrottleTest : public ::testing::Test {
 protected:
  ThrottleTest() { rig_.file("a", 1000); }
  void load(const std::string& settings) {
    auto words = split_args(settings);
    ASSERT_TRUE(rig_.load("0 100 throttle a 100 " + std::to_string(words->size()) + " " + settings));
    ASSERT_TRUE(rig_.resume());
  }
  Target& target() { return *device().live_table()->entries()[0].target; }
  Status say(const std::string& text) {
    auto answer = target().message(*split_args(text));
    return answer ? Status() : Status(answer.error());
  }
  std::string status() { return target().status_line(); }
  MappedDevice& device() { return rig_.device(); }
  void advance(Clock::Duration by) { rig_.clock().advance(by); }
  size_t passed() { return rig_.file("a").seen().size(); }
  Rig rig_;
};

TEST_F(ThrottleTest, LimitsRequestsInOrder) {
  load("write_iops 10 burst_ms 0");
  std::vector<std::shared_ptr<TestBio>> writes;
  for (uint64_t i = 0; i < 5; ++i) writes.push_back(rig_.write(i, 1));
  EXPECT_TRUE(writes[0]->done());
  EXPECT_EQ(status(), "0 4 0 4");
  for (uint64_t i = 1; i < 5; ++i) {
    advance(99ms);
    EXPECT_FALSE(writes[i]->done());
    advance(1ms);
    EXPECT_TRUE(writes[i]->done());
    EXPECT_EQ(rig_.file("a").seen().back().sector.n, 100 + i);
  }
  EXPECT_EQ(status(), "0 0 0 4");
  EXPECT_EQ(rig_.clock().pending(), 0u);
}

TEST_F(ThrottleTest, LimitsReadsAndWritesApartAndNothingElse) {
  load("read_iops 1 burst_ms 0");
  EXPECT_TRUE(rig_.read(0, 8)->done());
  auto waits = rig_.read(0, 8);
  EXPECT_FALSE(waits->done());
  for (int i = 0; i < 10; ++i) EXPECT_TRUE(rig_.write(0, 8)->done());
  EXPECT_TRUE(rig_.send(Op::Flush)->done());
  EXPECT_TRUE(rig_.send(Op::Discard, 0, 8)->done());
  EXPECT_TRUE(rig_.send(Op::WriteZeroes, 0, 8)->done());
  EXPECT_EQ(status(), "1 0 1 0");
  advance(1s);
  EXPECT_TRUE(waits->done());
}

TEST_F(ThrottleTest, LimitsBytesAndTheStricterOfTwoCounts) {
  load("read_iops 100 read_bps 4096 burst_ms 0");
  EXPECT_TRUE(rig_.read(0, 8)->done());
  auto big = rig_.read(0, 32), small = rig_.read(0, 1);
  advance(1s);
  EXPECT_TRUE(big->done());  // larger than what a second allows: goes, and the next one pays
  advance(3999ms);
  EXPECT_FALSE(small->done());
  advance(1ms);
  EXPECT_TRUE(small->done());
}

TEST_F(ThrottleTest, ABurstGoesAtOnce) {
  load("write_iops 100");  // 100 ms: ten are saved up, and one is for now
  std::vector<std::shared_ptr<TestBio>> writes;
  for (uint64_t i = 0; i < 30; ++i) writes.push_back(rig_.write(i, 1));
  EXPECT_EQ(passed(), 11u);
  advance(50ms);
  EXPECT_EQ(passed(), 16u);
  advance(1s);
  EXPECT_EQ(passed(), 30u);
  // Over a long time the rate is kept: 10 s, steadily too much.
  rig_.file("a").forget_seen();
  for (int i = 0; i < 1100; ++i) writes.push_back(rig_.write(0, 1));
  advance(10s);
  EXPECT_EQ(passed(), 1011u);
  ASSERT_TRUE(say("set write_iops 0"));
  EXPECT_EQ(passed(), 1100u);
}

TEST_F(ThrottleTest, SettingsChangeAtRunTime) {
  load("write_bps 512");
  EXPECT_EQ(target().table_line(), "a 100 2 write_bps 512");
  ASSERT_TRUE(say("set write_bps 1 burst_ms 0 read_iops 7"));
  EXPECT_EQ(target().table_line(), "a 100 6 read_iops 7 write_bps 1 burst_ms 0");
  EXPECT_TRUE(rig_.write(0, 8)->done());
  auto one = rig_.write(0, 8), two = rig_.write(0, 8), three = rig_.write(0, 8);
  advance(1h);
  EXPECT_FALSE(one->done());
  ASSERT_TRUE(say("set write_bps 4096"));  // what was owed is forgiven
  EXPECT_TRUE(one->done());
  EXPECT_FALSE(two->done());
  advance(1s);
  EXPECT_TRUE(two->done());
  ASSERT_TRUE(say("set read_iops 8"));  // the others keep what they remember
  EXPECT_FALSE(three->done());
  ASSERT_TRUE(say("set write_bps 0 read_iops 0"));
  EXPECT_TRUE(three->done());
  EXPECT_EQ(target().table_line(), "a 100 2 burst_ms 0");
  EXPECT_EQ(status(), "0 0 0 3");
}

TEST_F(ThrottleTest, RefusesBadMessages) {
  load("write_bps 512");
  const std::pair<const char*, const char*> cases[] = {
      {"set", "throttle: Missing setting"},
      {"set iops 5", "throttle: Unrecognised setting: 'iops'"},
      {"set read_iops", "throttle: Invalid read_iops"},
      {"set write_bps 5 read_iops x", "throttle: Invalid read_iops: 'x'"},
      {"unset read_iops", "throttle: Unrecognised message received: 'unset'"},
  };
  for (auto [message, text] : cases) {
    Status said = say(message);
    ASSERT_FALSE(said) << message;
    EXPECT_EQ(said.error().message, text);
  }
  EXPECT_EQ(target().table_line(), "a 100 2 write_bps 512");  // all or nothing
}

TEST_F(ThrottleTest, ASuspendSendsAtOnceAndNothingWaitsUntilTheResume) {
  load("write_bps 1 read_bps 1 burst_ms 0");
  EXPECT_TRUE(rig_.write(0, 8)->done() && rig_.read(0, 8)->done());
  auto w = rig_.write(0, 8), r = rig_.read(0, 8);
  rig_.file("a").hold(true);
  CancelToken cancel;
  auto suspended = std::async(std::launch::async, [&] { return rig_.suspend({}, &cancel); });
  ASSERT_TRUE(rig_.file("a").wait_held(2));
  while (!device().defers()) std::this_thread::yield();
  Bio late([](Bio&) {});
  EXPECT_EQ(target().map(late), MapResult::Remapped);
  cancel.cancel();  // given up: the limits hold again
  EXPECT_FALSE(suspended.get());
  rig_.file("a").hold(false);
  rig_.file("a").complete_all();
  EXPECT_TRUE(w->done() && r->done());
  auto again = rig_.write(0, 8);
  EXPECT_FALSE(again->done());
  ASSERT_TRUE(rig_.suspend());
  EXPECT_TRUE(again->done());
  ASSERT_TRUE(rig_.resume());
  auto last = rig_.write(0, 8);
  EXPECT_FALSE(last->done());
  ASSERT_TRUE(rig_.load("0 100 linear a 0"));
  ASSERT_TRUE(rig_.resume());
  EXPECT_TRUE(last->done());
  advance(24h);  // the old target's alarm is gone with it
}

TEST_F(ThrottleTest, WhatWaitsCanBeCancelledOrFailed) {
  load("write_iops 1 burst_ms 0");
  EXPECT_TRUE(rig_.write(0, 8)->done());
  auto one = rig_.write(0, 8), two = rig_.write(0, 8), three = rig_.write(0, 8);
  EXPECT_TRUE(device().cancel_held(*one, EINTR));
  EXPECT_EQ(one->error(), EINTR);
  advance(1s);
  EXPECT_TRUE(two->done());  // nobody has used the turn of the first
  TestBio early(Op::Write, {60}, {1});
  EXPECT_FALSE(device().cancel_held(early, EINTR));
  device().submit(early);
  EXPECT_EQ(early.error(), EINTR);
  EXPECT_EQ(device().fail_held(ENXIO), 1u);
  EXPECT_EQ(three->error(), ENXIO);
}

// Writers, a clock that runs, messages, suspend and cancel at once.
TEST_F(ThrottleTest, AllAtOnce) {
  load("write_iops 1000 read_bps 1000000 burst_ms 0");
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
    ASSERT_TRUE(say(i % 2 ? "set write_iops 1000" : "set write_iops 100"));
    if (i % 3 == 0) {
      ASSERT_TRUE(rig_.suspend());
      ASSERT_TRUE(rig_.resume());
    }
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
