// SPDX-License-Identifier: Apache-2.0
// hang, and with it what becomes of bios that a target keeps: released, failed, cancelled, handed
// back to a noflush suspend, in every order.
#include <gtest/gtest.h>

#include <future>
#include <thread>

#include "tests/support/manager_rig.h"

namespace dmfs::test {
namespace {

constexpr SuspendOptions kNoflush{.noflush = true, .lockfs = false};

class HangTest : public ::testing::Test {
 protected:
  HangTest() {
    rig_.file("a", 1000);
    EXPECT_TRUE(rig_.load("0 50 linear a 0\n50 100 hang a 500\n150 50 linear a 150"));
    EXPECT_TRUE(rig_.resume());
  }
  Status say(const std::string& text) {
    auto answer = device().live_table()->find({60}).target->message(*split_args(text));
    return answer ? Status() : Status(answer.error());
  }
  std::string status() { return device().live_table()->status().targets[1].params; }
  MappedDevice& device() { return rig_.device(); }
  // Starts a suspend on another thread, and returns when it waits for what is inside.
  std::future<Status> suspending(SuspendOptions options, CancelToken* cancel = nullptr) {
    auto done = std::async(std::launch::async,
                           [this, options, cancel] { return rig_.suspend(options, cancel); });
    while (!device().defers()) std::this_thread::yield();
    return done;
  }
  Rig rig_;
};

TEST_F(HangTest, HoldsWhatTouchesARange) {
  EXPECT_EQ(status(), "0 0");
  ASSERT_TRUE(say("hold 10 5"));  // 60 to 64 of the device
  EXPECT_EQ(status(), "0 1");
  auto before = rig_.write(50, 10), after = rig_.write(65, 10);
  EXPECT_TRUE(before->done() && after->done());
  auto first = rig_.read(50, 11), last = rig_.read(64, 1), around = rig_.write(55, 20);
  auto discard = rig_.send(Op::Discard, 62, 1), zeroes = rig_.send(Op::WriteZeroes, 62, 1);
  EXPECT_TRUE(rig_.send(Op::Flush)->done());
  EXPECT_TRUE(rig_.read(0, 50)->done() && rig_.read(150, 50)->done());
  EXPECT_EQ(status(), "5 1");
  for (auto& bio : {first, last, around, discard, zeroes}) EXPECT_FALSE(bio->done());
  ASSERT_TRUE(say("hold 90 10"));
  EXPECT_EQ(status(), "5 2");
  rig_.file("a").forget_seen();
  ASSERT_TRUE(say("release"));
  for (auto& bio : {first, last, around, discard, zeroes}) {
    EXPECT_TRUE(bio->done());
    EXPECT_EQ(bio->error(), 0);
  }
  auto seen = rig_.file("a").seen();
  ASSERT_EQ(seen.size(), 5u);  // in the order in which they came
  EXPECT_EQ(seen[0], (SeenBio{Op::Read, 0, 0, {500}, {11}}));
  EXPECT_EQ(seen[1], (SeenBio{Op::Read, 0, 0, {514}, {1}}));
  EXPECT_EQ(seen[2], (SeenBio{Op::Write, 0, 0, {505}, {20}}));
  EXPECT_EQ(status(), "0 0");
  EXPECT_TRUE(rig_.write(60, 5)->done());
}

TEST_F(HangTest, FailsWithAnErrnoByNameOrNumber) {
  const std::pair<const char*, int> cases[] = {
      {"fail", EIO}, {"fail ENOSPC", ENOSPC}, {"fail 110", ETIMEDOUT}};
  for (auto [message, error] : cases) {
    ASSERT_TRUE(say("hold 0 100"));
    auto w = rig_.write(60, 1), r = rig_.read(140, 20);  // the second one half outside
    EXPECT_FALSE(w->done() || r->done());
    ASSERT_TRUE(say(message));
    EXPECT_EQ(w->error(), error);
    EXPECT_EQ(r->error(), error);
    EXPECT_EQ(status(), "0 0");
    EXPECT_EQ(rig_.write(60, 1)->error(), 0);
  }
}

TEST_F(HangTest, RefusesBadMessages) {
  const std::pair<const char*, const char*> cases[] = {
      {"hold", "hang: Invalid start sector"},
      {"hold x 1", "hang: Invalid start sector: 'x'"},
      {"hold 1", "hang: Invalid sector count"},
      {"hold 1 0", "hang: Invalid sector count: '0'"},
      {"hold 1 2 3", "hang: Too many arguments: '3'"},
      {"hold 100 1", "hang: Range outside the target of 100 sectors"},
      {"hold 99 2", "hang: Range outside the target of 100 sectors"},
      {"hold 1 18446744073709551615", "hang: Range outside the target of 100 sectors"},
      {"release now", "hang: Too many arguments: 'now'"},
      {"fail 0", "hang: Invalid errno: '0'"},
      {"fail 4096", "hang: Invalid errno: '4096'"},
      {"fail EWHAT", "hang: Invalid errno: 'EWHAT'"},
      {"fail 5 5", "hang: Too many arguments: '5'"},
      {"stop", "hang: Unrecognised message received: 'stop'"},
  };
  for (auto [message, text] : cases) {
    Status said = say(message);
    ASSERT_FALSE(said) << message;
    EXPECT_EQ(said.error().code, EINVAL);
    EXPECT_EQ(said.error().message, text);
  }
  EXPECT_EQ(status(), "0 0");
  for (int i = 0; i < 1024; ++i) ASSERT_TRUE(say("hold 0 1"));
  EXPECT_EQ(say("hold 0 1").error().code, ENOSPC);
}

TEST_F(HangTest, ASuspendThatFlushesWaitsForARelease) {
  ASSERT_TRUE(say("hold 0 100"));
  auto w = rig_.write(60, 8);
  auto suspended = suspending({});
  EXPECT_FALSE(device().suspended());
  EXPECT_EQ(device().in_flight(), 1);
  ASSERT_TRUE(say("release"));
  EXPECT_TRUE(suspended.get());
  EXPECT_EQ(w->error(), 0);
  EXPECT_TRUE(w->done());
  ASSERT_TRUE(rig_.resume());
}

TEST_F(HangTest, ASuspendThatFlushesWaitsForAFailure) {
  ASSERT_TRUE(say("hold 0 100"));
  auto w = rig_.write(60, 8);
  auto suspended = suspending({});
  ASSERT_TRUE(say("fail ENODEV"));
  EXPECT_TRUE(suspended.get());
  EXPECT_EQ(w->error(), ENODEV);
}

TEST_F(HangTest, ANoflushSuspendTakesBackWhatIsHeld) {
  ASSERT_TRUE(say("hold 0 100"));
  auto first = rig_.write(60, 8, 'A'), across = rig_.write(140, 20, 'B'), last = rig_.read(60, 8);
  EXPECT_EQ(status(), "3 1");
  ASSERT_TRUE(rig_.suspend(kNoflush));
  EXPECT_EQ(status(), "0 1");
  EXPECT_EQ(device().in_flight(), 0);
  EXPECT_EQ(device().held_count(), 3u);
  EXPECT_FALSE(first->done() || across->done() || last->done());
  // Resumed with the same table they are held again, and once more.
  ASSERT_TRUE(rig_.resume());
  EXPECT_EQ(status(), "3 1");
  ASSERT_TRUE(rig_.suspend(kNoflush));
  EXPECT_EQ(device().held_count(), 3u);
  // With another one they go on, in order.
  ASSERT_TRUE(rig_.load("0 200 linear a 0"));
  rig_.file("a").forget_seen();
  ASSERT_TRUE(rig_.resume());
  for (auto& bio : {first, across, last}) {
    EXPECT_TRUE(bio->done());
    EXPECT_EQ(bio->error(), 0);
  }
  EXPECT_TRUE(last->holds('A', 60));
  auto seen = rig_.file("a").seen();
  ASSERT_EQ(seen.size(), 3u);
  EXPECT_EQ(seen[0].sector.n, 60u);
  EXPECT_EQ(seen[1].sector.n, 140u);
  EXPECT_EQ(seen[2].op, Op::Read);
}

TEST_F(HangTest, ABioThatComesBetweenPresuspendAndTheDoorIsRequeued) {
  ASSERT_TRUE(say("hold 0 100"));
  rig_.file("a").hold(true);
  auto inside = rig_.write(0, 1);  // keeps the suspend waiting, on the linear target
  auto suspended = suspending(kNoflush);
  // The door is shut, but the target may still see a clone of somebody who was let in before.
  Bio late([](Bio&) { FAIL() << "completed"; });
  late.op = Op::Read;
  late.sector = {60};
  late.count = {1};
  const auto table = device().live_table();
  EXPECT_EQ(table->find({60}).target->map(late), MapResult::Requeue);
  rig_.file("a").hold(false);
  rig_.file("a").complete_all();
  EXPECT_TRUE(suspended.get());
  EXPECT_TRUE(inside->done());
  EXPECT_EQ(status(), "0 1");
}

TEST_F(HangTest, AnInterruptedNoflushSuspendHoldsAgain) {
  ASSERT_TRUE(say("hold 0 100"));
  auto held = rig_.write(60, 8);
  rig_.file("a").hold(true);
  auto inside = rig_.write(0, 1);
  CancelToken cancel;
  auto suspended = suspending(kNoflush, &cancel);
  EXPECT_EQ(device().held_count(), 1u);
  EXPECT_EQ(status(), "0 1");
  cancel.cancel();
  EXPECT_EQ(suspended.get().error().code, EINTR);
  EXPECT_FALSE(device().noflush_suspending());
  EXPECT_EQ(device().held_count(), 0u);
  EXPECT_EQ(status(), "1 1");
  EXPECT_FALSE(held->done());
  rig_.file("a").hold(false);
  rig_.file("a").complete_all();
  ASSERT_TRUE(say("release"));
  EXPECT_EQ(held->error(), 0);
  EXPECT_TRUE(held->done() && inside->done());
}

TEST_F(HangTest, ARequeueOutsideANoflushSuspendIsEio) {
  ASSERT_TRUE(say("hold 0 100"));
  auto w = rig_.write(60, 8);
  EXPECT_EQ(device().live_table()->find({60}).target->cancel({nullptr, kRequeue}), 1u);
  EXPECT_EQ(w->error(), EIO);
}

TEST_F(HangTest, ARequeueSupersedesTheErrorOfTheOtherPart) {
  ASSERT_TRUE(say("hold 0 100"));
  rig_.file("a").fail_nth(1, ENOSPC);
  auto across = rig_.write(140, 20);
  ASSERT_TRUE(rig_.suspend(kNoflush));
  EXPECT_FALSE(across->done());
  ASSERT_TRUE(rig_.resume());
  ASSERT_TRUE(say("release"));
  EXPECT_EQ(across->error(), 0);
}

// ---- whoever waits is killed -----------------------------------------------------------------

TEST_F(HangTest, AHeldBioIsCancelled) {
  ASSERT_TRUE(say("hold 0 100"));
  auto one = rig_.write(60, 8), two = rig_.write(140, 20), three = rig_.write(60, 8);
  EXPECT_TRUE(device().cancel_held(*two, EINTR));
  EXPECT_EQ(two->error(), EINTR);
  EXPECT_TRUE(two->done());
  EXPECT_FALSE(device().cancel_held(*two, EINTR));
  EXPECT_EQ(status(), "2 1");
  EXPECT_FALSE(one->done() || three->done());
  ASSERT_TRUE(say("release"));
  EXPECT_FALSE(device().cancel_held(*one, EINTR));
  EXPECT_EQ(one->error(), 0);
  EXPECT_EQ(three->error(), 0);
}

TEST_F(HangTest, ACancelledPartWaitsForTheOther) {
  ASSERT_TRUE(say("hold 0 100"));
  rig_.file("a").hold(true);
  auto across = rig_.write(140, 20);
  EXPECT_TRUE(device().cancel_held(*across, EINTR));
  EXPECT_FALSE(across->done());
  rig_.file("a").hold(false);
  rig_.file("a").complete_all();
  EXPECT_EQ(across->error(), EINTR);
}

TEST_F(HangTest, ACancelBeforeItIsHeldCounts) {
  ASSERT_TRUE(say("hold 0 100"));
  TestBio bio(Op::Read, {60}, {1});
  EXPECT_FALSE(device().cancel_held(bio, EINTR));  // on its way, and nowhere yet
  device().submit(bio);
  EXPECT_EQ(bio.error(), EINTR);
  EXPECT_TRUE(bio.done());
  // What is not held is not touched.
  TestBio other(Op::Read, {0}, {1});
  EXPECT_FALSE(device().cancel_held(other, EINTR));
  device().submit(other);
  EXPECT_EQ(other.error(), 0);
  EXPECT_TRUE(other.done());
  ASSERT_TRUE(rig_.suspend());
  TestBio late(Op::Read, {0}, {1});
  EXPECT_FALSE(device().cancel_held(late, EINTR));
  device().submit(late);
  EXPECT_EQ(late.error(), EINTR);
  EXPECT_TRUE(late.done());
}

TEST_F(HangTest, CancelledDuringANoflushSuspend) {
  ASSERT_TRUE(say("hold 0 100"));
  auto w = rig_.write(60, 8);
  rig_.file("a").hold(true);
  auto inside = rig_.write(0, 1), across = rig_.write(40, 20);
  auto suspended = suspending(kNoflush);
  EXPECT_TRUE(device().cancel_held(*w, EINTR));  // on pushback
  EXPECT_EQ(w->error(), EINTR);
  // Requeued by one part, while the other is still below: it does not go to pushback any more.
  EXPECT_FALSE(device().cancel_held(*across, EINTR));
  rig_.file("a").hold(false);
  rig_.file("a").complete_all();
  EXPECT_TRUE(suspended.get());
  EXPECT_EQ(across->error(), EINTR);
  EXPECT_TRUE(across->done());
  EXPECT_EQ(device().held_count(), 0u);
}

TEST_F(HangTest, CancelledWhileASuspendThatFlushesWaits) {
  ASSERT_TRUE(say("hold 0 100"));
  auto w = rig_.write(60, 8);
  auto suspended = suspending({});
  EXPECT_TRUE(device().cancel_held(*w, EINTR));
  EXPECT_TRUE(suspended.get());
  EXPECT_EQ(w->error(), EINTR);
}

TEST_F(HangTest, FailHeldReachesTheTarget) {
  ASSERT_TRUE(say("hold 0 100"));
  auto one = rig_.write(60, 8), two = rig_.write(70, 8);
  EXPECT_EQ(device().fail_held(ENXIO), 2u);
  EXPECT_EQ(one->error(), ENXIO);
  EXPECT_EQ(two->error(), ENXIO);
  EXPECT_EQ(status(), "0 1");
}

// Volumes on a volume: the bio is found wherever it is held, also by way of two.
TEST(StackedHang, ABioIsCancelledFromAbove) {
  ManagerRig rig;
  rig.dir().file("disk", 200);
  ASSERT_TRUE(rig.create("low", "0 200 hang disk 0"));
  ASSERT_TRUE(rig.create("left", "0 200 linear low 0"));
  ASSERT_TRUE(rig.create("right", "0 200 linear low 0"));
  ASSERT_TRUE(rig.create("top", "0 100 linear left 0\n100 100 linear right 100"));
  auto device = [&](const char* name) { return rig.manager().find(name); };
  ASSERT_TRUE(rig.commands().message(ManagerRig::named("low"), {}, "hold 0 200"));
  TestBio across(Op::Read, {90}, {20}), other(Op::Read, {0}, {1}), own(Op::Read, {0}, {1});
  device("top")->submit(across);
  device("top")->submit(other);
  device("low")->submit(own);
  EXPECT_EQ(device("low")->in_flight(), 4);
  EXPECT_TRUE(device("top")->cancel_held(across, EINTR));
  EXPECT_EQ(across.error(), EINTR);
  EXPECT_TRUE(across.done());
  EXPECT_FALSE(other.done() || own.done());
  // Held by the door of a volume below.
  ASSERT_TRUE(rig.suspend("right"));
  TestBio deferred(Op::Read, {150}, {1});
  device("top")->submit(deferred);
  EXPECT_EQ(device("right")->held_count(), 1u);
  EXPECT_TRUE(device("top")->cancel_held(deferred, EINTR));
  EXPECT_EQ(device("right")->held_count(), 0u);
  EXPECT_EQ(deferred.error(), EINTR);
  ASSERT_TRUE(rig.resume("right"));
  ASSERT_TRUE(rig.commands().message(ManagerRig::named("low"), {}, "fail"));
  EXPECT_EQ(other.error(), EIO);
  EXPECT_EQ(own.error(), EIO);
}

TEST(StackedHang, AMessageGetsThroughWhileASuspendWaitsForIt) {
  ManagerRig rig;
  rig.dir().file("disk", 200);
  ASSERT_TRUE(rig.create("low", "0 200 hang disk 0"));
  ASSERT_TRUE(rig.commands().message(ManagerRig::named("low"), {}, "hold 0 200"));
  TestBio held(Op::Read, {90}, {20});
  auto device = rig.manager().find("low");
  device->submit(held);
  auto suspended = std::async(std::launch::async, [&] { return bool(rig.suspend("low")); });
  while (!device->defers()) std::this_thread::yield();
  ASSERT_TRUE(rig.commands().message(ManagerRig::named("low"), {}, "fail"));
  EXPECT_TRUE(suspended.get());
  EXPECT_EQ(held.error(), EIO);
  ASSERT_TRUE(rig.resume("low"));
}

// Release, fail, cancel, noflush suspend and writers, all at once: each bio ends once.
TEST_F(HangTest, AllAtOnce) {
  std::atomic<bool> stop{false};
  std::atomic<unsigned> ended{0}, cancelled{0};
  auto writer = [&](uint64_t at) {
    while (!stop) {
      TestBio bio(Op::Write, {at}, {30});
      device().submit(bio);
      for (int spin = 0; !bio.done(); ++spin) {
        if (spin > 200 && at == 130) device().cancel_held(bio, EINTR);
        std::this_thread::yield();
      }
      EXPECT_TRUE(bio.error() == 0 || bio.error() == ENOSPC || bio.error() == EINTR);
      if (bio.error() == EINTR) ++cancelled;
      ++ended;
    }
  };
  std::thread one(writer, 60), two(writer, 130), three(writer, 130);
  for (int i = 0; i < 400 || cancelled == 0; ++i) {
    ASSERT_TRUE(say("hold 20 80"));
    if (i % 3 == 0) {
      ASSERT_TRUE(rig_.suspend(kNoflush));
      ASSERT_TRUE(rig_.resume());
    }
    std::this_thread::yield();
    if (i % 4 != 1) {
      ASSERT_TRUE(say(i % 2 ? "release" : "fail ENOSPC"));
    }
  }
  stop = true;
  while (device().in_flight() > 0) ASSERT_TRUE(say("release"));
  for (std::thread* thread : {&one, &two, &three}) {
    while (device().in_flight() > 0) ASSERT_TRUE(say("release"));
    thread->join();
  }
  EXPECT_GT(ended, 0u);
  EXPECT_EQ(status(), "0 0");
}

TEST(HangBudget, KeepsNoMoreThanMayBeHeld) {
  HeldBudget budget(4096);
  TestOpener opener;
  opener.add("a", 100);
  FakeClock clock;
  MappedDevice device(0, budget);
  unsigned events = 0;
  Table::Options options{builtin_registry(), opener, clock};
  options.budget = &device.held_budget();
  options.raise_event = [&events] { ++events; };
  auto table = Table::build(parse_table("0 100 hang a 0"), options);
  ASSERT_TRUE(table);
  Target& hang = *(*table)->entries()[0].target;
  CancelToken never;
  std::shared_ptr<Table> replaced;
  {
    MutexLock lock(device.command_mutex());
    (void)device.set_inactive(std::move(*table));
    ASSERT_TRUE(device.resume({}, never, [] { return Status(); }, replaced));
  }
  ASSERT_TRUE(hang.message(std::vector<std::string>{"hold", "0", "50"}));
  TestBio first(Op::Write, {0}, {8}), second(Op::Write, {0}, {1}), third(Op::Read, {0}, {1}),
      discard(Op::Discard, {0}, {10}), free(Op::Write, {50}, {8});
  for (TestBio* bio : {&first, &second, &third, &discard, &free}) device.submit(*bio);
  EXPECT_FALSE(first.done() || discard.done());  // a discard has no data
  EXPECT_EQ(second.error(), ENOMEM);
  EXPECT_EQ(third.error(), ENOMEM);
  EXPECT_EQ(events, 1u) << "told once";
  EXPECT_TRUE(free.done());
  EXPECT_EQ(budget.used(), 4096u);
  ASSERT_TRUE(hang.message(std::vector<std::string>{"release"}));
  EXPECT_TRUE(first.done() && discard.done());
  EXPECT_EQ(budget.used(), 0u);
  std::vector<std::shared_ptr<Table>> tables;
  MutexLock lock(device.command_mutex());
  tables = device.retire();
}

}  // namespace
}  // namespace dmfs::test
