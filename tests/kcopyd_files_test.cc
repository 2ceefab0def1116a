// SPDX-License-Identifier: Apache-2.0
// Copying real files, with every engine and real threads.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <future>
#include <random>
#include <thread>

#include "core/io/kcopyd.h"
#include "core/io/open_backing.h"
#include "tests/support/every_engine.h"
#include "tests/support/io_rig.h"
#include "tests/support/temp_dir.h"

namespace dmfs::test {
namespace {

class WaitableJob : public CopyJob {
 public:
  WaitableJob(BackingFile* from, std::vector<Place> to, Sectors length, Executor& on)
      : places_(std::move(to)) {
    source.file = from;
    destinations = places_;
    count = length;
    queue = &on;
  }
  void ended(const Outcome& outcome) override { outcome_.set_value(outcome); }
  Outcome wait() { return outcome_.get_future().get(); }

 private:
  const std::vector<Place> places_;
  std::promise<Outcome> outcome_;
};

class KcopydFiles : public EveryEngine {
 protected:
  std::unique_ptr<BackingFile> open(const std::string& name, uint64_t sectors) {
    std::string path = dir_.file(name, sectors);
    int fd = ::open(path.c_str(), O_PATH | O_CLOEXEC);
    auto file = open_backing(service_, fd, path, false);
    ::close(fd);
    if (!file) {
      ADD_FAILURE() << file.error().message;
      return nullptr;
    }
    return *std::move(file);
  }
  void write(BackingFile& file, uint64_t at, uint64_t count, char tag) {
    TestRequest request(Op::Write, {{file, {at}, {count}}}, tag);
    EXPECT_EQ(client_->submit_and_wait(request), 0u);
  }
  std::vector<std::byte> read(BackingFile& file, uint64_t sectors) {
    std::vector<std::byte> all;
    for (uint64_t at = 0; at < sectors;) {
      uint64_t count = std::min<uint64_t>(sectors - at, 512);
      TestRequest request(Op::Read, {{file, {at}, {count}}});
      EXPECT_EQ(client_->submit_and_wait(request), 0u);
      all.insert(all.end(), request.data.begin(), request.data.end());
      at += count;
    }
    return all;
  }

  TempDir dir_;
  IoService service_{options()};
  SystemClock clock_;
  ThreadExecutor queue_;
  ThreadExecutor work_;
  std::unique_ptr<IoClient> client_ =
      make_client(clock_, {.devices = 2, .min_ios = 4, .max_size = 512 * 512});
};

TEST_P(KcopydFiles, CopiesAndKeepsHoles) {
  constexpr uint64_t kSectors = 65536;
  auto from = open("from", kSectors), a = open("a", kSectors), b = open("b", kSectors);
  for (uint64_t at = 4096; at < 60000; at += 20000) {
    for (uint64_t i = 0; i < 8; ++i) write(*from, at + i * 500, 500, static_cast<char>(at + i));
  }
  write(*a, 100, 400, 'x');  // where the source has a hole
  auto kcopyd = *Kcopyd::create(*client_, clock_, work_, {.pieces = 4, .piece = {512}});
  for (bool in_kernel : {true, false}) {
    WaitableJob job(from.get(), {{a.get(), {}}, {b.get(), {}}}, {kSectors}, queue_);
    job.in_kernel = in_kernel;
    kcopyd->submit(job);
    CopyJob::Outcome outcome = job.wait();
    EXPECT_TRUE(outcome.ok()) << outcome.error;
    EXPECT_EQ(job.copied().n, kSectors);
    EXPECT_EQ(read(*from, kSectors), read(*a, kSectors));
    EXPECT_EQ(read(*from, kSectors), read(*b, kSectors));
    // Blocks of the file system at both ends of each extent.
    EXPECT_LE(b->allocated({0}, {kSectors}).n, from->allocated({0}, {kSectors}).n + 8 * 16);
    write(*b, 4096, 8, 'y');
  }
}

// Jobs come, go on and are cancelled from several threads; those that end well are as their source.
TEST_P(KcopydFiles, ManyJobsAndCancels) {
  constexpr uint64_t kSectors = 2048;
  auto from = open("from", kSectors);
  for (uint64_t at = 0; at < kSectors; at += 512) write(*from, at, 300, static_cast<char>('a' + at / 512));
  std::vector<std::byte> wanted = read(*from, kSectors);
  std::vector<std::unique_ptr<BackingFile>> files;
  for (int t = 0; t < 3; ++t) files.push_back(open("to" + std::to_string(t), kSectors));
  {
    auto kcopyd = *Kcopyd::create(*client_, clock_, work_, {.pieces = 3, .piece = {64}});
    std::vector<std::thread> threads;
    std::atomic<unsigned> good{0};
    for (unsigned t = 0; t < 3; ++t) {
      threads.emplace_back([&, t] {
        std::mt19937 random(t);
        for (int i = 0; i < 12; ++i) {
          WaitableJob job(from.get(), {{files[t].get(), {}}}, {kSectors}, queue_);
          job.in_kernel = random() % 2;
          job.priority = static_cast<int>(random() % 3);
          bool last = i == 11;
          if (!last && random() % 4 == 0) job.timeout = std::chrono::microseconds(100);
          kcopyd->submit(job);
          if (!last && random() % 2) {
            for (unsigned spin = random() % 2000; spin > 0; --spin) std::this_thread::yield();
            (void)kcopyd->cancel(job);
          }
          if (t == 0 && i % 4 == 0) kcopyd->set_throttle(i % 8 == 0 ? 90 : 100);
          CopyJob::Outcome outcome = job.wait();
          if (outcome.ok()) ++good;
          EXPECT_TRUE(!last || outcome.ok());
        }
      });
    }
    for (auto& thread : threads) thread.join();
    EXPECT_GE(good, 3u);
  }
  for (auto& file : files) EXPECT_EQ(read(*file, kSectors), wanted);
  client_.reset();
}

DM_FOR_EVERY_ENGINE(KcopydFiles);

}  // namespace
}  // namespace dmfs::test
