// SPDX-License-Identifier: Apache-2.0
// Cuts the power of the legs and the log of a mirror at every moment, and looks whether a region that
// the log calls clean is the same on all legs.
#include <gtest/gtest.h>

#include <thread>

#include "core/targets/builtin.h"
#include "core/targets/mirror/dirty_log.h"
#include "tests/support/power_cut_file.h"
#include "tests/support/test_context.h"

namespace dmfs::test {
namespace {

using namespace std::chrono_literals;

constexpr uint64_t kLength = 96, kRegion = 8;

// Opens the files of one power cut.
class CutContext final : public TestContext {
 public:
  CutContext() : TestContext({}, {kLength}) {}
  Result<BackingFile*> open(const std::string& word, Sectors, Sectors) override {
    return static_cast<BackingFile*>(files_.at(word));
  }
  std::map<std::string, BackingFile*> files_;
};

class MirrorPowerCut : public ::testing::TestWithParam<uint64_t> {};

TEST_P(MirrorPowerCut, WhatIsCleanIsTheSameOnAllLegs) {
  std::mt19937_64 random(GetParam());
  TargetRegistry registry;
  register_builtin_targets(registry);
  std::map<std::string, PowerCut::Image> before;
  for (uint64_t i = 0; i < kLength; ++i) {
    before["a"][i].fill(std::byte{1});
    before["b"][i].fill(std::byte{2});
  }
  // Each life begins with what a cut left of the one before it.
  for (int life = 0; life < 3; ++life) {
    PowerCut cut;
    std::map<std::string, std::unique_ptr<PowerCut::File>> files;
    CutContext context;
    for (const char* name : {"a", "b", "log"}) {
      files[name] = std::make_unique<PowerCut::File>(cut, name, Sectors{kLength});
      PowerCut::restore(*files[name], before[name]);
      context.files_[name] = files[name].get();
    }
    {
      auto made = make_target(registry, context, "mirror",
                              "disk 2 log 8 2 a 0 b 0 2 handle_errors keep_log");
      ASSERT_TRUE(made) << made.error().message;
      Target& mirror = **made;
      ASSERT_TRUE(mirror.preresume());
      mirror.resume();
      std::vector<std::byte> data(kSectorSize * 24);
      for (int step = 0; step < 60; ++step) {
        uint64_t at = random() % kLength;
        uint64_t count = 1 + random() % std::min<uint64_t>(24, kLength - at);
        for (std::byte& b : data) b = static_cast<std::byte>(random());
        struct Part : Bio {
          Part() : Bio([](Bio& bio) { static_cast<Part&>(bio).done = true; }) {}
          std::atomic<bool> done{false};
        };
        iovec segment{data.data(), data.size()};
        // As the table does: a write stays within a region.
        for (uint64_t done = 0; done < count;) {
          Part bio;
          uint64_t most = kRegion - (at + done) % kRegion;
          bio.op = random() % 8 ? Op::Write : Op::WriteZeroes;
          bio.sector = {at + done};
          bio.count = {bio.op == Op::Write ? std::min(most, count - done) : count - done};
          bio.data = {&segment, 1, done * kSectorSize};
          done += bio.count.n;
          ASSERT_EQ(mirror.map(bio), MapResult::Submitted);
          while (!bio.done) std::this_thread::yield();  // its region may be copied just now
          ASSERT_EQ(bio.status, 0);
        }
        if (random() % 6 == 0) context.clock().advance(1s);
        if (random() % 10 == 0) {
          Part flush;
          flush.op = Op::Flush;
          ASSERT_EQ(mirror.map(flush), MapResult::Submitted);
          ASSERT_TRUE(flush.done);
        }
        if (random() % 20 == 0) {
          mirror.presuspend();
          mirror.postsuspend();
          ASSERT_TRUE(mirror.preresume());
          mirror.resume();
        }
      }
      mirror.presuspend();
    }
    std::map<std::string, PowerCut::Image> after;
    size_t clean = 0;
    for (size_t moment = 0; moment <= cut.moments(); ++moment) {
      std::map<std::string, std::unique_ptr<HeldFile>> left;
      for (auto& [name, file] : files) {
        after[name] = cut.image(*file, moment, random, before[name]);
        left[name] = std::make_unique<HeldFile>(name, Sectors{kLength});
        left[name]->hold(false);
        PowerCut::restore(*left[name], after[name]);
      }
      CutContext again;
      again.files_["log"] = left["log"].get();
      std::vector<std::string> args{"log", std::to_string(kRegion)};
      auto log = builtin_dirty_logs().find("disk")->create(again, args);
      ASSERT_TRUE(log) << log.error().message;
      (*log)->resume([](int error) { ASSERT_EQ(error, 0); });
      for (RegionIndex region = 0; region < kLength / kRegion; ++region) {
        if (!(*log)->in_sync(region)) continue;
        ++clean;
        Sectors first{region * kRegion};
        ASSERT_EQ(left["a"]->peek(first, {kRegion}), left["b"]->peek(first, {kRegion}))
            << "region " << region << " at moment " << moment << " of " << cut.moments();
      }
    }
    EXPECT_GT(clean, 0u);
    size_t moment = cut.moments() / 2 + random() % (cut.moments() / 2);
    for (auto& [name, file] : files) after[name] = cut.image(*file, moment, random, before[name]);
    before = after;
  }
}

INSTANTIATE_TEST_SUITE_P(Seeds, MirrorPowerCut, ::testing::Range<uint64_t>(1, 5));

}  // namespace
}  // namespace dmfs::test
