// SPDX-License-Identifier: Apache-2.0
// The dirty logs of mirror: what both do, the disk log's format, its failures and power cuts.
#include <gtest/gtest.h>

#include <cstring>
#include <optional>
#include <sstream>

#include "core/targets/mirror/dirty_log.h"
#include "tests/support/power_cut_file.h"
#include "tests/support/test_context.h"

namespace dmfs::test {
namespace {

class DirtyLogTest : public ::testing::Test {
 protected:
  Result<std::unique_ptr<DirtyLog>> try_make(const std::string& words, uint64_t length = 2048) {
    if (!context_ || context_->length().n != length) new_context(length);
    std::istringstream in(words);
    std::string name, word;
    in >> name;
    std::vector<std::string> args;
    while (in >> word) args.push_back(word);
    const DirtyLogType* type = builtin_dirty_logs().find(name);
    if (!type) return Error{EINVAL, "no such log"};
    return type->create(*context_, args);
  }
  std::unique_ptr<DirtyLog> make(const std::string& words, uint64_t length = 2048) {
    auto made = try_make(words, length);
    EXPECT_TRUE(made) << made.error().message;
    return made ? *std::move(made) : nullptr;
  }
  // Another table over the same log device.
  void new_context(uint64_t length) {
    std::vector<std::byte> kept;
    if (context_) kept = log().peek({}, {2048});
    context_ = std::make_unique<TestContext>(Sectors{8}, Sectors{length});
    context_->add_device("log", {2048});
    context_->add_device("tiny", {2});
    if (!kept.empty()) log().poke({}, kept);
  }
  HeldFile& log() { return context_->device("log"); }
  std::vector<std::byte> bytes(size_t at, size_t count) {
    auto all = log().peek({}, {8});
    return {all.begin() + static_cast<ptrdiff_t>(at),
            all.begin() + static_cast<ptrdiff_t>(at + count)};
  }
  void poke_log(const std::string& text) {
    std::vector<std::byte> all(kSectorSize);
    std::memcpy(all.data(), text.data(), text.size());
    log().poke({}, all);
  }
  static std::vector<std::byte> hex(std::initializer_list<int> values) {
    std::vector<std::byte> out;
    for (int v : values) out.push_back(static_cast<std::byte>(v));
    return out;
  }
  static int resume(DirtyLog& log) { return wait([&](auto done) { log.resume(done); }); }
  static int flush(DirtyLog& log) { return wait([&](auto done) { log.flush(done); }); }
  template <typename Act>
  static int wait(Act act) {
    int answer = -1;
    act([&](int error) { answer = error; });
    return answer;
  }
  unsigned events() { return context_->events(); }

