// SPDX-License-Identifier: Apache-2.0
// flakey: its features, its intervals on a clock that the test moves, and that corruption repeats
// with a seed. The table lines that it refuses and prints are here too.
#include <set>

#include "tests/support/manager_rig.h"
#include "tests/support/target_conformance.h"
#include "tests/support/targets_fixture.h"

namespace dmfs::test {
namespace {

std::vector<std::pair<RegisterTargets, TargetCase>> all_cases() {
  using Data = TargetCase::Data;
  std::vector<TargetCase> cases{
      {"Up", "flakey", "a 0 3600 1 0 ", {0}, {100}, {{"a", {100}}}},
      {"NeverDown", "flakey", "a\\ b 8 1 0 1 drop_writes ", {24}, {64}, {{"a b", {72}}}},
      {"Down", "flakey", "a 0 0 1 0 ", {3}, {64}, {{"a", {64}}}, Data::Fails},
      {"DownErrorAll",
       "flakey",
       "a 0 0 1 2 error_reads error_writes ",
       {0},
       {64},
       {{"a", {64}}},
       Data::Fails},
      {"DownDropWrites",
       "flakey",
       "a 0 0 1 1 drop_writes ",
       {0},
       {64},
       {{"a", {64}}},
       Data::Zeroes},
      {"FlagsThatNoBioHas",
       "flakey",
       "a 0 0 1 5 corrupt_bio_byte 1 w 7 32 ",
       {5},
       {64},
       {{"a", {64}}}},
      {"ByteThatNoBioHas",
       "flakey",
       "a 0 0 1 5 corrupt_bio_byte 99999 r 7 0 ",
       {5},
       {64},
       {{"a", {64}}}},
      {"All",
       "flakey",
       "a 0 1 0 15 corrupt_bio_byte 1 w 7 0 random_read_corrupt 5 random_write_corrupt 1000000000 "
       "seed 18446744073709551615 error_sense 0x3 0x11 0xff ",
       {0},
       {16},
       {{"a", {16}}}},
  };
  std::vector<std::pair<RegisterTargets, TargetCase>> out;
  for (auto& c : cases) out.emplace_back(register_builtin_targets, std::move(c));
  return out;
}

INSTANTIATE_TEST_SUITE_P(Flakey, TargetConformance, ::testing::ValuesIn(all_cases()),
                         [](const auto& c) { return c.param.second.label; });

class FlakeyTest : public TargetsFixture {
 protected:
  // 16 sectors; device "a" holds 'a' everywhere.
  void open(const std::string& params) {
    target_ = make({16}, "flakey", ("a 0 " + params).c_str());
    if (!target_) return;
    driver_ = std::make_unique<TargetDriver>(*target_, *context_);
    file("a").poke({0}, std::vector<std::byte>(16 * kSectorSize, std::byte{'a'}));
    file("a").forget_seen();
  }
  // What a read gives: the bytes that are not 'a', as (offset, value).
  using Changes = std::vector<std::pair<size_t, int>>;
  static Changes changes(const std::vector<std::byte>& bytes, char expected = 'a') {
    Changes out;
    for (size_t i = 0; i < bytes.size(); ++i) {
      if (bytes[i] != std::byte(expected)) out.emplace_back(i, static_cast<int>(bytes[i]));
    }
    return out;
  }
  int read(uint64_t at = 0, uint64_t count = 16) {
    seen_.assign(Sectors{count}.bytes(), std::byte{});
    return driver_->read({at}, seen_);
  }
  int write(uint64_t at = 0, uint64_t count = 16, uint8_t flags = 0) {
    std::vector<std::byte> bytes(Sectors{count}.bytes(), std::byte{'W'});
    int error = driver_->write({at}, bytes, flags);
    EXPECT_EQ(changes(bytes, 'W'), Changes()) << "the caller's memory";
    return error;
  }
  Changes on_disk(uint64_t at, uint64_t count, char expected) {
    return changes(file("a").peek({at}, {count}), expected);
  }
  void pass(int milliseconds) {
    context_->clock().advance(std::chrono::milliseconds(milliseconds));
  }

