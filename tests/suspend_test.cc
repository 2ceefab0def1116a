// SPDX-License-Identifier: Apache-2.0
// The state machine of suspend and resume, and what becomes of bios meanwhile. Deterministic:
// files hold their I/O until the test lets it go; threads only where a wait is the subject.
#include <gtest/gtest.h>

#include <future>
#include <thread>

#include "tests/support/harness.h"

namespace dmfs::test {
namespace {

TEST(Suspend, IoWaitsAndGoesOnInOrder) {
  Rig rig;
  rig.file("a", 100);
  ASSERT_TRUE(rig.load("0 100 linear a 0"));
  ASSERT_TRUE(rig.resume());
  ASSERT_TRUE(rig.suspend());
  auto w1 = rig.write(0, 8, 'A');
  auto w2 = rig.write(4, 8, 'B');
  auto r = rig.read(0, 8);
  EXPECT_FALSE(w1->done() || w2->done() || r->done());
  EXPECT_EQ(rig.device().held_count(), 3u);
  EXPECT_TRUE(rig.file("a").seen().empty());
  ASSERT_TRUE(rig.resume());
  EXPECT_TRUE(w1->done() && w2->done() && r->done());
  EXPECT_EQ(r->error(), 0);
  auto seen = rig.file("a").seen();
  ASSERT_EQ(seen.size(), 3u);
  EXPECT_EQ(seen[0].sector.n, 0u);
  EXPECT_EQ(seen[1].sector.n, 4u);
  EXPECT_EQ(seen[2].op, Op::Read);
}

TEST(Suspend, WaitsForWhatIsInside) {
  Rig rig;
  HeldFile& a = rig.file("a", 100);
  a.hold(true);
  ASSERT_TRUE(rig.load("0 100 linear a 0"));
  ASSERT_TRUE(rig.resume());
  auto w = rig.write(0, 8);
  auto suspended = std::async(std::launch::async, [&] { return bool(rig.suspend()); });
  while (!rig.device().defers()) std::this_thread::yield();
  auto late = rig.write(8, 8);  // behind the door
  EXPECT_FALSE(rig.device().suspended());
  EXPECT_FALSE(w->done());
  EXPECT_EQ(a.held(), 1u);
  a.complete_next();
  EXPECT_TRUE(suspended.get());
  EXPECT_TRUE(w->done());
  EXPECT_TRUE(rig.device().suspended());
  EXPECT_FALSE(late->done());
  a.hold(false);
  ASSERT_TRUE(rig.resume());
  EXPECT_TRUE(late->done());
}

TEST(Suspend, InterruptedIsActiveAgain) {
  Rig rig;
  HeldFile& a = rig.file("a", 100);
  a.hold(true);
  ASSERT_TRUE(rig.load("0 100 linear a 0"));
  ASSERT_TRUE(rig.resume());
  auto w = rig.write(0, 8);
  CancelToken cancel;
  auto suspended = std::async(std::launch::async, [&] { return rig.suspend({}, &cancel); });
  while (!rig.device().defers()) std::this_thread::yield();
  auto late = rig.write(8, 8);
  EXPECT_EQ(rig.device().held_count(), 1u);
  cancel.cancel();
  Status status = suspended.get();
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, EINTR);
  EXPECT_FALSE(rig.device().suspended());
  EXPECT_FALSE(rig.device().defers());
  EXPECT_EQ(rig.device().held_count(), 0u);
  EXPECT_EQ(a.held(), 2u);  // the late one has been let in
  a.complete_all();
  EXPECT_TRUE(w->done() && late->done());
}

TEST(Suspend, TwiceIsFineAndResumeOfActiveToo) {
  Rig rig;
  rig.file("a", 100);
  ASSERT_TRUE(rig.load("0 100 linear a 0"));
  ASSERT_TRUE(rig.resume());
  int commits = rig.commits();
  ASSERT_TRUE(rig.suspend());
  ASSERT_TRUE(rig.suspend());
  EXPECT_EQ(rig.commits(), commits + 1);
  ASSERT_TRUE(rig.resume());
  ASSERT_TRUE(rig.resume());
  EXPECT_EQ(rig.commits(), commits + 2);
}

TEST(Suspend, WithoutATable) {
  Rig rig;
  ASSERT_TRUE(rig.resume());  // as the kernel: nothing to do
  ASSERT_TRUE(rig.suspend());
  Status status = rig.resume();
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, EINVAL);
  EXPECT_TRUE(rig.device().suspended());
}

