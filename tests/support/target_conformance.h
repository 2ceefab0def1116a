// SPDX-License-Identifier: Apache-2.0
// What every target has to do, whatever it is. A test program describes its targets as
// TargetCases and instantiates TargetConformance with them; see tests/targets_test.cc.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <ostream>
#include <random>

#include "tests/support/test_context.h"

namespace dmfs::test {

struct TargetCase {
  std::string label;  // letters and digits
  const char* type;
  std::string params;  // canonical, as table_line() prints them
  Sectors begin, length;
  std::map<std::string, Sectors> devices;  // word -> size
  enum class Data { Keeps, Zeroes, Fails } data = Data::Keeps;
};

inline std::ostream& operator<<(std::ostream& out, const TargetCase& c) {
  return out << c.type << ' ' << c.params;
}

// Registers the types under test.
using RegisterTargets = void (*)(TargetRegistry&);

class TargetConformance : public ::testing::TestWithParam<std::pair<RegisterTargets, TargetCase>> {
 protected:
  using Data = TargetCase::Data;

  void SetUp() override {
    GetParam().first(registry_);
    for (const auto& [word, size] : c().devices) context_.add_device(word, size);
    auto made = make_target(registry_, context_, c().type, c().params);
    ASSERT_TRUE(made) << made.error().message;
    target_ = *std::move(made);
    ASSERT_TRUE(target_->preresume());
    target_->resume();
    driver_ = std::make_unique<TargetDriver>(*target_, context_);
  }

  const TargetCase& c() const { return GetParam().second; }
  std::vector<std::byte> random_bytes(Sectors count) {
    std::vector<std::byte> bytes(static_cast<size_t>(count.bytes()));
    for (std::byte& b : bytes) b = static_cast<std::byte>(random_());
    return bytes;
  }
  std::pair<Sectors, Sectors> random_range(uint64_t longest) {
    uint64_t start = random_() % c().length.n;
    uint64_t count = 1 + random_() % std::min(longest, c().length.n - start);
    return {{start}, {count}};
  }
  // Everything that reached a device lies on it, and not before what the target asked for.
  void expect_in_bounds() {
    std::map<std::string, Sectors> first;
    for (const auto& opened : context_.opened()) {
      auto at = first.emplace(opened.word, opened.start).first;
      at->second = std::min(at->second, opened.start);
    }
    for (const auto& [word, file] : context_.devices()) {
      for (const SeenBio& bio : file->seen()) {
        if (bio.op == Op::Flush) continue;
        ASSERT_GT(bio.count.n, 0u) << "an empty bio on " << word;
        ASSERT_LE((bio.sector + bio.count).n, file->size().n) << op_name(bio.op) << " on " << word;
        ASSERT_GE(bio.sector.n, first.at(word).n);
      }
    }
  }

