// SPDX-License-Identifier: Apache-2.0
// mirror with a disk log: marking and cleaning, going on after a crash, a log that fails.
#include "tests/support/mirror_fixture.h"

namespace dmfs::test {
namespace {

TEST_F(MirrorTest, AWriteWaitsUntilItsRegionIsMarked) {
  load("disk 3 log 16 nosync 2 a 0 b 0");
  EXPECT_EQ(bits(2), (std::vector<int>{0xff, 0xff}));
  file("log").hold(true);
  auto w = rig_.write(0, 8, 'W');
  EXPECT_FALSE(w->done());
  EXPECT_TRUE(file("a").seen().empty());
  // Those that come meanwhile share the next one.
  file("log").forget_seen();
  auto x = rig_.write(8, 8, 'X'), y = rig_.write(16, 8, 'Y'), z = rig_.write(32, 8, 'Z');
  EXPECT_TRUE(file("log").seen().empty());
  EXPECT_TRUE(file("log").complete_next());  // the bits
  EXPECT_FALSE(w->done());
  EXPECT_TRUE(file("log").complete_next());  // the flush
  EXPECT_TRUE(w->done());
  // The region was marked with the write before.
  EXPECT_TRUE(x->done());
  EXPECT_FALSE(y->done() || z->done());
  EXPECT_EQ(bits(2), (std::vector<int>{0xfe, 0xff}));
  EXPECT_TRUE(file("log").complete_next());
  EXPECT_TRUE(file("log").complete_next());
  EXPECT_TRUE(y->done() && z->done());
  EXPECT_EQ(bits(2), (std::vector<int>{0xf8, 0xff}));
  EXPECT_EQ(file("log").held(), 0u);
}

TEST_F(MirrorTest, ARegionIsCleanAWhileAfterItsLastWrite) {
  load("disk 3 log 16 nosync 2 a 0 b 0");
  rig_.write(0, 8, 'W');
  advance(60ms);
  EXPECT_EQ(bits(1), (std::vector<int>{0xfe}));
  file("log").forget_seen();
  rig_.write(0, 8, 'V');  // needs no log
  EXPECT_TRUE(file("log").seen().empty());
  file("a").hold(true);
  advance(60ms);  // the legs are flushed first
  ASSERT_EQ(file("a").held(), 1u);
  EXPECT_EQ(file("a").held_bios()[0]->op, Op::Flush);
  EXPECT_EQ(bits(1), (std::vector<int>{0xfe}));
  file("a").hold(false);
  file("a").complete_all();
  EXPECT_EQ(bits(1), (std::vector<int>{0xff}));
  EXPECT_EQ(rig_.clock().pending(), 0u);
}

TEST_F(MirrorTest, WhatIsWrittenDuringTheCleaningStaysDirty) {
  load("disk 3 log 16 nosync 2 a 0 b 0");
  rig_.write(0, 8, 'W');
  rig_.write(16, 8, 'W');
  file("a").hold(true);
  advance(100ms);
  ASSERT_EQ(file("a").held(), 1u);
  auto w = rig_.write(0, 8, 'V');
  EXPECT_TRUE(file("a").complete_next());  // the flush
  EXPECT_EQ(bits(1), (std::vector<int>{0xfe}));
  EXPECT_FALSE(w->done());
  file("a").hold(false);
  file("a").complete_all();
  EXPECT_TRUE(w->done());
  advance(100ms);
  EXPECT_EQ(bits(1), (std::vector<int>{0xff}));
}

TEST_F(MirrorTest, ALegThatCannotFlushIsNotClean) {
  load("disk 3 log 16 nosync 2 a 0 b 0 1 handle_errors");
  rig_.write(0, 8, 'W');
  file("b").fail_nth(1, EIO);
  advance(1s);
  EXPECT_EQ(bits(1), (std::vector<int>{0xfe}));
  EXPECT_EQ(status(), "2 a b 127/128 1 AF 3 disk log A");
  EXPECT_EQ(events(), 1u);
}

TEST_F(MirrorTest, ASuspendLeavesACleanLog) {
  load("disk 3 log 16 nosync 2 a 0 b 0");
  rig_.write(0, 8, 'W');
  EXPECT_EQ(bits(1), (std::vector<int>{0xfe}));
  ASSERT_TRUE(rig_.suspend());
  EXPECT_EQ(bits(1), (std::vector<int>{0xff}));
  ASSERT_TRUE(rig_.resume());
  rig_.write(0, 8, 'W');
  EXPECT_EQ(bits(1), (std::vector<int>{0xfe}));
  // And so does a table that goes.
  replace_table("linear a 0", false);
  EXPECT_EQ(bits(1), (std::vector<int>{0xff}));
}

TEST_F(MirrorTest, OnlyWhatTheLogDoesNotCallCleanIsCopied) {
  load("disk 3 log 16 nosync 2 a 0 b 0");
  auto sector = file("log").peek({2}, {1});
  sector[0] = std::byte{0xfc};
  replace_table("zero");
  file("log").poke({2}, sector);
  replace_table("mirror disk 2 log 16 2 a 0 b 0");
  expect_status("2 a b 128/128 1 AA 3 disk log A");
  EXPECT_TRUE(holds("b", 'A', 0, 32) && holds("b", 'B', 32, 2016));
  advance(1s);
  EXPECT_EQ(bits(2), (std::vector<int>{0xff, 0xff}));
}

TEST_F(MirrorTest, AResyncGoesOnWhereItWas) {
  file("b").hold(true);
  load("disk 2 log 256 2 a 0 b 0");
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(file("b").wait_held(1));
    file("b").complete_next();
  }
  ASSERT_TRUE(file("b").wait_held(1));
  expect_status("2 a b 3/8 1 AA 3 disk log A");
  std::thread cleaner([&] { advance(1s); });
  ASSERT_TRUE(file("b").wait_held(2));
  file("b").complete_at(1);  // the flush of the cleaning
  cleaner.join();
  EXPECT_TRUE(eventually([&] { return bits(1) == std::vector<int>{7}; }));
  // What a crash would leave is what a new table finds.
  auto crashed = file("log").peek({}, {8});
  file("b").hold(false);
  file("b").complete_all();
  expect_status("2 a b 8/8 1 AA 3 disk log A");
  replace_table("zero");
  file("log").poke({}, crashed);
  file("b").forget_seen();
  replace_table("mirror disk 2 log 256 2 a 0 b 0");
  expect_status("2 a b 8/8 1 AA 3 disk log A");
  for (const SeenBio& bio : file("b").seen()) {
    if (bio.op == Op::Write) {
      EXPECT_GE(bio.sector.n, 768u);
    }
  }
}

TEST_F(MirrorTest, WritesAreHeldWhileTheLogHasFailed) {
  load("disk 3 log 16 nosync 2 a 0 b 0 1 handle_errors");
  file("log").fail_all(EIO);
  auto w = rig_.write(0, 8, 'W');
  EXPECT_FALSE(w->done());
  EXPECT_EQ(status(), "2 a b 128/128 1 AA 3 disk log D");
  EXPECT_EQ(events(), 1u);
  EXPECT_TRUE(rig_.read(0, 16)->holds('A', 0));
  auto f = rig_.send(Op::Flush);
  EXPECT_FALSE(f->done());
  file("log").fail_all(0);
  replace_table("mirror disk 2 log 16 2 a 0 b 0 1 handle_errors");
  EXPECT_TRUE(becomes_done(w) && becomes_done(f));
  EXPECT_EQ(w->error() | f->error(), 0);
  expect_status("2 a b 128/128 1 AA 3 disk log A");
}

TEST_F(MirrorTest, WithoutHandleErrorsALogThatFailsDoesNotMatter) {
  file("log").fail_all(EIO);
  load("disk 2 log 16 2 a 0 b 0");
  expect_status("2 a b 128/128 1 AA 3 disk log D");
  EXPECT_EQ(rig_.write(0, 8, 'W')->error(), 0);
  EXPECT_TRUE(rig_.read(0, 8)->holds('W', 0));
  EXPECT_TRUE(eventually([&] { return events() == 2; }));
}

// What could not be copied and counts as in sync all the same is copied by the next table.
TEST_F(MirrorTest, ACopyThatFailedIsNeverClean) {
  load("disk 3 log 16 nosync 2 a 0 b 0");
  file("b").fail_all(EIO);
  EXPECT_EQ(rig_.write(0, 8, 'W')->error(), 0);
  ASSERT_TRUE(rig_.suspend());
  ASSERT_TRUE(rig_.resume());
  expect_status("2 a b 128/128 1 AA 3 disk log A");
  file("b").fail_all(0);
  rig_.write(8, 8, 'V');
  advance(1s);
  EXPECT_EQ(bits(1), (std::vector<int>{0xfe}));
  replace_table("mirror disk 2 log 16 2 a 0 b 0");
  expect_status("2 a b 128/128 1 AA 3 disk log A");
  EXPECT_TRUE(holds("b", 'W', 0, 8) && holds("b", 'V', 8, 8));
}

TEST_F(MirrorTest, KeepLogFailsWritesWhileTheLogHasFailed) {
  load("disk 3 log 16 nosync 2 a 0 b 0 2 handle_errors keep_log");
  file("log").fail_all(EIO);
  EXPECT_EQ(rig_.write(0, 8, 'W')->error(), EIO);
  EXPECT_TRUE(rig_.read(0, 8)->holds('A', 0));
}

TEST_F(MirrorTest, IOWaitsUntilTheLogHasBeenRead) {
  file("log").hold(true);
  ASSERT_TRUE(rig_.load("0 2048 mirror disk 3 log 16 nosync 2 a 0 b 0"));
  ASSERT_TRUE(rig_.resume());
  auto r = rig_.read(0, 8), w = rig_.write(0, 8, 'W');
  EXPECT_FALSE(r->done() || w->done());
  EXPECT_EQ(device().held().count, 2u);
  EXPECT_TRUE(device().cancel_held(*r, EINTR));
  EXPECT_EQ(r->error(), EINTR);
  auto again = rig_.read(8, 8);
  file("log").hold(false);
  file("log").complete_all();
  EXPECT_TRUE(again->done() && w->done());
  EXPECT_TRUE(again->holds('A', 8));
}

}  // namespace
}  // namespace dmfs::test