  std::unique_ptr<Target> target_;
  std::unique_ptr<TargetDriver> driver_;
  std::vector<std::byte> seen_;
};

TEST_F(FlakeyTest, RefusesWhatTheKernelRefuses) {
  const std::pair<const char*, const char*> refused[] = {
      // golden/b-errors
      {"", "Invalid argument count"},
      {"a 0 1", "Invalid argument count"},
      {"a 0 x 1", "Invalid up interval: 'x'"},
      {"a 0 1 x", "Invalid down interval: 'x'"},
      {"a 0 4294967296 1", "Invalid up interval: '4294967296'"},
      {"a 0 0 0", "Total (up + down) interval is zero"},
      {"a 0 4294967295 1", "Total (up + down) interval is zero"},
      {"a 0 4294967295 2", "Interval overflow"},
      {"a 0 1 1 1", "Invalid number of feature args: '1'"},
      {"a 0 1 1 x", "Invalid number of feature args: 'x'"},
      {"a 0 1 1 18", "Invalid number of feature args: '18'"},
      {"a 0 1 1 1 nosuch", "Unrecognised flakey feature requested: 'nosuch'"},
      {"a 0 1 1 2 drop_writes", "Invalid number of feature args: '2'"},
      {"a 0 1 1 2 drop_writes drop_writes", "Feature drop_writes duplicated"},
      {"a 0 1 1 2 error_writes error_writes", "Feature error_writes duplicated"},
      {"a 0 1 1 2 error_reads error_reads", "Feature error_reads duplicated"},
      {"a 0 1 1 2 drop_writes error_writes",
       "Feature error_writes conflicts with feature drop_writes"},
      {"a 0 1 1 2 error_writes drop_writes",
       "Feature drop_writes conflicts with feature error_writes"},
      {"a 0 1 1 1 corrupt_bio_byte", "Feature corrupt_bio_byte requires parameters"},
      {"a 0 1 1 2 corrupt_bio_byte 32 r 1 0", "Invalid corrupt bio direction (r or w)"},
      {"a 0 1 1 4 corrupt_bio_byte 32 r 1", "Invalid corrupt bio flags mask"},
      {"a 0 1 1 5 corrupt_bio_byte 32 r 1", "Invalid number of feature args: '5'"},
      {"a 0 1 1 5 corrupt_bio_byte 0 r 1 0", "Invalid corrupt bio byte: '0'"},
      {"a 0 1 1 5 corrupt_bio_byte 32 q 1 0", "Invalid corrupt bio direction (r or w): 'q'"},
      {"a 0 1 1 5 corrupt_bio_byte 32 r 256 0",
       "Invalid corrupt value to write into bio byte (0-255): '256'"},
      {"a 0 1 1 5 corrupt_bio_byte 32 r 1 -1", "Invalid corrupt bio flags mask: '-1'"},
      {"a 0 1 1 6 drop_writes corrupt_bio_byte 32 w 1 0",
       "drop_writes is incompatible with corrupt_bio_byte with the WRITE flag set"},
      {"a 0 1 1 6 corrupt_bio_byte 32 w 1 0 drop_writes",
       "drop_writes is incompatible with corrupt_bio_byte with the WRITE flag set"},
      {"a 0 1 1 6 error_writes corrupt_bio_byte 32 w 1 0",
       "error_writes is incompatible with corrupt_bio_byte with the WRITE flag set"},
      {"a x 1 1", "Invalid device sector: 'x'"},
      {"nosuch 0 1 1", "Device lookup failed: 'nosuch': No such file or directory"},
      // Linux 6.12
      {"a 0 1 1 1 random_read_corrupt", "Feature random_read_corrupt requires a parameter"},
      {"a 0 1 1 1 random_write_corrupt", "Feature random_write_corrupt requires a parameter"},
      {"a 0 1 1 2 random_read_corrupt 1000000001", "Invalid random corrupt argument: '1000000001'"},
      {"a 0 1 1 3 drop_writes random_write_corrupt 1",
       "drop_writes is incompatible with random_write_corrupt or corrupt_bio_byte with the WRITE "
       "flag set"},
      {"a 0 1 1 3 error_writes random_write_corrupt 1",
       "error_writes is incompatible with random_write_corrupt or corrupt_bio_byte with the WRITE "
       "flag set"},
      {"a 0 1 1 3 error_reads random_read_corrupt 1",
       "error_reads is incompatible with random_read_corrupt or corrupt_bio_byte with the READ "
       "flag set"},
      {"a 0 1 1 6 error_reads corrupt_bio_byte 1 r 1 0",
       "error_reads is incompatible with random_read_corrupt or corrupt_bio_byte with the READ "
       "flag set"},
      // ours
      {"a 0 1 1 1 seed", "Feature seed requires a parameter"},
      {"a 0 1 1 2 seed x", "Invalid seed: 'x'"},
      {"a 0 1 1 4 seed 1 seed 1", "Feature seed duplicated"},
      {"a 0 1 1 1 error_sense", "Feature error_sense requires parameters"},
      {"a 0 1 1 3 error_sense 3 17", "Invalid sense code qualifier (0-255)"},
      {"a 0 1 1 4 error_sense 16 0 0", "Invalid sense key (0-15): '16'"},
      {"a 0 1 1 4 error_sense 3 0x100 0", "Invalid additional sense code (0-255): '0x100'"},
      {"a 0 1 1 4 error_sense 3 0x 0", "Invalid additional sense code (0-255): '0x'"},
      {"a 0 1 1 4 error_sense 3 0x-1 0", "Invalid additional sense code (0-255): '0x-1'"},
      {"a 0 1 1 4 error_sense 3 0 11h", "Invalid sense code qualifier (0-255): '11h'"},
      {"a 0 1 1 8 error_sense 3 0 0 error_sense 3 0 0", "Feature error_sense duplicated"},
  };
  for (const auto& [params, text] : refused) {
    auto made = try_make({8}, "flakey", params);
    if (made) {
      ADD_FAILURE() << "accepted: " << params;
      continue;
    }
    EXPECT_EQ(made.error().message, std::string("flakey: ") + text) << params;
  }
}

TEST_F(FlakeyTest, PrintsAsTheKernel) {
  const std::pair<const char*, const char*> accepted[] = {
      {"a 0 1 1", "a 0 1 1 0 "},
      {"a 0 1 1 0", "a 0 1 1 0 "},
      {"a 0 1 1 0 ignored", "a 0 1 1 0 "},
      {"a 0 1 1 1 drop_writes extra", "a 0 1 1 1 drop_writes "},
      {"a 0 1 1 1 DROP_WRITES", "a 0 1 1 1 drop_writes "},
      {"a 0 1 1 2 error_writes error_reads", "a 0 1 1 2 error_reads error_writes "},
      {"a 0 1 1 6 corrupt_bio_byte 1 R 7 0 drop_writes",
       "a 0 1 1 6 drop_writes corrupt_bio_byte 1 r 7 0 "},
      {"a 0 1 1 6 error_writes corrupt_bio_byte 32 r 1 0",
       "a 0 1 1 6 error_writes corrupt_bio_byte 32 r 1 0 "},
      {"a 0 1 1 4 random_write_corrupt 2 random_read_corrupt 1",
       "a 0 1 1 4 random_read_corrupt 1 random_write_corrupt 2 "},
      {"a 0 1 1 2 random_read_corrupt 0", "a 0 1 1 0 "},
      {"a 0 4294967294 1", "a 0 4294967294 1 0 "},
      {"a 0 1 1 6 error_sense 5 0X20 0xA seed 007", "a 0 1 1 6 seed 7 error_sense 0x5 0x20 0xa "},
  };
  for (const auto& [params, printed] : accepted) {
    auto target = make({8}, "flakey", params);
    ASSERT_TRUE(target) << params;
    EXPECT_EQ(target->table_line(), printed);
    EXPECT_EQ(target->status_line(), "");
    auto again = make({8}, "flakey", printed);
    EXPECT_EQ(again->table_line(), printed);
  }
}

TEST_F(FlakeyTest, IsUpAndDownByTheClock) {
  open("2 3");
  for (int cycle = 0; cycle < 3; ++cycle) {
    EXPECT_EQ(read(), 0);
    pass(1999);
    EXPECT_EQ(read(), 0);
    EXPECT_EQ(write(), 0);
    pass(1);
    EXPECT_EQ(read(), EIO);
    pass(2999);
    EXPECT_EQ(write(), EIO);
    EXPECT_EQ(driver_->flush(), EIO);
    EXPECT_EQ(driver_->discard({0}, {8}), EIO);
    EXPECT_EQ(driver_->write_zeroes({0}, {8}), EIO);
    pass(1);
  }
  EXPECT_EQ(read(), 0);
}

TEST_F(FlakeyTest, TheLongestIntervalsDoNotOverflow) {
  open("4294967294 1");
  pass(1000);
  EXPECT_EQ(read(), 0);
  context_->clock().advance(std::chrono::seconds(4294967293));
  EXPECT_EQ(read(), EIO);
  pass(1000);
  EXPECT_EQ(read(), 0);
}

TEST_F(FlakeyTest, DropsWrites) {
  open("0 1 1 drop_writes");
  EXPECT_EQ(write(4, 4), 0);
  EXPECT_EQ(driver_->flush(), 0);
  EXPECT_EQ(driver_->discard({0}, {8}), 0);
  EXPECT_EQ(driver_->write_zeroes({12}, {1}), 0);
  EXPECT_TRUE(file("a").seen().empty());
  EXPECT_EQ(read(), 0);
  EXPECT_EQ(changes(seen_), Changes());
}

TEST_F(FlakeyTest, FailsWritesOrReads) {
  open("0 1 1 error_writes");
  EXPECT_EQ(read(), 0);
  EXPECT_EQ(write(), EIO);
  EXPECT_EQ(driver_->flush(), EIO);
  EXPECT_EQ(driver_->write_zeroes({12}, {1}), EIO);
  open("0 1 1 error_reads");
  EXPECT_EQ(read(), EIO);
  EXPECT_EQ(write(), 0);
  EXPECT_EQ(driver_->flush(), 0);
  EXPECT_EQ(driver_->discard({0}, {1}), 0);
  open("0 1 2 error_reads drop_writes");
  EXPECT_EQ(read(), EIO);
  EXPECT_EQ(write(), 0);
  EXPECT_EQ(on_disk(0, 16, 'a'), Changes());
}

TEST_F(FlakeyTest, SeedOrSenseAloneFailAllIo) {
  open("0 1 2 seed 5");
  EXPECT_EQ(read(), EIO);
  EXPECT_EQ(driver_->sense(), Sense());
  open("0 1 4 error_sense 3 0x11 0");
  EXPECT_EQ(read(), EIO);
  EXPECT_EQ(driver_->sense(), (Sense{3, 0x11, 0, true}));
  EXPECT_EQ(write(), EIO);
  EXPECT_EQ(driver_->flush(), EIO);
}

TEST_F(FlakeyTest, CorruptsAByteOfReads) {  // golden/c-targets
  open("0 1 5 corrupt_bio_byte 600 r 9 0");
  EXPECT_EQ(read(), 0);
  EXPECT_EQ(changes(seen_), (Changes{{599, 9}}));
  EXPECT_EQ(read(8, 1), 0);
  EXPECT_EQ(changes(seen_), Changes());
  EXPECT_EQ(write(4, 4), 0);
  EXPECT_EQ(on_disk(4, 4, 'W'), Changes());
  EXPECT_EQ(on_disk(0, 4, 'a'), Changes());
  file("a").fail_nth(1, ENOSPC);
  EXPECT_EQ(read(), ENOSPC);
}

TEST_F(FlakeyTest, CorruptsReadsThatBeganWhileDown) {
  open("1 1 5 corrupt_bio_byte 1 r 9 0");
  EXPECT_EQ(read(), 0);
  EXPECT_EQ(changes(seen_), Changes());
  pass(1000);
  EXPECT_EQ(read(), 0);
  EXPECT_EQ(changes(seen_), (Changes{{0, 9}}));
}

TEST_F(FlakeyTest, CorruptsAByteOfWrites) {
  open("0 1 5 corrupt_bio_byte 224 w 255 0");
  EXPECT_EQ(write(4, 4), 0);
  EXPECT_EQ(on_disk(4, 4, 'W'), (Changes{{223, 255}}));
  EXPECT_EQ(read(), 0);
  EXPECT_EQ(read(0, 4), 0);
  EXPECT_EQ(changes(seen_), Changes());
  EXPECT_EQ(driver_->flush(), 0);
  EXPECT_EQ(driver_->write_zeroes({12}, {1}), 0);
  file("a").fail_nth(1, ENOSPC);
  EXPECT_EQ(write(4, 4), ENOSPC);
}

TEST_F(FlakeyTest, CorruptsOnlyWhatHasTheFlags) {
  open("0 1 5 corrupt_bio_byte 1 w 0 2048");  // golden: direct writes are synchronous
  EXPECT_EQ(write(4, 4), 0);
  EXPECT_EQ(on_disk(4, 4, 'W'), (Changes{{0, 0}}));
  open("0 1 5 corrupt_bio_byte 1 w 0 131072");
  EXPECT_EQ(write(4, 4), 0);
  EXPECT_EQ(on_disk(4, 4, 'W'), Changes());
  EXPECT_EQ(write(4, 4, kBioFua), 0);
  EXPECT_EQ(on_disk(4, 4, 'W'), (Changes{{0, 0}}));
  open("0 1 5 corrupt_bio_byte 1 r 0 32");
  EXPECT_EQ(read(), 0);
  EXPECT_EQ(changes(seen_), Changes());
}

TEST_F(FlakeyTest, CorruptsOnlyItsPartOfSharedMemory) {
  open("0 1 5 corrupt_bio_byte 1 w 7 0");
  std::vector<std::byte> data(3 * kSectorSize, std::byte{'W'});
  iovec pieces[] = {{data.data(), 700}, {data.data() + 700, data.size() - 700}};
  Bio bio([](Bio&) {});
  bio.op = Op::Write;
  bio.sector = {2};
  bio.count = {1};
  bio.data = {pieces, 2, kSectorSize};
  ASSERT_EQ(target_->map(bio), MapResult::Remapped);
  EXPECT_NE(bio.data.segments, pieces);
  bio.dev->submit(bio);
  int error = bio.status;
  EXPECT_EQ(target_->end_io(bio, error), EndIo::Done);
  EXPECT_EQ(bio.data.segments, pieces);
  EXPECT_EQ(bio.data.offset, kSectorSize);
  EXPECT_EQ(changes(data, 'W'), Changes());
  EXPECT_EQ(on_disk(2, 1, 'W'), (Changes{{0, 7}}));
}

// Where 200 reads and 200 writes of 8 sectors were corrupted.
class RandomFlakeyTest : public FlakeyTest {
 protected:
  std::vector<Changes> run(const std::string& params) {
    open(params);
    std::vector<Changes> out;
    for (int i = 0; i < 200; ++i) {
      EXPECT_EQ(read(0, 8), 0);
      out.push_back(changes(seen_));
      EXPECT_EQ(write(8, 8), 0);
      out.push_back(on_disk(8, 8, 'W'));
    }
    return out;
  }
  static size_t corrupted(const std::vector<Changes>& run, size_t first) {
    size_t count = 0;
    for (size_t i = first; i < run.size(); i += 2) count += !run[i].empty();
    return count;
  }
};

TEST_F(RandomFlakeyTest, RepeatsWithASeed) {
  const std::string features =
      "0 1 6 random_read_corrupt 500000000 random_write_corrupt 250000000 ";
  auto first = run(features + "seed 7");
  EXPECT_EQ(first, run(features + "seed 7"));
  EXPECT_NE(first, run(features + "seed 8"));
  EXPECT_NEAR(static_cast<double>(corrupted(first, 0)), 100, 40);
  EXPECT_NEAR(static_cast<double>(corrupted(first, 1)), 50, 30);
  std::set<size_t> places;
  for (const Changes& changes : first) {
    EXPECT_LE(changes.size(), 1u);
    for (const auto& [at, value] : changes) places.insert(at);
  }
  EXPECT_GT(places.size(), 50u);
}

TEST_F(RandomFlakeyTest, DiffersWithoutASeed) {
  const char* features = "0 1 2 random_read_corrupt 1000000000";
  EXPECT_NE(run(features), run(features));
}

TEST_F(RandomFlakeyTest, CorruptsOneWayOnly) {
  auto reads = run("0 1 2 random_read_corrupt 1000000000");
  EXPECT_GT(corrupted(reads, 0), 190u);  // a random value may be the right one
  EXPECT_EQ(corrupted(reads, 1), 0u);
  auto writes = run("0 1 2 random_write_corrupt 1000000000");
  EXPECT_EQ(corrupted(writes, 0), 0u);
  EXPECT_GT(corrupted(writes, 1), 190u);
}

TEST_F(RandomFlakeyTest, CorruptsAFixedAndARandomByte) {
  auto both = run("0 1 9 corrupt_bio_byte 5 w 1 0 random_write_corrupt 1000000000 seed 1");
  EXPECT_EQ(corrupted(both, 1), 200u);
  for (size_t i = 1; i < both.size(); i += 2) {
    EXPECT_LE(both[i].size(), 2u);
    EXPECT_EQ(both[i].front().first, 4u);
  }
}

TEST_F(RandomFlakeyTest, FollowsTheOrderOfArrivalNotOfTheEnds) {
  auto corrupted_with = [&](bool backwards) {
    open("0 1 4 random_read_corrupt 500000000 seed 3");
    file("a").hold(true);
    std::vector<Bio*> held;
    std::vector<std::vector<std::byte>> memory(32, std::vector<std::byte>(kSectorSize));
    std::vector<iovec> segments(32);
    struct Read : Bio {
      using Bio::Bio;
      Target* target = nullptr;
    };
    std::vector<std::unique_ptr<Read>> reads;
    for (size_t i = 0; i < 32; ++i) {
      segments[i] = {memory[i].data(), kSectorSize};
      auto& read = *reads.emplace_back(std::make_unique<Read>([](Bio& bio) {
        int error = bio.status;
        static_cast<Read&>(bio).target->end_io(bio, error);
      }));
      read.target = target_.get();
      read.count = {1};
      read.data = {&segments[i], 1, 0};
      EXPECT_EQ(target_->map(read), MapResult::Remapped);
      read.dev->submit(read);
    }
    while (file("a").held() > 0) file("a").complete_at(backwards ? file("a").held() - 1 : 0);
    return memory;
  };
  EXPECT_EQ(corrupted_with(false), corrupted_with(true));
}

TEST(FlakeyDevice, SenseComesUpThroughAStackOfVolumes) {
  ManagerRig rig;
  rig.dir().file("a", 100);
  ASSERT_TRUE(rig.create("low", "0 100 flakey a 0 0 1 7 error_sense 3 0x11 4 error_reads seed 1"));
  ASSERT_TRUE(rig.create("top", "0 10 zero\n10 50 linear low 50"));
  auto device = rig.manager().open(1);
  ASSERT_TRUE(device);
  TestBio read(Op::Read, {5}, {20});
  (*device)->submit(read);
  EXPECT_TRUE(read.done());
  EXPECT_EQ(read.error(), EIO);
  EXPECT_EQ(read.sense, (Sense{3, 0x11, 4, true}));
  rig.manager().close(1);
}

TEST(FlakeyDevice, WritesFromManyThreadsAreCorruptedInCopies) {
  Rig rig;
  rig.file("a", 256);
  ASSERT_TRUE(rig.load("0 256 flakey a 0 0 1 7 corrupt_bio_byte 3 w 0 0 seed 9"));
  ASSERT_TRUE(rig.resume());
  std::vector<std::thread> threads;
  for (uint64_t t = 0; t < 4; ++t) {
    threads.emplace_back([&rig, t] {
      for (int i = 0; i < 500; ++i) {
        TestBio write(Op::Write, {t * 64}, {8});
        write.fill('W');
        rig.device().submit(write);
        EXPECT_TRUE(write.done() && write.holds('W', t * 64));
      }
    });
  }
  for (auto& thread : threads) thread.join();
  for (uint64_t t = 0; t < 4; ++t) EXPECT_EQ(rig.file("a").peek({t * 64}, {1})[2], std::byte{0});
}

}  // namespace
}  // namespace dmfs::test
