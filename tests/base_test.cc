// SPDX-License-Identifier: Apache-2.0
// core/base, and the memory and list helpers of a bio.
#include <gtest/gtest.h>

#include <memory>
#include <numeric>
#include <random>
#include <thread>

#include "core/base/args.h"
#include "core/base/cancel.h"
#include "core/base/registry.h"
#include "core/base/result.h"
#include "core/base/units.h"
#include "core/io/bio.h"

namespace dmfs {
namespace {

using Words = std::vector<std::string>;

Words split(std::string_view line) {
  auto words = split_args(line);
  EXPECT_TRUE(words) << words.error().message;
  return words ? *words : Words{};
}

TEST(SplitArgs, SplitsAtAnyWhiteSpace) {
  EXPECT_EQ(split(""), Words{});
  EXPECT_EQ(split(" \t\n\v\f\r "), Words{});
  EXPECT_EQ(split("a"), Words{"a"});
  EXPECT_EQ(split("  a\tb\nc  "), (Words{"a", "b", "c"}));
}

TEST(SplitArgs, BackslashTakesTheNextCharacter) {
  EXPECT_EQ(split("a\\ b c"), (Words{"a b", "c"}));
  EXPECT_EQ(split("\\\\"), Words{"\\"});
  EXPECT_EQ(split("\\n"), Words{"n"});
  EXPECT_EQ(split("a\\"), Words{"a\\"});  // nothing to take: it stays, as in the kernel
  EXPECT_EQ(split("\\ "), Words{" "});
}

TEST(SplitArgs, RefusesHostileInput) {
  auto nul = split_args(std::string_view("a\0b", 3));
  ASSERT_FALSE(nul);
  EXPECT_EQ(nul.error().code, EINVAL);
  std::string words;
  for (size_t i = 0; i < kMaxArgs; ++i) words += "x ";
  EXPECT_EQ(split(words).size(), kMaxArgs);
  auto many = split_args(words + "x");
  ASSERT_FALSE(many);
  EXPECT_EQ(many.error().code, EINVAL);
}

TEST(QuoteArg, RoundTripsEveryWord) {
  EXPECT_EQ(quote_arg("plain"), "plain");
  EXPECT_EQ(quote_arg("a b\\c"), "a\\ b\\\\c");
  EXPECT_EQ(quote_arg(""), "");
  std::mt19937 random(1);
  const std::string_view alphabet = "ab \\\t\n'\"/\xc3\xa9";
  for (int i = 0; i < 2000; ++i) {
    std::string word;
    for (size_t n = 1 + random() % 12; n > 0; --n) word += alphabet[random() % alphabet.size()];
    EXPECT_EQ(split(quote_arg(word)), Words{word});
  }
}

TEST(SameWord, IgnoresTheCaseOfTheFirst) {
  EXPECT_TRUE(same_word("Drop_Writes", "drop_writes"));
  EXPECT_TRUE(same_word("", ""));
  EXPECT_FALSE(same_word("drop_write", "drop_writes"));
  EXPECT_FALSE(same_word("drop@writes", "drop`writes"));
}

TEST(ParseU64, TakesDecimalDigitsOnly) {
  uint64_t value = 1;
  EXPECT_TRUE(parse_u64("0", value));
  EXPECT_EQ(value, 0u);
  EXPECT_TRUE(parse_u64("007", value));
  EXPECT_EQ(value, 7u);
  EXPECT_TRUE(parse_u64("18446744073709551615", value));
  EXPECT_EQ(value, UINT64_MAX);
  for (const char* bad : {"", "-1", "+1", " 1", "1 ", "0x8", "8s", "foo", "1.0",
                          "18446744073709551616", "99999999999999999999"}) {
    EXPECT_FALSE(parse_u64(bad, value)) << bad;
  }
}

TEST(ArgReader, ReadsInTurn) {
  Words words{"file", "12", "34"};
  ArgReader args("linear", words);
  EXPECT_EQ(args.size(), 3u);
  EXPECT_EQ(args.peek(), "file");
  EXPECT_EQ(*args.word("none"), "file");
  EXPECT_EQ(*args.number("n"), 12u);
  EXPECT_EQ(args.left(), 1u);
  EXPECT_EQ(args.sectors("s")->n, 34u);
  EXPECT_EQ(args.left(), 0u);
  EXPECT_EQ(args.peek(), "");
}

TEST(ArgReader, NamesTheOffendingWord) {
  Words words{"x7", "8"};
  ArgReader args("flakey", words);
  auto bad = args.number("bad up interval");
  ASSERT_FALSE(bad);
  EXPECT_EQ(bad.error().code, EINVAL);
  EXPECT_EQ(bad.error().message, "flakey: bad up interval: 'x7'");
  EXPECT_EQ(args.left(), 2u) << "a refused word is not taken";
  EXPECT_TRUE(args.word(""));
  EXPECT_EQ(args.number("too big", 0, 7).error().message, "flakey: too big: '8'");
  EXPECT_EQ(args.number("too small", 9).error().message, "flakey: too small: '8'");
  EXPECT_TRUE(args.number("just right", 8, 8));
  EXPECT_EQ(args.word("Not enough arguments").error().message, "flakey: Not enough arguments");
  EXPECT_EQ(args.sectors("Missing sector").error().message, "flakey: Missing sector");
  EXPECT_EQ(args.fail("no such", "w", ENOENT).code, ENOENT);
}

Result<int> half(int n) {
  if (n % 2 != 0) return Error{EDOM, "odd"};
  return n / 2;
}
Result<int> quarter(int n) {
  DM_TRY(int h, half(n));
  DM_TRY(int q, half(h));
  return q;
}
Status check(int n) {
  DM_TRY_STATUS(n < 0 ? Status(Error{ERANGE, "negative"}) : Status());
  return {};
}

TEST(ResultTest, CarriesAValueOrAnError) {
  EXPECT_EQ(*quarter(8), 2);
  ASSERT_FALSE(quarter(6));
  EXPECT_EQ(quarter(6).error().code, EDOM);
  EXPECT_EQ(quarter(6).error().message, "odd");
  EXPECT_TRUE(check(1));
  ASSERT_FALSE(check(-1));
  EXPECT_EQ(check(-1).error().code, ERANGE);
  Result<std::unique_ptr<int>> owned = std::make_unique<int>(5);
  EXPECT_EQ(**owned, 5);
  auto moved = *std::move(owned);
  EXPECT_EQ(*moved, 5);
}

TEST(RegistryTest, FindsByNameAndRefusesTwins) {
  struct Thing {
    std::string_view name;
  };
  static const Thing b{"b"}, a{"a"}, twin{"a"};
  Registry<Thing> registry;
  EXPECT_TRUE(registry.add(b));
  EXPECT_TRUE(registry.add(a));
  ASSERT_FALSE(registry.add(twin));
  EXPECT_EQ(registry.add(twin).error().code, EEXIST);
  EXPECT_EQ(registry.find("a"), &a);
  EXPECT_EQ(registry.find("c"), nullptr);
  EXPECT_EQ(registry.all().begin()->first, "a");
}

TEST(UnitsTest, SectorsAreFiveHundredAndTwelveBytes) {
  EXPECT_EQ(Sectors{3}.bytes(), 1536u);
  EXPECT_EQ(sectors_of_bytes(1535).n, 2u);
  EXPECT_TRUE(sector_aligned(1024));
  EXPECT_FALSE(sector_aligned(1023));
  EXPECT_EQ((Sectors{3} + Sectors{4} - Sectors{2}).n, 5u);
  EXPECT_LE(kMaxDeviceSectors.bytes(), static_cast<uint64_t>(INT64_MAX));
}

TEST(CancelTokenTest, WakesWaitersOnce) {
  CancelToken token;
  int woken = 0, gone = 0;
  CancelToken::Waker waker(token, [&] { ++woken; });
  {
    CancelToken::Waker short_lived(token, [&] { ++gone; });
  }
  EXPECT_FALSE(token.cancelled());
  token.cancel();
  EXPECT_TRUE(token.cancelled());
  token.cancel();
  EXPECT_EQ(woken, 1);
  EXPECT_EQ(gone, 0);
  CancelToken::Waker late(token, [&] { ++gone; });
  EXPECT_EQ(gone, 1) << "a waiter that comes late is woken at once";
}

TEST(CancelTokenTest, EndsAWaitOnAnotherThread) {
  for (int round = 0; round < 100; ++round) {
    CancelToken token;
    Mutex mutex;
    CondVar changed;
    bool woken = false;
    std::thread waiter([&] {
      CancelToken::Waker waker(token, [&] {
        MutexLock lock(mutex);
        woken = true;
        changed.notify_all();
      });
      MutexLock lock(mutex);
      while (!woken) changed.wait(mutex);
    });
    token.cancel();
    waiter.join();
    EXPECT_TRUE(woken);
  }
}

// Memory in pieces of 5, 0, 3 and 8 bytes, which reads 0, 1, 2 ... 15.
class BioDataTest : public ::testing::Test {
 protected:
  BioDataTest() { std::iota(bytes_, bytes_ + 16, uint8_t{0}); }
  BioData data(size_t offset = 0) { return {segments_, 4, offset}; }

