// SPDX-License-Identifier: Apache-2.0
// What an IoClient costs over a plain pwrite: 4 KiB writes to a file in memory (/dev/shm, else the
// temporary directory), of one region, one at a time.
#include <benchmark/benchmark.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include <memory>
#include <string>
#include <vector>

#include "core/base/clock.h"
#include "core/io/io_client.h"
#include "core/io/open_backing.h"
#include "tests/bench/micro_rig.h"

namespace dmfs::bench {
namespace {

constexpr uint64_t kSectors = 8;
constexpr uint64_t kPlaces = 1024;

// A file that goes with the program. What fails here ends it.
class Shm {
 public:
  Shm() {
    std::string path = access("/dev/shm", W_OK) == 0 ? "/dev/shm/dmfs-micro-XXXXXX"
                                                     : "/tmp/dmfs-micro-XXXXXX";
    fd_ = mkstemp(path.data());
    if (fd_ < 0 || ftruncate(fd_, kSectors * kPlaces * 512) != 0) abort();
    auto opened = open_backing(service_, fd_, path, false);
    if (!opened) abort();
    file_ = *std::move(opened);
    unlink(path.c_str());
    // The pages are there, for everybody who writes.
    std::vector<char> block(1 << 20, 'x');
    for (off_t at = 0; at < off_t{kSectors * kPlaces * 512}; at += 1 << 20) {
      if (pwrite(fd_, block.data(), block.size(), at) < 0) abort();
    }
  }
  ~Shm() {
    file_.reset();
    close(fd_);
  }
  int fd() const { return fd_; }
  BackingFile& file() { return *file_; }

 private:
  IoService service_;
  std::unique_ptr<BackingFile> file_;
  int fd_ = -1;
};

void plain_pwrite(benchmark::State& state) {
  Shm shm;
  std::vector<char> memory(kSectors * 512, 'p');
  uint64_t next = 0;
  for (auto _ : state) {
    off_t at = static_cast<off_t>(next++ * 7 % kPlaces * kSectors * 512);
    if (pwrite(shm.fd(), memory.data(), memory.size(), at) < 0) state.SkipWithError("pwrite");
  }
  state.SetItemsProcessed(state.iterations());
}

// The bio alone: what every target pays.
void plain_bio(benchmark::State& state) {
  Shm shm;
  std::vector<char> memory(kSectors * 512, 'p');
  iovec segment{memory.data(), memory.size()};
  Bio bio([](Bio&) {});
  bio.op = Op::Write;
  bio.count = {kSectors};
  bio.data = {&segment, 1, 0};
  uint64_t next = 0;
  for (auto _ : state) {
    bio.reset();
    bio.sector = {next++ * 7 % kPlaces * kSectors};
    shm.file().submit(bio);
  }
  state.SetItemsProcessed(state.iterations());
}

struct Kind {
  bool cancellable, timeout, wait;
};

template <Kind kind, bool null = false>
void client_write(benchmark::State& state) {
  struct Notify : IoNotify {
    void notified(const IoNotice& notice) override { failed |= notice.state != RegionState::Ok; }
    bool failed = false;
  };
  Shm shm;
  NullFile nothing;
  SystemClock clock;
  auto client = *IoClient::create(clock, {.max_size = 65536});
  std::vector<char> memory(kSectors * 512, 'p');
  Notify notify;
  IoRegion region(null ? static_cast<BackingFile&>(nothing) : shm.file(), {0}, {kSectors});
  IoRequest request;
  request.op = Op::Write;
  request.memory = IoMemory::contiguous(memory.data(), memory.size());
  request.regions = {&region, 1};
  request.notify = &notify;
  request.cancellable = kind.cancellable;
  if (kind.timeout) request.timeout = std::chrono::seconds(10);
  uint64_t next = 0;
  auto write = [&] {
    region.sector = {next++ * 7 % kPlaces * kSectors};
    if (kind.wait) {
      (void)client->submit_and_wait(request);
    } else {
      (void)client->submit(request);
    }
  };
  for (int i = 0; i < 1000; ++i) write();
  uint64_t before = allocations();
  for (auto _ : state) write();
  state.counters["allocs"] = benchmark::Counter(static_cast<double>(allocations() - before),
                                                benchmark::Counter::kAvgIterations);
  if (notify.failed) state.SkipWithError("a write has failed");
  state.SetItemsProcessed(state.iterations());
}

BENCHMARK(plain_pwrite)->Name("io/pwrite");
BENCHMARK(plain_bio)->Name("io/bio");
BENCHMARK(client_write<Kind{false, false, false}>)->Name("io/client");
BENCHMARK(client_write<Kind{true, false, false}>)->Name("io/client/cancellable");
BENCHMARK(client_write<Kind{true, true, false}>)->Name("io/client/cancellable/timeout");
BENCHMARK(client_write<Kind{true, true, true}>)->Name("io/client/cancellable/timeout/waited_for");
BENCHMARK(client_write<Kind{false, false, false}, true>)->Name("io/client/null");
BENCHMARK(client_write<Kind{true, false, false}, true>)->Name("io/client/null/cancellable");

}  // namespace
}  // namespace dmfs::bench
