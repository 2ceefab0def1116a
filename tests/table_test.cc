// SPDX-License-Identifier: Apache-2.0
// Tables: what is refused, who is found, how bios are split and fanned out.
#include <gtest/gtest.h>

#include <random>

#include <fmt/format.h>

#include "tests/support/harness.h"

namespace dmfs::test {
namespace {

Result<std::unique_ptr<Table>> build(TestOpener& opener, const std::string& text) {
  static FakeClock clock;  // outlives what it builds
  Table::Options options{builtin_registry(), opener, clock};
  return Table::build(parse_table(text), options);
}

TEST(Build, RefusesWhatTheKernelRefuses) {
  TestOpener opener;
  opener.add("a", 2048);
  struct Case {
    const char* table;
    const char* text;
  } cases[] = {
      {"0 0 zero", "zero-length target"},
      {"8 8 zero", "zero: Gap in table"},
      {"0 8 zero\n16 8 zero", "zero: Gap in table"},
      {"0 8 zero\n4 8 error", "error: Gap in table"},
      {"0 18446744073709551615 zero", "too large device"},
      {"18446744073709551615 8 zero", "too large device"},
      {"0 36028797018963968 zero", "too large device"},
      {"0 8 nosuch a b c", "nosuch: unknown target type"},
      {"0 8 ZERO", "ZERO: unknown target type"},
      {"0 8 zero extra", "zero: No arguments required"},
      {"0 2049 linear a 0", "'a' too small for target: start=0, len=2049, dev_size=2048"},
      {"0 8 linear a 2041", "'a' too small for target: start=2041, len=8, dev_size=2048"},
      {"0 8 linear a 9999999999999999999", "too small for target"},
      {"0 8192 striped 2 16 a 0 a 0", "too small for target: start=0, len=4096, dev_size=2048"},
  };
  for (const Case& c : cases) {
    auto table = build(opener, c.table);
    ASSERT_FALSE(table) << c.table;
    EXPECT_NE(table.error().message.find(c.text), std::string::npos) << table.error().message;
    EXPECT_EQ(opener.open_count("a"), 0) << "a refused table keeps nothing open";
  }
  EXPECT_TRUE(build(opener, "0 8 linear a 2040"));
  EXPECT_TRUE(build(opener, "0 9007199254740992 zero"));
}

TEST(Build, OpensADeviceOnce) {
  TestOpener opener;
  opener.add("a", 100);
  opener.add("b", 100);
  auto table = build(opener, "0 8 linear a 0\n8 8 linear b 0\n16 8 linear a 8");
  ASSERT_TRUE(table);
  EXPECT_EQ(opener.open_count("a"), 1);
  EXPECT_EQ((*table)->devices().size(), 2u);
}

TEST(Find, AgreesWithALinearSearch) {
  std::mt19937_64 random(7);
  TestOpener opener;
  for (size_t targets : {1, 2, 3, 4, 5, 8, 31, 64, 65, 1000}) {
    std::string text;
    uint64_t at = 0;
    std::vector<uint64_t> ends;
    for (size_t i = 0; i < targets; ++i) {
      uint64_t length = 1 + random() % 20;
      text += fmt::format("{} {} {}\n", at, length, i % 2 ? "zero" : "error");
      ends.push_back(at += length);
    }
    auto table = build(opener, text);
    ASSERT_TRUE(table) << table.error().message;
    EXPECT_EQ((*table)->size().n, at);
    size_t expected = 0;
    for (uint64_t sector = 0; sector < at; ++sector) {
      while (ends[expected] <= sector) ++expected;
      ASSERT_EQ(&(*table)->find({sector}), &(*table)->entries()[expected]) << sector;
    }
  }
}

TEST(Split, AtTargetsAndAtChunks) {
  Rig rig;
  rig.file("a", 100);
  rig.file("b", 100);
  ASSERT_TRUE(rig.load("0 10 linear a 5\n10 40 striped 2 10 a 20 b 20"));
  ASSERT_TRUE(rig.resume());
  auto w = rig.write(6, 30, 'W');
  ASSERT_TRUE(w->done());
  EXPECT_EQ(w->error(), 0);
  std::vector<SeenBio> a = rig.file("a").seen(), b = rig.file("b").seen();
  ASSERT_EQ(a.size(), 3u);
  EXPECT_EQ(a[0].sector.n, 11u);
  EXPECT_EQ(a[0].count.n, 4u);
  EXPECT_EQ(a[1].sector.n, 20u);
  EXPECT_EQ(a[1].count.n, 10u);
  EXPECT_EQ(a[2].sector.n, 30u);
  EXPECT_EQ(a[2].count.n, 6u);
  ASSERT_EQ(b.size(), 1u);
  EXPECT_EQ(b[0].sector.n, 20u);
  auto r = rig.read(6, 30);
  EXPECT_TRUE(r->holds('W', 6));
}

TEST(Split, ManySegmentsOfMemory) {
  Rig rig;
  rig.file("a", 100);
  ASSERT_TRUE(rig.load("0 96 striped 1 3 a 0"));
  ASSERT_TRUE(rig.resume());
  std::vector<std::byte> memory(96 * 512);
  std::mt19937 random(3);
  for (auto& byte : memory) byte = std::byte(random());
  std::vector<iovec> segments;
  for (size_t at = 0; at < memory.size();) {
    size_t length = std::min<size_t>(1 + random() % 3000, memory.size() - at);
    segments.push_back({&memory[at], length});
    at += length;
  }
  TestBio write(Op::Write, {0}, {96});
  write.data = {segments.data(), static_cast<uint32_t>(segments.size()), 0};
  rig.device().submit(write);
  ASSERT_TRUE(write.done());
  auto read = rig.read(0, 96);
  EXPECT_EQ(read->memory(), memory);
}

TEST(Split, TheFirstErrorIsKeptAndTheRestIsDone) {
  Rig rig;
  HeldFile& a = rig.file("a", 100);
  ASSERT_TRUE(rig.load("0 10 linear a 0\n10 10 linear a 50\n20 10 error"));
  ASSERT_TRUE(rig.resume());
  a.hold(true);
  auto w = rig.write(5, 10);
  ASSERT_EQ(a.held(), 2u);
  a.complete_at(1, ENOSPC);
  EXPECT_FALSE(w->done());
  a.complete_at(0, EREMOTEIO);
  EXPECT_TRUE(w->done());
  EXPECT_EQ(w->error(), ENOSPC);
  a.hold(false);
  auto half = rig.write(15, 10, 'H');
  EXPECT_EQ(half->error(), EIO);
  EXPECT_TRUE(rig.read(15, 5)->holds('H', 15));
}

TEST(Flush, GoesToEveryTargetAndSlot) {
  Rig rig;
  HeldFile& a = rig.file("a", 100);
  HeldFile& b = rig.file("b", 100);
  ASSERT_TRUE(rig.load("0 10 linear a 0\n10 20 striped 2 10 a 20 b 20\n30 8 zero\n38 8 error"));
  ASSERT_TRUE(rig.resume());
  auto flush = rig.send(Op::Flush);
  EXPECT_EQ(flush->error(), 0);
  EXPECT_EQ(a.seen().size(), 2u);
  EXPECT_EQ(b.seen().size(), 1u);
  a.hold(true);
  b.hold(true);
  auto failed = rig.send(Op::Flush);
  ASSERT_EQ(a.held(), 2u);
  a.complete_next(EIO);
  b.complete_next(EOPNOTSUPP);  // supersedes
  EXPECT_FALSE(failed->done());
  a.complete_next(ENOSPC);
  EXPECT_EQ(failed->error(), EOPNOTSUPP);
}

TEST(Sense, GoesWithTheErrorThatIsKept) {
  const Sense medium{3, 0x11, 0, true}, hardware{4, 0x44, 0, true};
  Rig rig;
  HeldFile& a = rig.file("a", 100);
  HeldFile& b = rig.file("b", 100);
  ASSERT_TRUE(rig.load("0 10 linear a 0\n10 10 linear b 0"));
  ASSERT_TRUE(rig.resume());
  a.hold(true);
  b.hold(true);
  auto first = rig.write(5, 10);
  b.complete_next(EIO, medium);
  a.complete_next(ENOSPC, hardware);
  EXPECT_EQ(first->error(), EIO);
  EXPECT_EQ(first->sense, medium);
  auto superseded = rig.send(Op::Flush);
  a.complete_next(EIO, medium);
  b.complete_next(EOPNOTSUPP);
  EXPECT_EQ(superseded->error(), EOPNOTSUPP);
  EXPECT_EQ(superseded->sense, Sense());
  // Clones are used again: what they knew of an error is gone.
  auto fine = rig.write(5, 10);
  a.complete_next();
  b.complete_next();
  EXPECT_EQ(fine->error(), 0);
  EXPECT_EQ(fine->sense, Sense());
}

TEST(Discard, FansOutAndRefuses) {
  Rig rig;
  HeldFile& a = rig.file("a", 100);
  HeldFile& b = rig.file("b", 100);
  ASSERT_TRUE(rig.load("0 60 striped 2 10 a 0 b 0\n60 8 error"));
  ASSERT_TRUE(rig.resume());
  ASSERT_EQ(rig.write(0, 60, 'D')->error(), 0);
  a.forget_seen();
  b.forget_seen();
  EXPECT_EQ(rig.send(Op::Discard, 5, 40)->error(), 0);
  ASSERT_EQ(a.seen().size(), 1u);  // one contiguous stretch on each stripe
  ASSERT_EQ(b.seen().size(), 1u);
  EXPECT_TRUE(rig.read(0, 5)->holds('D', 0));
  EXPECT_TRUE(rig.read(5, 40)->holds_zeroes());
  EXPECT_TRUE(rig.read(45, 15)->holds('D', 45));
  EXPECT_EQ(rig.send(Op::Discard, 60, 4)->error(), EOPNOTSUPP);
  EXPECT_EQ(rig.send(Op::WriteZeroes, 58, 4)->error(), EIO);
  a.set_supports_discard(false);
  EXPECT_EQ(rig.send(Op::Discard, 0, 40)->error(), EOPNOTSUPP);
}

TEST(Io, PastTheEndIsEio) {
  Rig rig;
  ASSERT_TRUE(rig.load("0 8 zero"));
  ASSERT_TRUE(rig.resume());
  EXPECT_EQ(rig.read(7, 2)->error(), EIO);
  EXPECT_EQ(rig.read(9, 1)->error(), EIO);
  TestBio huge(Op::Discard, {4}, {UINT64_MAX - 1});
  rig.device().submit(huge);
  EXPECT_EQ(huge.error(), EIO);
}

TEST(Extents, AddUp) {
  Rig rig;
  HeldFile& a = rig.file("a", 100);
  ASSERT_TRUE(rig.load("0 50 linear a 0\n50 20 zero\n70 8 error"));
  ASSERT_TRUE(rig.resume());
  ASSERT_EQ(rig.write(10, 10)->error(), 0);
  auto table = rig.device().live_table();
  EXPECT_FALSE(table->extent_at({0}).data);
  EXPECT_EQ(table->extent_at({0}).length.n, 10u);
  EXPECT_TRUE(table->extent_at({12}).data);
  EXPECT_EQ(table->extent_at({12}).length.n, 8u);
  EXPECT_FALSE(table->extent_at({55}).data);
  EXPECT_EQ(table->allocated().n, 10u);
  EXPECT_EQ(a.allocated({0}, {100}).n, 10u);
}

}  // namespace
}  // namespace dmfs::test
