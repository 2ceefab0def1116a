// SPDX-License-Identifier: Apache-2.0
// lab: what an array says through its ports, the commands it obeys, and what befalls its paths.
#include <gtest/gtest.h>

#include <future>
#include <thread>

#include "core/targets/lab/lab_array.h"
#include "tests/support/manager_rig.h"

namespace dmfs::test {
namespace {

constexpr SuspendOptions kNoflush{.noflush = true, .lockfs = false};
constexpr uint64_t kData = 100, kPath = kData + kLabMailbox;

// Four paths, two for each of two controllers, one behind the other on one device.
class LabTest : public ::testing::Test {
 protected:
  LabTest() { rig_.file("a", 1000); }
  void start(const std::string& kind) {
    std::string table;
    for (unsigned i = 0; i < 4; ++i) {
      table += std::to_string(i * kPath) + " " + std::to_string(kPath) + " lab array " + kind + " " +
               std::to_string(i + 1) + " " + std::to_string(i / 2 + 1) + " a 500\n";
    }
    ASSERT_TRUE(rig_.load(table));
    ASSERT_TRUE(rig_.resume());
  }
  Status say(unsigned path, const std::string& text) {
    auto answer = device().live_table()->find({(path - 1) * kPath}).target->message(*split_args(text));
    return answer ? Status() : Status(answer.error());
  }
  std::string refusal(const std::string& text) {
    Status said = say(1, text);
    return said ? "accepted" : said.error().message;
  }
  std::string status(unsigned path) { return device().live_table()->status().targets[path - 1].params; }
  MappedDevice& device() { return rig_.device(); }

