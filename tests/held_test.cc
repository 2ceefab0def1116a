// SPDX-License-Identifier: Apache-2.0
// What is told about I/O that waits, and how it is let go.
#include <gtest/gtest.h>

#include <future>
#include <thread>

#include "tests/support/fake_clock.h"
#include "tests/support/harness.h"
#include "tests/support/manager_rig.h"

namespace dmfs::test {
namespace {

class HeldIo : public ::testing::Test {
 protected:
  void SetUp() override {
    rig_.dir().file("a", 1000);
    ASSERT_TRUE(rig_.create("v", "0 500 linear ./a 0\n500 500 hang ./a 500"));
    device_ = rig_.manager().find("v");
  }
  void TearDown() override {
    (void)device_->fail_held(EIO);
    (void)rig_.resume("v");
    for (auto& bio : bios_) EXPECT_TRUE(bio->done());
  }
  TestBio& send(Op op, uint64_t at, uint64_t count, pid_t pid = 0) {
    bios_.push_back(std::make_unique<TestBio>(op, Sectors{at}, Sectors{count}));
    bios_.back()->pid = pid;
    device_->submit(*bios_.back());
    return *bios_.back();
  }
  WaitReport why() { return *rig_.commands().why(ManagerRig::named("v")); }
  static std::string joined(const std::vector<std::string>& lines) {
    std::string all;
    for (const std::string& line : lines) all += line + "\n";
    return all;
  }

