// SPDX-License-Identifier: Apache-2.0
// dust and error: targets that fail on purpose.
#include <thread>

#include "tests/support/harness.h"
#include "tests/support/target_conformance.h"
#include "tests/support/targets_fixture.h"

namespace dmfs::test {
namespace {

std::vector<std::pair<RegisterTargets, TargetCase>> all_cases() {
  std::vector<TargetCase> cases{
      {"Dust", "dust", "a 0 512", {0}, {100}, {{"a", {100}}}},
      {"DustOffset", "dust", "a 8 4096", {24}, {64}, {{"a", {72}}}},
      {"DustOddOffset", "dust", "a\\ b 3 8192", {5}, {50}, {{"a b", {53}}}},
  };
  std::vector<std::pair<RegisterTargets, TargetCase>> out;
  for (auto& c : cases) out.emplace_back(register_builtin_targets, std::move(c));
  return out;
}

INSTANTIATE_TEST_SUITE_P(Faults, TargetConformance, ::testing::ValuesIn(all_cases()),
                         [](const auto& c) { return c.param.second.label; });

using ErrorTest = TargetsFixture;

TEST_F(ErrorTest, HoldsTheDeviceThatItIsGivenAndDoesNotTouchIt) {
  auto target = make({16}, "error", "a 5");
  EXPECT_EQ(context_->opened(), (std::vector<TestContext::Opened>{{"a", {5}, {16}}}));
  EXPECT_EQ(target->table_line(), "");
  TargetDriver driver(*target, *context_);
  std::vector<std::byte> data(kSectorSize);
  EXPECT_EQ(driver.read({0}, data), EIO);
  EXPECT_EQ(driver.write({0}, data), EIO);
  EXPECT_EQ(driver.flush(), 0);
  EXPECT_TRUE(file("a").seen().empty());
}

class DustTest : public TargetsFixture {
 protected:
  void open(Sectors length, const char* params, Sectors begin = {}) {
    target_ = make(length, "dust", params, begin);
    driver_ = std::make_unique<TargetDriver>(*target_, *context_);
  }
  // The reply, or "<errno>: <refusal>".
  std::string say(const std::string& words) {
    auto reply = target_->message(*split_args(words));
    return reply ? *reply : std::to_string(reply.error().code) + ": " + reply.error().message;
  }
  int read(uint64_t at, uint64_t count) {
    std::vector<std::byte> bytes(Sectors{count}.bytes());
    return driver_->read({at}, bytes);
  }
  int write(uint64_t at, uint64_t count) {
    std::vector<std::byte> bytes(Sectors{count}.bytes(), std::byte{'W'});
    return driver_->write({at}, bytes);
  }
  std::unique_ptr<Target> target_;
  std::unique_ptr<TargetDriver> driver_;
};

TEST_F(DustTest, AnswersAsTheKernel) {  // golden/c-targets
  open({2048}, "a 0 512");
  const std::pair<const char*, const char*> talk[] = {
      {"addbadblock 60", ""},
      {"addbadblock 67", ""},
      {"addbadblock 72", ""},
      {"addbadblock 60", "22: dust: dust_add_block: block 60 already in badblocklist"},
      {"queryblock 60", "dust_query_block: block 60 found in badblocklist"},
      {"queryblock 61", "dust_query_block: block 61 not found in badblocklist"},
      {"countbadblocks", "countbadblocks: 3 badblock(s) found"},
      {"listbadblocks", "60\n67\n72\n"},
      {"removebadblock 67", ""},
      {"removebadblock 67", "22: dust: dust_remove_block: block 67 not found in badblocklist"},
      {"listbadblocks", "60\n72\n"},
      {"clearbadblocks", "dust_clear_badblocks: badblocks cleared"},
      {"clearbadblocks", "dust_clear_badblocks: no badblocks found"},
      {"countbadblocks", "countbadblocks: 0 badblock(s) found"},
      {"listbadblocks", "No blocks in badblocklist"},
      {"addbadblock 9999", "22: dust: selected block value out of range"},
      {"addbadblock 2049", "22: dust: selected block value out of range"},
      {"addbadblock 2048", ""},
      {"addbadblock 2047", ""},
      {"addbadblock x", "22: dust: invalid block: 'x'"},
      {"addbadblock -1", "22: dust: invalid block: '-1'"},
      {"addbadblock", "22: dust: addbadblock requires an additional argument"},
      {"removebadblock", "22: dust: removebadblock requires an additional argument"},
      {"queryblock", "22: dust: queryblock requires an additional argument"},
      {"nosuch", "22: dust: unrecognized message 'nosuch' received"},
      {"nosuch 5", "22: dust: unrecognized message 'nosuch' received"},
      {"nosuch 1 2", "22: dust: unrecognized message 'nosuch' received"},
      {"nosuch 1 2 3", "22: dust: invalid number of arguments '4'"},
      {"addbadblock 1 2", ""},
      {"addbadblock 71 256", "22: dust: selected write fail count out of range"},
      {"addbadblock 71 y", "22: dust: invalid write fail count: 'y'"},
      {"removebadblock 9999", "22: dust: selected block value out of range"},
      {"queryblock 9999", "22: dust: selected block value out of range"},
      {"queryblock 1 1", "22: dust: unrecognized message 'queryblock' received"},
      {"countbadblocks 3", "22: dust: unrecognized message 'countbadblocks' received"},
      {"enable 1", "22: dust: unrecognized message 'enable' received"},
      {"CountBadBlocks", "countbadblocks: 3 badblock(s) found"},
  };
  for (const auto& [words, answer] : talk) EXPECT_EQ(say(words), answer) << words;
}

TEST_F(DustTest, ShowsItsStateInTheStatus) {
  open({2048}, "a 7 512");
  EXPECT_EQ(target_->status_line(), "a bypass verbose");
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(say("enable"), "");
    EXPECT_EQ(target_->status_line(), "a fail_read_on_bad_block verbose");
  }
  EXPECT_EQ(say("quiet"), "");
  EXPECT_EQ(target_->status_line(), "a fail_read_on_bad_block quiet");
  EXPECT_EQ(say("quiet"), "");
  EXPECT_EQ(say("disable"), "");
  EXPECT_EQ(target_->status_line(), "a bypass verbose");
  EXPECT_EQ(target_->table_line(), "a 7 512");
}

TEST_F(DustTest, FailsReadsOfBadBlocksOnceEnabled) {
  open({2048}, "a 0 512");
  say("addbadblock 60");
  EXPECT_EQ(read(60, 1), 0);
  EXPECT_EQ(write(60, 1), 0);
  EXPECT_EQ(say("queryblock 60"), "dust_query_block: block 60 found in badblocklist");
  say("enable");
  EXPECT_EQ(read(60, 1), EIO);
  EXPECT_EQ(read(56, 8), EIO);
  EXPECT_EQ(read(56, 4), 0);
  EXPECT_EQ(read(61, 8), 0);
  say("disable");
  EXPECT_EQ(read(60, 1), 0);
}

TEST_F(DustTest, AWriteMakesABlockGood) {
  open({2048}, "a 0 512");
  say("addbadblock 60");
  say("addbadblock 70 3");
  say("enable");
  EXPECT_EQ(write(60, 1), 0);
  EXPECT_EQ(read(60, 1), 0);
  EXPECT_EQ(say("listbadblocks"), "70\n");
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(write(70, 1), EIO) << i;
    EXPECT_EQ(read(70, 1), EIO) << i;
  }
  EXPECT_EQ(write(70, 1), 0);
  EXPECT_EQ(read(70, 1), 0);
  EXPECT_EQ(say("listbadblocks"), "No blocks in badblocklist");
}

