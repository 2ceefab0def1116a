// SPDX-License-Identifier: Apache-2.0
// Random I/O of any alignment over random stacks of tables, compared byte for byte with a model in
// memory. Prints its seed; DMFS_SEED=N runs just that one.
#include <gtest/gtest.h>
#include <stdlib.h>

#include <atomic>
#include <random>

#include <fmt/format.h>

#include "fs/byte_io.h"
#include "tests/support/every_engine.h"
#include "tests/support/manager_rig.h"

namespace dmfs::test {
namespace {

class ModelRun {
 public:
  ModelRun(uint64_t seed, IoService::Options io) : random_(seed), rig_(io) {}

  void go(int operations) {
    top_ = volume(2);
    device_ = rig_.manager().find(top_.name);
    ASSERT_TRUE(device_);
    model_.resize(top_.zero.size() * kSectorSize);
    for (int i = 0; i < operations && !::testing::Test::HasFailure(); ++i) step();
    // Everything once more, through the tables as a restart brings them back.
    rig_.restart();
    device_ = rig_.manager().find(top_.name);
    check_read(0, model_.size());
  }

 private:
  // A volume, and which of its sectors are on a zero target somewhere below.
  struct Volume {
    std::string name;
    std::vector<bool> zero;
  };
  struct Done {
    explicit Done(ByteIo::End end) : io(end) {}
    ByteIo io;  // first, so that a ByteIo leads back here
    std::atomic<bool> done{false};
    int error = 0;
    uint64_t transferred = 0;
  };

  uint64_t upto(uint64_t n) { return random_() % (n + 1); }

  // Something to lie on, at least `sectors` long: a fresh file or a fresh volume.
  Volume below(int depth, uint64_t sectors) {
    if (depth > 0 && upto(2) == 0) {
      Volume lower = volume(depth - 1, sectors);
      return lower;
    }
    std::string name = fmt::format("f{}", files_++);
    rig_.dir().file(name, sectors + upto(5));
    return {"./" + name, std::vector<bool>(sectors)};
  }

  Volume volume(int depth, uint64_t at_least = 40) {
    Volume result;
    std::string table;
    while (result.zero.size() < at_least || upto(2) == 0) {
      uint64_t start = result.zero.size();
      switch (upto(3)) {
        case 0: {
          uint64_t length = 1 + upto(30);
          table += fmt::format("{} {} zero\n", start, length);
          result.zero.resize(start + length, true);
          break;
        }
        case 1: {
          uint64_t stripes = 1 + upto(3), chunk = 1 + upto(11), rows = 1 + upto(4);
          std::string words;
          std::vector<Volume> legs;
          std::vector<uint64_t> offsets;
          for (uint64_t i = 0; i < stripes; ++i) {
            offsets.push_back(upto(4));
            legs.push_back(below(depth, offsets[i] + rows * chunk));
            words += fmt::format(" {} {}", legs[i].name, offsets[i]);
          }
          uint64_t length = stripes * chunk * rows;
          table += fmt::format("{} {} striped {} {}{}\n", start, length, stripes, chunk, words);
          for (uint64_t at = 0; at < length; ++at) {
            uint64_t number = at / chunk;
            result.zero.push_back(
                legs[number % stripes].zero[offsets[number % stripes] +
                                            number / stripes * chunk + at % chunk]);
          }
          break;
        }
        default: {
          uint64_t length = 1 + upto(50), offset = upto(7);
          Volume leg = below(depth, offset + length);
          table += fmt::format("{} {} linear {} {}\n", start, length, leg.name, offset);
          for (uint64_t at = 0; at < length; ++at) result.zero.push_back(leg.zero[offset + at]);
          break;
        }
      }
    }
    result.name = fmt::format("v{}", volumes_++);
    Status created = rig_.create(result.name, table);
    EXPECT_TRUE(created) << table << created.error().message;
    return result;
  }

