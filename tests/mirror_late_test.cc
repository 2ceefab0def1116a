// SPDX-License-Identifier: Apache-2.0
// What the kernel's mirror has not: repairs of what cannot be read, and legs that are late.
#include "tests/support/mirror_fixture.h"

namespace dmfs::test {
namespace {

TEST_F(MirrorTest, ARangeThatCannotBeReadIsWrittenAgain) {
  load("core 1 16 2 a 0 b 0 1 handle_errors");
  expect_status("2 a b 128/128 1 AA 1 core");
  file("a").forget_seen();
  file("a").fail_nth(1, EIO);
  auto r = rig_.read(20, 4);
  ASSERT_TRUE(becomes_done(r));
  EXPECT_EQ(r->error(), 0);
  EXPECT_TRUE(r->holds('A', 20));
  expect_status("2 a b 128/128 1 AA 1 core 2 repaired 1");
  EXPECT_EQ(file("a").seen(), (std::vector<SeenBio>{{Op::Read, 0, 0, {20}, {4}},
                                                    {Op::Write, 0, 0, {20}, {4}}}));
  EXPECT_EQ(events(), 2u);
}

TEST_F(MirrorTest, ARepairDoesNotOvertakeAWrite) {
  load("core 1 16 2 a 0 b 0 1 handle_errors");
  expect_status("2 a b 128/128 1 AA 1 core");
  file("b").hold(true);
  auto w = rig_.write(16, 8, 'W');  // under way: the repair waits for it
  file("a").fail_nth(1, EIO);
  auto r = rig_.read(20, 2);
  ASSERT_EQ(file("b").held(), 2u);
  EXPECT_TRUE(file("b").complete_at(1));
  EXPECT_TRUE(r->done());
  auto later = rig_.write(22, 2, 'X');  // and this one for the repair
  EXPECT_FALSE(later->done());
  EXPECT_EQ(file("b").held(), 1u);
  file("b").hold(false);
  file("b").complete_all();
  ASSERT_TRUE(becomes_done(w) && becomes_done(later));
  expect_status("2 a b 128/128 1 AA 1 core 2 repaired 1");
  EXPECT_TRUE(legs_equal());
  EXPECT_TRUE(holds("a", 'W', 16, 6) && holds("a", 'X', 22, 2));
}

TEST_F(MirrorTest, ALegThatCannotBeRepairedStaysFailed) {
  load("core 1 16 2 a 0 b 0 1 handle_errors");
  expect_status("2 a b 128/128 1 AA 1 core");
  file("a").fail_all(EIO);
  EXPECT_TRUE(rig_.read(20, 4)->holds('A', 20));
  EXPECT_TRUE(eventually([&] { return count_seen("a", Op::Write) == 1; }));
  EXPECT_TRUE(eventually([&] { return status() == "2 a b 128/128 1 RA 1 core"; }));
  EXPECT_EQ(events(), 2u);
}

TEST_F(MirrorTest, AWriteDoesNotWaitForALateLeg) {
  load("core 2 16 nosync 2 a 0 b 0 3 handle_errors io_timeout 300");
  file("b").hold(true);
  auto w = rig_.write(0, 8, 'W');
  EXPECT_FALSE(w->done());
  advance(299ms);
  EXPECT_FALSE(w->done());
  advance(1ms);
  ASSERT_TRUE(becomes_done(w));
  EXPECT_EQ(w->error(), 0);
  EXPECT_EQ(status(), "2 a b 127/128 1 AD 1 core 2 late 1");
  EXPECT_EQ(events(), 1u);
  // It is left out from here on.
  auto x = rig_.write(4, 8, 'X'), y = rig_.write(64, 8, 'Y');
  EXPECT_TRUE(x->done() && y->done());
  EXPECT_EQ(x->error() | y->error() | rig_.send(Op::Flush)->error(), 0);
  EXPECT_EQ(file("b").held(), 1u);
  EXPECT_EQ(status(), "2 a b 126/128 1 AD 1 core 2 late 1");
  // Until it has ended what it was given: then it is asked, and copied to. The write that was late
  // does not undo what came after it.
  advance(10s);
  EXPECT_EQ(file("b").held(), 1u);
  file("b").hold(false);
  file("b").complete_all();
  advance(300ms);
  expect_status("2 a b 128/128 1 AA 1 core 2 late 1");
  EXPECT_TRUE(holds("b", 'W', 0, 4) && holds("b", 'X', 4, 8) && holds("b", 'Y', 64, 8));
  EXPECT_TRUE(holds("a", 'W', 0, 4) && holds("a", 'X', 4, 8) && holds("a", 'Y', 64, 8));
}

TEST_F(MirrorTest, AnotherLegIsFirstWhenTheFirstIsLate) {
  load("core 1 16 2 a 0 b 0 3 handle_errors io_timeout 300");
  expect_status("2 a b 128/128 1 AA 1 core");
  file("a").hold(true);
  auto r = rig_.read(0, 8);
  EXPECT_FALSE(r->done());
  advance(300ms);
  ASSERT_TRUE(becomes_done(r));
  EXPECT_EQ(r->error(), 0);
  EXPECT_TRUE(r->holds('A', 0));
  EXPECT_EQ(status(), "2 a b 128/128 1 DA 1 core 2 late 1");
  auto w = rig_.write(0, 8, 'W');
  ASSERT_TRUE(becomes_done(w));
  EXPECT_EQ(w->error(), 0);
  EXPECT_TRUE(rig_.read(0, 8)->holds('W', 0));
  file("a").hold(false);
  file("a").complete_all();
  advance(300ms);
  expect_status("2 a b 128/128 1 AA 1 core 2 late 1");
  EXPECT_TRUE(holds("a", 'W', 0, 8));
}

TEST_F(MirrorTest, TheOnlyLegThatHasAllIsWaitedFor) {
  load("core 1 16 2 a 0 b 0 3 handle_errors io_timeout 300");
  expect_status("2 a b 128/128 1 AA 1 core");
  file("b").hold(true);
  auto w = rig_.write(0, 8, 'W');
  advance(300ms);
  ASSERT_TRUE(becomes_done(w));
  // Now a has what b has not.
  file("a").hold(true);
  auto x = rig_.write(0, 8, 'X'), r = rig_.read(0, 8), y = rig_.write(64, 8, 'Y'),
       flush = rig_.send(Op::Flush);
  advance(300ms);
  advance(10s);
  for (auto& bio : {x, r, y, flush}) EXPECT_FALSE(bio->done());
  EXPECT_EQ(status(), "2 a b 127/128 1 AD 1 core 2 late 1");
  file("a").hold(false);
  file("a").complete_all();
  for (auto& bio : {x, r, y, flush}) {
    ASSERT_TRUE(becomes_done(bio));
    EXPECT_EQ(bio->error(), 0);
  }
  file("b").hold(false);
  file("b").complete_all();
  advance(300ms);
  advance(300ms);
  expect_status("2 a b 128/128 1 AA 1 core 2 late 1");
  EXPECT_TRUE(legs_equal() && holds("b", 'X', 0, 8) && holds("b", 'Y', 64, 8));
}

// Both do not answer: the one that is given up first is, the other one is waited for.
TEST_F(MirrorTest, NotBothAreGivenUp) {
  fill("b", 'A');
  load("core 2 16 nosync 2 a 0 b 0 3 handle_errors io_timeout 300");
  file("a").hold(true);
  file("b").hold(true);
  auto w = rig_.write(0, 8, 'W');
  advance(300ms);
  EXPECT_FALSE(w->done());
  EXPECT_EQ(status(), "2 a b 128/128 1 DA 1 core 2 late 1");
  file("b").hold(false);
  file("b").complete_all();
  ASSERT_TRUE(becomes_done(w));
  EXPECT_EQ(w->error(), 0);
  EXPECT_EQ(status(), "2 a b 127/128 1 DA 1 core 2 late 1");
  file("a").hold(false);
  file("a").complete_all();
  advance(300ms);
  expect_status("2 a b 128/128 1 AA 1 core 2 late 1");
  EXPECT_TRUE(legs_equal() && holds("b", 'W', 0, 8));
}

// A slow source of a copy is no failed one.
TEST_F(MirrorTest, ACopyFromASlowLegIsTriedAgain) {
  file("a").hold(true);
  load("core 1 16 2 a 0 b 0 3 handle_errors io_timeout 300");
  ASSERT_TRUE(file("a").wait_held(1));
  advance(300ms);
  ASSERT_TRUE(file("a").wait_held(2));
  EXPECT_EQ(status(), "2 a b 0/128 1 AA 1 core");
  file("a").hold(false);
  file("a").complete_all();
  expect_status("2 a b 128/128 1 AA 1 core");
  EXPECT_TRUE(legs_equal());
}

TEST_F(MirrorTest, ALegThatHangsDuringTheResync) {
  file("b").hold(true);
  load("core 1 16 2 a 0 b 0 3 handle_errors io_timeout 300");
  ASSERT_TRUE(file("b").wait_held(1));
  auto w = rig_.write(0, 8, 'W');
  EXPECT_FALSE(w->done());
  advance(300ms);
  ASSERT_TRUE(becomes_done(w));
  EXPECT_EQ(w->error(), 0);
  expect_status("2 a b 0/128 1 AD 1 core 2 late 1");
  // A suspend does not wait for it.
  ASSERT_TRUE(rig_.suspend());
  ASSERT_TRUE(rig_.resume());
  file("b").hold(false);
  file("b").complete_all();
  advance(300ms);
  expect_status("2 a b 128/128 1 AA 1 core 2 late 1");
  EXPECT_TRUE(legs_equal() && holds("b", 'W', 0, 8));
}

TEST_F(MirrorTest, ALateLegAndADiskLog) {
  load("disk 3 log 16 nosync 2 a 0 b 0 3 handle_errors io_timeout 300");
  file("b").hold(true);
  auto w = rig_.write(0, 8, 'W');
  advance(300ms);
  ASSERT_TRUE(becomes_done(w));
  advance(1s);
  EXPECT_EQ(bits(1), (std::vector<int>{0xfe}));
  file("b").hold(false);
  file("b").complete_all();
  advance(300ms);
  expect_status("2 a b 128/128 1 AA 3 disk log A 2 late 1");
  EXPECT_TRUE(eventually([&] {
    advance(100ms);
    return bits(1) == std::vector<int>{0xff};
  }));
}

TEST_F(MirrorTest, AnErrorIsAnErrorAlsoWithATimeout) {
  load("core 2 16 nosync 2 a 0 b 0 3 handle_errors io_timeout 300");
  file("b").fail_nth(1, EIO);
  auto w = rig_.write(0, 8, 'W');
  EXPECT_FALSE(w->done());
  EXPECT_EQ(device().held().count, 1u);
  replace_table("linear a 0");
  EXPECT_TRUE(w->done());
}

}  // namespace
}  // namespace dmfs::test