TEST_F(DustTest, WritesTheGoodBlocksOfAWriteThatFails) {
  open({2048}, "a 0 1024");
  say("addbadblock 2 1");
  say("enable");
  EXPECT_EQ(write(0, 8), EIO);
  EXPECT_EQ(file("a").allocated({0}, {8}).n, 6u);
  EXPECT_EQ(write(0, 8), 0);
  EXPECT_EQ(file("a").allocated({0}, {8}).n, 8u);
}

TEST_F(DustTest, DiscardAndWriteZeroesAreWritesOfAllTheirBlocks) {
  open({2048}, "a 0 4096");
  for (const char* words : {"addbadblock 1", "addbadblock 2 1", "addbadblock 9", "enable"}) {
    EXPECT_EQ(say(words), "");
  }
  EXPECT_EQ(driver_->discard({0}, {32}), EIO);
  EXPECT_EQ(say("listbadblocks"), "1\n2\n9\n");
  EXPECT_EQ(driver_->discard({0}, {32}), 0);
  EXPECT_EQ(say("listbadblocks"), "9\n");
  EXPECT_EQ(driver_->write_zeroes({64}, {16}), 0);
  EXPECT_EQ(say("listbadblocks"), "No blocks in badblocklist");
}

TEST_F(DustTest, AFlushLeavesBlockZeroBad) {
  open({2048}, "a 0 512");
  say("addbadblock 0");
  say("enable");
  EXPECT_EQ(driver_->flush(), 0);
  EXPECT_EQ(say("countbadblocks"), "countbadblocks: 1 badblock(s) found");
}

