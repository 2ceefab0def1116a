// SPDX-License-Identifier: Apache-2.0
// linear, striped, unstriped, zero, error: the conformance suite, and what is special about each.
// Their arguments are in target_args_test.cc.
#include <cstdlib>
#include <new>

#include "tests/support/target_conformance.h"
#include "tests/support/targets_fixture.h"

namespace {

thread_local unsigned allocations = 0;

}  // namespace

// The thread sanitizer brings its own operator new.
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define DM_OWN_NEW 0
#endif
#endif
#ifndef DM_OWN_NEW
#define DM_OWN_NEW 1
#endif

#if DM_OWN_NEW
// Counts, so that a test can see that map() does not allocate. Not inlined, or g++ takes malloc and
// delete for a mismatch.
[[gnu::noinline]] void* operator new(size_t size) {
  ++allocations;
  if (void* memory = std::malloc(size ? size : 1)) return memory;
  throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* memory) noexcept {
  std::free(memory);
}
[[gnu::noinline]] void operator delete(void* memory, size_t) noexcept {
  std::free(memory);
}
#endif

namespace dmfs::test {
namespace {

using Data = TargetCase::Data;

std::vector<std::pair<RegisterTargets, TargetCase>> all_cases() {
  std::vector<TargetCase> cases{
      {"Delay", "delay", "a 50 0", {7}, {100}, {{"a", {150}}}},
      {"DelayTwoWays", "delay", "a 3 0 a 3 0", {0}, {64}, {{"a", {67}}}},
      {"DelayThreeWays", "delay", "a 3 0 a 3 0 a 0 0", {0}, {64}, {{"a", {67}}}},
      {"Hang", "hang", "a 50", {7}, {100}, {{"a", {150}}}},
      {"Linear", "linear", "a 0", {0}, {100}, {{"a", {100}}}},
      {"LinearOffset", "linear", "a 50", {7}, {100}, {{"a", {150}}}},
      {"LinearQuoted", "linear", "a\\ b\\\\c 3", {0}, {10}, {{"a b\\c", {13}}}},
      {"LinearOneSector", "linear", "a 9", {16}, {1}, {{"a", {10}}}},
      {"Multipath",
       "multipath",
       "3 retain_attached_hw_handler queue_mode bio 0 1 1 round-robin 0 2 1 a 1 a 1 ",
       {7},
       {100},
       {{"a", {100}}}},
      {"MultipathGroups",
       "multipath",
       "1 queue_if_no_path 0 2 1 service-time 0 1 2 a 1 5 historical-service-time 2 972 0 1 1 b 0 ",
       {0},
       {64},
       {{"a", {64}}, {"b", {64}}}},
      {"Striped", "striped", "2 16 a 0 b 0", {0}, {256}, {{"a", {128}}, {"b", {128}}}},
      {"StripedOddChunk",
       "striped",
       "3 5 a 1 b 2 c 3",
       {11},
       {60},
       {{"a", {21}}, {"b", {22}}, {"c", {23}}}},
      {"StripedOne", "striped", "1 7 a 3", {0}, {21}, {{"a", {24}}}},
      {"StripedChunkOfOne",
       "striped",
       "4 1 a 0 b 0 c 0 d 0",
       {2},
       {64},
       {{"a", {16}}, {"b", {16}}, {"c", {16}}, {"d", {16}}}},
      {"StripedOddCount",
       "striped",
       "3 8 a 0 b 0 c 0",
       {8},
       {96},
       {{"a", {32}}, {"b", {32}}, {"c", {32}}}},
      {"StripedTwiceOnOne", "striped", "2 4 a 0 a 40", {0}, {80}, {{"a", {80}}}},
      {"Throttle", "throttle", "a 50 0", {7}, {100}, {{"a", {150}}}},
      {"ThrottleFast",
       "throttle",
       "a 3 6 write_iops 9007199254740992 read_bps 9007199254740992 burst_ms 1000",
       {0},
       {64},
       {{"a", {67}}}},
      {"Unstriped", "unstriped", "2 16 1 a 0", {0}, {128}, {{"a", {256}}}},
      {"UnstripedOffset", "unstriped", "4 8 3 a 5", {24}, {64}, {{"a", {261}}}},
      {"UnstripedOddChunk", "unstriped", "3 5 0 a 2", {3}, {50}, {{"a", {142}}}},
      {"UnstripedOne", "unstriped", "1 8 0 a 0", {0}, {64}, {{"a", {64}}}},
      {"Zero", "zero", "", {5}, {64}, {}, Data::Zeroes},
      {"Error", "error", "", {5}, {64}, {}, Data::Fails},
  };
  std::vector<std::pair<RegisterTargets, TargetCase>> out;
  for (auto& c : cases) out.emplace_back(register_builtin_targets, std::move(c));
  return out;
}

INSTANTIATE_TEST_SUITE_P(Builtin, TargetConformance, ::testing::ValuesIn(all_cases()),
                         [](const auto& c) { return c.param.second.label; });

using TargetsTest = TargetsFixture;

TEST_F(TargetsTest, HaveTheKernelsVersions) {
  std::string all;
  for (const auto& [name, type] : registry_.all()) {
    auto [major, minor, patch] = type->version;
    all += name + ' ' + std::to_string(major) + '.' + std::to_string(minor) + '.' +
           std::to_string(patch) + '\n';
  }
  EXPECT_EQ(all,
            "delay 1.4.0\ndust 1.0.0\nerror 1.5.0\nflakey 1.5.0\nhang 1.0.0\n"
            "lab 1.0.0\nlinear 1.4.0\n"
            "mirror 1.14.0\nmultipath 1.14.0\n"
            "striped 1.6.0\nthrottle 1.0.0\n"
            "unstriped 1.1.0\nzero 1.1.0\n");
}

TEST_F(TargetsTest, AskForTheRangeThatTheyUse) {
  using Opened = std::vector<TestContext::Opened>;
  auto linear = make({8}, "linear", "a 2041");
  EXPECT_EQ(context_->opened(), (Opened{{"a", {2041}, {8}}}));
  auto striped = make({8192}, "striped", "2 16 a 5 b 0");
  EXPECT_EQ(context_->opened(), (Opened{{"a", {5}, {4096}}, {"b", {0}, {4096}}}));
  auto unstriped = make({2048}, "unstriped", "2 16 1 c 3");
  EXPECT_EQ(context_->opened(), (Opened{{"c", {3}, {2048}}}));
}

// A bio for map() alone.
struct Probe : Bio {
  Probe(Op what, Sectors at, Sectors length, uint16_t which = 0)
      : Bio([](Bio& bio) { static_cast<Probe&>(bio).ended = true; }) {
    op = what;
    sector = at;
    count = length;
    slot = which;
  }
  bool ended = false;
};

TEST_F(TargetsTest, LinearShiftsFromItsOwnBegin) {
  auto target = make({100}, "linear", "a 50", {1000});
  Probe read(Op::Read, {1099}, {1});
  ASSERT_EQ(target->map(read), MapResult::Remapped);
  EXPECT_EQ(read.dev, &file("a"));
  EXPECT_EQ(read.sector.n, 149u);
  Probe flush(Op::Flush, {0}, {0});
  ASSERT_EQ(target->map(flush), MapResult::Remapped);
  EXPECT_EQ(flush.sector.n, 0u);
}

TEST_F(TargetsTest, StripedDealsInTheGoldenOrder) {
  auto target = make({60}, "striped", "3 5 a 1 b 2 c 3");
  // golden: A:1..5 B:2..6 C:3..7 A:6..10 ...
  const std::pair<const char*, uint64_t> places[] = {{"a", 1}, {"b", 2}, {"c", 3}, {"a", 6}};
  for (uint64_t chunk = 0; chunk < 4; ++chunk) {
    Probe read(Op::Read, {chunk * 5 + 4}, {1});
    ASSERT_EQ(target->map(read), MapResult::Remapped);
    EXPECT_EQ(read.dev, &file(places[chunk].first));
    EXPECT_EQ(read.sector.n, places[chunk].second + 4);
  }
}

TEST_F(TargetsTest, StripedGivesEachStripeItsShareOfADiscard) {
  auto target = make({1024}, "striped", "2 16 a 0 b 100", {32});
  EXPECT_EQ(target->limits().num_discard_bios, 2);
  Probe first(Op::Discard, {32 + 8}, {40}, 0);  // golden: discard 8+40
  ASSERT_EQ(target->map(first), MapResult::Remapped);
  EXPECT_EQ(first.dev, &file("a"));
  EXPECT_EQ(first.sector.n, 8u);
  EXPECT_EQ(first.count.n, 24u);
  Probe second(Op::WriteZeroes, {32 + 8}, {40}, 1);
  ASSERT_EQ(target->map(second), MapResult::Remapped);
  EXPECT_EQ(second.dev, &file("b"));
  EXPECT_EQ(second.sector.n, 100u);
  EXPECT_EQ(second.count.n, 16u);
  Probe none(Op::Discard, {32 + 16}, {16}, 0);
  ASSERT_EQ(target->map(none), MapResult::Submitted);
  EXPECT_TRUE(none.ended);
  EXPECT_EQ(none.status, 0);
}

TEST_F(TargetsTest, StripedFlushesByTheSlot) {
  auto target = make({64}, "striped", "2 16 a 7 b 0");
  EXPECT_EQ(target->limits().num_flush_bios, 2);
  for (uint16_t slot : {0, 1}) {
    Probe flush(Op::Flush, {0}, {0}, slot);
    ASSERT_EQ(target->map(flush), MapResult::Remapped);
    EXPECT_EQ(flush.dev, &file(slot == 0 ? "a" : "b"));
    EXPECT_EQ(flush.sector.n, 0u);
  }
}

TEST_F(TargetsTest, StripedCountsErrorsAndRaisesEvents) {
  auto target = make({4096}, "striped", "2 16 a 0 b 0");
  TargetDriver driver(*target, *context_);
  std::vector<std::byte> sector(kSectorSize);
  file("b").fail_all(EIO);
  EXPECT_EQ(driver.read({0}, sector), 0);
  EXPECT_EQ(target->status_line(), "2 a b 1 AA");
  EXPECT_EQ(context_->events(), 0u);
  for (unsigned i = 1; i <= 20; ++i) {
    EXPECT_EQ(driver.read({16}, sector), EIO);
    EXPECT_EQ(context_->events(), std::min(i, 14u));
  }
  EXPECT_EQ(target->status_line(), "2 a b 1 AD");
  // The other stripe has its own count.
  file("a").fail_nth(1, ENOSPC);
  EXPECT_EQ(driver.write({0}, sector), ENOSPC);
  EXPECT_EQ(target->status_line(), "2 a b 1 DD");
  EXPECT_EQ(context_->events(), 15u);
}

TEST_F(TargetsTest, StripedDoesNotCountWhatIsNotSupported) {
  auto target = make({4096}, "striped", "2 16 a 0 b 0");
  TargetDriver driver(*target, *context_);
  file("a").fail_all(EOPNOTSUPP);
  EXPECT_EQ(driver.write_zeroes({0}, {64}), EOPNOTSUPP);
  EXPECT_EQ(target->status_line(), "2 a b 1 AA");
  EXPECT_EQ(context_->events(), 0u);
}

TEST_F(TargetsTest, StripedMarksEveryStripeOfAFailedDevice) {
  auto target = make({96}, "striped", "3 16 a 0 b 0 a 1024");
  TargetDriver driver(*target, *context_);
  std::vector<std::byte> sector(kSectorSize);
  file("a").fail_nth(1, EIO);
  EXPECT_EQ(driver.read({0}, sector), EIO);
  EXPECT_EQ(target->status_line(), "3 a b a 1 DAD");
  EXPECT_EQ(context_->events(), 1u);
}

TEST_F(TargetsTest, StripedIsSafeAtTheFarEnd) {
  // The largest device, in the largest chunks that divide it.
  Sectors length{1ull << 53};
  auto target = make(length, "striped", "2 2147483648 a 0 b 18446744073709551615");
  ASSERT_TRUE(target);
  Probe last(Op::Read, length - Sectors{1}, {1});
  ASSERT_EQ(target->map(last), MapResult::Remapped);
  EXPECT_EQ(last.dev, &file("b"));
  EXPECT_EQ(last.sector.n, (1ull << 52) - 2);  // wrapped; the table refuses such a start
  Probe all(Op::Discard, {0}, length, 0);
  ASSERT_EQ(target->map(all), MapResult::Remapped);
  EXPECT_EQ(all.count.n, 1ull << 52);
}

TEST_F(TargetsTest, UnstripedUndoesStriped) {
  auto striped = make({64}, "striped", "2 16 a 0 b 0");
  TargetDriver through(*striped, *context_);
  std::vector<std::byte> data(64 * kSectorSize);
  for (size_t i = 0; i < data.size(); ++i) data[i] = static_cast<std::byte>(i / kSectorSize);
  ASSERT_EQ(through.write({0}, data), 0);
  auto on_b = file("b").peek({0}, {32});
  auto unstriped = make({32}, "unstriped", "2 16 1 a 0", {9});
  file("a").poke({0}, data);
  TargetDriver driver(*unstriped, *context_);
  std::vector<std::byte> seen(32 * kSectorSize);
  ASSERT_EQ(driver.read({0}, seen), 0);
  EXPECT_EQ(seen, on_b);
}

TEST_F(TargetsTest, UnstripedFailsPastTheEndOfItsDevice) {
  // Golden accepts this table, of which the second half has no place on the device.
  auto target = make({2048}, "unstriped", "2 16 1 a 0");
  TargetDriver driver(*target, *context_);
  std::vector<std::byte> sector(kSectorSize);
  EXPECT_EQ(driver.write({1023}, sector), 0);
  EXPECT_EQ(driver.write({1024}, sector), EIO);
  EXPECT_EQ(driver.read({2047}, sector), EIO);
  EXPECT_EQ(file("a").seen().size(), 1u);
  EXPECT_EQ(target->extent_at({2040}, {8}).length.n, 8u);
}

TEST_F(TargetsTest, UnstripedRefusesDiscardAndWriteZeroes) {
  auto target = make({1024}, "unstriped", "2 16 1 a 0");
  TargetDriver driver(*target, *context_);
  EXPECT_EQ(driver.discard({0}, {8}), EOPNOTSUPP);
  EXPECT_EQ(driver.write_zeroes({0}, {8}), EOPNOTSUPP);
}

TEST_F(TargetsTest, ZeroReadsZeroesAndDropsWrites) {
  auto target = make({16}, "zero", "");
  TargetDriver driver(*target, *context_);
  std::vector<std::byte> data(16 * kSectorSize, std::byte{7});
  EXPECT_EQ(driver.write({0}, data), 0);
  EXPECT_EQ(data.front(), std::byte{7});
  EXPECT_EQ(driver.read({0}, data), 0);
  EXPECT_EQ(data, std::vector<std::byte>(data.size()));
  EXPECT_EQ(driver.flush(), 0);
  EXPECT_EQ(driver.discard({0}, {8}), EOPNOTSUPP);
  EXPECT_EQ(driver.write_zeroes({0}, {8}), 0);
  EXPECT_FALSE(target->extent_at({3}, {13}).data);
  EXPECT_EQ(target->allocated({16}).n, 0u);
}

TEST_F(TargetsTest, ZeroFillsOnlyItsPartOfSharedMemory) {
  auto target = make({16}, "zero", "");
  std::vector<std::byte> data(4 * kSectorSize, std::byte{7});
  iovec segment{data.data(), data.size()};
  Probe read(Op::Read, {1}, {2});
  read.data = {&segment, 1, kSectorSize};
  ASSERT_EQ(target->map(read), MapResult::Submitted);
  EXPECT_TRUE(read.ended);
  for (size_t i = 0; i < data.size(); ++i) {
    bool inside = i >= kSectorSize && i < 3 * kSectorSize;
    ASSERT_EQ(data[i], inside ? std::byte{0} : std::byte{7}) << i;
  }
}

TEST_F(TargetsTest, ErrorFailsAllButFlush) {
  auto target = make({16}, "error", "");
  TargetDriver driver(*target, *context_);
  std::vector<std::byte> data(kSectorSize);
  EXPECT_EQ(driver.read({0}, data), EIO);
  EXPECT_EQ(driver.write({0}, data), EIO);
  EXPECT_EQ(driver.write_zeroes({0}, {8}), EIO);
  EXPECT_EQ(driver.flush(), 0);
  EXPECT_EQ(driver.discard({0}, {8}), EOPNOTSUPP);
  EXPECT_TRUE(target->extent_at({0}, {16}).data);
  EXPECT_EQ(target->allocated({16}).n, 0u);
}

TEST_F(TargetsTest, DiscardNeedsEveryDeviceBelow) {
  auto linear = make({8}, "linear", "a 0");
  EXPECT_TRUE(linear->supports_discard());
  file("a").set_supports_discard(false);
  EXPECT_FALSE(linear->supports_discard());
  auto striped = make({64}, "striped", "2 16 a 0 b 0");
  EXPECT_TRUE(striped->supports_discard());
  file("b").set_supports_discard(false);
  EXPECT_FALSE(striped->supports_discard());
}

TEST_F(TargetsTest, AllocatedIsWhatLiesBelow) {
  auto linear = make({100}, "linear", "a 50");
  std::vector<std::byte> data(10 * kSectorSize);
  file("a").poke({45}, data);
  EXPECT_EQ(linear->allocated({100}).n, 5u);
  EXPECT_TRUE(linear->extent_at({0}, {100}).data);
  EXPECT_EQ(linear->extent_at({0}, {100}).length.n, 5u);
  EXPECT_EQ(linear->extent_at({5}, {95}).length.n, 95u);
  auto striped = make({64}, "striped", "2 16 a 0 b 0");
  file("b").poke({12}, data);
  EXPECT_EQ(striped->allocated({64}).n, 10u);
  EXPECT_FALSE(striped->extent_at({0}, {64}).data);
  EXPECT_EQ(striped->extent_at({4}, {60}).length.n, 12u);  // to the end of its chunk
  EXPECT_EQ(striped->extent_at({28}, {36}).length.n, 4u);
  EXPECT_TRUE(striped->extent_at({28}, {36}).data);
}

TEST_F(TargetsTest, MessagesAreRefusedInTheKernelsWords) {
  auto target = make({8}, "linear", "a 0");
  std::vector<std::string> words{"hello"};
  auto answer = target->message(words);
  ASSERT_FALSE(answer);
  EXPECT_EQ(answer.error().code, EINVAL);
  EXPECT_EQ(answer.error().message, "Target type does not support messages");
}

TEST_F(TargetsTest, MapDoesNotAllocate) {
  if (!DM_OWN_NEW) GTEST_SKIP() << "allocations cannot be counted under the thread sanitizer";
  for (auto [type, params] : {std::pair{"linear", "a 0"},
                              {"striped", "2 16 a 0 b 0"},
                              {"striped", "2 7 a 0 b 0"},
                              {"unstriped", "2 4 0 a 0"}}) {
    auto target = make({1792}, type, params);
    ASSERT_TRUE(target) << params;
    unsigned before = allocations;
    for (uint64_t i = 0; i < 100; ++i) {
      Probe read(Op::Read, {i}, {1});
      ASSERT_EQ(target->map(read), MapResult::Remapped);
      int error = 0;
      target->end_io(read, error);
    }
    EXPECT_EQ(allocations, before) << type << ' ' << params;
  }
}

}  // namespace
}  // namespace dmfs::test