  TargetRegistry registry_;
  TestContext context_{GetParam().second.begin, GetParam().second.length};
  std::unique_ptr<Target> target_;
  std::unique_ptr<TargetDriver> driver_;
  std::mt19937_64 random_{0x5eed};  // fixed: a failure repeats
};

TEST_P(TargetConformance, PrintsWhatItParses) {
  EXPECT_EQ(target_->table_line(), c().params);
  TestContext again(c().begin, c().length);
  for (const auto& [word, size] : c().devices) again.add_device(word, size);
  auto made = make_target(registry_, again, c().type, target_->table_line());
  ASSERT_TRUE(made) << made.error().message;
  EXPECT_EQ((*made)->table_line(), target_->table_line());
}

TEST_P(TargetConformance, RefusesMessagesItDoesNotKnow) {
  std::vector<std::string> words{"no-such-message", "x"};
  auto answer = target_->message(words);
  ASSERT_FALSE(answer);
  EXPECT_EQ(answer.error().code, EINVAL);
  EXPECT_FALSE(answer.error().message.empty());
}

TEST_P(TargetConformance, MapsItsWholeRangeInBounds) {
  if (c().data == Data::Fails) GTEST_SKIP() << "fails all I/O";
  std::vector<std::byte> bytes(static_cast<size_t>(c().length.bytes()));
  EXPECT_EQ(driver_->write({}, bytes), 0);
  EXPECT_EQ(driver_->read({}, bytes), 0);
  std::vector<std::byte> one(kSectorSize);
  for (Sectors at; at < c().length; at += Sectors{1}) ASSERT_EQ(driver_->read(at, one), 0) << at.n;
  expect_in_bounds();
}

TEST_P(TargetConformance, NoTwoSectorsShareAPlace) {
  if (c().data != Data::Keeps) GTEST_SKIP() << "keeps no data";
  auto bytes = random_bytes(c().length);
  ASSERT_EQ(driver_->write({}, bytes), 0);
  Sectors total;
  for (const auto& [word, file] : context_.devices()) total += file->allocated({}, file->size());
  EXPECT_EQ(total.n, c().length.n);
}

TEST_P(TargetConformance, AgreesWithAModel) {
  std::vector<std::byte> model(static_cast<size_t>(c().length.bytes()));
  for (int step = 0; step < 2000; ++step) {
    auto [at, count] = random_range(40);
    auto bytes = random_bytes(count);
    auto in_model = std::span(model).subspan(static_cast<size_t>(at.bytes()), bytes.size());
    int expected = c().data == Data::Fails ? EIO : 0;
    switch (random_() % 5) {
      case 0:
      case 1:
        ASSERT_EQ(driver_->write(at, bytes), expected);
        if (c().data == Data::Keeps) std::copy(bytes.begin(), bytes.end(), in_model.begin());
        break;
      case 2:
        ASSERT_EQ(driver_->read(at, bytes), expected);
        if (expected == 0) {
          ASSERT_TRUE(std::equal(bytes.begin(), bytes.end(), in_model.begin()))
              << "step " << step << ": " << count.n << " sectors at " << at.n;
        }
        break;
      case 3:
      case 4: {
        bool zeroes = random_() % 2 == 0;
        int error = zeroes ? driver_->write_zeroes(at, count) : driver_->discard(at, count);
        if (error != EOPNOTSUPP) {
          ASSERT_EQ(error, expected);
        }
        // The devices of the test zero what they discard.
        if (error == 0) std::fill(in_model.begin(), in_model.end(), std::byte{});
        break;
      }
    }
  }
  expect_in_bounds();
}

TEST_P(TargetConformance, FlushReachesEachDeviceThatWasWritten) {
  if (c().data == Data::Fails) GTEST_SKIP() << "fails all I/O";
  auto bytes = random_bytes(c().length);
  ASSERT_EQ(driver_->write({}, bytes), 0);
  ASSERT_EQ(driver_->flush(), 0);
  for (const auto& [word, file] : context_.devices()) {
    bool written = false, flushed = false;
    for (const SeenBio& bio : file->seen()) {
      written |= op_modifies(bio.op);
      flushed |= bio.op == Op::Flush && bio.count.n == 0;
    }
    EXPECT_EQ(written, flushed) << word;
  }
}

TEST_P(TargetConformance, KeepsFua) {
  if (c().data != Data::Keeps) GTEST_SKIP() << "keeps no data";
  auto bytes = random_bytes({1});
  ASSERT_EQ(driver_->write({}, bytes, kBioFua), 0);
  unsigned writes = 0;
  for (const auto& [word, file] : context_.devices()) {
    for (const SeenBio& bio : file->seen()) writes += bio.op == Op::Write && bio.flags == kBioFua;
  }
  EXPECT_EQ(writes, 1u);
}

TEST_P(TargetConformance, PassesTheErrorOfADevice) {
  if (c().data != Data::Keeps) GTEST_SKIP() << "keeps no data";
  std::vector<std::byte> bytes(static_cast<size_t>(c().length.bytes()));
  for (const auto& [word, file] : context_.devices()) file->fail_nth(1, ENOSPC);
  EXPECT_EQ(driver_->write({}, bytes), ENOSPC);
  for (const auto& [word, file] : context_.devices()) file->fail_nth(1, EREMOTEIO);
  EXPECT_EQ(driver_->flush(), EREMOTEIO);
}

TEST_P(TargetConformance, RunsThroughSuspendAndResume) {
  target_->presuspend();
  target_->presuspend_undo();
  target_->presuspend();
  target_->postsuspend();
  EXPECT_TRUE(target_->preresume());
  target_->resume();
  EXPECT_EQ(target_->table_line(), c().params);
}

TEST_P(TargetConformance, ExtentsCoverTheTargetAndAgreeWithAllocated) {
  auto bytes = random_bytes({1});
  if (c().data == Data::Keeps) {
    for (int i = 0; i < 20; ++i) ASSERT_EQ(driver_->write(random_range(1).first, bytes), 0);
  }
  Sectors data;
  for (Sectors at; at < c().length;) {
    Extent extent = target_->extent_at(at, c().length - at);
    ASSERT_GE(extent.length.n, 1u);
    ASSERT_LE((at + extent.length).n, c().length.n);
    if (extent.data) data += extent.length;
    at += extent.length;
  }
  Sectors below;
  for (const auto& [word, file] : context_.devices()) below += file->allocated({}, file->size());
  if (c().data == Data::Keeps) {
    EXPECT_EQ(data.n, below.n);
  }
  EXPECT_LE(target_->allocated(c().length).n, data.n);
}

}  // namespace dmfs::test