  CancelToken never_;
  ManagerRig rig_;
  std::shared_ptr<MappedDevice> device_;
  std::vector<std::unique_ptr<TestBio>> bios_;
};

TEST_F(HeldIo, WhyNamesEachBioItsListAndWhatFreesIt) {
  WaitReport idle = why();
  EXPECT_EQ(idle.held.count, 0u);
  EXPECT_TRUE(idle.freed_by.empty());
  ASSERT_TRUE(rig_.commands().message(ManagerRig::named("v"), {500}, "hold 100 8"));
  send(Op::Read, 600, 8, 77);
  WaitReport kept = why();
  ASSERT_EQ(kept.held.bios.size(), 1u);
  EXPECT_EQ(kept.held.bios[0].where, "hang");
  EXPECT_EQ(kept.held.bios[0].op, Op::Read);
  EXPECT_EQ(kept.held.bios[0].sector.n, 600u);
  EXPECT_EQ(kept.held.bios[0].count.n, 8u);
  EXPECT_EQ(kept.held.bios[0].pid, 77);
  EXPECT_EQ(kept.in_flight, 1);
  EXPECT_NE(joined(kept.freed_by).find("target hang at sector 500 keeps 1: message 'release'"),
            std::string::npos)
      << joined(kept.freed_by);
  EXPECT_EQ(rig_.info("v").held, 1u);

  ASSERT_TRUE(rig_.commands().suspend({ManagerRig::named("v"), true, true, {}}, never_));
  send(Op::Write, 10, 2, 78);
  WaitReport suspended = why();
  ASSERT_EQ(suspended.held.bios.size(), 2u);
  // What was pushed back comes first, as it will be sent again first.
  EXPECT_EQ(suspended.held.bios[0].sector.n, 600u);
  EXPECT_EQ(suspended.held.bios[1].where, "deferred");
  EXPECT_EQ(suspended.held.bios[1].pid, 78);
  EXPECT_EQ(suspended.in_flight, 0);
  EXPECT_NE(joined(suspended.freed_by).find("dmctl resume v"), std::string::npos);
  EXPECT_NE(joined(suspended.freed_by).find("dmctl fail-held v"), std::string::npos);
}

TEST_F(HeldIo, FailHeldFailsWhatWaitsAndNothingLater) {
  ASSERT_TRUE(rig_.commands().message(ManagerRig::named("v"), {500}, "hold 0 100"));
  TestBio& kept = send(Op::Write, 500, 1);
  auto failed = rig_.commands().fail_held(ManagerRig::named("v"), ENOSPC);
  ASSERT_TRUE(failed);
  EXPECT_EQ(*failed, 1u);
  EXPECT_EQ(kept.error(), ENOSPC);
  ASSERT_TRUE(rig_.suspend("v"));
  TestBio& deferred = send(Op::Read, 0, 1);
  EXPECT_EQ(*rig_.commands().fail_held(ManagerRig::named("v"), EIO), 1u);
  EXPECT_EQ(deferred.error(), EIO);
  TestBio& later = send(Op::Read, 0, 1);
  EXPECT_FALSE(later.done());
  ASSERT_TRUE(rig_.resume("v"));
  EXPECT_TRUE(later.done());
  EXPECT_EQ(later.error(), 0);
  EXPECT_EQ(*rig_.commands().fail_held(ManagerRig::named("v"), EIO), 0u);
}

TEST_F(HeldIo, AMessageFreesWhatASuspendWaitsFor) {
  ASSERT_TRUE(rig_.commands().message(ManagerRig::named("v"), {500}, "hold 0 100"));
  TestBio& kept = send(Op::Write, 500, 1);
  std::thread suspend([&] { EXPECT_TRUE(rig_.suspend("v")); });
  while (!why().suspending) std::this_thread::yield();
  EXPECT_NE(joined(why().freed_by).find("a suspend waits for the 1 in flight"), std::string::npos);
  ASSERT_TRUE(rig_.commands().message(ManagerRig::named("v"), {500}, "release"));
  suspend.join();
  EXPECT_TRUE(kept.done());
  EXPECT_EQ(kept.error(), 0);
  EXPECT_TRUE(rig_.info("v").suspended);
}

TEST_F(HeldIo, ASuspendGivesUpAtItsTimeAndTheDeviceGoesOn) {
  ASSERT_TRUE(rig_.commands().message(ManagerRig::named("v"), {500}, "hold 0 100"));
  TestBio& kept = send(Op::Write, 500, 1);
  auto suspending = std::async(std::launch::async, [&] {
    return rig_.commands().suspend(
        {ManagerRig::named("v"), false, true, std::chrono::milliseconds(200)}, never_);
  });
  while (!why().suspending) std::this_thread::yield();
  rig_.clock().advance(std::chrono::milliseconds(199));
  EXPECT_TRUE(why().suspending);
  rig_.clock().advance(std::chrono::milliseconds(1));
  auto refused = suspending.get();
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ETIMEDOUT);
  EXPECT_NE(refused.error().message.find("1 bios were in flight"), std::string::npos)
      << refused.error().message;
  EXPECT_FALSE(rig_.info("v").suspended);
  EXPECT_FALSE(kept.done());
  TestBio& other = send(Op::Read, 0, 1);
  EXPECT_TRUE(other.done());
  // With nothing in its way it does not wait for its time.
  ASSERT_TRUE(rig_.commands().message(ManagerRig::named("v"), {500}, "release"));
  ASSERT_TRUE(rig_.commands().suspend(
      {ManagerRig::named("v"), false, true, std::chrono::hours(24)}, never_));
}

TEST(HeldBudget, HoldsNoMoreThanItsLimitAndSaysSo) {
  HeldBudget budget(4096);
  MappedDevice device(0, budget);
  MappedDevice other(1, budget);
  auto suspend = [](MappedDevice& one) {
    CancelToken never;
    MutexLock lock(one.command_mutex());
    ASSERT_TRUE(one.suspend({}, never, [] { return Status(); }));
  };
  suspend(device);
  suspend(other);
  TestBio first(Op::Write, {0}, {6}), second(Op::Read, {0}, {2}), third(Op::Write, {0}, {1}),
      flush(Op::Flush, {0}, {0});
  device.submit(first);
  other.submit(second);
  EXPECT_EQ(budget.used(), 4096u);
  uint32_t before = device.events().number();
  device.submit(third);
  ASSERT_TRUE(third.done());
  EXPECT_EQ(third.error(), ENOMEM);
  EXPECT_EQ(device.events().number(), before + 1);
  TestBio fourth(Op::Write, {0}, {1});
  device.submit(fourth);
  EXPECT_EQ(fourth.error(), ENOMEM);
  EXPECT_EQ(device.events().number(), before + 1) << "told once";
  EXPECT_EQ(device.refused_count(), 2u);
  device.submit(flush);  // has no data
  EXPECT_FALSE(flush.done());
  // One that is cancelled makes room.
  EXPECT_TRUE(other.cancel_held(second, EINTR));
  EXPECT_EQ(budget.used(), 3072u);
  TestBio fifth(Op::Write, {0}, {1});
  device.submit(fifth);
  EXPECT_FALSE(fifth.done());
  EXPECT_EQ(device.fail_held(EIO), 3u);
  EXPECT_EQ(budget.used(), 0u);
}

}  // namespace
}  // namespace dmfs::test
