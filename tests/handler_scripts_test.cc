// SPDX-License-Identifier: Apache-2.0
// Scripts where tables are: found by name, kept with the table, at work in a multipath; and the
// example of the manual.
#include <sys/stat.h>

#include <fstream>
#include <thread>

#include "core/base/script_path.h"
#include "tests/support/manager_rig.h"

namespace dmfs::test {
namespace {

void write_text(const std::string& path, const std::string& text) { std::ofstream(path) << text; }

TEST(ScriptPath, TheFirstDirectoryThatHasIt) {
  TempDir one, two;
  ScriptPath path({one.path(""), "/nonexistent", two.path("")});
  write_text(two.path("emc.lua"), "two");
  EXPECT_EQ(*path.read("emc"), "two");
  write_text(one.path("emc.lua"), "one");
  EXPECT_EQ(*path.read("emc"), "one");
  for (const char* name : {"", "nosuch", "../emc", "emc.lua", "a/b", "a b", "em\0c"}) {
    EXPECT_EQ(path.read(name).error().code, ENOENT) << name;
  }
  write_text(one.path("big.lua"), std::string(kMaxScriptBytes, ' '));
  EXPECT_EQ(path.read("big")->size(), kMaxScriptBytes);
  write_text(one.path("big.lua"), std::string(kMaxScriptBytes + 1, ' '));
  EXPECT_EQ(path.read("big").error().code, EFBIG);
  ASSERT_EQ(mkfifo(one.path("pipe.lua").c_str(), 0600), 0);
  EXPECT_EQ(path.read("pipe").error().code, EINVAL);
  ASSERT_EQ(mkdir(one.path("dir.lua").c_str(), 0700), 0);
  EXPECT_EQ(path.read("dir").error().code, EINVAL);
}

class HandlerScripts : public ::testing::Test {
 protected:
  HandlerScripts() {
    for (const char* name : {"a", "b"}) rig_.dir().file(name, 100);
  }
  void script(const std::string& name, const std::string& text) {
    write_text(rig_.dir().path(name + ".lua"), text);
  }
  std::string status() {
    return rig_.commands().table_status({ManagerRig::named("m"), false})->targets[0].params;
  }
  int io(Op op, uint64_t at, uint64_t count) {
    TestBio bio(op, {at}, {count});
    rig_.manager().find("m")->submit(bio);
    while (!bio.done()) std::this_thread::yield();
    return bio.error();
  }
  ManagerRig rig_;
};

constexpr const char* kTable = "0 100 multipath 0 2 side left 2 1 round-robin 0 1 0 a round-robin 0 1 0 b";

TEST_F(HandlerScripts, IsKeptWithTheTable) {
  EXPECT_EQ(rig_.create("m", kTable).error().message,
            "multipath: error attaching hardware handler: unknown hardware handler 'side'");
  script("side", "return { pg_init = function() return 'ok' end, status = function() return { 'old' } end }");
  ASSERT_TRUE(rig_.create("m", kTable));
  EXPECT_EQ(status().substr(0, 12), "2 1 0 1 old ");
  std::string table = rig_.table("m");
  EXPECT_NE(table.find(" 2 side left 2 1 "), std::string::npos);
  // Another text, and then none: the table has its own.
  script("side", "return { pg_init = function() return 'ok' end, status = function() return { 'new' } end }");
  rig_.restart();
  EXPECT_EQ(rig_.info("m").not_activated, "");
  EXPECT_EQ(status().substr(0, 12), "2 1 0 1 old ");
  EXPECT_EQ(rig_.table("m"), table);
  // A load reads it anew, and keeps that one.
  ASSERT_TRUE(rig_.load("m", kTable));
  std::filesystem::remove(rig_.dir().path("side.lua"));
  rig_.restart();
  ASSERT_TRUE(rig_.suspend("m"));
  ASSERT_TRUE(rig_.resume("m"));
  EXPECT_EQ(status().substr(0, 12), "2 1 0 1 new ");
  EXPECT_FALSE(rig_.load("m", kTable));
  // A table that cannot be built now keeps it as well.
  std::filesystem::rename(rig_.dir().path("a"), rig_.dir().path("away"));
  rig_.restart();
  EXPECT_NE(rig_.info("m").not_activated, "");
  std::filesystem::rename(rig_.dir().path("away"), rig_.dir().path("a"));
  rig_.restart();
  EXPECT_EQ(rig_.info("m").not_activated, "");
  EXPECT_EQ(status().substr(0, 12), "2 1 0 1 new ");
}

TEST_F(HandlerScripts, WhatItDoesWrongIsTheDevicesFault) {
  script("side", "return {\n pg_init = function(bypassed, path)\n  if path.number == 1 then error('no') end\n"
                 "  return 'ok'\n end }");
  ASSERT_TRUE(rig_.create("m", kTable));
  EXPECT_EQ(rig_.info("m").fault, "");
  EXPECT_EQ(io(Op::Write, 0, 8), 0);  // through the other group
  EXPECT_NE(status().find(rig_.dir().path("a") + " F 1 "), std::string::npos) << status();
  EXPECT_EQ(rig_.info("m").event_nr, 1u);
  EXPECT_EQ(rig_.info("m").fault, "side.lua:3: no");
}

TEST_F(HandlerScripts, TheExampleOfTheManual) {
  std::string root = __FILE__;
  root.resize(root.rfind("/tests/"));
  std::ifstream manual(root + "/man/dmfs-handlers.7");
  ASSERT_TRUE(manual);
  std::string text, line;
  bool display = false;
  while (std::getline(manual, line)) {
    if (line.starts_with(".Bd") || line.starts_with(".Ed")) {
      if (line == ".Ed" && !text.empty()) break;
      display = line.starts_with(".Bd");
    } else if (display) {
      text += line + "\n";
    }
  }
  script("side", text);
  ASSERT_TRUE(rig_.create("m", kTable));
  EXPECT_EQ(io(Op::Write, 8, 8), 0);
  EXPECT_EQ(status().substr(0, 12), "2 0 1 0 2 1 ") << rig_.info("m").fault;
  EXPECT_EQ(rig_.info("m").fault, "");
  std::ifstream array(rig_.dir().path("a"));
  EXPECT_EQ(array.get(), 'T');
}

}  // namespace
}  // namespace dmfs::test