  std::shared_ptr<TestBio> begin_write(unsigned path, uint64_t at = 0) {
    return rig_.write((path - 1) * kPath + at, 1);
  }
  // What a write through the path comes to.
  std::string write(unsigned path, uint64_t at = 0) {
    auto bio = begin_write(path, at);
    if (!bio->done()) return "waits";
    if (bio->error() == 0) return "ok";
    return bio->sense.valid ? sense_text(bio->sense) : std::to_string(bio->error());
  }
  // A command that has an answer, or one that has data; what it comes to, as write().
  std::string ask(unsigned path, unsigned command) {
    auto bio = rig_.read((path - 1) * kPath + kData + command, 1);
    if (!bio->done()) return "waits";
    answer_ = bio->memory();
    return bio->error() == 0 ? "ok" : sense_text(bio->sense);
  }
  std::string tell(unsigned path, unsigned command, std::map<size_t, unsigned> bytes = {}) {
    auto bio = std::make_shared<TestBio>(Op::Write, Sectors{(path - 1) * kPath + kData + command}, Sectors{1});
    for (auto [at, value] : bytes) bio->memory()[at] = static_cast<std::byte>(value);
    device().submit(*bio);
    if (!bio->done()) return "waits";
    return bio->error() == 0 ? "ok" : sense_text(bio->sense);
  }
  unsigned byte(size_t at) const { return std::to_integer<unsigned>(answer_[at]); }
  std::future<Status> suspending(SuspendOptions options) {
    auto done = std::async(std::launch::async, [this, options] { return rig_.suspend(options); });
    while (!device().defers()) std::this_thread::yield();
    return done;
  }
  Rig rig_;
  std::vector<std::byte> answer_;
};

TEST_F(LabTest, AluaStates) {
  start("alua");
  EXPECT_EQ(status(1), "good optimized 1 1 0 0");
  EXPECT_EQ(status(3), "good non-optimized 2 1 0 0");
  for (unsigned path = 1; path <= 4; ++path) EXPECT_EQ(write(path), "ok");
  const std::pair<const char*, const char*> cases[] = {
      {"standby", "2/04/0b"}, {"unavailable", "2/04/0c"}, {"offline", "2/04/12"},
      {"transitioning", "2/04/0a"}, {"non-optimized", "ok"}, {"optimized", "ok"}};
  for (auto [access, says] : cases) {
    ASSERT_TRUE(say(1, std::string("access 2 ") + access));
    EXPECT_EQ(write(3), "6/2a/06");  // once
    EXPECT_EQ(write(3), says) << access;
    EXPECT_EQ(rig_.read(2 * kPath, 8)->error(), std::string(says) == "ok" ? 0 : EIO);
    EXPECT_EQ(ask(4, kLabTestUnitReady), "6/2a/06");
    EXPECT_EQ(ask(4, kLabTestUnitReady), says);
    EXPECT_EQ(status(3), std::string("good ") + access + " 2 1 0 0");
  }
}

TEST_F(LabTest, PortGroupsAreReportedAndSet) {
  start("alua");
  ASSERT_EQ(ask(3, kLabInquiry), "ok");
  EXPECT_EQ(byte(5) >> 4 & 3, 3u);
  ASSERT_EQ(ask(3, kLabVitalData), "ok");
  EXPECT_EQ(byte(11), 3u);  // the port
  EXPECT_EQ(byte(19), 2u);  // its group
  ASSERT_EQ(ask(3, kLabPortGroups), "ok");
  EXPECT_EQ(byte(3), 32u);
  EXPECT_EQ(byte(4), 0x80u);  // preferred, optimized
  EXPECT_EQ(byte(7), 1u);
  EXPECT_EQ(byte(11), 2u);    // two ports
  EXPECT_EQ(byte(15), 1u);
  EXPECT_EQ(byte(19), 2u);
  EXPECT_EQ(byte(20), 1u);    // non-optimized
  EXPECT_EQ(byte(23), 2u);
  EXPECT_EQ(tell(3, kLabPortGroups, {{7, 2}}), "ok");
  EXPECT_EQ(status(3), "good optimized 2 2 1 0");
  EXPECT_EQ(status(1), "good non-optimized 1 2 1 0");
  EXPECT_EQ(write(3), "ok");  // who has asked for it knows
  EXPECT_EQ(write(4), "6/2a/06");
  EXPECT_EQ(write(4), "ok");
  // What is on standby leaves standby to the other one.
  ASSERT_TRUE(say(1, "access 1 standby"));
  EXPECT_EQ(tell(1, kLabPortGroups, {{7, 1}}), "ok");
  EXPECT_EQ(status(4), "good standby 2 1 2 0");
  EXPECT_EQ(tell(1, kLabPortGroups, {{7, 9}}), "5/26/00");
  EXPECT_EQ(tell(1, kLabPortGroups, {{4, 2}, {7, 1}}), "5/26/00");
  ASSERT_TRUE(say(1, "access 2 unavailable"));
  EXPECT_EQ(tell(1, kLabPortGroups, {{7, 2}}), "2/04/0c");
  EXPECT_EQ(tell(1, kLabModeSelect), "5/20/00");
  EXPECT_EQ(tell(1, kLabStartUnit), "5/20/00");
}

TEST_F(LabTest, ImplicitAluaIsNotTold) {
  start("implicit");
  ASSERT_EQ(ask(1, kLabInquiry), "ok");
  EXPECT_EQ(byte(5) >> 4 & 3, 1u);
  EXPECT_EQ(tell(3, kLabPortGroups, {{7, 2}}), "5/20/00");
  ASSERT_TRUE(say(1, "owner 2"));
  EXPECT_EQ(status(3), "good optimized 2 2 1 0");
}

TEST_F(LabTest, AMoveMayTakeTime) {
  start("alua");
  ASSERT_TRUE(say(1, "transition 500"));
  EXPECT_EQ(tell(3, kLabPortGroups, {{7, 2}}), "ok");
  EXPECT_EQ(status(3), "good transitioning 2 2 1 0");
  EXPECT_EQ(write(3), "2/04/0a");
  EXPECT_EQ(tell(1, kLabPortGroups, {{7, 1}}), "2/04/0a");
  ASSERT_EQ(ask(3, kLabPortGroups), "ok");
  EXPECT_EQ(byte(20) & 15, 15u);
  rig_.clock().advance(std::chrono::milliseconds(499));
  EXPECT_EQ(write(3), "2/04/0a");
  rig_.clock().advance(std::chrono::milliseconds(1));
  EXPECT_EQ(write(3), "ok");
}

TEST_F(LabTest, GhostsOfTheOtherArrays) {
  struct Case {
    const char *kind, *ghost, *fresh;
    unsigned command;
    std::map<size_t, unsigned> bytes;
  };
  const Case cases[] = {{"emc", "2/04/03", "6/29/00", kLabModeSelect, {{8, 0x22}}},
                        {"rdac", "5/94/01", "ok", kLabModeSelect, {{8, 0x2c}}},
                        {"hp_sw", "2/04/02", "ok", kLabStartUnit, {}}};
  for (const Case& c : cases) {
    ASSERT_TRUE(rig_.load("0 8 error"));  // the last array goes with its paths
    ASSERT_TRUE(rig_.resume());
    start(c.kind);
    EXPECT_EQ(status(1), "good active 1 1 0 0");
    EXPECT_EQ(status(3), "good ghost 2 1 0 0");
    EXPECT_EQ(write(1), "ok");
    EXPECT_EQ(write(3), c.ghost);
    EXPECT_EQ(ask(3, kLabTestUnitReady), c.ghost);
    EXPECT_EQ(rig_.send(Op::Discard, 2 * kPath, 1)->error(), EIO);
    ASSERT_TRUE(say(1, "refuse 5/91/36"));
    EXPECT_EQ(tell(3, c.command, c.bytes), "5/91/36");
    ASSERT_TRUE(say(1, "accept"));
    EXPECT_EQ(tell(3, c.command, c.bytes), "ok");
    EXPECT_EQ(status(4), "good active 2 2 1 0");
    EXPECT_EQ(write(1), c.ghost);
    EXPECT_EQ(write(3), c.fresh);
    EXPECT_EQ(write(3), "ok");
    EXPECT_EQ(ask(3, kLabPortGroups), "5/20/00");
    EXPECT_EQ(ask(3, kLabVitalData) == "ok", std::string(c.kind) != "hp_sw");
    ASSERT_TRUE(say(1, "transition 100"));
    ASSERT_TRUE(say(1, "owner 1"));
    EXPECT_EQ(write(1), "2/04/01");
    rig_.clock().advance(std::chrono::milliseconds(100));
    EXPECT_EQ(write(3), c.ghost);
    EXPECT_EQ(say(1, "access 1 standby").error().code, EINVAL);
  }
  EXPECT_EQ(tell(3, kLabModeSelect), "5/20/00");
}

TEST_F(LabTest, TheMailboxIsNotData) {
  start("alua");
  EXPECT_EQ(write(1, kData - 1), "ok");
  EXPECT_EQ(rig_.file("a").seen().back().sector.n, 500 + kData - 1);
  size_t seen = rig_.file("a").seen().size();
  ASSERT_EQ(ask(1, kLabSignature), "ok");
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(answer_.data())), kLabSignatureText);
  EXPECT_EQ(tell(1, kLabSignature), "5/20/00");
  EXPECT_EQ(ask(1, kLabModeSelect), "5/20/00");
  EXPECT_EQ(ask(1, 6), "5/20/00");
  for (auto& bio : {rig_.read(kData - 1, 2), rig_.read(kData, 2), rig_.send(Op::Discard, kData, 1)}) {
    EXPECT_EQ(bio->error(), EIO);
    EXPECT_EQ(bio->sense, (Sense{5, 0x21, 0, true}));
  }
  EXPECT_EQ(rig_.file("a").seen().size(), seen);
}

