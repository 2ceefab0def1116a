// SPDX-License-Identifier: Apache-2.0
// Power cuts: random writes, FUA writes, barriers and flushes, which disks end in random order,
// among suspends, pushback and interrupted suspends. At every step the power is cut, on paper: what
// was acknowledged as durable is on the platters, and what came after a barrier is there only with
// all that came before it.
//
// DMFS_SEED: the first seed (1), DMFS_POWER_CUT_RUNS: how many (1000 a table).
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdlib>
#include <functional>
#include <memory>
#include <optional>
#include <thread>

#include "core/dm/mapped_device.h"
#include "tests/support/fake_clock.h"
#include "tests/support/harness.h"
#include "tests/support/volatile_disk.h"

namespace dmfs::test {
namespace {

constexpr uint64_t kSectors = 32;
constexpr uint64_t kDisk = 64;
constexpr int kSteps = 150;
using Versions = std::array<uint64_t, kSectors>;  // by sector: the number of a write

uint64_t number_from(const char* variable, uint64_t otherwise) {
  const char* text = std::getenv(variable);
  return text ? std::strtoull(text, nullptr, 10) : otherwise;
}

// Two disks, and where a sector of the device lies.
struct Layout {
  const char* name;
  const char* table;
  std::pair<int, uint64_t> (*find)(uint64_t sector);  // the disk (0 or 1), the sector there
  bool hangs = false;  // the target takes hold and release
  bool stacked = false;
};
const Layout kLayouts[] = {
    {"linear", "0 32 linear a 8", [](uint64_t s) { return std::pair{0, s + 8}; }},
    {"halves", "0 16 linear a 0\n16 16 linear b 4",
     [](uint64_t s) { return s < 16 ? std::pair{0, s} : std::pair{1, s - 16 + 4}; }},
    {"striped", "0 32 striped 2 4 a 0 b 8",
     [](uint64_t s) {
       uint64_t chunk = s / 4;
       return std::pair{int(chunk % 2), (chunk / 2) * 4 + s % 4 + (chunk % 2 ? 8 : 0)};
     }},
    {"hang", "0 32 hang a 0", [](uint64_t s) { return std::pair{0, s}; }, true},
    {"delay", "0 32 delay a 0 10 b 0 20", [](uint64_t s) { return std::pair{1, s}; }},
    {"stacked", "0 16 linear below 16\n16 16 linear below 0",
     [](uint64_t s) {
       uint64_t lower = s < 16 ? s + 16 : s - 16;
       return lower < 20 ? std::pair{0, lower} : std::pair{1, lower - 20};
     },
     false, true},
};

class Story {
 public:
  Story(const Layout& layout, uint64_t seed) : layout_(layout), random_(seed) {
    if (layout.stacked) {
      below_ = std::make_unique<MappedDevice>(1);
      start(*below_, "0 20 linear a 0\n20 12 linear b 0");
    }
    start(device_, layout.table);
  }
  ~Story() {
    retire(device_);
    if (below_) retire(*below_);
  }

  void go() {
    for (int step = 0; step < kSteps && !testing::Test::HasFailure(); ++step) {
      act();
      check();
    }
    finish();
    check();
    // Nothing is left behind, and everything has ended without an error, save what a flush that
    // failed has ended.
    for (const auto& request : requests_) {
      ASSERT_TRUE(request->status == 0 || request->may_fail) << request->status;
    }
    ASSERT_EQ(device_.held_count(), 0u);
  }
  size_t cuts() const { return cuts_; }

 private:
  // Opens the disks, or the device below.
  class Opener : public DeviceOpener {
   public:
    explicit Opener(Story& run) : run_(run) {}
    Result<std::unique_ptr<BackingFile>> open(const std::string& word, bool) override {
      if (word == "below") return std::unique_ptr<BackingFile>(new Lower(*run_.below_));
      return std::unique_ptr<BackingFile>(new Shared(run_.disks_[word == "b"]));
    }