  Done& run(Op op, uint64_t offset, uint64_t length, void* memory, bool fua = false) {
    last_ = std::make_unique<Done>([](ByteIo& io) {
      auto& done = reinterpret_cast<Done&>(io);
      done.error = io.error();
      done.transferred = io.transferred();
      done.done.store(true, std::memory_order_release);
    });
    ByteIo::Request request{op, fua, 0, offset, length, memory};
    last_->io.start(*device_, lock_, request, 0);
    last_->io.finish_start();
    while (!last_->done.load(std::memory_order_acquire)) std::this_thread::yield();
    return *last_;
  }

  void check_read(uint64_t offset, uint64_t length) {
    std::vector<char> out(length, 'x');
    Done& done = run(Op::Read, offset, length, out.data());
    ASSERT_EQ(done.error, 0);
    uint64_t inside = offset >= model_.size() ? 0 : std::min(length, model_.size() - offset);
    ASSERT_EQ(done.transferred, inside);
    for (uint64_t i = 0; i < inside; ++i) {
      ASSERT_EQ(out[i], model_[offset + i]) << "byte " << offset + i << " of a read of " << length;
    }
  }

  // The model's side of a change: sectors on a zero target stay zero.
  void change(uint64_t offset, uint64_t length, const char* from) {
    for (uint64_t i = 0; i < length; ++i) {
      uint64_t at = offset + i;
      if (!top_.zero[at / kSectorSize]) model_[at] = from ? from[i] : '\0';
    }
  }

  void step() {
    uint64_t offset = upto(model_.size() + 100);
    uint64_t length = 1 + upto(upto(1) ? 700 : 9000);
    if (upto(3) == 0) {
      offset &= ~uint64_t{511};
      length = (length + 511) & ~uint64_t{511};
    }
    uint64_t inside = offset >= model_.size() ? 0 : std::min(length, model_.size() - offset);
    switch (upto(9)) {
      case 0: {
        ASSERT_EQ(run(Op::Flush, 0, 0, nullptr).error, 0);
        break;
      }
      case 1: {
        if (inside == 0) break;
        ASSERT_EQ(run(Op::WriteZeroes, offset, inside, nullptr).error, 0);
        change(offset, inside, nullptr);
        break;
      }
      case 2: {
        // A zero target refuses discards, so the whole may be refused; then nothing is promised
        // about the sectors inside, save that they hold what they held or zeroes.
        if (inside == 0) break;
        int error = run(Op::Discard, offset, inside, nullptr).error;
        if (error == 0) {
          change(offset, inside, nullptr);
        } else {
          ASSERT_EQ(error, EOPNOTSUPP);
          ASSERT_EQ(run(Op::WriteZeroes, offset, inside, nullptr).error, 0);
          change(offset, inside, nullptr);
        }
        break;
      }
      case 3: case 4: case 5: {
        check_read(offset, length);
        break;
      }
      case 6: {
        ASSERT_TRUE(rig_.suspend(top_.name));
        ASSERT_TRUE(rig_.resume(top_.name));
        break;
      }
      default: {
        std::vector<char> data(length);
        for (char& c : data) c = static_cast<char>(random_());
        Done& done = run(Op::Write, offset, length, data.data(), upto(7) == 0);
        if (inside == 0) {
          ASSERT_EQ(done.error, ENOSPC);
          break;
        }
        ASSERT_EQ(done.error, 0);
        ASSERT_EQ(done.transferred, inside);
        change(offset, inside, data.data());
        break;
      }
    }
  }

  std::mt19937_64 random_;
  ManagerRig rig_;
  RangeLock lock_;
  std::unique_ptr<Done> last_;
  std::shared_ptr<MappedDevice> device_;
  Volume top_;
  std::vector<char> model_;
  int files_ = 0, volumes_ = 0;
};

class Model : public EveryEngine {};

TEST_P(Model, RandomTablesAndIo) {
  if (const char* seed = getenv("DMFS_SEED")) {
    ModelRun(strtoull(seed, nullptr, 10), options()).go(2000);
    return;
  }
  uint64_t seeds = options().engine == Engine::Auto && !options().direct ? 40 : 10;
  for (uint64_t seed = 1; seed <= seeds; ++seed) {
    ModelRun(seed, options()).go(250);
    ASSERT_FALSE(HasFailure()) << "seed " << seed;
  }
}
DM_FOR_EVERY_ENGINE(Model);

}  // namespace
}  // namespace dmfs::test