TEST_F(LabTest, FailingFlappingAndGone) {
  start("alua");
  const std::pair<const char*, const char*> cases[] = {
      {"fail", "5"}, {"fail ENOSPC", "28"}, {"fail 3/11/0", "3/11/00"}, {"gone", "67"}, {"good", "ok"}};
  for (auto [text, says] : cases) {
    ASSERT_TRUE(say(2, text));
    EXPECT_EQ(write(2), says);
    EXPECT_EQ(write(1), "ok");
  }
  ASSERT_TRUE(say(2, "fail 3/11/0"));
  EXPECT_EQ(status(2), "fail:3/11/00 optimized 1 1 0 0");
  EXPECT_EQ(ask(2, kLabInquiry), "3/11/00");  // nothing gets through
  ASSERT_TRUE(say(2, "flap 30 20"));
  EXPECT_EQ(status(2), "flap:30:20 optimized 1 1 0 0");
  for (int round = 0; round < 3; ++round) {
    EXPECT_EQ(write(2), "ok");
    rig_.clock().advance(std::chrono::milliseconds(30));
    EXPECT_EQ(write(2), "5");
    rig_.clock().advance(std::chrono::milliseconds(20));
  }
}

TEST_F(LabTest, SlowPathsAreLate) {
  start("emc");
  ASSERT_TRUE(say(1, "slow 50"));
  auto bio = begin_write(1);
  EXPECT_EQ(status(1), "slow:50 active 1 1 0 1");
  rig_.clock().advance(std::chrono::milliseconds(49));
  EXPECT_FALSE(bio->done());
  rig_.clock().advance(std::chrono::milliseconds(1));
  EXPECT_TRUE(bio->done());
  EXPECT_EQ(bio->error(), 0);
  // A suspend does not wait for the time to pass.
  bio = begin_write(1);
  ASSERT_TRUE(rig_.suspend());
  EXPECT_TRUE(bio->done());
  ASSERT_TRUE(rig_.resume());
  // What was under way when the unit went away comes too late.
  bio = begin_write(1);
  ASSERT_TRUE(say(1, "owner 2"));
  size_t seen = rig_.file("a").seen().size();
  rig_.clock().advance(std::chrono::milliseconds(50));
  EXPECT_EQ(bio->sense, (Sense{2, 4, 3, true}));
  EXPECT_EQ(rig_.file("a").seen().size(), seen);
}

