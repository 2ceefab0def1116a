// SPDX-License-Identifier: Apache-2.0
// multipath's checkers: failed paths that answer come back, those that do not are failed, and when
// their groups are used again.
#include "tests/support/multipath_rig.h"

namespace dmfs::test {
namespace {

using std::chrono::seconds;

class MultipathChecker : public MultipathRig {
 protected:
  void later(int s) { rig_.clock().advance(seconds(s)); }
  void use_groups(const std::string& failback) {
    start("7 checker read 5 failback " + failback +
          " queue_mode bio 0 2 1 round-robin 0 2 0 p1 p2 round-robin 0 1 0 p3");
    for (const char* name : {"p1", "p2"}) file(name).fail_all(EIO);
    EXPECT_EQ(rig_.write(0, 1)->error(), 0);
    EXPECT_EQ(seen("p3"), 1u);
  }
  bool on_third() {
    size_t before = seen("p3");
    EXPECT_EQ(rig_.write(0, 1)->error(), 0);
    return seen("p3") > before;
  }
};

TEST_F(MultipathChecker, IsPrinted) {
  rig_.file("big", 108);
  start("11 failback 7 checker write@100 5 marginal 3 60 30 path_timeout 10 0 1 1 round-robin 0 1 0 big");
  EXPECT_EQ(table(), "11 path_timeout 10 checker write@100 5 marginal 3 60 30 failback 7 0 1 1 "
                     "round-robin 0 1 1 big 1 ");
}

TEST_F(MultipathChecker, Refusals) {
  for (const char* bad : {"3 checker look 5", "3 checker read 0", "3 checker read 86401",
                          "2 checker read", "3 checker write@x 5", "3 checker write@50 5",
                          "3 checker write@100 5", "4 marginal 1 2 3", "4 marginal 0 2 3",
                          "7 checker read 1 marginal 1 0 3", "2 failback 0", "2 failback soon"}) {
    EXPECT_FALSE(load(std::string(bad) + " 0 1 1 round-robin 0 1 0 p1")) << bad;
  }
}

TEST_F(MultipathChecker, AFailedPathThatAnswersComesBack) {
  start("5 checker read 5 queue_mode bio 0 1 1 round-robin 0 2 0 p1 p2");
  EXPECT_EQ(table(), "6 retain_attached_hw_handler checker read 5 queue_mode bio 0 1 1 round-robin 0 2 1 "
                     "p1 1 p2 1 ");
  file("p1").fail_all(EIO);
  EXPECT_EQ(rig_.write(0, 1)->error(), 0);
  later(5);
  EXPECT_EQ(status(), "2 0 0 0 1 1 A 0 2 0 p1 F 1 p2 A 0 ");
  file("p1").fail_all(0);
  later(4);
  EXPECT_EQ(events(), 1u);
  later(1);
  EXPECT_EQ(status(), "2 0 0 0 1 1 A 0 2 0 p1 A 1 p2 A 0 ");
  EXPECT_EQ(events(), 2u);
  // One that nobody has used is found to be dead before anybody does.
  file("p2").fail_all(ENXIO);
  later(5);
  EXPECT_EQ(status(), "2 0 0 0 1 1 A 0 2 0 p1 A 1 p2 F 1 ");
  EXPECT_EQ(events(), 3u);
}

TEST_F(MultipathChecker, WhatWaitsForAPathGoesWhenOneIsBack) {
  start("6 queue_if_no_path checker read 5 queue_mode bio 0 1 1 round-robin 0 1 0 p1");
  file("p1").fail_all(EIO);
  auto w = rig_.write(0, 1);
  later(20);
  EXPECT_FALSE(w->done());
  file("p1").fail_all(0);
  later(5);
  EXPECT_TRUE(w->done() && w->error() == 0);
}

TEST_F(MultipathChecker, APathThatHangsBlocksNothing) {
  start("5 checker read 5 queue_mode bio 0 1 1 round-robin 0 2 0 p1 p2");
  file("p1").hold(true);
  later(5);
  EXPECT_EQ(file("p1").held(), 1u);
  later(5);  // the interval is the limit
  EXPECT_EQ(status(), "2 1 0 0 1 1 E 0 2 0 p1 F 1 p2 A 0 ");
  EXPECT_EQ(rig_.write(0, 1)->error(), 0);
  later(100);
  EXPECT_EQ(file("p1").held(), 1u) << "it is not asked again until it has answered";
  EXPECT_TRUE(target().lingers());
  (void)file("p1").complete_all();
  EXPECT_FALSE(target().lingers());
  EXPECT_EQ(status(), "2 0 0 0 1 1 A 0 2 0 p1 F 1 p2 A 0 ") << "that was too late";
  file("p1").hold(false);
  later(5);
  EXPECT_EQ(status(), "2 0 0 0 1 1 A 0 2 0 p1 A 1 p2 A 0 ");
}

TEST_F(MultipathChecker, NothingIsCheckedWhileSuspended) {
  start("5 checker read 5 queue_mode bio 0 1 1 round-robin 0 1 0 p1");
  later(5);
  size_t before = seen("p1");
  ASSERT_TRUE(rig_.suspend());
  later(60);
  EXPECT_EQ(seen("p1"), before);
  ASSERT_TRUE(rig_.resume());
  later(5);
  EXPECT_EQ(seen("p1"), before + 1);
}

TEST_F(MultipathChecker, WritesAndReadsAreasOfTheirOwn) {
  for (const char* name : {"a", "b"}) rig_.file(name, 116);
  start("5 checker write@100 5 queue_mode bio 0 1 1 round-robin 0 2 0 a b");
  later(5);
  std::vector<SeenBio> both{{Op::Write, 0, 0, {100}, {8}}, {Op::Read, 0, 0, {100}, {8}}};
  EXPECT_EQ(file("a").seen(), both);
  for (SeenBio& bio : both) bio.sector = {108};
  EXPECT_EQ(file("b").seen(), both);
  // What comes back is not what was written.
  file("a").hold(true);
  later(5);
  ASSERT_TRUE(file("a").complete_next());
  file("a").poke({100}, std::vector<std::byte>(512));
  ASSERT_TRUE(file("a").complete_next());
  EXPECT_EQ(status(), "2 1 0 0 1 1 E 0 2 0 a F 1 b A 0 ");
  file("a").hold(false);
  later(5);
  EXPECT_EQ(status(), "2 1 0 0 1 1 E 0 2 0 a A 1 b A 0 ");
}

TEST_F(MultipathChecker, FailbackImmediate) {
  use_groups("immediate");
  EXPECT_TRUE(on_third());
  file("p2").fail_all(0);
  later(5);
  EXPECT_FALSE(on_third());
}

TEST_F(MultipathChecker, FailbackManual) {
  use_groups("manual");
  for (const char* name : {"p1", "p2"}) file(name).fail_all(0);
  later(60);
  EXPECT_TRUE(on_third());
  ASSERT_TRUE(say("switch_group 1"));
  EXPECT_FALSE(on_third());
}

TEST_F(MultipathChecker, FailbackLater) {
  use_groups("30");
  file("p1").fail_all(0);
  later(5 + 29);
  EXPECT_TRUE(on_third());
  later(1);
  EXPECT_FALSE(on_third());
}

TEST_F(MultipathChecker, FailbackFollowover) {
  use_groups("followover");
  file("p1").fail_all(0);
  later(5);
  EXPECT_FALSE(on_third());
  // Somebody wants the other group: a second path that comes back does not undo that.
  ASSERT_TRUE(say("switch_group 2"));
  EXPECT_TRUE(on_third());
  file("p2").fail_all(0);
  later(5);
  EXPECT_TRUE(on_third());
}

TEST_F(MultipathChecker, AMarginalPathIsHeldOut) {
  start("9 checker read 5 marginal 2 60 20 queue_mode bio 0 1 1 round-robin 0 2 0 p1 p2");
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(status().find("p1 F"), std::string::npos);
    ASSERT_TRUE(say("fail_path p1"));
    if (i == 0) later(5);
  }
  later(5);
  EXPECT_NE(status().find("p1 F 2"), std::string::npos);
  later(15);
  EXPECT_NE(status().find("p1 F 2"), std::string::npos);
  later(5);
  EXPECT_NE(status().find("p1 A 2"), std::string::npos);
  // Failures far apart are none of that.
  ASSERT_TRUE(say("fail_path p1"));
  later(65);
  ASSERT_TRUE(say("fail_path p1"));
  later(5);
  EXPECT_NE(status().find("p1 A 4"), std::string::npos);
}

}  // namespace
}  // namespace dmfs::test
