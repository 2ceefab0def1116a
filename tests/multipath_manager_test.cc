// SPDX-License-Identifier: Apache-2.0
// multipath among other devices: what may replace what, and the names of paths.
#include <unistd.h>

#include "tests/support/manager_rig.h"

namespace dmfs::test {
namespace {

class MultipathManager : public ::testing::Test {
 protected:
  MultipathManager() {
    for (const char* name : {"a", "b", "c"}) rig_.dir().file(name, 100);
  }
  std::string path(const std::string& name) { return rig_.dir().path(name); }
  Status say(const std::string& device, const std::string& text) {
    return ManagerRig::status_of(rig_.commands().message(ManagerRig::named(device), {}, text));
  }
  std::string status(const std::string& name) {
    return rig_.commands().table_status({ManagerRig::named(name), false})->targets[0].params;
  }
  ManagerRig rig_;
};

constexpr const char* kBio = "0 100 multipath 2 queue_mode bio 0 1 1 round-robin 0 1 1 a 1";
constexpr const char* kRequest = "0 100 multipath 0 0 1 1 round-robin 0 1 1 a 1";

// ---- what may replace it ------------------------------------------------------------------------

TEST_F(MultipathManager, OnlyErrorOrItsLikeReplaceIt) {
  ASSERT_TRUE(rig_.create("m", kBio));
  Status refused = rig_.load("m", "0 100 linear b 0");
  EXPECT_EQ(refused.error().code, EINVAL);
  EXPECT_EQ(refused.error().message, "can't replace immutable target type multipath");
  ASSERT_TRUE(rig_.load("m", "0 100 multipath 2 queue_mode bio 0 1 1 round-robin 0 1 1 b 1"));
  ASSERT_TRUE(rig_.load("m", "0 100 error"));
  ASSERT_TRUE(rig_.load("m", "0 50 linear b 0\n50 50 error"));  // one wildcard is enough
  ASSERT_TRUE(rig_.load("m", "0 100 error"));
  ASSERT_TRUE(rig_.resume("m"));
  ASSERT_TRUE(rig_.load("m", "0 100 linear b 0"));  // it is gone now
}

TEST_F(MultipathManager, StandsOnlyWithItsLike) {
  ASSERT_TRUE(rig_.create("m", "0 50 multipath 2 queue_mode bio 0 1 1 round-robin 0 1 1 a 1\n"
                               "50 50 multipath 2 queue_mode bio 0 1 1 round-robin 0 1 1 b 1"));
  for (const char* mixed : {"0 50 multipath 2 queue_mode bio 0 1 1 round-robin 0 1 1 a 1\n50 50 zero",
                            "0 50 zero\n50 50 multipath 2 queue_mode bio 0 1 1 round-robin 0 1 1 a 1"}) {
    Status refused = rig_.load("m", mixed);
    EXPECT_EQ(refused.error().code, EINVAL);
    EXPECT_TRUE(refused.error().message.ends_with(
        ": immutable target type cannot be mixed with other target types"));
  }
}

TEST_F(MultipathManager, TheKindOfADeviceStays) {
  ASSERT_TRUE(rig_.create("m", kRequest));
  Status refused = rig_.load("m", kBio);
  EXPECT_EQ(refused.error().code, EINVAL);
  EXPECT_EQ(refused.error().message,
            "can't change device type (old=2 vs new=1) after initial table load.");
  ASSERT_TRUE(rig_.load("m", "0 100 error"));
  ASSERT_TRUE(rig_.create("l", "0 100 linear a 0"));
  EXPECT_EQ(rig_.load("l", kRequest).error().message,
            "can't change device type (old=1 vs new=2) after initial table load.");
  ASSERT_TRUE(rig_.load("l", kBio));
  // A table that waits counts, too.
  ASSERT_TRUE(rig_.commands().create({"n", {}, {}, {}}));
  ASSERT_TRUE(rig_.load("n", kRequest));
  EXPECT_FALSE(rig_.load("n", kBio));
  ASSERT_TRUE(rig_.commands().clear(ManagerRig::named("n")));
  EXPECT_TRUE(rig_.load("n", kBio));
}

// ---- names of paths -----------------------------------------------------------------------------

TEST_F(MultipathManager, TwoNamesOfOneFileAreTwoPaths) {
  ASSERT_EQ(link(path("a").c_str(), path("a2").c_str()), 0);
  ASSERT_EQ(symlink(path("a").c_str(), path("a3").c_str()), 0);
  ASSERT_TRUE(rig_.create(
      "m", "0 100 multipath 2 queue_mode bio 0 1 1 round-robin 0 3 0 a a2 ./a2"));
  EXPECT_EQ(status("m"), "2 1 0 0 1 1 E 0 3 0 " + path("a") + " A 0 " + path("a2") + " A 0 " +
                             path("a2") + " A 0 ");
  EXPECT_EQ(rig_.commands().deps({ManagerRig::named("m"), false})->deps.size(), 2u);
  // One that is named so; else all that it is.
  ASSERT_TRUE(say("m", "fail_path " + path("a")));
  EXPECT_EQ(status("m"), "2 1 0 0 1 1 E 0 3 0 " + path("a") + " F 1 " + path("a2") + " A 0 " +
                             path("a2") + " A 0 ");
  ASSERT_TRUE(say("m", "reinstate_path " + path("a3")));
  ASSERT_TRUE(say("m", "fail_path " + path("a3")));
  EXPECT_EQ(status("m"), "2 1 0 0 1 1 E 0 3 0 " + path("a") + " F 2 " + path("a2") + " F 1 " +
                             path("a2") + " F 1 ");
  // linear sees one device all the same.
  ASSERT_TRUE(rig_.create("l", "0 50 linear a 0\n50 50 linear a2 0"));
  EXPECT_EQ(rig_.commands().deps({ManagerRig::named("l"), false})->deps.size(), 1u);
}

TEST_F(MultipathManager, VolumesByNameAndNumber) {
  ASSERT_TRUE(rig_.create("p1", "0 100 linear a 0"));
  ASSERT_TRUE(rig_.create("p2", "0 100 linear a 0"));
  ASSERT_TRUE(rig_.create("m", "0 100 multipath 2 queue_mode bio 0 1 1 round-robin 0 2 1 p1 1 253:1 1"));
  EXPECT_EQ(status("m"), "2 1 0 0 1 1 E 0 2 0 p1 A 0 p2 A 0 ");
  ASSERT_TRUE(say("m", "fail_path 253:0"));
  ASSERT_TRUE(say("m", "fail_path p2"));
  EXPECT_EQ(status("m"), "2 1 0 0 1 1 E 0 2 0 p1 F 1 p2 F 1 ");
  EXPECT_EQ(say("m", "fail_path 253:77").error().code, ENXIO);
  EXPECT_EQ(say("m", "fail_path nosuch").error().code, ENOENT);
  EXPECT_EQ(say("m", "fail_path " + path("a")).error().code, EINVAL);
  EXPECT_EQ(say("m", "fail_path m").error().code, EINVAL);
  EXPECT_EQ(say("m", "fail_path a").error().code, ENOENT);
  // After a rename it has the new name.
  ASSERT_TRUE(rig_.rename("p1", "q1"));
  ASSERT_TRUE(say("m", "reinstate_path q1"));
  EXPECT_EQ(status("m"), "2 1 0 0 1 1 E 0 2 0 q1 A 1 p2 F 1 ");
  // The paths are open as long as the table is.
  EXPECT_EQ(rig_.remove("q1").error().code, EBUSY);
}

TEST_F(MultipathManager, ARestartBringsTheTableBack) {
  ASSERT_TRUE(rig_.create("m", "0 100 multipath 7 queue_if_no_path pg_init_retries 5 no_path_timeout 9 "
                               "queue_mode bio 0 2 2 round-robin 0 1 1 a 1 service-time 0 1 2 b 1 7"));
  std::string before = rig_.table("m");
  ASSERT_TRUE(say("m", "fail_path " + path("a")));
  rig_.restart();
  EXPECT_EQ(rig_.table("m"), before);
  EXPECT_EQ(status("m").substr(0, 12), "2 1 0 0 2 2 ");
  EXPECT_EQ(rig_.info("m").event_nr, 1u);
  // Also of one that is suspended, whose table does not print what a resume brings back.
  ASSERT_TRUE(rig_.suspend("m"));
  rig_.restart();
  ASSERT_TRUE(rig_.resume("m"));
  EXPECT_EQ(rig_.table("m"), before);
}

TEST_F(MultipathManager, APathThatIsTooShortOrMissing) {
  rig_.dir().file("short", 99);
  EXPECT_TRUE(rig_.create("m", "0 100 multipath 0 0 1 1 round-robin 0 2 0 a short")
                  .error()
                  .message.find("too small for target") != std::string::npos);
  Status missing = rig_.create("m", "0 100 multipath 0 0 1 1 round-robin 0 2 0 a nosuch");
  EXPECT_EQ(missing.error().code, ENOENT);
}

}  // namespace
}  // namespace dmfs::test
