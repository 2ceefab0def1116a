// SPDX-License-Identifier: Apache-2.0
// What finds loop devices and mounts, over a sysfs that the test makes, and a freeze that hangs.
// Freezing itself takes a real loop device: tests/scenario/lockfs.sh.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <filesystem>
#include <fstream>
#include <future>
#include <sstream>
#include <thread>

#include "fs/loop_devices.h"
#include "fs/loop_freezer.h"
#include "fs/mount_info.h"
#include "tests/support/temp_dir.h"

namespace dmfs::test {
namespace {

using Words = std::vector<std::string>;

TEST(MountInfo, FieldsAndEscapes) {
  std::istringstream text(
      "22 1 7:3 / /mnt/a\\040b\\011c rw,relatime shared:1 master:2 - ext4 /dev/loop3 rw\n"
      "23 22 0:44 /sub /x\\134y rw - btrfs /dev/with\\040space rw,subvol=/sub\n"
      "24 22 0:45 / /none rw - tmpfs  rw\n"
      "nonsense\n"
      "25 22 8:1 / /cut rw shared:1\n"
      "26 22 259:1048575 / / rw - xfs /dev/nvme0n1 rw\n");
  std::vector<Mounted> mounts = parse_mounts(text);
  ASSERT_EQ(mounts.size(), 4u);
  EXPECT_EQ(mounts[0].id, 22u);
  EXPECT_EQ(mounts[0].device, makedev(7, 3));
  EXPECT_EQ(mounts[0].point, "/mnt/a b\tc");
  EXPECT_EQ(mounts[0].type, "ext4");
  EXPECT_EQ(mounts[0].source, "/dev/loop3");
  EXPECT_EQ(mounts[1].device, makedev(0, 44));
  EXPECT_EQ(mounts[1].point, "/x\\y");
  EXPECT_EQ(mounts[1].source, "/dev/with space");
  EXPECT_EQ(mounts[2].type, "tmpfs");
  EXPECT_EQ(mounts[3].device, makedev(259, 1048575));
}

class FakeSysfs : public testing::Test {
 protected:
  // A block device; `parent` is the disk that it is a partition of.
  void device(const std::string& name, const std::string& number, const std::string& parent = "") {
    std::string folder = parent.empty() ? "sys/block/" + name : "sys/block/" + parent + "/" + name;
    make(folder + "/holders");
    put(folder + "/dev", number + "\n");
    if (!parent.empty()) put(folder + "/partition", "1\n");
    make("sys/class/block");
    std::filesystem::create_directory_symlink(dir_.path(folder), dir_.path("sys/class/block/" + name));
  }
  void attach(const std::string& loop, const std::string& path) {
    make("sys/block/" + loop + "/loop");
    put("sys/block/" + loop + "/loop/backing_file", path + "\n");
  }
  void lies_on(const std::string& upper, const std::string& lower) {
    make("sys/class/block/" + lower + "/holders/" + upper);
  }
  void make(const std::string& folder) { std::filesystem::create_directories(dir_.path(folder)); }
  void put(const std::string& name, const std::string& text) {
    std::ofstream(dir_.path(name)) << text;
  }
  LoopDevices::Folders folders() { return {dir_.path("sys"), dir_.path("dev")}; }
  // The names of the stacks over /mnt/v, loops first.
  std::vector<Words> stacks() {
    auto found = LoopDevices(folders()).over({makedev(0, 99), 2, "/mnt/v"});
    EXPECT_TRUE(found);
    std::vector<Words> all;
    for (const BlockStack& stack : *found) {
      Words names;
      for (const BlockDevice& one : stack) names.push_back(one.path.substr(dir_.path("dev/").size()));
      all.push_back(names);
    }
    return all;
  }

  TempDir dir_;
};

TEST_F(FakeSysfs, WhatCannotBeAskedIsComparedByPath) {
  device("loop0", "7:0");
  device("loop1", "7:1");
  device("loop2", "7:2");
  device("sda", "8:0");
  attach("loop0", "/mnt/other");
  attach("loop1", "/mnt/v");
  attach("sda", "/mnt/v");
  EXPECT_EQ(stacks(), std::vector<Words>({{"loop1"}}));
}

TEST_F(FakeSysfs, PartitionsAndHolders) {
  device("loop0", "7:0");
  device("loop0p1", "259:0", "loop0");
  device("loop0p2", "259:1", "loop0");
  device("dm-0", "253:0");
  device("dm-1", "253:1");
  device("cciss!c0d0", "104:0");
  attach("loop0", "/mnt/v");
  // dm-0 lies on dm-1, whatever their numbers say, and dm-1 on both partitions.
  lies_on("dm-0", "loop0p1");
  lies_on("dm-1", "loop0p1");
  lies_on("dm-1", "loop0p2");
  lies_on("dm-0", "dm-1");
  lies_on("cciss!c0d0", "dm-0");
  EXPECT_EQ(stacks(), std::vector<Words>(
                          {{"loop0", "loop0p1", "loop0p2", "dm-1", "dm-0", "cciss/c0d0"}}));
  auto stack = (*LoopDevices(folders()).over({0, 0, "/mnt/v"}))[0];
  EXPECT_EQ(stack[1].number, makedev(259, 0));
}

TEST_F(FakeSysfs, ACircleEnds) {
  device("loop0", "7:0");
  device("dm-0", "253:0");
  attach("loop0", "/mnt/v");
  lies_on("dm-0", "loop0");
  lies_on("dm-0", "dm-0");
  EXPECT_EQ(stacks(), std::vector<Words>({{"loop0", "dm-0"}}));
}

TEST_F(FakeSysfs, TheOtherDevicesOfABtrfs) {
  for (const char* name : {"loop0", "loop1"}) {
    make(std::string("sys/fs/btrfs/one/devices/") + name);
    put(std::string("sys/fs/btrfs/one/devices/") + name + "/dev",
        name == std::string("loop0") ? "7:0\n" : "7:1\n");
  }
  make("sys/fs/btrfs/features");
  LoopDevices loops(folders());
  EXPECT_EQ(loops.btrfs_of({"/dev/loop1", makedev(7, 1)}),
            std::vector<dev_t>({makedev(7, 0), makedev(7, 1)}));
  EXPECT_EQ(loops.btrfs_of({"/dev/loop2", makedev(7, 2)}), std::vector<dev_t>({makedev(7, 2)}));
}

TEST_F(FakeSysfs, NoSysfsAtAll) {
  auto found = LoopDevices({dir_.path("none"), dir_.path("dev")}).over({0, 0, "/mnt/v"});
  ASSERT_FALSE(found);
  EXPECT_EQ(found.error().code, ENOENT);
}

// ---- the freezer -----------------------------------------------------------------------------

class Freezer : public FakeSysfs {
 protected:
  LoopFreezer::Options options() {
    return {.device = makedev(0, 99),
            .mount = "/mnt",
            .name_of = [](uint32_t) { return "v"; },
            .is_open = [this](uint32_t) { return open_; },
            .loops = LoopDevices(folders())};
  }
  // Whoever reads which file the loop device has waits until somebody says.
  std::string waiting_loop() {
    device("loop0", "7:0");
    make("sys/block/loop0/loop");
    std::string path = dir_.path("sys/block/loop0/loop/backing_file");
    EXPECT_EQ(mkfifo(path.c_str(), 0600), 0);
    return path;
  }

