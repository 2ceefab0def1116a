// SPDX-License-Identifier: Apache-2.0
// mirror: the table line, where I/O goes, copying, legs that fail.
#include "tests/support/mirror_fixture.h"

namespace dmfs::test {
namespace {

TEST_F(MirrorTest, PrintsWhatItParses) {
  for (const char* params : {
           "core 1 16 2 a 0 b 0",
           "core 2 16 nosync 2 a 0 b 8",
           "core 2 64 sync 3 a 0 b 0 c 0",
           "disk 2 log 16 2 a 0 b 0 1 handle_errors",
           "disk 3 log 16 nosync 2 a 0 b 0 2 handle_errors keep_log",
           "core 1 16 2 a 0 b 0 3 handle_errors io_timeout 300",
           "core 1 16 2 a 0 b 0 4 handle_errors keep_log io_timeout 300",
           "core 1 16 2 a 0 b 0 2 io_timeout 1",
       }) {
    auto loaded = rig_.load("0 1024 mirror " + std::string(params));
    ASSERT_TRUE(loaded) << loaded.error().message;
    EXPECT_EQ(device().inactive_table()->spec().targets[0].params, params);
  }
  ASSERT_TRUE(rig_.load("0 1024 mirror core 1 16 2 a 0 b 0 0"));
  EXPECT_EQ(device().inactive_table()->spec().targets[0].params, "core 1 16 2 a 0 b 0");
  ASSERT_TRUE(rig_.load("0 1024 mirror core 1 16 2 a 0 b 0 2 keep_log handle_errors"));
  EXPECT_EQ(device().inactive_table()->spec().targets[0].params,
            "core 1 16 2 a 0 b 0 2 handle_errors keep_log");
}

TEST_F(MirrorTest, RefusesWhatTheKernelRefuses) {
  EXPECT_EQ(refusal("core"), "mirror: Insufficient mirror log arguments");
  EXPECT_EQ(refusal("core x 16"), "mirror: Invalid mirror log argument count: 'x'");
  EXPECT_EQ(refusal("core 3 16 sync"), "mirror: Insufficient mirror log arguments");
  EXPECT_EQ(refusal("userspace 1 16 2 a 0 b 0"),
            "mirror: Error creating mirror dirty log: 'userspace'");
  EXPECT_EQ(refusal("core 2 16 block_on_error 2 a 0 b 0"),
            "mirror: Error creating mirror dirty log: dirty region log: unrecognised sync argument: "
            "'block_on_error'");
  EXPECT_EQ(refusal("core 1 16"), "mirror: Invalid number of mirrors");
  EXPECT_EQ(refusal("core 1 16 1 a 0"), "mirror: Invalid number of mirrors: '1'");
  EXPECT_EQ(refusal("core 1 16 10 a 0"), "mirror: Invalid number of mirrors: '10'");
  EXPECT_EQ(refusal("core 1 16 2 a 0 b"), "mirror: Too few mirror arguments");
  EXPECT_EQ(refusal("core 1 16 2 a 0 b x"), "mirror: Invalid offset: 'x'");
  EXPECT_NE(refusal("core 1 16 2 a 0 nosuch 0").find("mirror: Device lookup failure"),
            std::string::npos);
  EXPECT_EQ(refusal("core 1 16 2 a 0 b 0 x"), "mirror: Invalid number of features: 'x'");
  EXPECT_EQ(refusal("core 1 16 2 a 0 b 0 1"),
            "mirror: Not enough arguments to support feature count");
  EXPECT_EQ(refusal("core 1 16 2 a 0 b 0 1 raid"),
            "mirror: Unrecognised feature requested: 'raid'");
  EXPECT_EQ(refusal("core 1 16 2 a 0 b 0 1 keep_log"),
            "mirror: keep_log feature requires the handle_errors feature");
  EXPECT_EQ(refusal("core 1 16 2 a 0 b 0 1 handle_errors x"),
            "mirror: Too many mirror arguments: 'x'");
  EXPECT_EQ(refusal("core 1 16 2 a 0 b 0 1 io_timeout 3"),
            "mirror: Not enough arguments to support feature count: 'io_timeout'");
  EXPECT_EQ(refusal("core 1 16 2 a 0 b 0 2 io_timeout 0"), "mirror: Invalid io_timeout: '0'");
  EXPECT_NE(refusal("core 1 16 2 a 0 b 8").find("too small for target"), std::string::npos);
}

TEST_F(MirrorTest, WritesAllLegsAndReadsTheFirst) {
  load("core 2 16 nosync 3 a 0 b 0 c 0");
  EXPECT_EQ(status(), "3 a b c 128/128 1 AAA 1 core");
  for (const char* name : {"a", "b", "c"}) file(name).hold(true);
  auto w = rig_.write(5, 3, 'W', kBioFua);
  for (const char* name : {"a", "b", "c"}) {
    EXPECT_FALSE(w->done());
    EXPECT_EQ(file(name).seen(), (std::vector<SeenBio>{{Op::Write, kBioFua, 0, {5}, {3}}})) << name;
    file(name).complete_all();
    file(name).hold(false);
  }
  EXPECT_TRUE(w->done());
  EXPECT_EQ(w->error(), 0);
  for (const char* name : {"a", "b", "c"}) EXPECT_TRUE(holds(name, 'W', 5, 3)) << name;
  auto r = rig_.read(0, 32);
  EXPECT_TRUE(r->done());
  EXPECT_EQ(count_seen("a", Op::Read), 2u);  // one a region
  EXPECT_EQ(count_seen("b", Op::Read), 0u);
  EXPECT_EQ(events(), 0u);
}

TEST_F(MirrorTest, FlushesDiscardsAndZeroesReachAllLegs) {
  load("core 2 16 nosync 2 a 0 b 0");
  auto f = rig_.send(Op::Flush);
  auto z = rig_.send(Op::WriteZeroes, 30, 20);
  auto d = rig_.send(Op::Discard, 100, 500);
  EXPECT_TRUE(f->done() && z->done() && d->done());
  EXPECT_EQ(f->error() | z->error() | d->error(), 0);
  for (const char* name : {"a", "b"}) {
    EXPECT_EQ(file(name).seen(),
              (std::vector<SeenBio>{{Op::Flush, 0, 0, {}, {}},
                                    {Op::WriteZeroes, 0, 0, {30}, {20}},
                                    {Op::Discard, 0, 0, {100}, {500}}}));
  }
  file("b").set_supports_discard(false);
  EXPECT_EQ(rig_.send(Op::Discard, 0, 8)->error(), EOPNOTSUPP);
  EXPECT_EQ(status(), "2 a b 128/128 1 AA 1 core");
}

TEST_F(MirrorTest, LegsBeginWhereTheTableSays) {
  load("core 1 16 2 a 100 b 7", 1000);
  expect_status("2 a b 63/63 1 AA 1 core");
  EXPECT_TRUE(std::ranges::equal(file("a").peek({100}, {1000}), file("b").peek({7}, {1000})));
  EXPECT_TRUE(holds("b", 'B', 0, 7));
  EXPECT_TRUE(holds("b", 'B', 1007, 1000));
  rig_.write(999, 1, 'W');
  EXPECT_EQ(file("a").peek({1099}, {1}), file("b").peek({1006}, {1}));
}

TEST_F(MirrorTest, CopiesWhatIsOutOfSyncAndTellsOnce) {
  load("core 1 16 3 a 0 b 0 c 0");
  expect_status("3 a b c 128/128 1 AAA 1 core");
  EXPECT_TRUE(legs_equal("a", "b") && legs_equal("a", "c"));
  EXPECT_TRUE(holds("a", 'A', 0, 2048));
  EXPECT_TRUE(eventually([&] { return events() == 1; }));
  // A suspend does not make it forget, a new table does.
  ASSERT_TRUE(rig_.suspend());
  ASSERT_TRUE(rig_.resume());
  EXPECT_EQ(status(), "3 a b c 128/128 1 AAA 1 core");
  EXPECT_EQ(events(), 1u);
}

TEST_F(MirrorTest, ReadsOfWhatIsOutOfSyncGoToTheFirstLeg) {
  file("b").hold(true);
  load("core 1 16 2 a 0 b 0");
  auto r = rig_.read(2000, 8);
  ASSERT_TRUE(becomes_done(r));
  EXPECT_TRUE(r->holds('A', 2000));
  // So do writes, which will be copied.
  auto w = rig_.write(2000, 8, 'W');
  EXPECT_TRUE(w->done());
  EXPECT_TRUE(holds("a", 'W', 2000, 8));
  file("b").hold(false);
  file("b").complete_all();
  expect_status("2 a b 128/128 1 AA 1 core");
  EXPECT_TRUE(holds("b", 'W', 2000, 8));
  EXPECT_TRUE(legs_equal());
}

TEST_F(MirrorTest, AWriteWaitsForTheCopyOfItsRegion) {
  file("b").hold(true);
  load("core 1 16 2 a 0 b 0");
  ASSERT_TRUE(file("b").wait_held(1));  // the copy of region 0
  auto w = rig_.write(3, 2, 'W');
  EXPECT_FALSE(w->done());
  EXPECT_FALSE(holds("a", 'W', 3, 2));
  EXPECT_EQ(device().held().count, 1u);
  EXPECT_EQ(device().held().bios.at(0).where, "mirror");
  auto r = rig_.read(3, 2);
  EXPECT_TRUE(r->done() && r->holds('A', 3));
  file("b").hold(false);
  file("b").complete_all();
  ASSERT_TRUE(becomes_done(w));
  expect_status("2 a b 128/128 1 AA 1 core");
  EXPECT_TRUE(holds("a", 'W', 3, 2) && legs_equal());
}

TEST_F(MirrorTest, TheCopyWaitsForTheWritesOfItsRegion) {
  load("core 2 16 nosync 2 a 0 b 0 1 handle_errors");
  file("b").fail_nth(1, EIO);
  auto failed = rig_.write(0, 8, 'W');  // region 0 is out of sync now, the write is held
  EXPECT_FALSE(failed->done());
  expect_status("2 a b 127/128 1 AD 1 core");
  // Another write to it is held too. A noflush suspend gets both back; then there is a copy.
  auto second = rig_.write(8, 8, 'V');
  EXPECT_FALSE(second->done());
  EXPECT_EQ(device().held().count, 2u);
  ASSERT_TRUE(rig_.suspend({.noflush = true, .lockfs = false}));
  EXPECT_FALSE(failed->done() || second->done());
  ASSERT_TRUE(rig_.resume());
  expect_status("2 a b 128/128 1 AA 1 core");
  ASSERT_TRUE(becomes_done(failed) && becomes_done(second));
  EXPECT_EQ(failed->error() | second->error(), 0);
  EXPECT_TRUE(holds("b", 'W', 0, 8) && holds("b", 'V', 8, 8));
  EXPECT_TRUE(eventually([&] { return events() == 2; }));
}

TEST_F(MirrorTest, WithoutHandleErrorsAWriteSucceedsOnTheOtherLeg) {
  load("core 2 16 nosync 2 a 0 b 0");
  file("b").fail_all(EIO);
  auto w = rig_.write(0, 8, 'W');
  ASSERT_TRUE(becomes_done(w));
  EXPECT_EQ(w->error(), 0);
  EXPECT_EQ(status(), "2 a b 127/128 1 AD 1 core");
  EXPECT_EQ(events(), 0u);
  EXPECT_TRUE(rig_.read(0, 8)->holds('W', 0));
  // At a resume the copy fails, which does not matter then.
  ASSERT_TRUE(rig_.suspend());
  ASSERT_TRUE(rig_.resume());
  expect_status("2 a b 128/128 1 AA 1 core");
}

TEST_F(MirrorTest, WithoutHandleErrorsTheFirstLegStaysTheFirst) {
  load("core 2 16 nosync 2 a 0 b 0");
  file("a").fail_all(EIO);
  auto r = rig_.read(0, 8);
  EXPECT_TRUE(r->done() && r->holds('B', 0));
  EXPECT_EQ(status(), "2 a b 128/128 1 RA 1 core");
  auto w = rig_.write(0, 8, 'W');
  ASSERT_TRUE(becomes_done(w));
  EXPECT_EQ(w->error(), 0);
  EXPECT_EQ(status(), "2 a b 127/128 1 DA 1 core");
  EXPECT_EQ(rig_.read(0, 8)->error(), EIO);
  EXPECT_TRUE(rig_.read(16, 8)->holds('B', 16));
  EXPECT_EQ(events(), 0u);
  // When it works again what it has missed is copied to it; the kernel copies the other way.
  file("a").fail_all(0);
  ASSERT_TRUE(rig_.suspend());
  ASSERT_TRUE(rig_.resume());
  expect_status("2 a b 128/128 1 AA 1 core");
  EXPECT_TRUE(rig_.read(0, 8)->holds('W', 0));
  EXPECT_TRUE(holds("a", 'W', 0, 8));
}

TEST_F(MirrorTest, WithHandleErrorsAWriteIsHeldUntilThereIsANewTable) {
  load("core 2 16 nosync 2 a 0 b 0 1 handle_errors");
  file("b").fail_all(EIO);
  auto w = rig_.write(0, 8, 'W');
  EXPECT_FALSE(w->done());
  EXPECT_EQ(events(), 1u);
  EXPECT_EQ(status(), "2 a b 127/128 1 AD 1 core");
  EXPECT_EQ(device().held().count, 1u);
  EXPECT_NE(device().live_table()->entries()[0].target->freed_by().find("new table"),
            std::string::npos);
  EXPECT_TRUE(rig_.read(0, 8)->holds('W', 0));
  // Other regions: the leg fails again, which is no news.
  auto other = rig_.write(16, 8, 'V');
  EXPECT_FALSE(other->done());
  EXPECT_EQ(events(), 1u);
  replace_table("linear a 0");
  EXPECT_TRUE(w->done() && other->done());
  EXPECT_EQ(w->error() | other->error(), 0);
  EXPECT_TRUE(holds("a", 'W', 0, 8) && holds("a", 'V', 16, 8));
}

TEST_F(MirrorTest, AFlushingSuspendFailsWhatIsHeld) {
  load("core 2 16 nosync 2 a 0 b 0 1 handle_errors");
  file("b").fail_all(EIO);
  auto w = rig_.write(0, 8, 'W');
  EXPECT_FALSE(w->done());
  ASSERT_TRUE(rig_.suspend());
  EXPECT_TRUE(w->done());
  EXPECT_EQ(w->error(), EIO);
  ASSERT_TRUE(rig_.resume());
  auto again = rig_.write(0, 8, 'W');
  EXPECT_TRUE(eventually([&] { return device().held().count == 1; }));
  EXPECT_TRUE(device().cancel_held(*again, EINTR));
  EXPECT_TRUE(again->done());
  EXPECT_EQ(again->error(), EINTR);
}

TEST_F(MirrorTest, TheFirstLegIsAnotherWhenItFails) {
  load("core 2 16 nosync 2 a 0 b 0 1 handle_errors");
  file("a").fail_all(EIO);
  EXPECT_TRUE(rig_.read(0, 8)->holds('B', 0));
  EXPECT_EQ(events(), 1u);
  EXPECT_EQ(status(), "2 a b 128/128 1 RA 1 core");
  // It may have to wait for the attempt to write again what could not be read.
  auto w = rig_.write(0, 8, 'W');
  expect_status("2 a b 127/128 1 DA 1 core");
  EXPECT_TRUE(eventually([&] { return device().held().count == 1; }));
  EXPECT_FALSE(w->done());
  EXPECT_EQ(events(), 2u);
  EXPECT_TRUE(rig_.read(0, 8)->holds('W', 0));
  replace_table("linear b 0");
  EXPECT_TRUE(w->done());
}

TEST_F(MirrorTest, KeepLogGoesOnWithOneLeg) {
  load("core 2 16 nosync 2 a 0 b 0 2 handle_errors keep_log");
  file("a").fail_all(EIO);
  EXPECT_EQ(rig_.write(0, 8, 'W')->error(), 0);
  EXPECT_EQ(status(), "2 a b 127/128 1 DA 1 core");
  EXPECT_EQ(events(), 1u);
  EXPECT_TRUE(rig_.read(0, 8)->holds('W', 0));
  EXPECT_EQ(rig_.write(0, 8, 'V')->error(), 0);
  EXPECT_TRUE(holds("b", 'V', 0, 8));
}

TEST_F(MirrorTest, WhenAllLegsFailSoDoesTheWrite) {
  for (const char* features : {"", " 1 handle_errors", " 2 handle_errors keep_log"}) {
    replace_table(std::string("mirror core 2 16 nosync 2 a 0 b 0") + features);
    file("a").fail_all(ENOSPC);
    file("b").fail_all(ENOSPC);
    EXPECT_EQ(rig_.write(0, 8)->error(), EIO) << features;
    EXPECT_EQ(status(), "2 a b 127/128 1 DD 1 core");
    EXPECT_EQ(rig_.read(0, 8)->error(), EIO);
    EXPECT_EQ(rig_.read(16, 8)->error(), EIO);
    file("a").fail_all(0);
    file("b").fail_all(0);
  }
}

TEST_F(MirrorTest, ResyncThatFails) {
  file("a").fail_all(EIO);
  load("core 1 256 2 a 0 b 0 1 handle_errors");
  expect_status("2 a b 0/8 1 SA 1 core");
  EXPECT_TRUE(eventually([&] { return count_seen("a", Op::Read) >= 8; }));
  EXPECT_EQ(events(), 1u);
  file("a").fail_all(0);
  file("b").fail_all(EIO);
  replace_table("mirror core 1 256 2 a 0 b 0 1 handle_errors");
  expect_status("2 a b 0/8 1 AS 1 core");
  replace_table("mirror core 1 256 2 a 0 b 0");
  expect_status("2 a b 8/8 1 AA 1 core");
  EXPECT_EQ(rig_.write(0, 8, 'W')->error(), 0);
  EXPECT_EQ(status(), "2 a b 7/8 1 AD 1 core");
}

TEST_F(MirrorTest, AFailedFlushPutsWhatWasWrittenOutOfSync) {
  load("disk 3 log 16 nosync 2 a 0 b 0 2 handle_errors keep_log");
  rig_.write(0, 8, 'W');
  rig_.write(32, 8, 'W');
  file("b").fail_nth(1, EIO);
  EXPECT_EQ(rig_.send(Op::Flush)->error(), 0);
  EXPECT_EQ(status(), "2 a b 126/128 1 AD 3 disk log A");
  advance(1s);
  EXPECT_EQ(bits(2), (std::vector<int>{0xfa, 0xff}));
}

TEST_F(MirrorTest, ASuspendStopsTheCopyAndAResumeGoesOn) {
  file("b").hold(true);
  load("core 1 16 2 a 0 b 0");
  ASSERT_TRUE(file("b").wait_held(1));
  std::thread suspender([&] { ASSERT_TRUE(rig_.suspend()); });
  // It waits for what is on its way.
  ASSERT_TRUE(eventually([&] { return !device().suspended() && file("b").held() == 1; }));
  file("b").complete_all();
  suspender.join();
  size_t before = file("b").seen().size();
  EXPECT_EQ(file("b").held(), 0u);
  EXPECT_EQ(file("b").seen().size(), before);
  file("b").hold(false);
  ASSERT_TRUE(rig_.resume());
  expect_status("2 a b 128/128 1 AA 1 core");
  EXPECT_TRUE(legs_equal());
}

TEST_F(MirrorTest, ATableThatGoesInTheMiddleOfACopyLeavesNothingBehind) {
  for (int i = 0; i < 20; ++i) {
    fill("b", 'B');
    replace_table("mirror core 1 16 2 a 0 b 0");
    for (int turn = 0; turn < i; ++turn) std::this_thread::yield();
    replace_table("zero");
    file("b").forget_seen();
    std::this_thread::yield();
    EXPECT_TRUE(file("b").seen().empty());
  }
}

TEST_F(MirrorTest, AReadOnlyMirrorIsNotCopied) {
  ASSERT_TRUE(rig_.load("0 2048 mirror core 1 16 2 a 0 b 0", true));
  ASSERT_TRUE(rig_.resume());
  EXPECT_TRUE(rig_.read(0, 8)->holds('A', 0));
  EXPECT_EQ(status(), "2 a b 0/128 1 AA 1 core");
  EXPECT_EQ(count_seen("b", Op::Write), 0u);
}

}  // namespace
}  // namespace dmfs::test
