// SPDX-License-Identifier: Apache-2.0
// The cost of the core alone, in process. Time is real time a bio, of all threads together; on a
// machine that is busy with other things look at CPU instead. allocs is heap allocations a bio,
// after a warm-up of the same kind.
#include <benchmark/benchmark.h>

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "core/base/mutex.h"
#include "core/dm/in_flight.h"
#include "tests/bench/micro_rig.h"

namespace dmfs::bench {
namespace {

constexpr size_t kPositions = 4096;  // a power of two
constexpr uint64_t kIoSectors = 8;
constexpr Sectors kDeviceSize{1 << 20};
constexpr int kWarmUp = 2000;

// Random places that `io` sectors fit into, aligned to them.
std::vector<Sectors> positions(Sectors size, uint64_t io = kIoSectors) {
  std::mt19937_64 random(42);
  std::vector<Sectors> all(kPositions);
  for (Sectors& at : all) at = {random() % (size.n / io) * io};
  return all;
}

// A bio of one thread, sent again and again.
class Sender {
 public:
  explicit Sender(Sectors count) : memory_(count.bytes()) {
    bio_.end_io = [](Bio&) {};
    bio_.op = Op::Read;
    bio_.count = count;
    segment_ = {memory_.data(), memory_.size()};
    bio_.data = {&segment_, 1, 0};
  }
  // The backing is null, so it has completed when this returns.
  void send(MappedDevice& device, Sectors at) {
    bio_.reset();
    bio_.sector = at;
    device.submit(bio_);
  }
  int status() const { return bio_.status; }