  uint8_t bytes_[16];
  iovec segments_[4] = {{bytes_, 5}, {bytes_ + 5, 0}, {bytes_ + 5, 3}, {bytes_ + 8, 8}};
};

TEST_F(BioDataTest, SlicesFromTheOffset) {
  iovec out[4];
  size_t covered = 0;
  ASSERT_EQ(data(3).slice(9, out, covered), 3u);
  EXPECT_EQ(covered, 9u);
  EXPECT_EQ(out[0].iov_base, bytes_ + 3);
  EXPECT_EQ(out[0].iov_len, 2u);
  EXPECT_EQ(out[1].iov_base, bytes_ + 5);
  EXPECT_EQ(out[1].iov_len, 3u);
  EXPECT_EQ(out[2].iov_base, bytes_ + 8);
  EXPECT_EQ(out[2].iov_len, 4u);
  EXPECT_EQ(data(0).slice(0, out, covered), 0u);
}

TEST_F(BioDataTest, SaysWhatDidNotFit) {
  iovec out[1];
  size_t covered = 0;
  EXPECT_EQ(data(1).slice(10, out, covered), 1u);
  EXPECT_EQ(covered, 4u);
}

TEST_F(BioDataTest, CopiesAcrossPieces) {
  std::byte flat[7];
  copy_from_bio(data(2), 1, flat);
  for (uint8_t i = 0; i < 7; ++i) EXPECT_EQ(flat[i], std::byte(i + 3));
  std::fill(std::begin(flat), std::end(flat), std::byte{99});
  copy_to_bio(data(2), 1, flat);
  for (uint8_t i = 0; i < 16; ++i) EXPECT_EQ(bytes_[i], i >= 3 && i < 10 ? 99 : i);
  zero_bio(data(4), 0, 12);
  for (uint8_t i = 4; i < 16; ++i) EXPECT_EQ(bytes_[i], 0);
  EXPECT_EQ(bytes_[3], 99);
}

class BioListTest : public ::testing::Test {
 protected:
  std::vector<Bio*> drain() {
    std::vector<Bio*> out;
    while (Bio* bio = list_.pop_front()) out.push_back(bio);
    EXPECT_TRUE(list_.empty());
    EXPECT_EQ(list_.size(), 0u);
    return out;
  }
  Bio a_, b_, c_, d_;
  BioList list_;
};

TEST_F(BioListTest, IsAFifo) {
  EXPECT_EQ(list_.pop_front(), nullptr);
  for (Bio* bio : {&a_, &b_, &c_}) list_.push_back(*bio);
  EXPECT_EQ(list_.size(), 3u);
  EXPECT_EQ(list_.front(), &a_);
  EXPECT_EQ(drain(), (std::vector<Bio*>{&a_, &b_, &c_}));
  list_.push_back(d_);
  EXPECT_EQ(drain(), std::vector<Bio*>{&d_}) << "usable after it was empty";
}

TEST_F(BioListTest, SplicesInFront) {
  BioList first, none;
  first.push_back(a_);
  first.push_back(b_);
  list_.push_back(c_);
  list_.splice_front(none);
  list_.splice_front(first);
  EXPECT_TRUE(first.empty());
  list_.push_back(d_);
  EXPECT_EQ(list_.size(), 4u);
  EXPECT_EQ(drain(), (std::vector<Bio*>{&a_, &b_, &c_, &d_}));
  first.push_back(b_);
  list_.splice_front(first);  // into an empty list: the tail has to follow
  list_.push_back(a_);
  EXPECT_EQ(drain(), (std::vector<Bio*>{&b_, &a_}));
}

TEST_F(BioListTest, TakesFromAnyPlace) {
  for (Bio* out : {&a_, &b_, &c_}) {
    for (Bio* bio : {&a_, &b_, &c_}) list_.push_back(*bio);
    BioList taken = list_.take({out, EINTR});
    EXPECT_EQ(taken.size(), 1u);
    EXPECT_EQ(taken.pop_front(), out);
    EXPECT_TRUE(list_.take({out, EINTR}).empty());
    EXPECT_TRUE(list_.take({&d_, EINTR}).empty());
    EXPECT_EQ(list_.size(), 2u);
    list_.push_back(d_);
    while (Bio* bio = list_.pop_front()) EXPECT_NE(bio, out);
  }
}

TEST_F(BioListTest, TakesAllThatComeFromOne) {
  Bio clone;
  clone.origin = &a_;
  for (Bio* bio : {&b_, &clone, &c_, &a_}) list_.push_back(*bio);
  BioList taken = list_.take({&a_, EINTR});
  EXPECT_EQ(taken.pop_front(), &clone);
  EXPECT_EQ(taken.pop_front(), &a_);
  EXPECT_TRUE(taken.empty());
  BioList rest = list_.take({nullptr, EINTR});
  EXPECT_EQ(rest.size(), 2u);
  EXPECT_TRUE(list_.empty());
  EXPECT_EQ(clone.cancelled(), 0);
  a_.cancel_error = EINTR;
  EXPECT_EQ(clone.cancelled(), EINTR);
}

TEST(BioTest, CompletesWithItsStatus) {
  Bio bio([](Bio& b) { b.slot = 7; });
  bio.complete(EIO);
  EXPECT_EQ(bio.status, EIO);
  EXPECT_EQ(bio.slot, 7);
  bio.reset();
  bio.complete(0);
  EXPECT_EQ(bio.status, 0);
}

TEST(BioDeathTest, CompletesOnlyOnce) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
#ifdef NDEBUG
  GTEST_SKIP() << "assertions are off";
#else
  Bio bio([](Bio&) {});
  bio.complete(0);
  EXPECT_DEATH(bio.complete(0), "a bio completes once");
#endif
}

}  // namespace
}  // namespace dmfs
