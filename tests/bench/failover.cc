// SPDX-License-Identifier: Apache-2.0
// Failover time of multipath: from the moment at which a path fails a write to the success of the
// same write on another path, of every write that a path has failed. Writes of 4 KiB to a file in
// memory (/dev/shm, else the temporary directory), from two threads, one at a time each.
//   failover [ROUNDS]      a path, or all of a group, fail in each; 500 by default
#include <fcntl.h>
#include <fmt/format.h>
#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "core/base/mutex.h"
#include "core/io/open_backing.h"
#include "tests/bench/micro_rig.h"

namespace dmfs::bench {
namespace {

using Now = std::chrono::steady_clock;
constexpr size_t kSenders = 2;
constexpr uint64_t kOwnSectors = 8192;  // of each sender
constexpr uint64_t kIoSectors = 8;
constexpr Sectors kSize{kSenders * kOwnSectors};

// When the write under way of each sender was failed first; nothing: it was not.
std::array<std::atomic<Now::rep>, kSenders> failed_at;

// A way to the file that can be broken.
class Way final : public BackingFile {
 public:
  Way(std::unique_ptr<BackingFile> file, std::atomic<bool>& broken, std::string name)
      : file_(std::move(file)), broken_(broken), name_(std::move(name)) {}
  void submit(Bio& bio) override {
    if (!broken_.load()) return file_->submit(bio);
    Now::rep none = 0;
    failed_at[bio.sector.n / kOwnSectors].compare_exchange_strong(
        none, Now::now().time_since_epoch().count());
    bio.complete(EIO);
  }
  std::string name() const override { return name_; }
  Sectors size() const override { return kSize; }

 private:
  const std::unique_ptr<BackingFile> file_;
  std::atomic<bool>& broken_;
  const std::string name_;
};

// Opens way0, way1 ... to one file, which goes with the program.
class Ways final : public DeviceOpener {
 public:
  Ways() {
    std::string path = access("/dev/shm", W_OK) == 0 ? "/dev/shm/dmfs-failover-XXXXXX"
                                                     : "/tmp/dmfs-failover-XXXXXX";
    fd_ = mkstemp(path.data());
    if (fd_ < 0 || ftruncate(fd_, static_cast<off_t>(kSize.bytes())) != 0) abort();
    unlink(path.c_str());
  }
  ~Ways() override { close(fd_); }
  Result<std::unique_ptr<BackingFile>> open(const std::string& word, bool read_only) override {
    size_t number = static_cast<size_t>(word.back() - '0');
    if (number >= broken.size()) return Error{ENOENT, word};
    DM_TRY(auto file, open_backing(service_, fd_, word, read_only));
    return std::unique_ptr<BackingFile>(std::make_unique<Way>(std::move(file), broken[number], word));
  }

  std::array<std::atomic<bool>, 4> broken{};

 private:
  IoService service_;
  int fd_ = -1;
};

// Times of writes that were failed, from all senders.
class Samples {
 public:
  void add(Now::duration time) {
    MutexLock lock(mutex_);
    times_.push_back(std::chrono::duration<double, std::milli>(time).count());
    more_.notify_all();
  }
  size_t count() const {
    MutexLock lock(mutex_);
    return times_.size();
  }
  // Not for ever: what failed in the round before may have put the wrong path out of use.
  void wait_for(size_t count) {
    auto end = Now::now() + std::chrono::milliseconds(20);
    MutexLock lock(mutex_);
    while (times_.size() < count && more_.wait_until(mutex_, end)) {
    }
  }
  void print(const char* what) {
    MutexLock lock(mutex_);
    if (times_.empty()) times_.push_back(0);
    std::sort(times_.begin(), times_.end());
    auto at = [&](double part) { return times_[static_cast<size_t>(part * static_cast<double>(times_.size() - 1))]; };
    printf("%-44s %8zu %9.4f %9.4f %9.4f %9.4f\n", what, times_.size(), at(0.5), at(0.9), at(0.99), at(1));
  }