 private:
  std::vector<std::byte> memory_;
  iovec segment_{};
  Bio bio_;
};

void report(benchmark::State& state, uint64_t allocated) {
  state.SetItemsProcessed(state.iterations());
  state.counters["allocs"] =
      benchmark::Counter(static_cast<double>(allocated), benchmark::Counter::kAvgIterations);
}

void drive(benchmark::State& state, MappedDevice& device, const std::vector<Sectors>& places) {
  Sender sender({kIoSectors});
  size_t next = static_cast<size_t>(state.thread_index()) * 1009;
  for (int i = 0; i < kWarmUp; ++i) sender.send(device, places[next++ % kPositions]);
  uint64_t before = allocations();
  for (auto _ : state) sender.send(device, places[next++ % kPositions]);
  report(state, allocations() - before);
  if (sender.status() != 0) state.SkipWithError("a bio has failed");
}

void mapped_linear(benchmark::State& state) {
  static Device device(linear_table(1, kDeviceSize));
  static const auto places = positions(kDeviceSize);
  drive(state, device.device(), places);
}

void mapped_targets(benchmark::State& state) {
  static Device device(linear_table(1000, {1024}));
  static const auto places = positions({1000 * 1024});
  drive(state, device.device(), places);
}

void stacked(benchmark::State& state) {
  static Device a(linear_table(1, kDeviceSize));
  static Device b(linear_table(1, kDeviceSize, "below"), &a.device());
  static Device c(linear_table(1, kDeviceSize, "below"), &b.device());
  static Device d(linear_table(1, kDeviceSize, "below"), &c.device());
  static const auto places = positions(kDeviceSize);
  drive(state, d.device(), places);
}

// Every bio crosses the border of two targets.
void split_in_two(benchmark::State& state) {
  constexpr uint64_t kLength = 64;
  static Device device(linear_table(1000, {kLength}));
  static const auto places = [] {
    std::vector<Sectors> all = positions({999 * kLength}, kLength);
    for (Sectors& at : all) at.n += kLength - kIoSectors / 2;
    return all;
  }();
  drive(state, device.device(), places);
}

void striped_in_chunk(benchmark::State& state) {
  static Device device(one_target(kDeviceSize, "striped", "4 128 null0 0 null1 0 null2 0 null3 0"));
  static const auto places = positions(kDeviceSize);
  drive(state, device.device(), places);
}

// One group of state.range(0) paths.
void multipath(benchmark::State& state, const char* selector, const char* path_args) {
  static Mutex mutex;
  static std::map<std::string, std::unique_ptr<Device>> devices;
  static const auto places = positions(kDeviceSize);
  Device* device;
  {
    std::string words = fmt::format("0 0 1 1 {} 0 {} {}", selector, state.range(0),
                                    1 + std::count(path_args, path_args + strlen(path_args), ' '));
    for (int i = 0; i < state.range(0); ++i) {
      words += fmt::format(" null{} {}", i, fmt::format(fmt::runtime(path_args), 1 << i));
    }
    MutexLock lock(mutex);
    auto& made = devices[words];
    if (!made) made = std::make_unique<Device>(one_target(kDeviceSize, "multipath", words));
    device = made.get();
  }
  drive(state, device->device(), places);
}

// Bios that end on another thread than they began, 32 at a time, as those of a thread pool do.
void completed_elsewhere(benchmark::State& state) {
  constexpr size_t kWindow = 32;
  Device device(linear_table(1, kDeviceSize, "relay"));
  const auto places = positions(kDeviceSize);
  struct Pending : Bio {
    std::atomic<int>* left = nullptr;
  };
  std::atomic<int> left{0};
  std::array<Pending, kWindow> bios;
  for (Pending& bio : bios) {
    bio.end_io = [](Bio& ended) {
      static_cast<Pending&>(ended).left->fetch_sub(1, std::memory_order_release);
    };
    bio.count = {kIoSectors};
    bio.left = &left;
  }
  size_t next = 0;
  auto round = [&] {
    left.store(kWindow, std::memory_order_relaxed);
    for (Pending& bio : bios) {
      bio.reset();
      bio.sector = places[next++ % kPositions];
      device.device().submit(bio);
    }
    while (left.load(std::memory_order_acquire) > 0) std::this_thread::yield();
  };
  for (size_t i = 0; i < kWarmUp / kWindow; ++i) round();
  uint64_t before = allocations();
  while (state.KeepRunningBatch(kWindow)) round();
  report(state, allocations() - before);
}

void gate(benchmark::State& state) {
  static InFlight in_flight;
  for (auto _ : state) {
    InFlight::Shard shard = 0;
    benchmark::DoNotOptimize(in_flight.try_enter(shard));
    in_flight.leave(shard);
  }
  state.SetItemsProcessed(state.iterations());
}

void lookup(benchmark::State& state) {
  auto targets = static_cast<size_t>(state.range(0));
  Device device(linear_table(targets, {64}));
  const auto places = positions({targets * 64});
  size_t next = 0;
  for (auto _ : state) {
    benchmark::DoNotOptimize(&device.table().find(places[next++ % kPositions]));
  }
  state.SetItemsProcessed(state.iterations());
}

// What the harness itself costs: to be taken off the others.
void loop_alone(benchmark::State& state) {
  static const auto places = positions(kDeviceSize);
  static NullFile file;
  Bio bio([](Bio&) {});
  bio.count = {kIoSectors};
  size_t next = 0;
  for (auto _ : state) {
    bio.reset();
    bio.sector = places[next++ % kPositions];
    static_cast<BackingFile&>(file).submit(bio);
    benchmark::DoNotOptimize(bio.status);
  }
  state.SetItemsProcessed(state.iterations());
}

BENCHMARK(loop_alone)->Name("harness");
BENCHMARK(mapped_linear)->Name("mapped/linear")->ThreadRange(1, 4)->UseRealTime();
BENCHMARK(mapped_targets)->Name("mapped/targets:1000")->ThreadRange(1, 4)->UseRealTime();
BENCHMARK(stacked)->Name("mapped/stacked:4")->ThreadRange(1, 4)->UseRealTime();
BENCHMARK(split_in_two)->Name("mapped/split:2")->ThreadRange(1, 4)->UseRealTime();
BENCHMARK(striped_in_chunk)->Name("mapped/striped:4")->ThreadRange(1, 4)->UseRealTime();
BENCHMARK(completed_elsewhere)->Name("mapped/completed_elsewhere")->UseRealTime();
BENCHMARK(gate)->Name("gate")->ThreadRange(1, 4)->UseRealTime();
BENCHMARK(lookup)->Name("lookup")->Arg(1)->Arg(1000)->Arg(100000);

[[maybe_unused]] const int kRegistered = [] {
  constexpr std::pair<const char*, const char*> kSelectors[] = {{"round-robin", "1"},
                                                                {"queue-length", "1"},
                                                                {"service-time", "1 1"},
                                                                {"historical-service-time", "1"},
                                                                {"io-affinity", "{:x}"}};
  for (auto [selector, path_args] : kSelectors) {
    benchmark::RegisterBenchmark(fmt::format("mapped/multipath/{}", selector).c_str(), multipath,
                                 selector, path_args)
        ->Arg(1)->Arg(2)->Arg(4)->ThreadRange(1, 2)->UseRealTime();
  }
  return 0;
}();

}  // namespace
}  // namespace dmfs::bench

BENCHMARK_MAIN();
