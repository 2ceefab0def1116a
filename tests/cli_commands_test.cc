// SPDX-License-Identifier: Apache-2.0
// Whole dmctl commands against a scripted daemon: what they send, print and return.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <unistd.h>

#include <deque>
#include <string>
#include <vector>

#include "cli/commands.h"
#include "cli/sync_progress.h"
#include "tests/support/dmctl_fixture.h"

namespace dmfs::cli {
namespace {

using testing::ElementsAre;
using testing::EndsWith;
using testing::HasSubstr;
using testing::StartsWith;

TEST_F(DmctlTest, CreateMakesLoadsAndResumes) {
  answers(info("x"));
  answers(info("x"));
  answers(info("x"));
  dmctl({"create", "x", "-u", "U", "-r", "--ordered", "--table", "0 8 zero"});
  EXPECT_EQ(status_, 0);
  EXPECT_EQ(out_ + err_, "");
  EXPECT_THAT(
      sent_,
      ElementsAre(
          R"(create {"name":"x","uuid":"U"})",
          R"(load {"name":"x","ordered":true,"read_only":true,"targets":[{"length":8,"params":"","start":0,"type":"zero"}]})",
          R"(resume {"name":"x"})"));
}

TEST_F(DmctlTest, WaitSyncedShowsHowFarItIs) {
  auto mirror = [](const std::string& ratio, const std::string& letters) {
    return table_reply(info("m"), {target(0, 1000, "mirror", "2 /a\\ b /c " + ratio + " 1 " + letters + " 1 core")});
  };
  answers(mirror("0/10", "AA"));
  answers(mirror("5/10", "AA"));
  answers(mirror("10/10", "AA"));
  dmctl({"wait", "--synced", "m"});
  EXPECT_EQ(status_, 0);
  EXPECT_THAT(out_, testing::StartsWith("m: 0.0%\nm: 50.0%  "));
  EXPECT_THAT(out_, testing::HasSubstr("left\nm: 100.0%  "));

  answers(mirror("5/10", "AD"));
  answers(mirror("5/10", "AD"));
  dmctl({"wait", "--synced", "m"});
  EXPECT_EQ(status_, 1);
  EXPECT_EQ(err_, "Device m cannot be synchronised: leg /c has failed.\nCommand failed.\n");
  answers(mirror("5/10", "AA"));
  dmctl({"wait", "--synced", "--timeout", "0", "m"});
  EXPECT_EQ(err_, "Device m is not in sync after 0 ms.\nCommand failed.\n");
  answers(table_reply(info("m"), {target(0, 8, "zero", "")}));
  dmctl({"wait", "--synced", "m"});
  EXPECT_EQ(err_, "Device m has no mirror.\nCommand failed.\n");
  dmctl({"wait", "--synced", "m", "4"});
  EXPECT_EQ(err_, "--synced takes no event number, but '4' was given.\nCommand failed.\n");
}

TEST(SyncProgress, Bar) {
  SyncProgress half{.done = 1 << 20, .total = 2 << 20, .failed = ""};
  SyncRate rate;
  EXPECT_EQ(progress_bar("m", half, rate, 40), "m  [=============>             ]   50.0%");
  rate.sample(1, {.done = 0, .total = 2 << 20, .failed = ""});
  rate.sample(9, half);
  EXPECT_EQ(progress_bar("m", half, rate, 64), "m  [===============>              ]   50.0%  64 MiB/s  0:08 left");
  EXPECT_EQ(progress_bar("m", half, rate, 20).size(), 20u);
  EXPECT_EQ(progress_text("m", half, rate), "m: 50.0%  64 MiB/s  0:08 left");
  SyncProgress nearly{.done = (2 << 20) - 1, .total = 2 << 20, .failed = ""};
  EXPECT_EQ(nearly.percent(), 99.9);
  EXPECT_FALSE(read_sync_progress({{0, 8, "mirror", "2 /a /b"}, {8, 8, "mirror", "x"}}));
}

TEST_F(DmctlTest, CreateIsRevertedWhenTheTableIsRefused) {
  answers(info("bad", 3));
  refuses(EINVAL, "zero,: unknown target type");
  answers({{"deferred", false}});
  dmctl({"create", "bad", "--table", "0 8 zero, 8 8 error"});
  EXPECT_EQ(status_, 1);
  EXPECT_EQ(err_,
            "device-mapper: reload ioctl on bad (253:3) failed: Invalid argument\n"
            "  zero,: unknown target type\n"
            "Command failed.\n");
  EXPECT_EQ(sent_.back(), R"(remove {"name":"bad"})");
}

TEST_F(DmctlTest, CreateToldWhenItCannotBeReverted) {
  answers(info("m3", 5));
  answers(info("m3", 5));
  refuses(ENXIO);
  refuses(ENXIO);
  dmctl({"create", "m3", "--table", "0 8 zero"});
  EXPECT_EQ(err_,
            "device-mapper: resume ioctl on m3 (253:5) failed: No such device or address\n"
            "device-mapper: remove ioctl on m3 (253:5) failed: No such device or address\n"
            "Failed to revert device creation.\nCommand failed.\n");
}

TEST_F(DmctlTest, CreateRefusals) {
  refuses(EBUSY);
  dmctl({"create", "b", "-u", "UUID-a", "--table", "0 8 zero"});
  EXPECT_EQ(err_,
            "device-mapper: create ioctl on b UUID-a failed: Device or resource busy\n"
            "Command failed.\n");
  refuses(ENXIO);
  dmctl({"create", "m1", "-j", "253", "-m", "0", "--table", "0 8 zero"});
  EXPECT_EQ(err_,
            "device-mapper: create ioctl on m1 (253:0) failed: No such device or address\n"
            "Command failed.\n");
  refuses(EINVAL);
  dmctl({"create", "", "--table", "0 8 zero"});
  EXPECT_THAT(err_, StartsWith("device-mapper: create ioctl on   failed: Invalid argument\n"));
  dmctl({"create", "a/b", "--table", "0 8 zero"});
  EXPECT_EQ(err_, "Name \"a/b\" invalid. It contains \"/\".\nCommand failed.\n");
  std::string n128(128, 'n'), u129(129, 'u');
  dmctl({"create", n128, "--table", "0 8 zero"});
  EXPECT_EQ(err_, "Name \"" + n128 + "\" too long.\nCommand failed.\n");
  dmctl({"create", "u", "-u", u129, "--table", "0 8 zero"});
  EXPECT_EQ(err_, "Mangled form of the UUID too long for \"" + u129 +
                      "\".\nFailed to mangle device uuid \"" + u129 + "\".\nCommand failed.\n");
  dmctl({"create"});
  EXPECT_EQ(err_, "Please provide a name for the new device.\nCommand failed.\n");
  dmctl({"create", "x", "--table", "0 8 sixteencharname1"});
  EXPECT_EQ(err_, "Target type name sixteencharname1 is too long.\nCommand failed.\n");
  dmctl({"create", "x", "-j", "99", "-m", "5", "-n"});
  EXPECT_THAT(err_, StartsWith("device-mapper: create ioctl on x (99:5) failed: No such device"));
  EXPECT_TRUE(sent_.empty());
}

TEST_F(DmctlTest, CreateOptions) {
  answers(info("x", 7));
  dmctl({"-n", "create", "--readahead", "+512", "a b", "-v"});
  EXPECT_THAT(sent_, ElementsAre(R"(create {"name":"a\\x20b","read_ahead":512})"));
  EXPECT_THAT(out_, StartsWith("Name:              x\n"));
  dmctl({"create", "x", "-n", "--readahead", "many"});
  EXPECT_THAT(err_, StartsWith("Invalid read-ahead 'many'"));
  answers(info("c1"));
  answers(info("c1"));
  answers(info("c1"));
  answers(info("c2", 9));
  refuses(EINVAL);
  answers({{"deferred", false}});
  dmctl({"create", "--concise", "c1,,,rw,0 8 zero;c2,,9,,0 8 nosuch;c3,,,,0 8 zero"});
  EXPECT_EQ(status_, 1);
  EXPECT_EQ(sent_[3], R"(create {"minor":9,"name":"c2"})");
}

TEST_F(DmctlTest, OptionValuesMayBeginWithADash) {
  answers(info("x"));
  refuses(EINVAL, "too large device");
  answers({{"deferred", false}});
  dmctl({"create", "x", "--table", "-1 8 zero"});
  EXPECT_THAT(sent_[1], HasSubstr("18446744073709551615"));
  answers({{"result", "0"}});
  dmctl({"message", "st", "0", "@stats_create", "-", "100"});
  EXPECT_EQ(sent_[0], R"(message {"message":"@stats_create - 100","name":"st","sector":0})");
  EXPECT_EQ(out_, "0\n");
  dmctl({"message", "d", "0", "addbadblock", "-1"});
  EXPECT_EQ(err_, "dmctl: invalid option -- '1'\n");
  EXPECT_EQ(status_, -1);
}

TEST_F(DmctlTest, BadCommandLines) {
  dmctl({"create", "mm", "-m", "200"});
  EXPECT_EQ(err_, "Please specify both major number and minor number.");
  dmctl({"create", "mm", "-n", "--table", "0 8 zero"});
  EXPECT_EQ(err_, "--table and --notable are incompatible.");
  dmctl({"deps", "-o", "bad", "x"});
  EXPECT_EQ(err_, "Option not recognised: bad.");
  dmctl({"info", "-j", "x", "-m", "0"});
  EXPECT_EQ(err_, "Invalid major number 'x'.");
  dmctl({"nosuchcommand"});
  EXPECT_THAT(err_, StartsWith("Unknown command.\nUsage:\n\ndmctl "));
  EXPECT_EQ(status_, 1);
  dmctl({"ls", "x"});
  EXPECT_THAT(err_, StartsWith("Incorrect number of arguments.\nUsage:\n"));
  dmctl({"message", "a"});
  EXPECT_THAT(err_, StartsWith("Incorrect number of arguments.\nUsage:\n"));
  dmctl({});
  EXPECT_THAT(err_, StartsWith("Usage:\n"));
  EXPECT_EQ(status_, 1);
  dmctl({"help"});
  EXPECT_THAT(out_, StartsWith("Usage:\n"));
  EXPECT_EQ(status_, 0);
}

TEST_F(DmctlTest, MissingWords) {
  for (const char* command : {"remove", "suspend", "resume", "wait", "wipe_table", "clear"}) {
    dmctl({command});
    EXPECT_EQ(err_, "No device specified.\nCommand failed.\n") << command;
  }
  dmctl({"rename", "a"});
  EXPECT_EQ(err_, "No device specified.\nCommand failed.\n");
  std::string n128(128, 'n');
  dmctl({"rename", "a", n128});
  EXPECT_EQ(err_, "Name \"" + n128 + "\" too long\nCommand failed.\n");
  dmctl({"rename", "a", ""});
  EXPECT_EQ(err_, "Non empty new name is required.\nCommand failed.\n");
  dmctl({"reload"});
  EXPECT_EQ(err_, "Please specify device.\nCommand failed.\n");
}

TEST_F(DmctlTest, MissingDevices) {
  struct Case {
    std::vector<std::string> words;
    const char* error;
  };
  const Case kCases[] = {
      {{"remove", "nosuch"}, "device-mapper: remove ioctl on nosuch  failed"},
      {{"remove", "-u", "nouuid"}, "device-mapper: remove ioctl on  nouuid failed"},
      {{"remove", "-j", "253", "-m", "99"}, "device-mapper: remove ioctl on  (253:99) failed"},
      {{"table", "nosuch"}, "device-mapper: table ioctl on nosuch  failed"},
      {{"deps", "nosuch"}, "device-mapper: deps ioctl on nosuch  failed"},
      {{"wait", "nosuch"}, "device-mapper: waitevent ioctl on nosuch  failed"},
      {{"message", "nosuch", "0", "hi"}, "device-mapper: message ioctl on nosuch  failed"},
      {{"reload", "nosuch", "--table", "0 8 zero"},
       "device-mapper: reload ioctl on nosuch  failed"},
      {{"setgeometry", "nosuch", "1", "1", "1", "0"},
       "device-mapper: setgeometry ioctl on nosuch  failed"},
      {{"rename", "nosuch", "x"}, "device-mapper: rename ioctl on nosuch  failed"},
  };
  for (const Case& c : kCases) {
    refuses(ENXIO);
    dmctl(c.words);
    EXPECT_EQ(err_, std::string(c.error) + ": No such device or address\nCommand failed.\n");
    EXPECT_EQ(status_, 1);
  }
  for (std::vector<std::string> words :
       std::vector<std::vector<std::string>>{{"info", "nosuch"},
                                             {"info", "-c", "nosuch"},
                                             {"status", "nosuch"},
                                             {"info", "-u", "nouuid"},
                                             {"info", "-j", "253", "-m", "99"}}) {
    refuses(ENXIO);
    dmctl(words);
    EXPECT_EQ(err_, "Device does not exist.\nCommand failed.\n");
  }
}

TEST_F(DmctlTest, RemoveStopsAtTheFirstFailure) {
  answers({{"deferred", false}});
  refuses(ENXIO);
  dmctl({"remove", "a", "b", "c"});
  EXPECT_EQ(err_,
            "device-mapper: remove ioctl on b  failed: No such device or address\n"
            "Command failed.\n");
}

TEST_F(DmctlTest, RemoveForceLoadsAnErrorTableFirst) {
  answers(table_reply(info("mm"), {target(0, 40, "zero", ""), target(40, 24, "zero", "")}));
  answers(info("mm"));
  answers(info("mm"));
  refuses(EBUSY);
  dmctl({"remove", "-f", "mm"});
  EXPECT_EQ(sent_[1],
            R"(load {"name":"mm","targets":[{"length":64,"params":"","start":0,"type":"error"}]})");
  EXPECT_EQ(err_,
            "device-mapper: remove ioctl on mm  failed: Device or resource busy\n"
            "Command failed.\n");
  for (int i = 0; i < 3; i++) refuses(ENXIO);
  dmctl({"remove", "-f", "nosuch"});
  EXPECT_EQ(err_,
            "device-mapper: table ioctl on nosuch  failed: No such device or address\n"
            "device-mapper: reload ioctl on nosuch  failed: No such device or address\n"
            "device-mapper: remove ioctl on nosuch  failed: No such device or address\n"
            "Command failed.\n");
}

TEST_F(DmctlTest, RemoveAllForce) {
  answers({{"open", {"lin"}}});
  answers(table_reply(info("lin"), {target(0, 8, "zero", "")}));
  answers(info("lin"));
  answers(info("lin"));
  answers({{"open", {"lin"}}});
  dmctl({"remove_all", "-f"});
  EXPECT_EQ(err_, "Unable to remove 1 device(s).\n");
  EXPECT_EQ(status_, 0);
}

TEST_F(DmctlTest, TableOfAllDevices) {
  answers({{"devices", {info("adn"), info("empty", 1, false)}}});
  answers(table_reply(info("adn"), {target(0, 8, "zero", "")}));
  answers(table_reply(info("empty", 1, false), {}));
  dmctl({"table"});
  EXPECT_EQ(out_, "adn: 0 8 zero \nempty: \n");
  answers({{"devices", {info("adn"), info("gone", 1)}}});
  answers(table_reply(info("adn"), {target(0, 8, "zero", "")}));
  refuses(ENXIO);
  dmctl({"table", "--concise"});
  EXPECT_EQ(out_, "adn,,0,rw,0 8 zero \n");
  EXPECT_EQ(status_, 0);
  answers({{"devices", json::array()}});
  dmctl({"status"});
  EXPECT_EQ(out_, "No devices found\n");
  EXPECT_EQ(status_, 0);
}

TEST_F(DmctlTest, DevicesByPath) {
  answers(info("lin"));
  dmctl({"info", "/dev/mapper/lin"});
  EXPECT_EQ(sent_[0], R"(status {"name":"lin"})");
  answers(info("lin"));
  dmctl({"info", "/dev/dm-7"});
  EXPECT_EQ(sent_[0], R"(status {"minor":7})");
  json version = {{"driver", "4.47.0"}, {"mount", "/some/mount"}, {"store", "/s.db"},
                  {"engine", "auto"},   {"pid", 1}};
  answers(version);
  answers(info("lin"));
  dmctl({"info", "/some/mount/lin"});
  EXPECT_EQ(sent_[1], R"(status {"name":"lin"})");
  answers(version);
  dmctl({"info", "a/b"});
  EXPECT_EQ(err_, "Device a/b not found\nCommand failed.\n");
}

TEST_F(DmctlTest, SuspendAndResumeFlags) {
  answers(info("a"));
  answers(info("b"));
  dmctl({"suspend", "a", "--noflush", "b", "--nolockfs"});
  EXPECT_EQ(sent_[1], R"(suspend {"lockfs":false,"name":"b","noflush":true})");
  answers(info("a"));
  dmctl({"resume", "-v", "a"});
  EXPECT_THAT(out_, StartsWith("Name:              a\nState:             ACTIVE\n"));
}

TEST_F(DmctlTest, NotesOfASuspendAreToldAndAreNoFailure) {
  json said = info("a");
  said["notes"] = {"lockfs: /mnt is not frozen: Operation not permitted", "another"};
  answers(said);
  dmctl({"suspend", "a"});
  EXPECT_EQ(status_, 0);
  EXPECT_EQ(out_, "");
  EXPECT_EQ(err_, "  lockfs: /mnt is not frozen: Operation not permitted\n  another\n");
  said["notes"] = {5};
  answers(said);
  dmctl({"resume", "a"});
  EXPECT_EQ(status_, 1);
  EXPECT_EQ(err_, "the daemon's reply has no proper 'notes'\nCommand failed.\n");
}

TEST_F(DmctlTest, WaitEndsWithTheDevice) {
  answers(info("a"));
  answers(info("a"));
  dmctl({"wait", "a", "5", "-v"});
  EXPECT_EQ(sent_[1], R"(wait {"event_nr":5,"name":"a"})");
  EXPECT_THAT(out_, StartsWith("Name:              a\n"));
  answers(info("a"));
  refuses(ENXIO, "the device was removed");
  dmctl({"wait", "a"});
  EXPECT_EQ(status_, 0);
  EXPECT_EQ(out_ + err_, "");
  answers(info("a"));
  refuses(EINTR);
  dmctl({"wait", "a"});
  EXPECT_EQ(status_, 1);
  dmctl({"wait", "a", "x"});
  EXPECT_EQ(err_, "Invalid event number 'x'.\nCommand failed.\n");
}

TEST_F(DmctlTest, MessageWithoutWords) {
  refuses(EINVAL, "Empty message received");
  dmctl({"message", "a", "0"});
  EXPECT_EQ(err_,
            "No message supplied.\ndevice-mapper: message ioctl on a  failed: Invalid argument\n"
            "  Empty message received\nCommand failed.\n");
  dmctl({"message", "a", "x", "hi"});
  EXPECT_EQ(err_, "Invalid sector 'x'.\nCommand failed.\n");
  answers({{"result", ""}});
  dmctl({"message", "a", "0", "hi"});
  EXPECT_EQ(out_, "");
}

TEST_F(DmctlTest, SetGeometry) {
  answers(info("a"));
  dmctl({"setgeometry", "a", "10", "20", "30", "4"});
  EXPECT_EQ(sent_[0],
            R"(set_geometry {"cylinders":10,"heads":20,"name":"a","sectors":30,"start":4})");
  dmctl({"setgeometry", "a", "x", "y", "z", "w"});
  EXPECT_THAT(err_,
              StartsWith("device-mapper: setgeometry ioctl on a  failed: Invalid argument\n"));
  dmctl({"setgeometry", "a", "1", "1"});
  EXPECT_THAT(err_, StartsWith("Incorrect number of arguments.\n"));
}

TEST_F(DmctlTest, WhatWaits) {
  json device = info("v");
  device["suspended"] = true;
  json bio = {{"where", "deferred"}, {"op", "write"}, {"fua", true}, {"sector", 8},
              {"count", 1},          {"pid", 0},      {"age_ms", 1250}};
  answers({{"info", device},
           {"suspending", false},
           {"in_flight", 0},
           {"refused", 2},
           {"held_count", 3},
           {"held", {bio}},
           {"freed_by", {"the device is suspended: dmctl resume v"}}});
  dmctl({"why", "v"});
  EXPECT_EQ(status_, 0);
  EXPECT_EQ(sent_[0], R"(why {"name":"v"})");
  EXPECT_EQ(out_,
            "v: suspended; 0 inside, 3 held\n"
            "  deferred  write (FUA) of 1 sector at sector 8, for 1.2 s, asked for by the kernel\n"
            "  and 2 more\n"
            "  2 refused with ENOMEM: more than -o held_limit\n"
            "  the device is suspended: dmctl resume v\n");
  answers({{"failed", 3}});
  dmctl({"fail-held", "v", "ENOSPC"});
  EXPECT_EQ(status_, 0);
  EXPECT_EQ(sent_[0], R"(fail_held {"errno":"ENOSPC","name":"v"})");
  EXPECT_EQ(out_, "3 failed\n");
  answers(info("v"));
  dmctl({"suspend", "--timeout", "0.5", "v"});
  EXPECT_EQ(status_, 0);
  EXPECT_EQ(sent_[0], R"(suspend {"name":"v","timeout_ms":500})");
  for (const char* bad : {"", "x", "-1", "1e9", "1s"}) {
    dmctl({"suspend", "--timeout", bad, "v"});
    EXPECT_EQ(status_, -1);
    EXPECT_THAT(err_, StartsWith(std::string("Invalid timeout '") + bad + "'"));
  }
}

TEST_F(DmctlTest, Versions) {
  json version = {{"driver", "4.47.0"}, {"mount", "/m"}, {"store", "/s.db"},
                  {"engine", "auto: inline"}, {"pid", 1}};
  answers(version);
  dmctl({"version"});
  EXPECT_EQ(out_, "Library version:   0.1.0 (dmfs)\nDriver version:    4.47.0\n");
  answers(version);
  dmctl({"version", "-v"});
  EXPECT_EQ(out_,
            "Library version:   0.1.0 (dmfs)\nDriver version:    4.47.0\nEngine:            auto: inline\n"
            "Mount:             /m\nStore:             /s.db\nDaemon's process:  1\n");
  json targets = {{"targets", {{{"name", "linear"}, {"version", {1, 4, 0}}}}}};
  answers(targets);
  dmctl({"targets"});
  EXPECT_EQ(out_, "linear           v1.4.0\n");
  answers(targets);
  dmctl({"target-version", "nosuch"});
  EXPECT_EQ(err_, "nosuch: unknown target type\nCommand failed.\n");
}

TEST_F(DmctlTest, JsonIsOneLine) {
  answers(info("a"));
  dmctl({"info", "a", "--json"});
  EXPECT_EQ(json::parse(out_), info("a"));
  answers({{"devices", {info("a"), info("b", 1)}}});
  json a = table_reply(info("a"), {target(0, 8, "zero", "")});
  json b = table_reply(info("b", 1), {});
  answers(a);
  answers(b);
  dmctl({"table", "--json"});
  json expected = {{"devices", {a, b}}};
  EXPECT_EQ(json::parse(out_), expected);
  EXPECT_EQ(std::count(out_.begin(), out_.end(), '\n'), 1);
}

TEST_F(DmctlTest, RepliesThatAreNonsense) {
  answers(json::array());
  dmctl({"info", "a"});
  EXPECT_EQ(err_, "the daemon's reply has no proper 'name'\nCommand failed.\n");
  answers({{"devices", 5}});
  dmctl({"ls"});
  EXPECT_EQ(status_, 1);
}

TEST_F(DmctlTest, TreeAsksForDependencies) {
  answers({{"devices", {info("a"), info("b", 1)}}});
  answers({{"info", info("a")},
           {"deps", json::array({{{"name", "b"}, {"path", ""}, {"major", 253}, {"minor", 1}}})}});
  answers({{"info", info("b", 1)},
           {"deps", json::array({{{"name", ""}, {"path", "/f"}, {"major", 0}, {"minor", 0}}})}});
  dmctl({"ls", "--tree"});
  EXPECT_EQ(out_, "a (253:0)\n `-b (253:1)\n    `- (/f)\n");
}

TEST_F(DmctlTest, ReportFields) {
  answers({{"devices", {info("a"), info("b", 1)}}});
  dmctl({"info", "-c", "--noheadings", "-o", "name,minor", "-O", "-minor"});
  EXPECT_EQ(out_, "b:1\na:0\n");
  dmctl({"info", "-c", "-o", "nosuchfield"});
  EXPECT_THAT(err_, EndsWith("Unrecognised field: nosuchfield\n"));
  EXPECT_EQ(status_, 1);
  dmctl({"info", "-c", "-o", "help"});
  EXPECT_EQ(status_, 0);
}

// ---- lab -------------------------------------------------------------------------------------------

}  // namespace
}  // namespace dmfs::cli
