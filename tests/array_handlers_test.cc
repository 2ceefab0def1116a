// SPDX-License-Identifier: Apache-2.0
// The handlers that come with the program, at work on lab arrays: four paths, two for each of two
// controllers, and a multipath over them with a group for each controller.
#include <fmt/format.h>

#include <thread>

#include "core/targets/multipath/lua_handler.h"
#include "tests/support/manager_rig.h"

namespace dmfs::test {
namespace {

using std::chrono::milliseconds;

class ArrayHandlers : public ::testing::Test {
 protected:
  ArrayHandlers() {
    rig_.dir().file("disk", 100);
    std::string root = __FILE__;
    root.resize(root.rfind("/tests/"));
    for (const char* name : {"alua", "emc", "rdac", "hp_sw"}) {
      std::filesystem::copy_file(fmt::format("{}/core/targets/multipath/handlers/{}.lua", root, name),
                                 rig_.dir().path(fmt::format("{}.lua", name)));
    }
  }
  // `first` is the group to begin with.
  void start(const std::string& kind, const std::string& handler, unsigned first = 1) {
    for (unsigned i = 1; i <= 4; ++i) {
      ASSERT_TRUE(rig_.create(fmt::format("p{}", i), fmt::format("0 108 lab array {} {} {} disk 0", kind, i,
                                                                 (i + 1) / 2)));
    }
    Status made = create_multipath(handler, first);
    ASSERT_TRUE(made) << made.error().message;
  }
  Status create_multipath(const std::string& handler, unsigned first = 1) {
    return rig_.create("m", fmt::format("0 100 multipath 2 pg_init_retries 5 {} 2 {} round-robin 0 2 0 p1 p2 "
                                        "round-robin 0 2 0 p3 p4",
                                        handler, first));
  }
  void say(const std::string& device, const std::string& text) {
    Status said = ManagerRig::status_of(rig_.commands().message(ManagerRig::named(device), {}, text));
    ASSERT_TRUE(said) << said.error().message;
  }
  std::string status(const std::string& name) {
    return rig_.commands().table_status({ManagerRig::named(name), false})->targets[0].params;
  }
  bool failed(const std::string& path) { return status("m").find(path + " F ") != std::string::npos; }
  bool says(const std::string& name, const std::string& text) {
    return status(name).find(text) != std::string::npos;
  }
  // The group in use.
  char group(unsigned number) {
    std::string text = status("m");
    size_t at = text.find(number == 1 ? " 0 2 0 p1 " : " 0 2 0 p3 ");
    return at == std::string::npos ? '?' : text[at - 1];
  }
  // A write to its end, in which time passes as long as anybody waits for it, at most 25 seconds.
  int io(Op op = Op::Write, uint64_t at = 0) {
    TestBio bio(op, {at}, {1});
    rig_.manager().find("m")->submit(bio);
    for (int round = 0; !bio.done(); ++round) {
      for (int i = 0; i < 3000 && !bio.done(); ++i) std::this_thread::yield();
      if (round < 250 && !bio.done() && rig_.clock().pending() > 0) rig_.clock().advance(milliseconds(100));
    }
    return bio.error();
  }
  ManagerRig rig_;
};

struct Kind {
  const char *kind, *handler;
};
const Kind kKinds[] = {{"alua", "1 alua"}, {"emc", "1 emc"},   {"emc", "3 emc 1 1"},
                       {"rdac", "1 rdac"}, {"hp_sw", "1 hp_sw"}};

class EveryArray : public ArrayHandlers, public ::testing::WithParamInterface<Kind> {};

TEST_P(EveryArray, OwnershipMovesToTheGroupInUse) {
  start(GetParam().kind, GetParam().handler, 2);
  EXPECT_EQ(io(), 0);
  EXPECT_TRUE(says("p3", " 2 2 1 0")) << status("p3");
  EXPECT_EQ(group(2), 'A') << status("m");
  // Nothing has failed.
  EXPECT_FALSE(failed("p3") || failed("p4")) << status("m");
  EXPECT_EQ(rig_.info("m").fault, "");
  say("m", "switch_group 1");
  EXPECT_EQ(io(), 0);
  EXPECT_TRUE(says("p3", " 2 1 2 0")) << status("p3");
  // Where it is, it stays.
  say("m", "switch_group 1");
  EXPECT_EQ(io(Op::Read), 0);
  EXPECT_TRUE(says("p3", " 2 1 2 0")) << status("p3");
  EXPECT_FALSE(failed("p1") || failed("p2") || failed("p3") || failed("p4")) << status("m");
  EXPECT_EQ(rig_.info("m").fault, "");
}

TEST_P(EveryArray, FollowsAPathThatFails) {
  start(GetParam().kind, GetParam().handler);
  EXPECT_EQ(io(), 0);
  say("p1", "gone");
  say("p2", "fail 4/44/0");
  EXPECT_EQ(io(), 0);
  EXPECT_EQ(io(), 0);
  EXPECT_TRUE(failed("p1") && failed("p2")) << status("m");
  EXPECT_EQ(group(2), 'A');
  EXPECT_TRUE(says("p3", " 2 2 1 0")) << status("p3");
}

TEST_P(EveryArray, WaitsForAMoveThatTakesTime) {
  start(GetParam().kind, GetParam().handler, 2);
  say("p1", "transition 700");
  EXPECT_EQ(io(), 0);
  EXPECT_TRUE(says("p3", " 2 2 1 0")) << status("p3");
  EXPECT_FALSE(failed("p3") || failed("p4")) << status("m");
  // One that somebody else has begun, with I/O under way: it is sent again.
  say("p1", "owner 2");
  EXPECT_EQ(io(), 0);
  EXPECT_FALSE(failed("p1") || failed("p2") || failed("p3") || failed("p4")) << status("m");
}

TEST_P(EveryArray, AnotherHostTakesTheUnit) {
  start(GetParam().kind, GetParam().handler);
  EXPECT_EQ(io(), 0);
  say("p1", "owner 2");
  for (int i = 0; i < 4; ++i) EXPECT_EQ(io(), 0) << status("m");
  EXPECT_FALSE(failed("p3") || failed("p4")) << status("m");
}

TEST_P(EveryArray, DataErrorsAreNotThePaths) {
  start(GetParam().kind, GetParam().handler);
  EXPECT_EQ(io(), 0);
  for (const char* path : {"p1", "p2"}) say(path, "fail 3/11/0");
  EXPECT_EQ(io(), EIO);
  EXPECT_FALSE(failed("p1") || failed("p2")) << status("m");
  for (const char* path : {"p1", "p2"}) say(path, "good");
  EXPECT_EQ(io(), 0);
}

TEST_P(EveryArray, NeedsAnArray) {
  rig_.dir().file("plain", 200);
  std::ofstream(rig_.dir().path("plain"), std::ios::in).write("data", 4);
  ASSERT_TRUE(rig_.create(
      "m", fmt::format("0 100 multipath 0 {} 1 1 round-robin 0 1 0 plain", GetParam().handler)));
  EXPECT_EQ(io(), EIO);
  std::ifstream file(rig_.dir().path("plain"));
  std::string text((std::istreambuf_iterator<char>(file)), {});
  EXPECT_EQ(text.substr(4), std::string(200 * 512 - 4, '\0'));  // nothing was tried on it
  // Nor does it take words that it does not know.
  ASSERT_TRUE(rig_.remove("m"));
  std::string name = std::string(GetParam().handler).substr(2);
  name.resize(std::min(name.find(' '), name.size()));
  EXPECT_FALSE(rig_.create(
      "m", fmt::format("0 100 multipath 0 2 {} nonsense 1 1 round-robin 0 1 0 plain", name)));
}

TEST_P(EveryArray, ARestartMakesItAnew) {
  start(GetParam().kind, GetParam().handler, 2);
  EXPECT_EQ(io(), 0);
  EXPECT_TRUE(says("p3", " 2 2 1 0")) << status("p3");
  std::filesystem::remove(rig_.dir().path("alua.lua"));
  rig_.restart();
  EXPECT_TRUE(says("p3", " 2 1 0 0")) << status("p3");
  EXPECT_EQ(io(), 0);
  EXPECT_TRUE(says("p3", " 2 2 1 0")) << status("p3");
  EXPECT_EQ(rig_.table("p3"), fmt::format("0 108 lab array {} 3 2 {} 0\n", GetParam().kind,
                                          rig_.dir().path("disk")));
}

INSTANTIATE_TEST_SUITE_P(Arrays, EveryArray, ::testing::ValuesIn(kKinds), [](const auto& c) {
  std::string name = c.param.handler;
  std::erase_if(name, [](char x) { return !std::isalpha(static_cast<unsigned char>(x)); });
  return name + (c.param.handler[0] == '3' ? "Short" : "");
});

// ---- what each is told, and says of it -------------------------------------------------------------

TEST_F(ArrayHandlers, WhatAluaIsRefused) {
  start("alua", "1 alua", 2);
  say("p1", "access 2 unavailable");
  EXPECT_EQ(io(), 0);
  EXPECT_TRUE(failed("p3")) << status("m");
  EXPECT_EQ(rig_.info("m").fault, "");
  EXPECT_EQ(group(1), 'A');
  say("p1", "access 2 standby");
  say("m", "reinstate_path p3");
  say("m", "switch_group 2");
  EXPECT_EQ(io(), 0);  // it is woken up
  EXPECT_TRUE(says("p3", "good optimized 2 2 1 0")) << status("p3");
  EXPECT_TRUE(says("p1", "good standby")) << status("p1");
}

TEST_F(ArrayHandlers, StandbyFailsThePath) {
  start("alua", "1 alua");
  EXPECT_EQ(io(), 0);
  say("p1", "access 1 standby");
  EXPECT_EQ(io(), 0);
  EXPECT_EQ(io(), 0);
  EXPECT_EQ(group(2), 'A') << status("m");
  EXPECT_TRUE(failed("p1") && failed("p2")) << status("m");
}

TEST_F(ArrayHandlers, ImplicitAluaIsNotAsked) {
  start("implicit", "1 alua", 2);
  EXPECT_EQ(io(), 0);  // non-optimized, but it works
  EXPECT_TRUE(says("p3", "good non-optimized 2 1 0 0")) << status("p3");
  say("p1", "access 2 standby");
  EXPECT_EQ(io(), 0);
  EXPECT_EQ(io(), 0);
  EXPECT_EQ(group(1), 'A') << status("m");
}

TEST_F(ArrayHandlers, EmcWhoseUnitIsBeingCopied) {
  start("emc", "1 emc", 2);
  say("p1", "refuse 5/4/0");
  EXPECT_EQ(io(), 0);
  EXPECT_EQ(group(1), 'A') << status("m");
  EXPECT_EQ(group(2), 'D') << status("m") << rig_.info("m").fault;
  EXPECT_FALSE(failed("p3") || failed("p4"));
}

TEST_F(ArrayHandlers, RefusalsAreTriedAgainOrNot) {
  const std::tuple<const char*, const char*, const char*, bool> cases[] = {
      {"emc", "1 emc", "2/4/3", true},   {"emc", "1 emc", "5/26/0", false},
      {"rdac", "1 rdac", "5/91/36", true}, {"rdac", "1 rdac", "b/0/0", true},
      {"rdac", "1 rdac", "5/26/0", false}, {"hp_sw", "1 hp_sw", "2/4/3", true},
      {"hp_sw", "1 hp_sw", "4/0/0", false}};
  for (auto [kind, handler, sense, again] : cases) {
    start(kind, handler, 2);
    say("p1", std::string("refuse ") + sense);
    EXPECT_EQ(io(), 0);
    EXPECT_TRUE(failed("p3")) << kind << sense << status("m");
    EXPECT_EQ(group(1), 'A');
    // The same again, but the array gives in at the second try, if there is one.
    say("p1", "accept");
    say("m", "reinstate_path p3");
    say("m", "switch_group 2");
    say("p1", std::string("refuse ") + sense);
    TestBio bio(Op::Write, {0}, {1});
    rig_.manager().find("m")->submit(bio);
    int tries = 0;
    for (int round = 0; !bio.done(); ++round) {
      for (int i = 0; i < 3000 && !bio.done(); ++i) std::this_thread::yield();
      std::string text = status("m");
      if (text.starts_with("2 1 ")) tries = std::max(tries, std::atoi(text.c_str() + 4));
      if (tries >= 2) say("p1", "accept");  // then it succeeds
      if (round < 250 && !bio.done() && rig_.clock().pending() > 0) rig_.clock().advance(milliseconds(100));
    }
    EXPECT_EQ(bio.error(), 0);
    EXPECT_EQ(tries >= 2, again) << kind << ' ' << sense;
    EXPECT_EQ(failed("p3"), !again) << kind << ' ' << sense << ' ' << status("m");
    ASSERT_TRUE(rig_.remove("m"));
    for (const char* path : {"p1", "p2", "p3", "p4"}) ASSERT_TRUE(rig_.remove(path));
  }
}

// ---- what their error() makes of sense ---------------------------------------------------------------

struct Decoded {
  const char* handler;
  Sense sense;
  unsigned flags;
};

class Decoder : public ArrayHandlers, private HwHost {
 protected:
  unsigned decode(const std::string& name, const Sense& sense) {
    std::ifstream file(rig_.dir().path(name + ".lua"));
    std::string script((std::istreambuf_iterator<char>(file)), {});
    auto made = create_lua_handler(*this, name, script, {});
    if (!made) {
      ADD_FAILURE() << made.error().message;
      return ~0u;
    }
    std::promise<unsigned> decided;
    (*made)->error(path_, {Op::Write, {0}, {1}, EIO, sense}, [&](unsigned flags) { decided.set_value(flags); });
    return decided.get_future().get();
  }