 private:
  mutable Mutex mutex_;
  CondVar more_;
  std::vector<double> times_ DM_GUARDED_BY(mutex_);
};

class Sender {
 public:
  Sender(MappedDevice& device, Samples& samples, size_t number)
      : device_(device), samples_(samples), number_(number), thread_([this] { run(); }) {}
  ~Sender() {
    stop_ = true;
    thread_.join();
  }

 private:
  struct Write : Bio {
    explicit Write(void (*ended)(Bio&)) : Bio(ended) {}
    std::atomic<bool> done{false};
  };

  void run() {
    std::vector<std::byte> memory(kIoSectors * 512);
    iovec segment{memory.data(), memory.size()};
    Write write([](Bio& bio) {
      auto& ended = static_cast<Write&>(bio);
      ended.done = true;
      ended.done.notify_one();
    });
    write.op = Op::Write;
    write.count = {kIoSectors};
    write.data = {&segment, 1, 0};
    for (uint64_t next = 0; !stop_; ++next) {
      write.reset();
      write.done = false;
      write.sector = {number_ * kOwnSectors + next * kIoSectors % kOwnSectors};
      device_.submit(write);
      write.done.wait(false);
      Now::rep failed = failed_at[number_].exchange(0);
      if (write.status != 0) {
        fprintf(stderr, "failover: a write has failed\n");
        exit(1);
      }
      if (failed) samples_.add(Now::now().time_since_epoch() - Now::duration(failed));
    }
  }

  MappedDevice& device_;
  Samples& samples_;
  const size_t number_;
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

void tell(Device& device, const std::string& what, const std::string& word) {
  std::array<std::string, 2> words{what, word};
  auto done = device.table().entries()[0].target->message(words);
  if (!done) {
    fprintf(stderr, "failover: %s\n", done.error().message.c_str());
    exit(1);
  }
}

// In each round `together` ways break, the next ones, until a write has met that and got through.
void measure(const char* what, size_t rounds, const std::string& words, size_t together,
             const std::string& script = {}) {
  Ways ways;
  Device device(one_target(kSize, "multipath", words), ways, script);
  Samples samples;
  {
    std::vector<std::unique_ptr<Sender>> senders;
    for (size_t i = 0; i < kSenders; ++i) {
      senders.push_back(std::make_unique<Sender>(device.device(), samples, i));
    }
    for (size_t round = 0; round < rounds; ++round) {
      size_t before = samples.count();
      size_t first = round * together % ways.broken.size();
      for (size_t i = first; i < first + together; ++i) ways.broken[i] = true;
      samples.wait_for(before + 1);
      for (size_t i = first; i < first + together; ++i) ways.broken[i] = false;
      for (size_t i = 0; i < ways.broken.size(); ++i) {
        tell(device, "reinstate_path", fmt::format("way{}", i));
      }
    }
  }
  samples.print(what);
  fflush(stdout);
}

void run(size_t rounds) {
  constexpr const char* kActivates = R"(
    return { pg_init = function(bypassed, path) return "ok" end }
  )";
  const std::string two_groups =
      "2 1 round-robin 0 2 1 way0 1 way1 1 round-robin 0 2 1 way2 1 way3 1";
  printf("%-44s %8s %9s %9s %9s %9s\n", "ms, of each write that a path has failed", "writes", "p50",
         "p90", "p99", "max");
  measure("another path of the group", rounds,
          "1 queue_if_no_path 0 1 1 round-robin 0 4 1 way0 1 way1 1 way2 1 way3 1", 1);
  measure("another group", rounds, "1 queue_if_no_path 0 " + two_groups, 2);
  measure("another group, with a Lua pg_init", rounds, "1 queue_if_no_path 1 activates " + two_groups, 2, kActivates);
}

}  // namespace
}  // namespace dmfs::bench

int main(int argc, char** argv) {
  int rounds = argc > 1 ? atoi(argv[1]) : 500;
  if (argc > 2 || rounds <= 0) {
    fprintf(stderr, "usage: failover [ROUNDS]\n");
    return 2;
  }
  dmfs::bench::run(static_cast<size_t>(rounds));
}