  std::unique_ptr<TestContext> context_;
};

TEST_F(DirtyLogTest, PrintsWhatItParses) {
  new_context(2048);
  for (const char* words : {"core 1 16", "core 2 16 nosync", "core 2 2048 sync"}) {
    std::string args(words + 7);  // behind the count
    auto made = make("core " + args);
    EXPECT_EQ(made->table_words(), words);
    EXPECT_EQ(made->status_words(), "1 core");
  }
  EXPECT_EQ(make("disk log 16")->table_words(), "disk 2 log 16");
  EXPECT_EQ(make("disk log 64 sync")->table_words(), "disk 3 log 64 sync");
  auto disk = make("disk log 64 nosync");
  EXPECT_EQ(disk->table_words(), "disk 3 log 64 nosync");
  EXPECT_EQ(disk->status_words(), "3 disk log A");
}

TEST_F(DirtyLogTest, CountsRegionsUpToTheEnd) {
  EXPECT_EQ(make("core 16", 2048)->region_count(), 128u);
  EXPECT_EQ(make("core 64", 2000)->region_count(), 32u);
  EXPECT_EQ(make("core 1024", 2000)->region_count(), 2u);
}

TEST_F(DirtyLogTest, RefusesWhatTheKernelRefuses) {
  new_context(2048);
  auto refused = [&](const std::string& words) {
    auto made = try_make(words);
    EXPECT_FALSE(made) << words;
    if (made) return std::string();
    EXPECT_EQ(made.error().code, EINVAL);
    return made.error().message;
  };
  EXPECT_EQ(refused("core"), "dirty region log: wrong number of arguments");
  EXPECT_EQ(refused("core 16 sync block_on_error"), "dirty region log: wrong number of arguments");
  EXPECT_EQ(refused("core 16 block_on_error"),
            "dirty region log: unrecognised sync argument: 'block_on_error'");
  for (const char* size : {"0", "1", "3", "24", "4096", "x", "-2", "8589934592"}) {
    EXPECT_EQ(refused(std::string("core ") + size),
              std::string("dirty region log: invalid region size: '") + size + "'");
  }
  EXPECT_EQ(refused("disk log"), "dirty region log: wrong number of arguments to disk log");
  EXPECT_EQ(refused("disk tiny 16"),
            "dirty region log: log device 'tiny' too small: need 1536 bytes");
  EXPECT_NE(refused("disk missing 16").find("No such file"), std::string::npos);
  new_context(kMaxDeviceSectors.n);
  EXPECT_NE(try_make("core 2", kMaxDeviceSectors.n).error().message.find("more than"),
            std::string::npos);
}

class EveryLog : public DirtyLogTest, public ::testing::WithParamInterface<const char*> {
 protected:
  std::unique_ptr<DirtyLog> start(const std::string& args, uint64_t length = 2048) {
    auto made = make(std::string(GetParam()) + " " + args, length);
    EXPECT_EQ(resume(*made), 0);
    return made;
  }
};

TEST_P(EveryLog, BeginsOutOfSyncAndCountsWhatIsCopied) {
  auto log = start("16");
  EXPECT_EQ(log->region_size(), 16u);
  EXPECT_EQ(log->sync_count(), 0u);
  EXPECT_FALSE(log->in_sync(0));
  for (RegionIndex i = 0; i < 128; ++i) {
    ASSERT_EQ(log->next_resync(), i);
    log->set_in_sync(i, true);
    log->set_in_sync(i, true);
    EXPECT_EQ(log->sync_count(), i + 1);
  }
  EXPECT_EQ(log->next_resync(), std::nullopt);
  log->set_in_sync(7, false);
  log->set_in_sync(7, false);
  EXPECT_EQ(log->sync_count(), 127u);
  // Behind the search: not before it begins again.
  EXPECT_EQ(log->next_resync(), std::nullopt);
  log->restart_search();
  EXPECT_EQ(log->next_resync(), 7u);
}

TEST_P(EveryLog, GivesARegionOutOnce) {
  auto log = start("16");
  EXPECT_EQ(log->next_resync(), 0u);
  log->restart_search();
  EXPECT_EQ(log->next_resync(), 1u);
  log->set_in_sync(0, false);  // the copy has failed
  log->restart_search();
  EXPECT_EQ(log->next_resync(), 0u);
}

TEST_P(EveryLog, NosyncTakesAllToBeInSync) {
  auto log = start("64 nosync", 2000);
  EXPECT_EQ(log->sync_count(), 32u);
  EXPECT_EQ(log->next_resync(), std::nullopt);
}

TEST_P(EveryLog, ResumingAgainKeepsWhatItKnows) {
  for (const char* args : {"16", "16 sync", "16 nosync"}) {
    auto log = start(args);
    log->set_in_sync(3, true);
    log->mark(4);
    log->set_in_sync(4, false);
    uint64_t count = log->sync_count();
    EXPECT_EQ(resume(*log), 0);
    EXPECT_TRUE(log->in_sync(3));
    EXPECT_FALSE(log->in_sync(4));
    EXPECT_EQ(log->sync_count(), count);
  }
}

INSTANTIATE_TEST_SUITE_P(Logs, EveryLog, ::testing::Values("core", "disk log"),
                         [](const auto& log) { return std::string(log.param).substr(0, 4); });

TEST_F(DirtyLogTest, WritesTheKernelsFormat) {
  auto disk = make("disk log 16");
  ASSERT_EQ(resume(*disk), 0);
  EXPECT_EQ(bytes(0, 16), hex({0x72, 0x52, 0x69, 0x4d, 2, 0, 0, 0, 0x80, 0, 0, 0, 0, 0, 0, 0}));
  for (RegionIndex i = 0; i < 128; ++i) disk->clear(i);
  disk->mark(6);
  disk->mark(7);
  disk->mark(8);
  ASSERT_EQ(flush(*disk), 0);
  auto expected = std::vector<std::byte>(16, std::byte{0xff});
  expected[0] = std::byte{0x3f};
  expected[1] = std::byte{0xfe};
  EXPECT_EQ(bytes(1024, 16), expected);
  EXPECT_EQ(bytes(1040, 8), std::vector<std::byte>(8));
  EXPECT_EQ(bytes(16, 1008), std::vector<std::byte>(1008));
}

TEST_F(DirtyLogTest, WritesOnlyWhatHasChanged) {
  auto disk = make("disk log 2", 65536);  // eight sectors of bits
  ASSERT_EQ(resume(*disk), 0);
  log().forget_seen();
  ASSERT_EQ(flush(*disk), 0);
  EXPECT_TRUE(log().seen().empty());
  disk->clear(4096 * 3 + 5);
  ASSERT_EQ(flush(*disk), 0);
  // To be clean may be forgotten: no flush.
  EXPECT_EQ(log().seen(), (std::vector<SeenBio>{{Op::Write, 0, 0, {5}, {1}}}));
  log().forget_seen();
  disk->mark(4096 * 3 + 5);
  disk->mark(4096 * 3 + 5);
  disk->mark(4096 * 4);  // is not clean
  ASSERT_EQ(flush(*disk), 0);
  EXPECT_EQ(log().seen(),
            (std::vector<SeenBio>{{Op::Write, 0, 0, {5}, {1}}, {Op::Flush, 0, 0, {}, {}}}));
}

TEST_F(DirtyLogTest, ReadsALogThatIsThere) {
  auto disk = make("disk log 16");
  ASSERT_EQ(resume(*disk), 0);
  for (RegionIndex i = 10; i < 20; ++i) disk->clear(i);
  ASSERT_EQ(flush(*disk), 0);
  disk = make("disk log 16");
  ASSERT_EQ(resume(*disk), 0);
  EXPECT_EQ(disk->sync_count(), 10u);
  EXPECT_FALSE(disk->in_sync(9));
  EXPECT_TRUE(disk->in_sync(10));
  EXPECT_TRUE(disk->in_sync(19));
  EXPECT_FALSE(disk->in_sync(20));
}

TEST_F(DirtyLogTest, GrowsAndShrinksWithTheDevice) {
  auto disk = make("disk log 16 nosync", 1024);
  ASSERT_EQ(resume(*disk), 0);
  EXPECT_EQ(bytes(8, 8), hex({0x40, 0, 0, 0, 0, 0, 0, 0}));
  disk = make("disk log 16", 2048);
  ASSERT_EQ(resume(*disk), 0);
  EXPECT_EQ(disk->sync_count(), 64u);  // those that are new are not
  EXPECT_EQ(bytes(8, 8), hex({0x80, 0, 0, 0, 0, 0, 0, 0}));
  EXPECT_EQ(disk->next_resync(), 64u);
  for (RegionIndex i = 64; i < 128; ++i) disk->clear(i);
  ASSERT_EQ(flush(*disk), 0);
  disk = make("disk log 16", 1024);
  ASSERT_EQ(resume(*disk), 0);
  EXPECT_EQ(disk->sync_count(), 64u);
  EXPECT_EQ(bytes(8, 1), hex({0x40}));
  EXPECT_EQ(bytes(1024, 16), std::vector<std::byte>(16, std::byte{0xff}));  // as the kernel's
  // What it had known before it shrank does not count.
  disk = make("disk log 16", 2048);
  ASSERT_EQ(resume(*disk), 0);
  EXPECT_EQ(disk->sync_count(), 64u);
}

TEST_F(DirtyLogTest, BitsBehindTheLastRegionAreCleared) {
  auto disk = make("disk log 16 nosync", 2048);
  ASSERT_EQ(resume(*disk), 0);
  disk = make("disk log 16", 16 * 70);
  ASSERT_EQ(resume(*disk), 0);
  EXPECT_EQ(disk->sync_count(), 70u);
  EXPECT_EQ(bytes(1032, 5), hex({0x3f, 0, 0, 0, 0xff}));
}

TEST_F(DirtyLogTest, WhatIsNoLogBecomesOne) {
  new_context(2048);
  std::vector<std::byte> junk(8 * kSectorSize, std::byte{'X'});
  log().poke({}, junk);
  auto disk = make("disk log 16");
  ASSERT_EQ(resume(*disk), 0);
  EXPECT_EQ(disk->sync_count(), 0u);
  EXPECT_EQ(disk->status_words(), "3 disk log A");
  EXPECT_EQ(bytes(0, 16), hex({0x72, 0x52, 0x69, 0x4d, 2, 0, 0, 0, 0x80, 0, 0, 0, 0, 0, 0, 0}));
  EXPECT_EQ(bytes(1024, 16), std::vector<std::byte>(16));
  // The rest stays, as under the kernel.
  EXPECT_EQ(bytes(16, 1008), std::vector<std::byte>(1008, std::byte{'X'}));
  EXPECT_EQ(bytes(1040, 496), std::vector<std::byte>(496, std::byte{'X'}));
}

TEST_F(DirtyLogTest, WishesOverruleTheLog) {
  auto disk = make("disk log 16 nosync");
  ASSERT_EQ(resume(*disk), 0);
  disk = make("disk log 16 sync");
  ASSERT_EQ(resume(*disk), 0);
  EXPECT_EQ(disk->sync_count(), 0u);
  disk = make("disk log 16 nosync");
  ASSERT_EQ(resume(*disk), 0);
  EXPECT_EQ(disk->sync_count(), 128u);
  EXPECT_EQ(bytes(1024, 16), std::vector<std::byte>(16, std::byte{0xff}));
}

TEST_F(DirtyLogTest, AnotherVersionIsLeftAlone) {
  new_context(2048);
  poke_log(std::string("rRiM\3\0\0\0\200", 9));
  auto before = bytes(0, 4096);
  auto disk = make("disk log 16");
  EXPECT_EQ(resume(*disk), EINVAL);
  EXPECT_EQ(disk->sync_count(), 0u);
  EXPECT_EQ(disk->status_words(), "3 disk log D");
  EXPECT_EQ(events(), 1u);
  disk->clear(1);
  EXPECT_EQ(flush(*disk), EINVAL);
  EXPECT_EQ(resume(*disk), EINVAL);
  EXPECT_EQ(bytes(0, 4096), before);
}

TEST_F(DirtyLogTest, VersionOneIsRead) {
  auto disk = make("disk log 16 nosync");
  ASSERT_EQ(resume(*disk), 0);
  poke_log(std::string("rRiM\1\0\0\0\200\0\0\0\0\0\0\0", 16));
  disk = make("disk log 16");
  ASSERT_EQ(resume(*disk), 0);
  EXPECT_EQ(disk->sync_count(), 128u);
  EXPECT_EQ(bytes(4, 4), hex({2, 0, 0, 0}));
}

TEST_F(DirtyLogTest, ADeviceThatFailsLeavesNothingInSync) {
  auto disk = make("disk log 16 nosync");
  ASSERT_EQ(resume(*disk), 0);
  disk = make("disk log 16");
  log().fail_all(EIO);
  EXPECT_EQ(resume(*disk), EIO);
  EXPECT_EQ(disk->sync_count(), 0u);
  EXPECT_EQ(disk->status_words(), "3 disk log D");
  EXPECT_EQ(events(), 1u);
  // What was not written is written later.
  log().fail_all(0);
  EXPECT_EQ(resume(*disk), 0);
  EXPECT_EQ(bytes(1024, 16), std::vector<std::byte>(16));
  EXPECT_EQ(disk->status_words(), "3 disk log D");  // until the table is loaded again
}

TEST_F(DirtyLogTest, WhatCouldNotBeWrittenIsTriedAgain) {
  auto disk = make("disk log 16 nosync");
  ASSERT_EQ(resume(*disk), 0);
  disk->mark(0);
  log().fail_nth(1, EIO);
  EXPECT_EQ(flush(*disk), EIO);
  EXPECT_EQ(disk->status_words(), "3 disk log D");
  EXPECT_EQ(bytes(1024, 1), hex({0xff}));
  EXPECT_EQ(flush(*disk), 0);
  EXPECT_EQ(bytes(1024, 1), hex({0xfe}));
  disk->mark(1);
  log().fail_nth(2, EIO);  // the flush of the device
  EXPECT_EQ(flush(*disk), EIO);
  EXPECT_EQ(disk->status_words(), "3 disk log F");
  log().forget_seen();
  EXPECT_EQ(flush(*disk), 0);
  EXPECT_EQ(log().seen().size(), 2u);
  EXPECT_EQ(events(), 1u);
}

TEST_F(DirtyLogTest, NothingWaits) {
  auto disk = make("disk log 16 nosync");
  log().hold(true);
  std::optional<int> resumed, flushed;
  disk->resume([&](int error) { resumed = error; });
  EXPECT_FALSE(resumed);
  log().complete_all();
  EXPECT_EQ(resumed, 0);
  disk->mark(1);
  disk->flush([&](int error) { flushed = error; });
  disk->mark(2);  // too late for this one
  EXPECT_FALSE(flushed);
  log().complete_all();
  EXPECT_EQ(flushed, 0);
  EXPECT_EQ(bytes(1024, 1), hex({0xfd}));
  disk->flush([&](int error) { flushed = error; });
  log().complete_all();
  EXPECT_EQ(bytes(1024, 1), hex({0xf9}));
}

// Power cuts at every moment, while a log is made, used and extended: what is clean on the device
// was never marked, or cleared after its last mark.
TEST_F(DirtyLogTest, PowerCutsLeaveNothingCleanThatWasMarked) {
  std::mt19937_64 random(0x10c5eed);
  struct Phase { uint64_t length; const char* wish; };
  PowerCut::Image before;
  for (uint64_t i = 0; i < 32; ++i) before[i].fill(std::byte{0xff});  // a device with junk on it
  for (Phase phase : {Phase{40000, ""}, Phase{65536, ""}, Phase{20000, ""}, Phase{65536, ""},
                      Phase{65536, " sync"}}) {
    PowerCut cut;
    PowerCut::File device(cut, "log", {64});
    PowerCut::restore(device, before);
    struct Context : TestContext {
      using TestContext::TestContext;
      BackingFile* log = nullptr;
      Result<BackingFile*> open(const std::string&, Sectors, Sectors) override { return log; }
    } context({}, {phase.length});
    context.log = &device;
    std::string size = "2";
    std::vector<std::string> args{"log", size};
    if (*phase.wish) args.push_back("sync");
    auto made = builtin_dirty_logs().find("disk")->create(context, args);
    ASSERT_TRUE(made) << made.error().message;
    DirtyLog& log = **made;
    // By moment: which regions may be clean. A mark counts from the end of its flush, for only then
    // is the region written to.
    std::vector<std::pair<size_t, std::vector<bool>>> truth;
    std::vector<bool> may(log.region_count(), false);
    ASSERT_EQ(resume(log), 0);
    for (RegionIndex i = 0; i < may.size(); ++i) may[i] = log.in_sync(i);
    truth.emplace_back(0, may);
    for (int step = 0; step < 40; ++step) {
      std::vector<RegionIndex> marked;
      for (int i = 0; i < 20; ++i) {
        RegionIndex region = random() % may.size();
        if (random() % 2) {
          log.mark(region);
          marked.push_back(region);
        } else {
          log.clear(region);
          may[region] = true;
          std::erase(marked, region);
        }
      }
      truth.emplace_back(cut.moments(), may);
      ASSERT_EQ(flush(log), 0);
      for (RegionIndex region : marked) may[region] = false;
      truth.emplace_back(cut.moments(), may);
    }
    size_t at = 0;
    for (size_t moment = 0; moment <= cut.moments(); ++moment) {
      while (at + 1 < truth.size() && truth[at + 1].first <= moment) ++at;
      PowerCut::Image image = cut.image(device, moment, random, before);
      HeldFile reopened("log", {64});
      reopened.hold(false);
      PowerCut::restore(reopened, image);
      context.log = &reopened;
      std::vector<std::string> plain{"log", size};
      auto again = builtin_dirty_logs().find("disk")->create(context, plain);
      ASSERT_EQ(resume(**again), 0);
      // Before the log of a forced copy is there, the one before it is.
      if (*phase.wish && truth[at].first == 0) continue;
      for (RegionIndex i = 0; i < may.size(); ++i) {
        if ((*again)->in_sync(i)) {
          ASSERT_TRUE(truth[at].second[i])
              << "region " << i << " at moment " << moment << " of " << cut.moments();
        }
      }
    }
    before = cut.image(device, cut.moments(), random, before);
  }
}

}  // namespace
}  // namespace dmfs::test