TEST(Suspend, NoTableFailsIo) {
  Rig rig;
  auto r = rig.read(0, 1);
  ASSERT_TRUE(r->done());
  EXPECT_EQ(r->error(), EIO);
}

TEST(Resume, SwapsWhileIoIsInside) {
  Rig rig;
  HeldFile& a = rig.file("a", 100);
  rig.file("b", 200);
  ASSERT_TRUE(rig.load("0 100 linear a 0"));
  ASSERT_TRUE(rig.resume());
  a.hold(true);
  auto old = rig.write(0, 8, 'O');
  ASSERT_TRUE(rig.load("0 200 linear b 0"));
  EXPECT_EQ(rig.device().size().n, 100u);
  auto resumed = std::async(std::launch::async, [&] { return bool(rig.resume()); });
  while (!rig.device().defers()) std::this_thread::yield();
  auto next = rig.write(8, 8, 'N');
  EXPECT_FALSE(next->done());
  a.complete_all();
  EXPECT_TRUE(resumed.get());
  EXPECT_TRUE(old->done() && next->done());
  EXPECT_EQ(rig.device().size().n, 200u);
  EXPECT_EQ(a.seen().size(), 1u);                // the old one ended on the old table
  EXPECT_EQ(rig.file("b").seen().size(), 1u);    // the new one went to the new table
  EXPECT_EQ(rig.opener().open_count("a"), 0);    // which has been let go
}

TEST(Resume, HeldIoPastANewEndIsEio) {
  Rig rig;
  rig.file("a", 100);
  ASSERT_TRUE(rig.load("0 100 linear a 0"));
  ASSERT_TRUE(rig.resume());
  ASSERT_TRUE(rig.suspend());
  auto inside = rig.read(0, 8);
  auto across = rig.read(48, 8);
  auto outside = rig.read(90, 8);
  ASSERT_TRUE(rig.load("0 50 linear a 0"));
  ASSERT_TRUE(rig.resume());
  EXPECT_EQ(inside->error(), 0);
  EXPECT_TRUE(across->done() && outside->done());
  EXPECT_EQ(across->error(), EIO);
  EXPECT_EQ(outside->error(), EIO);
}

TEST(Resume, ReadOnlyTableRefusesWrites) {
  Rig rig;
  rig.file("a", 100);
  ASSERT_TRUE(rig.load("0 100 linear a 0", true));
  ASSERT_TRUE(rig.resume());
  EXPECT_TRUE(rig.device().read_only());
  for (Op op : {Op::Write, Op::Discard, Op::WriteZeroes}) {
    auto bio = rig.send(op, 0, 1);
    EXPECT_EQ(bio->error(), EPERM) << op_name(op);
  }
  EXPECT_EQ(rig.read(0, 1)->error(), 0);
  EXPECT_EQ(rig.send(Op::Flush)->error(), 0);
}

TEST(Commit, AFailedSuspendLeavesTheDeviceActive) {
  Rig rig;
  rig.file("a", 100);
  ASSERT_TRUE(rig.load("0 100 linear a 0"));
  ASSERT_TRUE(rig.resume());
  rig.fail_commits(ENOSPC);
  Status status = rig.suspend();
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, ENOSPC);
  EXPECT_FALSE(rig.device().suspended());
  EXPECT_TRUE(rig.write(0, 8)->done());
}