TEST_F(LabTest, HangingPathsHoldAllOfIt) {
  start("alua");
  ASSERT_TRUE(say(1, "hang"));
  auto w = begin_write(1), command = rig_.read(kData + kLabInquiry, 1);
  EXPECT_FALSE(w->done() || command->done());
  EXPECT_EQ(status(1), "hang optimized 1 1 0 2");
  EXPECT_EQ(write(2), "ok");
  HeldList list;
  device().live_table()->find({0}).target->list_held(list);
  ASSERT_EQ(list.count, 2u);
  EXPECT_EQ(list.bios[0].sector.n, 0u);
  ASSERT_TRUE(say(1, "good"));
  EXPECT_EQ(w->error() + command->error(), 0);
  EXPECT_TRUE(w->done() && command->done());
  // Cancelled.
  ASSERT_TRUE(say(1, "hang"));
  w = begin_write(1);
  EXPECT_EQ(device().live_table()->find({0}).target->cancel({w.get(), EINTR}), 1u);
  EXPECT_EQ(w->error(), EINTR);
  // Failed; and what hangs may become slow.
  w = begin_write(1);
  ASSERT_TRUE(say(1, "slow 10"));
  EXPECT_FALSE(w->done());
  ASSERT_TRUE(say(1, "gone"));
  EXPECT_EQ(w->error(), ENOLINK);
}

TEST_F(LabTest, SuspendsOfAHangingPath) {
  start("alua");
  ASSERT_TRUE(say(1, "hang"));
  auto w = begin_write(1);
  auto suspended = suspending({});
  EXPECT_FALSE(w->done());
  ASSERT_TRUE(say(1, "good"));
  ASSERT_TRUE(suspended.get());
  EXPECT_TRUE(w->done());
  ASSERT_TRUE(rig_.resume());
  // Without flush it leaves the target, and comes back to what is the table then.
  ASSERT_TRUE(say(1, "hang"));
  w = begin_write(1);
  ASSERT_TRUE(rig_.suspend(kNoflush));
  EXPECT_FALSE(w->done());
  ASSERT_TRUE(rig_.load("0 1000 linear a 0"));
  ASSERT_TRUE(rig_.resume());
  EXPECT_TRUE(w->done());
  EXPECT_EQ(w->error(), 0);
}

TEST_F(LabTest, Refusals) {
  start("alua");
  const std::pair<const char*, const char*> cases[] = {
      {"fly", "lab: Unrecognised message received: 'fly'"},
      {"slow 0", "lab: Invalid delay: '0'"},
      {"flap 10 x", "lab: Invalid down interval: 'x'"},
      {"fail EWHAT", "lab: Invalid errno or sense: 'EWHAT'"},
      {"fail 3/11", "lab: Invalid errno or sense: '3/11'"},
      {"hang now", "lab: Too many arguments: 'now'"},
      {"owner 3", "lab: array 'array' has no controller '3'"},
      {"owner x", "lab: Invalid controller: 'x'"},
      {"access 1 asleep", "lab: Invalid access state: 'asleep'"},
      {"transition -1", "lab: Invalid time: '-1'"},
      {"refuse 1/2/3/4", "lab: Invalid sense: '1/2/3/4'"},
      {"accept it", "lab: Too many arguments: 'it'"}};
  for (auto [text, says] : cases) EXPECT_EQ(refusal(text), says);
  const std::pair<const char*, const char*> tables[] = {
      {"0 100 lab array alua 1 1 a", "lab: Invalid argument count"},
      {"0 100 lab array alua 1 1 a 0 0", "lab: Invalid argument count: '0'"},
      {"0 100 lab array fast 1 1 a 0", "lab: Unknown kind of array: 'fast'"},
      {"0 100 lab array alua 0 1 a 0", "lab: Invalid path number: '0'"},
      {"0 100 lab array alua 1 17 a 0", "lab: Invalid controller: '17'"},
      {"0 100 lab array alua 1 1 nosuch 0", "lab: Device lookup failed"},
      {"0 8 lab array alua 1 1 a 0", "lab: needs more than 8 sectors"},
      {"0 100 lab array emc 1 1 a 0", "lab: array 'array' is of kind alua, not 'emc'"}};
  for (auto [table, says] : tables) {
    Status loaded = rig_.load(table);
    ASSERT_FALSE(loaded) << table;
    EXPECT_NE(loaded.error().message.find(says), std::string::npos) << loaded.error().message;
  }
  // The mailbox needs no room on the device.
  EXPECT_TRUE(rig_.load("0 1008 lab array alua 1 1 a 0"));
  EXPECT_FALSE(rig_.load("0 1009 lab array alua 1 1 a 0"));
}

}  // namespace
}  // namespace dmfs::test