   private:
    struct Shared : BackingFile {
      explicit Shared(VolatileDisk& disk) : disk(disk) {}
      void submit(Bio& bio) override { disk.submit(bio); }
      std::string name() const override { return disk.name(); }
      Sectors size() const override { return disk.size(); }
      VolatileDisk& disk;
    };
    struct Lower : BackingFile {
      explicit Lower(MappedDevice& device) : device(device) {}
      void submit(Bio& bio) override { device.submit(bio); }
      std::string name() const override { return "below"; }
      Sectors size() const override { return device.size(); }
      MappedDevice& device;
    };
    Story& run_;
  };

  // A bio, and what its end says about the platters.
  struct Request : TestBio {
    Request(Story& run, Op op, uint64_t at, uint64_t count, uint8_t flags, uint64_t number)
        : TestBio(op, {at}, {count}, flags), run(run), number(number) {
      for (uint64_t i = 0; i < count && op == Op::Write; ++i) {
        std::memcpy(&memory()[i * kSectorSize], &number, sizeof(number));
      }
      tell = end_io;
      end_io = &Request::ended;
    }
    static void ended(Bio& bio) {
      auto& request = static_cast<Request&>(bio);
      request.run.acknowledged(request);
      request.tell(bio);
    }
    bool covers(uint64_t s) const { return s >= sector.n && s < sector.n + count.n; }

    Story& run;
    const uint64_t number;  // in order of submission, from 1
    EndIo tell = nullptr;
    Versions before{};        // a flush's or a barrier's: what its success makes durable
    bool may_fail = false;    // something of it was failed; the test's thread's
  };

  void start(MappedDevice& device, const std::string& text) {
    Table::Options options{builtin_registry(), opener_, clock_};
    options.noflush_suspending = [&device] { return device.noflush_suspending(); };
    auto table = Table::build(parse_table(text), options);
    ASSERT_TRUE(table) << table.error().message;
    CancelToken never;
    std::shared_ptr<Table> replaced;
    MutexLock lock(device.command_mutex());
    (void)device.set_inactive(std::move(*table));
    ASSERT_TRUE(device.resume({}, never, [] { return Status(); }, replaced));
  }
  static void retire(MappedDevice& device) {
    std::vector<std::shared_ptr<Table>> tables;
    MutexLock lock(device.command_mutex());
    tables = device.retire();
  }

  bool one_in(uint64_t n) { return random_() % n == 0; }

  // ---- actions ----------------------------------------------------------------------------
  void act() {
    switch (random_() % 16) {
      case 0: case 1: case 2: case 3:
        return write();
      case 4:
        return send(Op::Flush, 0, 0, one_in(4) ? kBioBarrier : 0);
      case 5:
        return toggle_suspend();
      case 6:
        return hold_or_release();
      case 7:
        clock_.advance(std::chrono::milliseconds(random_() % 15));
        return;
      default:
        return end_one(one_in(60) ? EIO : 0);
    }
  }

  void write() {
    uint64_t count = 1 + random_() % 6;
    uint64_t at = random_() % (kSectors - count + 1);
    // No two writes to a sector at a time: their order would be nobody's to know.
    for (const auto& request : requests_) {
      if (request->done()) continue;
      for (uint64_t s = at; s < at + count; ++s) {
        if (request->covers(s)) return;
      }
    }
    static constexpr uint8_t kKinds[] = {0, 0, 0, kBioFua, kBioBarrier, kBioBarrier | kBioFua};
    send(Op::Write, at, count, kKinds[random_() % std::size(kKinds)]);
  }

  void send(Op op, uint64_t at, uint64_t count, uint8_t flags) {
    auto request = std::make_unique<Request>(*this, op, at, count, flags, requests_.size() + 1);
    Request& sent = *request;
    {
      MutexLock lock(mutex_);
      requests_.push_back(std::move(request));
      // A flush covers what has been acknowledged, a barrier all that was sent.
      sent.before = (flags & kBioBarrier) ? sent_ : acknowledged_;
      if (op == Op::Write) {
        for (uint64_t s = at; s < at + count; ++s) sent_[s] = newest_[s] = sent.number;
      }
    }
    device_.submit(sent);
  }