  bool open_ = true;
  CancelToken never_;
};

TEST_F(Freezer, NothingThere) {
  make("sys/block");
  LoopFreezer freezer(options());
  for (int round = 0; round < 3; ++round) {
    auto report = freezer.freeze(0, never_);
    ASSERT_TRUE(report);
    EXPECT_EQ(report->frozen, Words());
    EXPECT_EQ(report->notes, Words());
    EXPECT_EQ(freezer.thaw(0, never_), Words());
  }
  EXPECT_TRUE(freezer.finish(std::chrono::seconds(0)));
}

TEST_F(Freezer, WhatIsNotOpenIsNotLookedFor) {
  open_ = false;  // and there is no sysfs
  LoopFreezer freezer(options());
  auto report = freezer.freeze(0, never_);
  ASSERT_TRUE(report);
  EXPECT_EQ(report->notes, Words());
  EXPECT_EQ(freezer.thaw(0, never_), Words());
}

TEST_F(Freezer, SaysWhatItCannotDo) {
  LoopFreezer blind(options());
  auto report = blind.freeze(0, never_);
  ASSERT_TRUE(report);
  ASSERT_EQ(report->notes.size(), 1u);
  EXPECT_TRUE(report->notes[0].starts_with("lockfs: cannot look for loop devices: "));
  EXPECT_EQ(blind.thaw(0, never_), Words());

  device("loop0", "7:0");
  attach("loop0", "/mnt/v");
  LoopFreezer powerless(options());
  report = powerless.freeze(0, never_);
  ASSERT_TRUE(report);
  EXPECT_EQ(report->notes, Words({"lockfs: what is cached of " + dir_.path("dev/loop0") +
                                  " is not written out: No such file or directory"}));
  EXPECT_EQ(powerless.thaw(0, never_), Words());
}

TEST_F(Freezer, OneThatHangsCanBeLeftAndTheNextWaitsForIt) {
  std::string gate = waiting_loop();
  LoopFreezer freezer(options());
  CancelToken cancel;
  auto first = std::async(std::launch::async, [&] { return freezer.freeze(0, cancel); });
  // Opens when the thread is at it.
  int writer = open(gate.c_str(), O_WRONLY);
  ASSERT_GE(writer, 0);
  cancel.cancel();
  auto interrupted = first.get();
  ASSERT_FALSE(interrupted);
  EXPECT_EQ(interrupted.error().code, EINTR);
  EXPECT_FALSE(freezer.finish(std::chrono::seconds(0)));
  CancelToken cancelled;
  cancelled.cancel();
  auto second = freezer.freeze(0, cancelled);
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code, EINTR);
  EXPECT_EQ(freezer.thaw(0, never_), Words());  // it is not frozen
  // The third waits for the first, and then meets another volume's loop device.
  auto third = std::async(std::launch::async, [&] { return freezer.freeze(0, never_); });
  std::filesystem::remove(gate);
  put("sys/block/loop0/loop/backing_file", "/mnt/other\n");
  ASSERT_EQ(write(writer, "/mnt/v\n", 7), 7);
  close(writer);
  auto report = third.get();
  ASSERT_TRUE(report);
  EXPECT_EQ(report->notes, Words());
  EXPECT_EQ(freezer.thaw(0, never_), Words());
  EXPECT_TRUE(freezer.finish(std::chrono::seconds(0)));
}

TEST_F(Freezer, VolumesDoNotWaitForEachOther) {
  std::string gate = waiting_loop();
  LoopFreezer freezer(options());
  CancelToken cancel;
  auto first = std::async(std::launch::async, [&] { return freezer.freeze(0, cancel); });
  int writer = open(gate.c_str(), O_WRONLY);
  ASSERT_GE(writer, 0);
  std::filesystem::remove(gate);
  auto other = freezer.freeze(1, never_);
  ASSERT_TRUE(other);
  EXPECT_EQ(freezer.thaw(1, never_), Words());
  close(writer);
  ASSERT_TRUE(first.get());
  EXPECT_EQ(freezer.thaw(0, never_), Words());
}

}  // namespace
}  // namespace dmfs::test
