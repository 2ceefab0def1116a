// SPDX-License-Identifier: Apache-2.0
// Random load, with barriers in it, against random suspend, noflush suspend, reload, resume, hold,
// fail-held, interrupt and kill, and volumes above that come, work and are removed; checked against
// a model of the contents: no lost write, no stuck bio. DMFS_SEED=N runs another seed,
// DMFS_STRESS_OPS=N more of it, DMFS_STRESS_SECONDS=N seed after seed for so long.
#include <gtest/gtest.h>
#include <stdlib.h>

#include <atomic>
#include <chrono>
#include <random>
#include <thread>

#include <fmt/format.h>

#include "tests/support/manager_rig.h"

namespace dmfs::test {
namespace {

constexpr uint64_t kSectors = 1024;
constexpr uint64_t kHalf = kSectors / 2;
constexpr unsigned kWriters = 3;

uint64_t from_env(const char* name, uint64_t otherwise) {
  const char* text = getenv(name);
  return text ? strtoull(text, nullptr, 10) : otherwise;
}

// By far most writes are plain ones.
constexpr uint8_t kKinds[16] = {kBioFua, kBioBarrier, kBioBarrier | kBioFua};

// All of them put sector n at sector n of the one file.
const char* const kTables[] = {
    "0 1024 linear ./a 0",
    "0 1024 hang ./a 0",
    "0 512 hang ./a 0\n512 512 linear ./a 512",
    "0 300 linear ./a 0\n300 212 hang ./a 300\n512 512 hang ./a 512",
};

class Stress {
 public:
  Stress(uint64_t seed, uint64_t operations) : seed_(seed), operations_(operations) {}

  void go() {
    rig_.dir().file("a", kSectors);
    ASSERT_TRUE(rig_.create("v", kTables[0]));
    device_ = rig_.manager().find("v");
    std::vector<std::thread> writers;
    std::thread commander([this] { command(); });
    std::thread releaser([this] { release(); });
    std::thread above([this] { come_and_go(); });
    for (unsigned i = 0; i < kWriters; ++i) writers.emplace_back([this, i] { write(i); });
    for (auto& thread : writers) thread.join();
    stop_.store(true);
    commander.join();
    above.join();
    stop_releasing_.store(true);
    releaser.join();
    (void)rig_.resume("v");
    EXPECT_EQ(device_->in_flight(), 0);
    EXPECT_EQ(device_->held().count, 0u);
    EXPECT_GT(suspends_, 0u);
    EXPECT_GT(removals_, 0u);
    EXPECT_EQ(rig_.manager().list().size(), 1u);
  }

 private:
  // Each writer has every kWriters-th stretch of eight sectors, and knows what is there.
  void write(unsigned me) {
    std::mt19937_64 random(seed_ * 31 + me);
    std::vector<char> model(kSectors, 0);
    for (uint64_t i = 0; i < operations_; ++i) {
      uint64_t at = (random() % (kSectors / 8 / kWriters) * kWriters + me) * 8 + random() % 8;
      uint64_t count = 1 + random() % (8 - at % 8);
      if (random() % 3 == 0) {
        check(at, count, model);
        continue;
      }
      char tag = static_cast<char>('A' + i % 26);
      // What was interrupted may have been written or not: again, until it has been.
      while (true) {
        TestBio bio(Op::Write, {at}, {count}, kKinds[random() % std::size(kKinds)]);
        bio.fill(tag);
        device_->submit(bio);
        if (random() % 64 == 0) (void)device_->cancel_held(bio, EINTR);
        while (!bio.done()) std::this_thread::yield();
        if (bio.error() == 0) break;
        ASSERT_TRUE(bio.error() == EINTR || bio.error() == EIO) << bio.error();
      }
      std::fill_n(model.begin() + static_cast<ptrdiff_t>(at), count, tag);
    }
    for (uint64_t at = me * 8; at + 8 <= kSectors / 8 / kWriters * kWriters * 8; at += kWriters * 8) {
      check(at, 8, model);
    }
  }

  void check(uint64_t at, uint64_t count, const std::vector<char>& model) {
    for (uint64_t sector = at; sector < at + count; ++sector) {
      int error;
      do {
        TestBio once(Op::Read, {sector}, {1});
        device_->submit(once);
        while (!once.done()) std::this_thread::yield();
        error = once.error();
        ASSERT_TRUE(error == 0 || error == EIO) << error;
        if (error != 0) continue;
        if (model[sector] == 0) {
          ASSERT_TRUE(once.holds_zeroes()) << "seed " << seed_ << ", sector " << sector;
        } else {
          ASSERT_TRUE(once.holds(model[sector], sector)) << "seed " << seed_ << ", sector " << sector;
        }
      } while (error != 0);
    }
  }