  // Of a disk that has any, ends one of its bios. Errors go to a flush or barrier that is alone.
  void end_one(int error) {
    int which = random_() % 2;
    for (VolatileDisk* disk : {&disks_[which], &disks_[1 - which]}) {
      size_t queued = disk->queued();
      if (queued == 0) continue;
      if (error && flush_alone()) fail_flush(error);
      else disk->end(random_() % queued);
      return;
    }
  }
  bool flush_alone() {
    MutexLock lock(mutex_);
    size_t open = 0;
    for (const auto& request : requests_) {
      if (!request->done() && request->op != Op::Flush && !(request->flags & kBioBarrier)) return false;
      open += !request->done();
    }
    return open == 1;
  }
  void fail_flush(int error) {
    for (const auto& request : requests_) request->may_fail |= !request->done();
    for (VolatileDisk& disk : disks_) disk.end(0, error);
  }

  void hold_or_release() {
    if (!layout_.hangs) return;
    Target& target = *device_.live_table()->entries()[0].target;
    if (one_in(2)) {
      ASSERT_TRUE(target.message(std::vector<std::string>{"release"}));
    } else {
      ASSERT_TRUE(target.message(std::vector<std::string>{"hold", "4", "9"}));
    }
  }

  // A suspend that need not wait is done; one that would is interrupted, sooner or later.
  void toggle_suspend() {
    MappedDevice& device = below_ && one_in(2) ? *below_ : device_;
    if (device.suspended()) return resume(device);
    CancelToken cancel;
    bool noflush = one_in(2);
    std::vector<Request*> open;
    for (const auto& request : requests_) {
      if (!request->done()) open.push_back(request.get());
    }
    std::thread interrupt;
    if (one_in(2)) {
      cancel.cancel();
    } else {
      interrupt = std::thread([&] {
        while (!device.suspending() && !device.suspended()) std::this_thread::yield();
        cancel.cancel();
      });
    }
    {
      MutexLock lock(device.command_mutex());
      Status done = device.suspend({.noflush = noflush}, cancel, [] { return Status(); });
      if (!done) {
        EXPECT_EQ(done.error().code, EINTR);
        // What is requeued once the suspend has been given up fails.
        for (Request* request : open) request->may_fail |= noflush;
      }
    }
    cancel.cancel();
    if (interrupt.joinable()) interrupt.join();
  }
  void resume(MappedDevice& device) {
    CancelToken never;
    std::shared_ptr<Table> replaced;
    MutexLock lock(device.command_mutex());
    ASSERT_TRUE(device.resume({}, never, [] { return Status(); }, replaced));
  }

  void finish() {
    if (layout_.hangs) {
      ASSERT_TRUE(device_.live_table()->entries()[0].target->message(std::vector<std::string>{"release"}));
    }
    if (below_ && below_->suspended()) resume(*below_);
    if (device_.suspended()) resume(device_);
    auto patience = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    auto open = [](const auto& request) { return !request->done(); };
    while (std::any_of(requests_.begin(), requests_.end(), open) || device_.sequencing()) {
      ASSERT_LT(std::chrono::steady_clock::now(), patience) << "a bio is stuck";
      clock_.advance(std::chrono::milliseconds(1));
      for (VolatileDisk& disk : disks_) disk.end(0);
    }
  }

  // ---- what is known ----------------------------------------------------------------------
  void acknowledged(const Request& request) {
    MutexLock lock(mutex_);
    if (request.status != 0) return forget(request);
    bool barrier = request.flags & kBioBarrier;
    if (request.op == Op::Flush || barrier) {
      for (uint64_t s = 0; s < kSectors; ++s) durable_[s] = std::max(durable_[s], request.before[s]);
    }
    if (request.op != Op::Write) return;
    for (uint64_t s = 0; s < kSectors; ++s) {
      if (!request.covers(s)) continue;
      acknowledged_[s] = request.number;
      if (barrier || (request.flags & kBioFua)) durable_[s] = std::max(durable_[s], request.number);
    }
  }

