// SPDX-License-Identifier: Apache-2.0
// Clocks: order, cancelling, and what may be relied on after it.
#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <memory>
#include <string>
#include <vector>

#include "core/base/clock.h"
#include "tests/support/fake_clock.h"

namespace dmfs {
namespace {

using namespace std::chrono_literals;

// What both clocks have to do, at times that have come already.
template <typename T>
class AnyClock : public ::testing::Test {
 protected:
  // Runs what is due.
  void run_due() {
    if constexpr (std::is_same_v<T, test::FakeClock>) {
      clock_.advance({});
    } else {
      std::promise<void> ran;
      clock_.call_at(clock_.now(), [&] { ran.set_value(); });
      ran.get_future().wait();
    }
  }
  T clock_;
};

using Clocks = ::testing::Types<SystemClock, test::FakeClock>;
TYPED_TEST_SUITE(AnyClock, Clocks);

TYPED_TEST(AnyClock, RunsInOrderOfTimeThenOfTheCalls) {
  std::vector<int> ran;
  Clock::Time past = this->clock_.now() - 1s;
  std::promise<void> go;
  // All are added before the first can run, whoever's thread that is.
  std::shared_future<void> gate = go.get_future().share();
  this->clock_.call_at(past - 1h, [gate] { gate.wait(); });
  for (int i : {3, 1, 2}) this->clock_.call_at(past + i * 1ms, [&ran, i] { ran.push_back(i); });
  this->clock_.call_at(past + 2ms, [&ran] { ran.push_back(22); });
  go.set_value();
  this->run_due();
  EXPECT_EQ(ran, (std::vector{1, 2, 22, 3}));
}

TYPED_TEST(AnyClock, CancelsWhatHasNotRun) {
  bool ran = false;
  uint64_t id = this->clock_.call_at(this->clock_.now() + 1h, [&] { ran = true; });
  EXPECT_NE(id, 0u);
  EXPECT_TRUE(this->clock_.cancel(id));
  EXPECT_FALSE(this->clock_.cancel(id));
  EXPECT_FALSE(this->clock_.cancel(0));
  this->clock_.cancel_and_wait(id);
  this->clock_.cancel_and_wait(0);
  this->run_due();
  EXPECT_FALSE(ran);
}

TYPED_TEST(AnyClock, WorkMayCallTheClock) {
  std::vector<std::string> ran;
  uint64_t self = 0;
  std::promise<void> go;
  std::shared_future<void> gate = go.get_future().share();
  self = this->clock_.call_at(this->clock_.now() - 1s, [&, gate] {
    gate.wait();
    EXPECT_FALSE(this->clock_.cancel(self));
    this->clock_.cancel_and_wait(self);  // its own: does not wait
    ran.push_back("first");
    this->clock_.call_at(this->clock_.now() - 1s, [&] { ran.push_back("second"); });
  });
  go.set_value();
  this->run_due();
  this->run_due();
  EXPECT_EQ(ran, (std::vector<std::string>{"first", "second"}));
}

TYPED_TEST(AnyClock, CancelAndWaitWaitsForTheEnd) {
  std::promise<void> started, go;
  std::atomic<bool> ended{false};
  uint64_t id = this->clock_.call_at(this->clock_.now() - 1s, [&] {
    started.set_value();
    go.get_future().wait();
    ended = true;
  });
  auto runs = std::async(std::launch::async, [&] { this->run_due(); });
  started.get_future().wait();
  EXPECT_FALSE(this->clock_.cancel(id));
  EXPECT_FALSE(ended);
  auto cancels = std::async(std::launch::async, [&] {
    this->clock_.cancel_and_wait(id);
    return ended.load();
  });
  go.set_value();
  EXPECT_TRUE(cancels.get());
  runs.wait();
}

TYPED_TEST(AnyClock, WhatWorkHasCapturedIsGoneWithItsEnd) {
  auto captured = std::make_shared<int>(1);
  std::weak_ptr<int> seen = captured;
  uint64_t id =
      this->clock_.call_at(this->clock_.now() - 1s, [keep = std::move(captured)] { (void)keep; });
  this->run_due();
  this->clock_.cancel_and_wait(id);
  EXPECT_TRUE(seen.expired());
}

TEST(SystemClock, RunsNothingBeforeItsTime) {
  SystemClock clock;
  std::promise<Clock::Time> ran;
  Clock::Time at = clock.now() + 20ms;
  clock.call_at(clock.now() + 1h, [] {});
  clock.call_at(at, [&] { ran.set_value(clock.now()); });  // earlier than what it sleeps for
  EXPECT_GE(ran.get_future().get(), at);
}

TEST(SystemClock, EndsWithoutWhatIsNotDue) {
  bool ran = false;
  {
    SystemClock unused;
    SystemClock clock;
    clock.call_at(clock.now() + 1h, [&] { ran = true; });
  }
  EXPECT_FALSE(ran);
}

TEST(FakeClock, MovesOnlyWhenTold) {
  test::FakeClock clock;
  Clock::Time start = clock.now();
  std::vector<Clock::Duration> ran;
  for (auto at : {30ms, 10ms, 20ms, 40ms}) {
    clock.call_at(start + at, [&] { ran.push_back(clock.now() - start); });
  }
  clock.advance(9ms);
  EXPECT_TRUE(ran.empty());
  EXPECT_EQ(clock.pending(), 4u);
  clock.advance(21ms);
  EXPECT_EQ(ran, (std::vector<Clock::Duration>{10ms, 20ms, 30ms}));
  EXPECT_EQ(clock.now() - start, 30ms);
  EXPECT_EQ(clock.pending(), 1u);
}

TEST(FakeClock, OneAdvanceRunsAChain) {
  test::FakeClock clock;
  int ran = 0;
  std::function<void()> again = [&] {
    if (++ran < 5) clock.call_at(clock.now() + 1s, again);
  };
  clock.call_at(clock.now() + 1s, again);
  clock.advance(3s);
  EXPECT_EQ(ran, 3);
  clock.advance(1h);
  EXPECT_EQ(ran, 5);
}

}  // namespace
}  // namespace dmfs