 private:
  struct Path final : HwPath {
    unsigned number() const override { return 1; }
    unsigned group() const override { return 1; }
    std::string name() const override { return "p"; }
    bool active() const override { return true; }
    BackingFile& device() override { return file; }
    HeldFile file{"p", {100}};
  };
  std::span<HwPath* const> paths() override { return paths_; }
  void pg_init_complete(HwPath&, unsigned) override {}
  Clock& clock() override { return rig_.clock(); }
  void log(const char*) override {}
  Path path_;
  HwPath* paths_[1] = {&path_};
};

TEST_F(Decoder, EveryHandlersOwnSense) {
  constexpr unsigned kFail = kHwFailPath, kRetry = kHwRetry, kBypass = kHwBypassGroup, kError = kHwErrorIo;
  const Decoded cases[] = {
      {"alua", {2, 4, 0x0a, true}, kRetry}, {"alua", {6, 4, 0x0a, true}, kRetry},
      {"alua", {6, 0x2a, 6, true}, kRetry}, {"alua", {6, 0x2a, 1, true}, kRetry},
      {"alua", {6, 0x2a, 7, true}, kRetry}, {"alua", {6, 0x29, 0, true}, kRetry},
      {"alua", {6, 0x29, 4, true}, kRetry}, {"alua", {6, 0x3f, 3, true}, kRetry},
      {"alua", {6, 0x3f, 0x0e, true}, kRetry}, {"alua", {6, 0x3f, 1, true}, kFail},
      {"alua", {2, 4, 0x0b, true}, kFail},  {"alua", {2, 4, 0x0c, true}, kFail},
      {"alua", {2, 4, 0x12, true}, kFail},  {"alua", {5, 0x20, 0, true}, kError},
      {"emc", {2, 4, 3, true}, kBypass},    {"emc", {5, 0x25, 1, true}, kError},
      {"emc", {6, 0x29, 0, true}, kRetry},  {"emc", {6, 0x2a, 6, true}, kFail},
      {"emc", {2, 4, 1, true}, kRetry},     {"emc", {2, 4, 2, true}, kFail},
      {"rdac", {5, 0x94, 1, true}, kFail},  {"rdac", {5, 0x94, 2, true}, kError},
      {"rdac", {2, 4, 1, true}, kRetry},    {"rdac", {2, 4, 0xa1, true}, kRetry},
      {"rdac", {2, 0xa1, 2, true}, kRetry}, {"rdac", {2, 4, 0x81, true}, kFail},
      {"rdac", {6, 0x29, 0, true}, kRetry}, {"rdac", {6, 0x8b, 2, true}, kRetry},
      {"hp_sw", {2, 4, 2, true}, kFail},    {"hp_sw", {2, 4, 3, true}, kRetry},
      {"hp_sw", {2, 4, 1, true}, kRetry},   {"hp_sw", {3, 0x11, 0, true}, kError}};
  for (const Decoded& c : cases) {
    EXPECT_EQ(decode(c.handler, c.sense), c.flags)
        << c.handler << ' ' << int{c.sense.key} << '/' << int{c.sense.asc} << '/' << int{c.sense.ascq};
  }
  for (const char* handler : {"alua", "emc", "rdac", "hp_sw"}) {
    EXPECT_EQ(decode(handler, {}), kFail);
    EXPECT_EQ(decode(handler, {1, 0, 0, true}), 0u);
  }
}

}  // namespace
}  // namespace dmfs::test