  // Whether a write that failed is on the platters, nobody knows; so no barrier promises it.
  void forget(const Request& request) DM_REQUIRES(mutex_) {
    if (request.op != Op::Write) return;
    for (uint64_t s = 0; s < kSectors; ++s) {
      if (!request.covers(s)) continue;
      sent_[s] = acknowledged_[s];
      for (const auto& later : requests_) {
        if (later->before[s] == request.number) later->before[s] = acknowledged_[s];
      }
    }
  }

  void check() {
    // In this order: what is promised now still holds a moment later, and a barrier that fails
    // does so before what comes after it goes.
    Versions promised;
    {
      MutexLock lock(mutex_);
      promised = durable_;
    }
    for (int i = 0; i < 3; ++i) {
      ++cuts_;
      Versions found = cut();
      uint64_t last = 0;
      for (uint64_t s = 0; s < kSectors; ++s) {
        ASSERT_GE(found[s], promised[s]) << "sector " << s << " has lost what was durable";
        last = std::max(last, found[s]);
      }
      MutexLock lock(mutex_);
      for (uint64_t s = 0; s < kSectors; ++s) ASSERT_LE(found[s], newest_[s]) << "never written";
      for (const auto& barrier : requests_) {
        bool failed = barrier->done() && barrier->status != 0;
        if (!(barrier->flags & kBioBarrier) || failed || last < barrier->number) continue;
        for (uint64_t s = 0; s < kSectors; ++s) {
          ASSERT_GE(found[s], barrier->before[s])
              << "sector " << s << ": write " << last << " has overtaken what came before barrier "
              << barrier->number;
          if (last > barrier->number && barrier->op == Op::Write && barrier->covers(s)) {
            ASSERT_GE(found[s], barrier->number)
                << "sector " << s << ": write " << last << " has overtaken a barrier";
          }
        }
      }
    }
  }
  Versions cut() {
    std::map<uint64_t, uint64_t> platters[2] = {disks_[0].cut(random_), disks_[1].cut(random_)};
    Versions found{};
    for (uint64_t s = 0; s < kSectors; ++s) {
      auto [disk, sector] = layout_.find(s);
      auto there = platters[disk].find(sector);
      if (there != platters[disk].end()) found[s] = there->second;
    }
    return found;
  }

  const Layout& layout_;
  std::mt19937_64 random_;
  FakeClock clock_;
  VolatileDisk disks_[2] = {{"a", {kDisk}}, {"b", {kDisk}}};
  Opener opener_{*this};
  std::unique_ptr<MappedDevice> below_;
  MappedDevice device_{0};
  size_t cuts_ = 0;

  Mutex mutex_;  // leaf; sequencers acknowledge too
  std::vector<std::unique_ptr<Request>> requests_;  // grows under mutex_, on the test's thread
  Versions newest_ DM_GUARDED_BY(mutex_){};  // that was sent
  Versions sent_ DM_GUARDED_BY(mutex_){};    // of those, the newest that has not failed
  Versions acknowledged_ DM_GUARDED_BY(mutex_){};
  Versions durable_ DM_GUARDED_BY(mutex_){};
};

class PowerCuts : public ::testing::TestWithParam<Layout> {};

TEST_P(PowerCuts, WhatWasAcknowledgedIsThere) {
  uint64_t first = number_from("DMFS_SEED", 1);
  uint64_t runs = number_from("DMFS_POWER_CUT_RUNS", 1000);
  size_t cuts = 0;
  for (uint64_t seed = first; seed < first + runs && !HasFailure(); ++seed) {
    SCOPED_TRACE(testing::Message() << "DMFS_SEED=" << seed);
    Story run(GetParam(), seed);
    run.go();
    cuts += run.cuts();
  }
  std::printf("%zu power cuts\n", cuts);
}

INSTANTIATE_TEST_SUITE_P(Tables, PowerCuts, ::testing::ValuesIn(kLayouts),
                         [](const auto& layout) { return std::string(layout.param.name); });

}  // namespace
}  // namespace dmfs::test