TEST_F(DustTest, CountsBlocksFromTheStartOfTheDevice) {
  open({1024}, "a 8 512", {100});
  say("addbadblock 0");
  say("addbadblock 8");
  say("enable");
  EXPECT_EQ(read(0, 1), EIO);
  EXPECT_EQ(read(1, 8), 0);
}

TEST_F(DustTest, LooksAtEveryBlockThatABioTouches) {
  open({64}, "a 4 4096");  // its blocks and the device's are not aligned
  say("addbadblock 1");
  say("enable");
  EXPECT_EQ(read(0, 4), 0);
  EXPECT_EQ(read(0, 5), EIO);
  EXPECT_EQ(read(4, 4), EIO);
  EXPECT_EQ(read(12, 8), 0);
}

TEST_F(DustTest, LimitsTheListOfBadBlocks) {
  open({1}, "a 0 512");
  context_->device("a").set_size({1 << 21});
  for (uint64_t block = 0; block < 1 << 20; ++block) {
    ASSERT_EQ(say("addbadblock " + std::to_string(block)), "");
  }
  EXPECT_EQ(say("addbadblock 2000000"), "12: dust: dust_add_block: more than 1048576 bad blocks");
  EXPECT_EQ(say("removebadblock 7"), "");
  EXPECT_EQ(say("addbadblock 2000000"), "");
}

TEST(Dust, MessagesAndIoAtOnce) {
  Rig rig;
  rig.file("a", 64);
  ASSERT_TRUE(rig.load("0 64 dust a 0 512"));
  ASSERT_TRUE(rig.resume());
  auto table = rig.device().live_table();
  Target& target = *table->find({0}).target;
  std::thread talker([&target] {
    for (int i = 0; i < 2000; ++i) {
      for (const char* words : {"enable", "addbadblock 3 1", "listbadblocks", "queryblock 3",
                                "disable", "quiet", "clearbadblocks"}) {
        (void)target.message(*split_args(words));
        (void)target.status_line();
      }
    }
  });
  std::thread writer([&rig] {
    for (int i = 0; i < 2000; ++i) {
      TestBio write(Op::Write, {0}, {8});
      rig.device().submit(write);
      EXPECT_TRUE(write.done());
      EXPECT_TRUE(write.error() == 0 || write.error() == EIO);
    }
  });
  for (int i = 0; i < 2000; ++i) {
    TestBio read(Op::Read, {0}, {8});
    rig.device().submit(read);
    EXPECT_TRUE(read.error() == 0 || read.error() == EIO);
  }
  talker.join();
  writer.join();
}

}  // namespace
}  // namespace dmfs::test