TEST(Commit, AFailedSwapLeavesBothSlots) {
  Rig rig;
  rig.file("a", 100);
  rig.file("b", 200);
  ASSERT_TRUE(rig.load("0 100 linear a 0"));
  ASSERT_TRUE(rig.resume());
  ASSERT_TRUE(rig.load("0 200 linear b 0"));
  rig.fail_commits(EIO);
  EXPECT_FALSE(rig.resume());
  EXPECT_EQ(rig.device().size().n, 100u);
  ASSERT_TRUE(rig.device().inactive_table());
  EXPECT_EQ(rig.device().inactive_table()->size().n, 200u);
  EXPECT_TRUE(rig.write(0, 8)->done());  // active on the old table
  rig.fail_commits(0);
  ASSERT_TRUE(rig.resume());
  EXPECT_EQ(rig.device().size().n, 200u);
}

TEST(Held, ABioCanBeTakenOffTheList) {
  Rig rig;
  rig.file("a", 100);
  ASSERT_TRUE(rig.load("0 100 linear a 0"));
  ASSERT_TRUE(rig.resume());
  ASSERT_TRUE(rig.suspend());
  auto w1 = rig.write(0, 8);
  auto w2 = rig.write(8, 8);
  auto w3 = rig.write(16, 8);
  EXPECT_TRUE(rig.device().cancel_held(*w2, EINTR));
  EXPECT_EQ(w2->error(), EINTR);
  EXPECT_FALSE(rig.device().cancel_held(*w2, EINTR));
  EXPECT_EQ(rig.device().fail_held(EIO), 2u);
  EXPECT_EQ(w1->error(), EIO);
  EXPECT_EQ(w3->error(), EIO);
  auto w4 = rig.write(24, 8);
  EXPECT_FALSE(w4->done());
  ASSERT_TRUE(rig.resume());
  EXPECT_EQ(w4->error(), 0);
  EXPECT_EQ(rig.file("a").seen().size(), 1u);
}

TEST(Stacked, ASuspendedLowerDeviceHoldsTheUpperOnesIo) {
  Rig lower;
  lower.file("a", 100);
  ASSERT_TRUE(lower.load("0 100 linear a 0"));
  ASSERT_TRUE(lower.resume());
  ASSERT_TRUE(lower.suspend());
  Rig other(1);  // a neighbour is not held up
  other.file("b", 100);
  ASSERT_TRUE(other.load("0 100 linear b 0"));
  ASSERT_TRUE(other.resume());
  auto held = lower.write(0, 8);
  auto free = other.write(0, 8);
  EXPECT_FALSE(held->done());
  EXPECT_TRUE(free->done());
  ASSERT_TRUE(lower.resume());
  EXPECT_TRUE(held->done());
}

// Threads that write and threads that suspend, swap and resume: no bio is lost, none completes
// twice (Bio asserts that), and every write is where the table of its time put it.
TEST(Stress, WritersAgainstSuspendAndSwap) {
  Rig rig;
  rig.file("a", 1024);
  rig.file("b", 1024);
  ASSERT_TRUE(rig.load("0 512 linear a 0\n512 512 linear b 512"));
  ASSERT_TRUE(rig.resume());
  std::atomic<bool> stop{false};
  std::atomic<uint64_t> writes{0};
  auto writer = [&](uint64_t base) {
    uint64_t n = 0;
    while (!stop) {
      TestBio bio(Op::Write, Sectors{base + n % 100}, Sectors{8});
      bio.fill('S');
      rig.device().submit(bio);
      while (!bio.done()) std::this_thread::yield();
      EXPECT_EQ(bio.error(), 0);
      ++n;
      ++writes;
    }
  };
  std::thread w1(writer, 0), w2(writer, 460), w3(writer, 800);
  for (int i = 0; i < 300; ++i) {
    if (i % 3 == 0) {
      ASSERT_TRUE(rig.load(i % 2 ? "0 1024 linear a 0" : "0 1024 striped 2 8 a 0 b 0"));
    }
    if (i % 2) {
      ASSERT_TRUE(rig.suspend());
    }
    ASSERT_TRUE(rig.resume());
    uint64_t before = writes;
    while (writes < before + 3) std::this_thread::yield();
  }
  stop = true;
  w1.join();
  w2.join();
  w3.join();
  EXPECT_GE(writes.load(), 900u);
  EXPECT_EQ(rig.device().in_flight(), 0);
  EXPECT_EQ(rig.device().held_count(), 0u);
}

}  // namespace
}  // namespace dmfs::test
