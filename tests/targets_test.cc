// SPDX-License-Identifier: Apache-2.0
// linear, striped, unstriped, zero, error: the conformance suite, the kernel's argument errors,
// and what is special about each.
#include <cstdlib>
#include <fstream>
#include <new>
#include <set>
#include <tuple>

#include "core/dm/table.h"
#include "core/targets/builtin.h"
#include "tests/support/target_conformance.h"

namespace {

thread_local unsigned allocations = 0;

}  // namespace

// Counts, so that a test can see that map() does not allocate.
void* operator new(size_t size) {
  ++allocations;
  if (void* memory = std::malloc(size ? size : 1)) return memory;
  throw std::bad_alloc();
}
void operator delete(void* memory) noexcept {
  std::free(memory);
}
void operator delete(void* memory, size_t) noexcept {
  std::free(memory);
}

namespace dmfs::test {
namespace {

using Data = TargetCase::Data;

std::vector<std::pair<RegisterTargets, TargetCase>> all_cases() {
  std::vector<TargetCase> cases{
      {"Linear", "linear", "a 0", {0}, {100}, {{"a", {100}}}},
      {"LinearOffset", "linear", "a 50", {7}, {100}, {{"a", {150}}}},
      {"LinearQuoted", "linear", "a\\ b\\\\c 3", {0}, {10}, {{"a b\\c", {13}}}},
      {"LinearOneSector", "linear", "a 9", {16}, {1}, {{"a", {10}}}},
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

// A target, its context with devices a, b, c, d of 2048 sectors each (as the golden /dev/ramN).
class TargetsTest : public ::testing::Test {
 protected:
  TargetsTest() { register_builtin_targets(registry_); }

  Result<std::unique_ptr<Target>> try_make(Sectors length, const char* type, const char* params,
                                           Sectors begin = {}) {
    context_ = std::make_unique<TestContext>(begin, length);
    for (const char* word : {"a", "b", "c", "d"}) context_->add_device(word, {2048});
    return make_target(registry_, *context_, type, params);
  }
  std::unique_ptr<Target> make(Sectors length, const char* type, const char* params,
                               Sectors begin = {}) {
    auto made = try_make(length, type, params, begin);
    EXPECT_TRUE(made) << made.error().message;
    return made ? *std::move(made) : nullptr;
  }
  HeldFile& file(const char* word) { return context_->device(word); }

  TargetRegistry registry_;
  std::unique_ptr<TestContext> context_;
};

TEST_F(TargetsTest, HaveTheKernelsVersions) {
  std::string all;
  for (const auto& [name, type] : registry_.all()) {
    auto [major, minor, patch] = type->version;
    all += name + ' ' + std::to_string(major) + '.' + std::to_string(minor) + '.' +
           std::to_string(patch) + '\n';
  }
  EXPECT_EQ(all, "error 1.5.0\nlinear 1.4.0\nstriped 1.6.0\nunstriped 1.1.0\nzero 1.1.0\n");
}

struct Refusal {
  uint64_t length;
  const char* type;
  const char* params;
  int code;
  const char* message;
};

// golden/b-errors, with a, b, c for /dev/ram0, 1, 2; and our own limits.
const Refusal kRefusals[] = {
    {8, "zero", "extra", EINVAL, "zero: No arguments required: 'extra'"},
    {8, "linear", "", EINVAL, "linear: Invalid argument count"},
    {8, "linear", "a", EINVAL, "linear: Invalid argument count"},
    {8, "linear", "a 0 00", EINVAL, "linear: Invalid argument count: '00'"},
    {8, "linear", "a foo", EINVAL, "linear: Invalid device sector: 'foo'"},
    {8, "linear", "a -1", EINVAL, "linear: Invalid device sector: '-1'"},
    {8, "linear", "a 0x8", EINVAL, "linear: Invalid device sector: '0x8'"},
    {8, "linear", "a 8s", EINVAL, "linear: Invalid device sector: '8s'"},
    {8, "linear", "a 18446744073709551616", EINVAL,
     "linear: Invalid device sector: '18446744073709551616'"},
    {8, "linear", "/dev/nosuch 0", ENOENT,
     "linear: Device lookup failed: '/dev/nosuch': No such file or directory"},
    {8, "linear", "nosuch 0", ENOENT,
     "linear: Device lookup failed: 'nosuch': No such file or directory"},
    {2048, "striped", "", EINVAL, "striped: Not enough arguments"},
    {2048, "striped", "2", EINVAL, "striped: Not enough arguments"},
    {2048, "striped", "2 16", EINVAL, "striped: Not enough destinations specified"},
    {2048, "striped", "2 16 a 0 b", EINVAL, "striped: Not enough destinations specified"},
    {2048, "striped", "2 16 a 0 b 0 c 0", EINVAL,
     "striped: Not enough destinations specified: 'c'"},
    {2048, "striped", "0 16 a 0", EINVAL, "striped: Invalid stripe count: '0'"},
    {2048, "striped", "x 16 a 0 b 0", EINVAL, "striped: Invalid stripe count: 'x'"},
    {65536, "striped", "65536 1 a 0", EINVAL, "striped: Invalid stripe count: '65536'"},
    {2048, "striped", "4294967296 16 a 0", EINVAL, "striped: Invalid stripe count: '4294967296'"},
    {2048, "striped", "2 0 a 0 b 0", EINVAL, "striped: Invalid chunk_size: '0'"},
    {2048, "striped", "2 x a 0 b 0", EINVAL, "striped: Invalid chunk_size: 'x'"},
    {2048, "striped", "2 4294967296 a 0 b 0", EINVAL, "striped: Invalid chunk_size: '4294967296'"},
    {2048, "striped", "2 7 a 0 b 0", EINVAL,
     "striped: Target length not divisible by chunk size: '7'"},
    {50, "striped", "2 6 a 0 b 0", EINVAL,
     "striped: Target length not divisible by chunk size: '6'"},
    {2040, "striped", "2 16 a 0 b 0", EINVAL,
     "striped: Target length not divisible by chunk size: '16'"},
    {24, "striped", "2 8 a 0 b 0", EINVAL,
     "striped: Target length not divisible by chunk size: '8'"},
    {2047, "striped", "2 8 a 0 b 0", EINVAL,
     "striped: Target length not divisible by number of stripes: '2'"},
    {2048, "striped", "3 16 a 0 b 0 c 0", EINVAL,
     "striped: Target length not divisible by number of stripes: '3'"},
    {2048, "striped", "2 16 a 0 b x", EINVAL, "striped: Couldn't parse stripe destination: 'x'"},
    {2048, "striped", "2 16 a 0 /dev/nosuch 0", ENOENT,
     "striped: Couldn't parse stripe destination: '/dev/nosuch': No such file or directory"},
    {8, "unstriped", "", EINVAL, "unstriped: Invalid number of arguments"},
    {8, "unstriped", "2 16 0 a", EINVAL, "unstriped: Invalid number of arguments"},
    {16, "unstriped", "2 16 0 a 0 more", EINVAL, "unstriped: Invalid number of arguments: 'more'"},
    {8, "unstriped", "2 16 2 a 0", EINVAL,
     "unstriped: Target length not divisible by chunk size: '16'"},
    {8, "unstriped", "2 16 0 a 0", EINVAL,
     "unstriped: Target length not divisible by chunk size: '16'"},
    {16, "unstriped", "0 16 0 a 0", EINVAL, "unstriped: Invalid stripe count: '0'"},
    {16, "unstriped", "2 0 0 a 0", EINVAL, "unstriped: Invalid chunk_size: '0'"},
    {16, "unstriped", "2 16 x a 0", EINVAL, "unstriped: Invalid stripe number: 'x'"},
    {16, "unstriped", "2 16 3 a 0", EINVAL,
     "unstriped: Please provide stripe between [0, # of stripes]: '3'"},
    {16, "unstriped", "2 16 0 a x", EINVAL, "unstriped: Invalid striped device offset: 'x'"},
    {16, "unstriped", "2 16 0 /dev/nosuch 0", ENOENT,
     "unstriped: Couldn't get striped device: '/dev/nosuch': No such file or directory"},
    // Would overflow, or wrap round to the device's start.
    {16, "unstriped", "2 16 0 a 18446744073709551615", EINVAL,
     "unstriped: Striped device would be too large: '18446744073709551615'"},
    {1ull << 53, "unstriped", "4294967295 1 0 a 0", EINVAL,
     "unstriped: Striped device would be too large: '0'"},
    {4294967295, "unstriped", "1 4294967295 4294967295 a 0", EINVAL,
     "unstriped: Striped device would be too large: '0'"},
};

TEST_F(TargetsTest, RefuseBadArgumentsAsTheKernel) {
  for (const Refusal& r : kRefusals) {
    SCOPED_TRACE(std::string(r.type) + ' ' + r.params);
    auto made = try_make({r.length}, r.type, r.params);
    if (made) {
      ADD_FAILURE() << "accepted";
      continue;
    }
    EXPECT_EQ(made.error().code, r.code);
    EXPECT_EQ(made.error().message, r.message);
  }
}

struct Accepted {
  uint64_t length;
  const char* type;
  const char* params;
  const char* printed;
  const char* status;
};

const Accepted kAccepted[] = {
    {8, "error", "extra words", "", ""},
    {9007199254740992, "zero", "", "", ""},
    {8, "linear", "a 2040", "a 2040", ""},
    // Too small for the target: the table's business, after create() has asked for the range.
    {8, "linear", "a 9999999999999999999", "a 9999999999999999999", ""},
    {8, "linear", "a 007", "a 7", ""},
    {2048, "striped", "2 16 a 0 b 0", "2 16 a 0 b 0", "2 a b 1 AA"},
    {2044, "striped", "2 7 a 0 b 0", "2 7 a 0 b 0", "2 a b 1 AA"},
    {2030, "striped", "2 7 a 0 b 0", "2 7 a 0 b 0", "2 a b 1 AA"},
    {2100, "striped", "2 6 a 0 b 0", "2 6 a 0 b 0", "2 a b 1 AA"},
    {60, "striped", "3 5 a 1 b 2 c 3", "3 5 a 1 b 2 c 3", "3 a b c 1 AAA"},
    {21, "striped", "1 7 a 3", "1 7 a 3", "1 a 1 A"},
    {16, "unstriped", "2 16 0 a 0", "2 16 0 a 0", ""},
    {2048, "unstriped", "2 16 0 a 0", "2 16 0 a 0", ""},
    {1024, "unstriped", "2 16 1 a 0", "2 16 1 a 0", ""},
    {16, "unstriped", "2 16 2 a 0", "2 16 2 a 0", ""},
    {16, "unstriped", "1 16 5 a 0", "1 16 5 a 0", ""},
};

TEST_F(TargetsTest, AcceptAndPrintAsTheKernel) {
  for (const Accepted& a : kAccepted) {
    SCOPED_TRACE(std::string(a.type) + ' ' + a.params);
    auto target = make({a.length}, a.type, a.params);
    ASSERT_TRUE(target);
    EXPECT_EQ(target->table_line(), a.printed);
    EXPECT_EQ(target->status_line(), a.status);
  }
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

// The devices are 2048 sectors long.
class Opener final : public DeviceOpener {
 public:
  Result<std::unique_ptr<BackingFile>> open(const std::string& word, bool) override {
    return std::unique_ptr<BackingFile>(std::make_unique<MemoryFile>(word, Sectors{2048}));
  }
};

TEST_F(TargetsTest, AreRefusedOnADeviceThatIsTooSmall) {
  Opener opener;
  auto load = [&](uint64_t length, const char* type, const char* params) {
    auto table = Table::build({{{{0}, {length}, type, params}}}, {registry_, opener});
    return table ? std::string("accepted") : table.error().message;
  };
  EXPECT_EQ(load(8, "linear", "/dev/ram0 2040"), "accepted");
  EXPECT_EQ(load(2048, "striped", "2 16 /dev/ram0 0 /dev/ram1 0"), "accepted");
  EXPECT_EQ(load(2048, "unstriped", "2 16 0 /dev/ram0 0"), "accepted");
  // Golden's words, with the file's name for the kernel's.
  const std::tuple<uint64_t, const char*, const char*, const char*> small[] = {
      {2049, "linear", "/dev/ram0 0", "start=0, len=2049, dev_size=2048"},
      {8, "linear", "/dev/ram0 2041", "start=2041, len=8, dev_size=2048"},
      {8, "linear", "/dev/ram0 9999999999999999999",
       "start=9999999999999999999, len=8, dev_size=2048"},
      {8, "linear", "/dev/ram0 18446744073709551615",
       "start=18446744073709551615, len=8, dev_size=2048"},
      {8192, "striped", "2 16 /dev/ram0 0 /dev/ram1 0", "start=0, len=4096, dev_size=2048"},
  };
  for (const auto& [length, type, params, range] : small) {
    std::string message = load(length, type, params);
    EXPECT_NE(message.find(std::string(" too small for target: ") + range), std::string::npos)
        << message;
    EXPECT_NE(message.find("/dev/ram0"), std::string::npos) << message;
  }
}

TEST_F(TargetsTest, AreInTheManualWithLinesThatParse) {
  std::string root = __FILE__;
  root.resize(root.rfind("/tests/"));
  std::ifstream manual(root + "/man/dmfs-targets.7");
  ASSERT_TRUE(manual) << root;
  std::set<std::string> sections, shown;
  std::string line;
  bool display = false;
  while (std::getline(manual, line)) {
    if (line.starts_with(".Ss ")) sections.insert(line.substr(4));
    if (line.starts_with(".Bd") || line.starts_with(".Ed")) display = line.starts_with(".Bd");
    if (!display || line.empty() || line[0] < '0' || line[0] > '9') continue;
    if (line.ends_with(" AD")) continue;  // of status, not of table
    for (size_t at; (at = line.find("\\e")) != std::string::npos;) line.replace(at, 2, "\\");
    auto words = split_args(line);
    ASSERT_TRUE(words);
    ASSERT_GE(words->size(), 3u) << line;
    uint64_t start = 0, length = 0;
    ASSERT_TRUE(parse_u64((*words)[0], start) && parse_u64((*words)[1], length)) << line;
    const TargetType* type = registry_.find((*words)[2]);
    ASSERT_TRUE(type) << line;
    TestContext context({start}, {length});
    for (const std::string& word : *words) context.add_device(word, {1 << 20});
    auto made = type->create(context, std::span(*words).subspan(3));
    ASSERT_TRUE(made) << line << ": " << made.error().message;
    EXPECT_TRUE(line.ends_with((*made)->table_line())) << line;
    shown.emplace(type->name);
  }
  for (const auto& [name, type] : registry_.all()) {
    EXPECT_TRUE(sections.contains(name)) << name;
    EXPECT_TRUE(shown.contains(name)) << name;
  }
}

TEST_F(TargetsTest, MapDoesNotAllocate) {
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
