// SPDX-License-Identifier: Apache-2.0
// Names, minors, open counts, stacking, and what comes back after a restart.
#include <gtest/gtest.h>

#include <fmt/format.h>

#include "tests/support/manager_rig.h"

namespace dmfs::test {
namespace {

int code_of(const Status& status) { return status ? 0 : status.error().code; }
std::string text_of(const Status& status) { return status ? "" : status.error().message; }

TEST(Names, AreCheckedAndUnique) {
  ManagerRig rig;
  ASSERT_TRUE(rig.create("a", "0 8 zero"));
  EXPECT_EQ(code_of(rig.create("a", "0 8 zero")), EBUSY);
  EXPECT_EQ(code_of(rig.create("", "0 8 zero")), EINVAL);
  for (const char* bad : {"x/y", ".", "..", "control"}) {
    Status status = rig.create(bad, "0 8 zero");
    EXPECT_EQ(code_of(status), EINVAL) << bad;
    EXPECT_NE(text_of(status).find(bad), std::string::npos) << bad;
  }
  EXPECT_TRUE(rig.create(std::string(127, 'n'), "0 8 zero"));
  EXPECT_EQ(code_of(rig.create(std::string(128, 'n'), "0 8 zero")), ENAMETOOLONG);
  auto u128 = rig.commands().create({"u", std::string(128, 'u'), {}, {}});
  EXPECT_TRUE(u128);
  auto again = rig.commands().create({"v", std::string(128, 'u'), {}, {}});
  ASSERT_FALSE(again);
  EXPECT_EQ(again.error().code, EBUSY);
  auto u129 = rig.commands().create({"w", std::string(129, 'u'), {}, {}});
  ASSERT_FALSE(u129);
  EXPECT_EQ(u129.error().code, ENAMETOOLONG);
}

TEST(Minors, AreTheLowestFree) {
  ManagerRig rig;
  for (const char* name : {"s1", "s2", "s3"}) ASSERT_TRUE(rig.create(name, "0 8 zero"));
  ASSERT_TRUE(rig.remove("s2"));
  ASSERT_TRUE(rig.create("s4", "0 8 zero"));
  EXPECT_EQ(rig.info("s4").minor, 1u);
  ASSERT_TRUE(rig.create("z0", "0 8 zero"));
  EXPECT_EQ(rig.info("z0").minor, 3u);
  EXPECT_EQ(rig.commands().create({"x", {}, 3u, {}}).error().code, ENXIO);
  EXPECT_EQ(rig.commands().create({"x", {}, 1u << 20, {}}).error().code, ENXIO);
  EXPECT_TRUE(rig.commands().create({"x", {}, (1u << 20) - 1, {}}));
}

TEST(Load, AFailedOneLeavesBothSlots) {
  ManagerRig rig;
  rig.dir().file("a", 100);
  ASSERT_TRUE(rig.create("d", "0 8 zero"));
  ASSERT_TRUE(rig.load("d", "0 100 linear a 0"));
  std::string inactive = rig.table("d", true);
  EXPECT_EQ(inactive, fmt::format("0 100 linear {} 0\n", rig.dir().path("a")));
  for (const char* bad :
       {"0 8 nosuch", "8 8 zero", "0 8 zero x", "0 101 linear a 0", "0 8 linear missing 0"}) {
    EXPECT_FALSE(rig.load("d", bad)) << bad;
    EXPECT_EQ(rig.table("d", true), inactive);
    EXPECT_EQ(rig.table("d"), "0 8 zero \n");
  }
  rig.store().fail(ENOSPC);
  EXPECT_EQ(code_of(rig.load("d", "0 4 zero")), ENOSPC);
  rig.store().fail(0);
  EXPECT_EQ(rig.table("d", true), inactive);
}

TEST(Load, EachBadFileHasItsOwnError) {
  ManagerRig rig;
  std::filesystem::create_directory(rig.dir().path("dir"));
  ASSERT_EQ(mkfifo(rig.dir().path("fifo").c_str(), 0600), 0);
  rig.dir().file("short", 4);
  ASSERT_TRUE(rig.create("d", "0 8 zero"));
  struct Case {
    const char* table;
    int code;
    const char* text;
  } cases[] = {
      {"0 8 linear missing 0", ENOENT, "missing"},
      {"0 8 linear dir 0", EISDIR, "is a directory"},
      {"0 8 linear fifo 0", ENOTBLK, "neither a regular file nor a block device"},
      {"0 8 linear /dev/null 0", ENOTBLK, "/dev/null"},
      {"0 8 linear short 0", EINVAL, "too small for target: start=0, len=8, dev_size=4"},
      {"0 8 linear 253:77 0", ENXIO, "253:77"},
      {"0 8 linear 99:99 0", ENOENT, "/dev/block/99:99"},
      {"0 36028797018963968 zero", EINVAL, "too large device"},
      {"0 0 zero", EINVAL, "zero-length target"},
  };
  for (const Case& c : cases) {
    Status status = rig.load("d", c.table);
    EXPECT_EQ(code_of(status), c.code) << c.table << ": " << text_of(status);
    EXPECT_NE(text_of(status).find(c.text), std::string::npos) << text_of(status);
  }
  if (geteuid() != 0) {
    std::filesystem::permissions(rig.dir().file("ro", 8), std::filesystem::perms::owner_read);
    EXPECT_NE(text_of(rig.load("d", "0 8 linear ro 0")).find("read-only"), std::string::npos);
    EXPECT_TRUE(rig.load("d", "0 8 linear ro 0", true));
  }
}

TEST(Stacking, CountsOpensAndPrintsNames) {
  ManagerRig rig;
  rig.dir().file("a", 100);
  ASSERT_TRUE(rig.create("low", "0 100 linear a 0"));
  ASSERT_TRUE(rig.create("top", "0 50 linear low 50"));
  EXPECT_EQ(rig.info("low").open_count, 1u);
  EXPECT_EQ(rig.table("top"), "0 50 linear low 50\n");
  EXPECT_EQ(code_of(rig.remove("low")), EBUSY);
  ASSERT_TRUE(rig.rename("low", "lower"));
  EXPECT_EQ(rig.table("top"), "0 50 linear lower 50\n");
  EXPECT_EQ(rig.store().at(rig.info("top").minor).live->targets[0].params, "lower 50");
  ASSERT_TRUE(rig.create("num", "0 8 linear 253:0 0"));
  EXPECT_EQ(rig.table("num"), "0 8 linear lower 0\n");
  ASSERT_TRUE(rig.remove("num"));
  ASSERT_TRUE(rig.remove("top"));
  EXPECT_EQ(rig.info("lower").open_count, 0u);
  ASSERT_TRUE(rig.remove("lower"));
}

TEST(Stacking, CyclesAreRefused) {
  ManagerRig rig;
  ASSERT_TRUE(rig.create("a", "0 8 zero"));
  ASSERT_TRUE(rig.create("b", "0 8 linear a 0"));
  ASSERT_TRUE(rig.create("c", "0 8 linear b 0"));
  for (const char* table : {"0 8 linear a 0", "0 8 linear b 0", "0 8 linear c 0"}) {
    Status status = rig.load("a", table);
    EXPECT_EQ(code_of(status), ELOOP) << table;
    EXPECT_NE(text_of(status).find("would lie on itself"), std::string::npos) << text_of(status);
  }
  EXPECT_EQ(rig.info("a").open_count, 1u);
  EXPECT_EQ(rig.info("c").open_count, 0u);
}

TEST(Stacking, AFileWithTheNameOfItsVolume) {
  ManagerRig rig;
  rig.dir().file("a", 8);
  Status status = rig.create("a", "0 8 linear a 0");
  EXPECT_EQ(code_of(status), ELOOP);
  EXPECT_NE(text_of(status).find("'./a'"), std::string::npos) << text_of(status);
  EXPECT_TRUE(rig.create("a", "0 8 linear ./a 0"));
}

TEST(Stacking, OneDeviceByTwoNamesIsOne) {
  ManagerRig rig;
  rig.dir().file("f", 16);
  std::filesystem::create_symlink(rig.dir().path("f"), rig.dir().path("link"));
  ASSERT_TRUE(rig.create("v", "0 8 linear f 0\n8 8 linear link 8"));
  ASSERT_TRUE(rig.create("w", "0 4 linear v 0\n4 4 linear 253:0 8"));
  EXPECT_EQ(rig.commands().deps({ManagerRig::named("v"), false})->deps.size(), 1u);
  EXPECT_EQ(rig.commands().deps({ManagerRig::named("w"), false})->deps.size(), 1u);
  EXPECT_EQ(rig.info("v").open_count, 1u);
}

TEST(Stacking, DepthIsBounded) {
  ManagerRig rig;
  ASSERT_TRUE(rig.create("d0", "0 8 zero"));
  unsigned deep = 0;
  Status status;
  while (status && deep < kMaxStackDepth + 8) {
    status = rig.create(fmt::format("d{}", deep + 1), fmt::format("0 8 linear d{} 0", deep));
    if (status) ++deep;
  }
  EXPECT_EQ(code_of(status), ELOOP);
  EXPECT_EQ(deep, kMaxStackDepth - 1);
  TestBio read(Op::Read, {0}, {8});
  read.fill('X');
  rig.manager().find(fmt::format("d{}", deep))->submit(read);
  ASSERT_TRUE(read.done());
  EXPECT_TRUE(read.holds_zeroes());
}

TEST(Remove, DeferredWaitsForTheLastClose) {
  ManagerRig rig;
  ASSERT_TRUE(rig.create("d", "0 8 zero"));
  auto open = rig.manager().open(0);
  ASSERT_TRUE(open);
  EXPECT_EQ(code_of(rig.remove("d")), EBUSY);
  auto waits = rig.commands().remove({ManagerRig::named("d"), true});
  ASSERT_TRUE(waits);
  EXPECT_TRUE(*waits);
  EXPECT_TRUE(rig.info("d").deferred_remove);
  ASSERT_TRUE(rig.commands().message(ManagerRig::named("d"), {0}, "@cancel_deferred_remove"));
  EXPECT_FALSE(rig.info("d").deferred_remove);
  ASSERT_TRUE(rig.remove("d", true));
  rig.manager().close(0);
  rig.settle();
  EXPECT_FALSE(rig.exists("d"));
  EXPECT_EQ(rig.store().size(), 0u);
}

TEST(Remove, DeferredThroughAStack) {
  ManagerRig rig;
  ASSERT_TRUE(rig.create("low", "0 8 zero"));
  ASSERT_TRUE(rig.create("top", "0 8 linear low 0"));
  ASSERT_TRUE(rig.remove("low", true));
  EXPECT_TRUE(rig.exists("low"));
  ASSERT_TRUE(rig.remove("top"));
  rig.settle();
  EXPECT_FALSE(rig.exists("low"));
}

TEST(Remove, AllTakesStacksAndReportsWhatIsOpen) {
  ManagerRig rig;
  ASSERT_TRUE(rig.create("s1", "0 8 zero"));
  ASSERT_TRUE(rig.create("s2", "0 8 linear s1 0"));
  ASSERT_TRUE(rig.create("s3", "0 8 linear s2 0"));
  ASSERT_TRUE(rig.create("held", "0 8 zero"));
  auto open = rig.manager().open(rig.info("held").minor);
  auto result = rig.commands().remove_all(false);
  ASSERT_TRUE(result);
  EXPECT_EQ(result->open, std::vector<std::string>{"held"});
  EXPECT_EQ(rig.commands().list().size(), 1u);
  rig.manager().close((*open)->minor());
}

TEST(Remove, AFailingStoreKeepsTheDevice) {
  ManagerRig rig;
  ASSERT_TRUE(rig.create("d", "0 8 zero"));
  rig.store().fail(EIO);
  EXPECT_EQ(code_of(rig.remove("d")), EIO);
  EXPECT_EQ(code_of(rig.rename("d", "e")), EIO);
  EXPECT_EQ(code_of(rig.create("new", "0 8 zero")), EIO);
  rig.store().fail(0);
  EXPECT_TRUE(rig.exists("d"));
  EXPECT_FALSE(rig.exists("e"));
  EXPECT_FALSE(rig.exists("new"));
  EXPECT_TRUE(rig.manager().open(0));
  rig.manager().close(0);
  EXPECT_TRUE(rig.remove("d"));
}

TEST(Rename, RaisesTheEventNumberAndKeepsUuids) {
  ManagerRig rig;
  ASSERT_TRUE(rig.create("a", "0 8 zero"));
  ASSERT_TRUE(rig.create("b", "0 8 zero"));
  EXPECT_EQ(code_of(rig.rename("a", "a")), EBUSY);
  EXPECT_EQ(code_of(rig.rename("a", "b")), EBUSY);
  EXPECT_EQ(code_of(rig.rename("nosuch", "x")), ENXIO);
  EXPECT_EQ(rig.info("a").event_nr, 0u);
  ASSERT_TRUE(rig.rename("a", "c"));
  EXPECT_EQ(rig.info("c").event_nr, 1u);
  EXPECT_FALSE(rig.exists("a"));
  auto uuid = rig.commands().rename({ManagerRig::named("c"), {}, "U"});
  ASSERT_TRUE(uuid);
  EXPECT_EQ(uuid->event_nr, 2u);
  EXPECT_EQ(rig.commands().rename({ManagerRig::named("c"), {}, "V"}).error().code, EINVAL);
  EXPECT_EQ(rig.commands().rename({ManagerRig::named("c"), {}, "U"}).error().code, EBUSY);
  DeviceSelector by_uuid;
  by_uuid.uuid = "U";
  EXPECT_EQ(rig.commands().status(by_uuid)->name, "c");
}

TEST(Wait, EndsWithAnEventARemovalOrACancel) {
  ManagerRig rig;
  ASSERT_TRUE(rig.create("d", "0 8 zero"));
  CancelToken cancel;
  auto wait = [&](uint32_t event_nr) {
    return std::async(std::launch::async, [&rig, &cancel, event_nr] {
      return ManagerRig::status_of(rig.commands().wait(ManagerRig::named("d"), event_nr, cancel));
    });
  };
  EXPECT_EQ(code_of(wait(5).get()), 0);  // differs already
  auto event = wait(0);
  ASSERT_TRUE(rig.rename("d", "e"));
  Status ended = event.get();
  // The wait may have started after the rename, when there is no "d" any more.
  EXPECT_TRUE(ended || ended.error().code == ENXIO);
  ASSERT_TRUE(rig.rename("e", "d"));
  auto removed = wait(2);
  ASSERT_TRUE(rig.remove("d"));
  EXPECT_EQ(code_of(removed.get()), ENXIO);
  ASSERT_TRUE(rig.create("d", "0 8 zero"));
  auto cancelled = wait(0);
  cancel.cancel();
  EXPECT_EQ(code_of(cancelled.get()), EINTR);
}

TEST(Restart, BringsEverythingBack) {
  ManagerRig rig;
  rig.dir().file("a", 100);
  // Names so that alphabet and minors put the upper device before the lower one.
  ASSERT_TRUE(rig.create("z-low", "0 100 linear a 0"));
  ASSERT_TRUE(rig.create("a-top", "0 50 linear z-low 50\n50 8 zero"));
  ASSERT_TRUE(rig.create("ro", "0 8 error", true));
  ASSERT_TRUE(rig.commands().create({"empty", "E-UUID", 40u, 512u}));
  ASSERT_TRUE(rig.load("z-low", "0 100 striped 1 10 a 0"));
  ASSERT_TRUE(rig.suspend("a-top"));
  ASSERT_TRUE(rig.rename("ro", "ro2"));
  ASSERT_TRUE(rig.commands().set_geometry(ManagerRig::named("ro2"), {10, 20, 30, 4}));
  std::vector<DeviceInfo> before = rig.commands().list();
  rig.restart();
  std::vector<DeviceInfo> after = rig.commands().list();
  ASSERT_EQ(after.size(), before.size());
  for (size_t i = 0; i < before.size(); ++i) {
    EXPECT_EQ(after[i].name, before[i].name);
    EXPECT_EQ(after[i].uuid, before[i].uuid);
    EXPECT_EQ(after[i].minor, before[i].minor);
    EXPECT_EQ(after[i].event_nr, before[i].event_nr);
    EXPECT_EQ(after[i].suspended, before[i].suspended);
    EXPECT_EQ(after[i].read_only, before[i].read_only);
    EXPECT_EQ(after[i].live_table, before[i].live_table);
    EXPECT_EQ(after[i].inactive_table, before[i].inactive_table);
    EXPECT_EQ(after[i].read_ahead, before[i].read_ahead);
    EXPECT_EQ(after[i].open_count, before[i].open_count);
    EXPECT_EQ(after[i].size, before[i].size);
    EXPECT_EQ(after[i].geometry, before[i].geometry);
    EXPECT_EQ(after[i].not_activated, "");
  }
  EXPECT_TRUE(rig.info("a-top").suspended);
  EXPECT_EQ(rig.table("a-top"), "0 50 linear z-low 50\n50 8 zero \n");
  EXPECT_FALSE(rig.table("z-low", true).empty());
}

TEST(Restart, ADeviceWithAMissingFileIsKeptAndRetried) {
  ManagerRig rig;
  std::string a = rig.dir().file("a", 100);
  rig.dir().file("b", 100);
  ASSERT_TRUE(rig.create("bad", "0 100 linear a 0"));
  ASSERT_TRUE(rig.create("good", "0 100 linear b 0"));
  ASSERT_TRUE(rig.create("above", "0 50 linear bad 0"));
  std::string table = rig.table("bad");
  std::filesystem::rename(a, a + ".away");
  rig.restart();
  EXPECT_EQ(rig.info("good").not_activated, "");
  EXPECT_NE(rig.info("bad").not_activated.find(a), std::string::npos) << rig.info("bad").not_activated;
  EXPECT_EQ(rig.table("bad"), table);
  EXPECT_EQ(rig.info("bad").size.n, 100u);
  EXPECT_EQ(rig.info("above").not_activated, "");
  EXPECT_TRUE(rig.info("above").fault.starts_with("bad: not activated: ")) << rig.info("above").fault;
  TestBio read(Op::Read, {0}, {8});
  rig.manager().find("bad")->submit(read);
  EXPECT_EQ(read.error(), EIO);
  EXPECT_FALSE(rig.resume("bad"));
  rig.restart();  // still kept
  std::filesystem::rename(a + ".away", a);
  ASSERT_TRUE(rig.resume("bad"));
  EXPECT_EQ(rig.info("bad").not_activated, "");
  EXPECT_FALSE(rig.info("bad").inactive_table);
  EXPECT_EQ(rig.info("above").fault, "");
  TestBio again(Op::Read, {0}, {8});
  rig.manager().find("bad")->submit(again);
  while (!again.done()) std::this_thread::yield();
  EXPECT_EQ(again.error(), 0);
}

TEST(Restart, FinishesADeferredRemoval) {
  ManagerRig rig;
  ASSERT_TRUE(rig.create("d", "0 8 zero"));
  auto open = rig.manager().open(0);
  ASSERT_TRUE(rig.remove("d", true));
  rig.restart();
  EXPECT_FALSE(rig.exists("d"));
}

TEST(Fault, AFileThatShrinksIsReported) {
  ManagerRig rig;
  std::string a = rig.dir().file("a", 100);
  ASSERT_TRUE(rig.create("d", "0 100 linear a 0"));
  std::filesystem::resize_file(a, 50 * 512);
  auto device = rig.manager().find("d");
  TestBio read(Op::Read, {48}, {8});
  device->submit(read);
  while (!read.done()) std::this_thread::yield();
  EXPECT_EQ(read.error(), EIO);
  EXPECT_NE(rig.info("d").fault.find("has shrunk to 50 sectors"), std::string::npos);
  std::filesystem::resize_file(a, 100 * 512);
  TestBio fine(Op::Write, {0}, {8});
  device->submit(fine);
  while (!fine.done()) std::this_thread::yield();
  EXPECT_EQ(fine.error(), 0);
  std::filesystem::resize_file(a, 50 * 512);
  TestBio write(Op::Write, {90}, {8});
  device->submit(write);
  while (!write.done()) std::this_thread::yield();
  EXPECT_EQ(write.error(), EIO);
  EXPECT_EQ(std::filesystem::file_size(a), 50u * 512);  // not made long again
  TestBio inside(Op::Read, {0}, {8});
  device->submit(inside);
  while (!inside.done()) std::this_thread::yield();
  EXPECT_EQ(inside.error(), 0);
}

TEST(Geometry, IsCheckedAsTheKernelDoes) {
  ManagerRig rig;
  ASSERT_TRUE(rig.create("d", "0 8 zero"));
  auto set = [&](Geometry g) {
    return code_of(ManagerRig::status_of(rig.commands().set_geometry(ManagerRig::named("d"), g)));
  };
  EXPECT_EQ(set({99999, 255, 63, 0}), EINVAL);
  EXPECT_EQ(set({1, 1, 1, 9999}), EINVAL);
  EXPECT_EQ(set({10, 20, 30, 4}), 0);
  EXPECT_EQ(rig.info("d").geometry, (Geometry{10, 20, 30, 4}));
}

}  // namespace
}  // namespace dmfs::test