  // A volume over the one under test: made, used, suspended, and removed. Where it writes nobody
  // else does.
  void come_and_go() {
    std::mt19937_64 random(seed_ * 17);
    DeviceSelector w = ManagerRig::named("w");
    while (!stop_.load()) {
      // Its table is no stranger to a suspended v: that has one whatever happens.
      ASSERT_TRUE(rig_.create("w", fmt::format("0 8 linear v {}", kSectors - 8)));
      auto device = rig_.manager().find("w");
      std::vector<std::unique_ptr<TestBio>> bios;
      for (int i = 0; i < 6; ++i) {
        bool write = random() % 2 == 0;
        bios.push_back(std::make_unique<TestBio>(write ? Op::Write : Op::Read, Sectors{random() % 8},
                                                 Sectors{1}, write ? kKinds[random() % 16] : uint8_t{0}));
        if (i == 3 && random() % 2 == 0) {
          CancelToken token;
          token.cancel();
          (void)rig_.commands().suspend({w, random() % 2 == 0, false, {}}, token);
        }
        device->submit(*bios.back());
      }
      EXPECT_FALSE(rig_.remove("v")) << "removed while there is a volume above";
      if (random() % 2 == 0) (void)device->cancel_held(*bios[random() % bios.size()], EINTR);
      (void)rig_.resume("w");
      for (auto& bio : bios) {
        while (!bio->done()) std::this_thread::yield();
        EXPECT_TRUE(bio->error() == 0 || bio->error() == EINTR || bio->error() == EIO);
      }
      EXPECT_TRUE(rig_.remove("w"));
      ++removals_;
    }
  }

  void command() {
    std::mt19937_64 random(seed_);
    DeviceSelector v = ManagerRig::named("v");
    while (!stop_.load()) {
      CancelToken token;
      std::thread interrupter;
      if (random() % 3 == 0) interrupter = std::thread([&token] { token.cancel(); });
      switch (random() % 6) {
        case 0:
          if (rig_.commands().suspend({v, false, true, {}}, token)) ++suspends_;
          break;
        case 1:
        case 2:
          if (rig_.commands().suspend({v, true, false, {}}, token)) ++suspends_;
          break;
        case 3:
          EXPECT_TRUE(rig_.load("v", kTables[random() % std::size(kTables)], false, random() % 2 == 0));
          break;
        case 4:
          if (random() % 8 == 0) (void)rig_.commands().fail_held(v, EIO);
          break;
        default:
          (void)rig_.commands().resume({v, random() % 2 == 0, true, {}}, token);
          break;
      }
      if (interrupter.joinable()) interrupter.join();
      (void)rig_.commands().message(v, {random() % kSectors},
                                    fmt::format("hold {} {}", random() % 100, 1 + random() % 100));
      (void)rig_.commands().why(v);
    }
    (void)rig_.resume("v");
  }

  // Nothing is kept for ever: a suspend that flushes may be waiting for it.
  void release() {
    while (!stop_releasing_.load()) {
      for (uint64_t at : {uint64_t{0}, uint64_t{300}, kHalf}) {
        (void)rig_.commands().message(ManagerRig::named("v"), {at}, "release");
      }
      if (rig_.info("v").suspended && stop_.load()) (void)rig_.resume("v");
      std::this_thread::yield();
    }
  }

  const uint64_t seed_, operations_;
  ManagerRig rig_;
  std::shared_ptr<MappedDevice> device_;
  std::atomic<bool> stop_{false}, stop_releasing_{false};
  uint64_t suspends_ = 0;  // the commander's
  uint64_t removals_ = 0;
};

TEST(SuspendStress, NothingIsLostAndNothingSticks) {
  uint64_t seed = from_env("DMFS_SEED", 1);
  auto end = std::chrono::steady_clock::now() +
             std::chrono::seconds(from_env("DMFS_STRESS_SECONDS", 0));
  do {
    SCOPED_TRACE(fmt::format("DMFS_SEED={}", seed));
    Stress(seed++, from_env("DMFS_STRESS_OPS", 1500)).go();
  } while (!HasFailure() && std::chrono::steady_clock::now() < end);
}

}  // namespace
}  // namespace dmfs::test
