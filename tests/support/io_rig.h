// SPDX-License-Identifier: Apache-2.0
// For tests of IoClient and what stands on it.
#pragma once

#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/base/executor.h"
#include "core/io/io_client.h"
#include "tests/support/fake_clock.h"
#include "tests/support/held_file.h"

namespace dmfs::test {

// Work that runs when the test says so, on its thread.
class ManualExecutor final : public Executor {
 public:
  void post(std::function<void()> work) override {
    MutexLock lock(mutex_);
    queue_.push_back(std::move(work));
  }
  bool run_one() {
    std::function<void()> work;
    {
      MutexLock lock(mutex_);
      if (queue_.empty()) return false;
      work = std::move(queue_.front());
      queue_.pop_front();
    }
    work();
    return true;
  }
  size_t run_all() {
    size_t count = 0;
    while (run_one()) ++count;
    return count;
  }

 private:
  Mutex mutex_;  // leaf
  std::deque<std::function<void()>> queue_ DM_GUARDED_BY(mutex_);
};

// The heap, until the test turns it off.
class DrySource final : public BufferSource {
 public:
  std::byte* get(size_t bytes) override {
    if (dry_) return nullptr;
    if (left_ == 0) return nullptr;
    --left_;
    ++outstanding_;
    return heap().get(bytes);
  }
  void put(std::byte* memory) override {
    --outstanding_;
    heap().put(memory);
  }
  void set_dry(bool dry) { dry_ = dry; }
  void set_left(size_t pieces) { left_ = pieces; }
  size_t outstanding() const { return outstanding_; }

 private:
  std::atomic<bool> dry_{false};
  std::atomic<size_t> left_{SIZE_MAX};
  std::atomic<size_t> outstanding_{0};
};

struct Told {
  unsigned region;
  RegionState state;
  int error = 0;
  bool last = false;
  bool operator==(const Told&) const = default;
};

inline const char* state_name(RegionState state) {
  switch (state) {
    case RegionState::Ok: return "OK";
    case RegionState::Timeout: return "TIMEOUT";
    case RegionState::Cancelled: return "CANCELLED";
    case RegionState::Error: return "ERROR";
  }
  return "?";
}

inline std::ostream& operator<<(std::ostream& out, const Told& told) {
  return out << told.region << ':' << state_name(told.state) << '(' << told.error << ')'
             << (told.last ? "." : "");
}

// Keeps what it is told, and checks what holds for every request: one call at a time, nothing after
// the last one.
class Recorder : public IoNotify {
 public:
  void notified(const IoNotice& notice) override {
    EXPECT_EQ(inside_.exchange(true), false) << "two notices at a time";
    EXPECT_FALSE(returned_) << "a notice after the last";
    Told told{notice.region, notice.state, notice.error, notice.last};
    {
      MutexLock lock(mutex_);
      told_.push_back(told);
      sense_ = notice.sense;
    }
    if (on_notice) on_notice(notice);
    inside_ = false;
    if (notice.last) returned_ = true;
  }
  std::vector<Told> told() const {
    MutexLock lock(mutex_);
    return told_;
  }
  // What a region was told, in order.
  std::vector<Told> told(unsigned region) const {
    std::vector<Told> all = told();
    std::erase_if(all, [&](const Told& one) { return one.region != region; });
    return all;
  }
  bool returned() const { return returned_; }
  Sense sense() const {
    MutexLock lock(mutex_);
    return sense_;
  }
  void again() { returned_ = false; }

  std::function<void(const IoNotice&)> on_notice;

 private:
  std::atomic<bool> inside_{false};
  std::atomic<bool> returned_{false};
  mutable Mutex mutex_;
  std::vector<Told> told_ DM_GUARDED_BY(mutex_);
  Sense sense_ DM_GUARDED_BY(mutex_);
};

// A request with memory of its own, that keeps what it is told.
class TestRequest : public IoRequest {
 public:
  TestRequest(Op what, std::vector<IoRegion> where, char tag = 'a') : where_(std::move(where)) {
    op = what;
    regions = where_;
    notify = &recorder;
    size_t bytes = 0;
    for (const IoRegion& region : where_) bytes = std::max<size_t>(bytes, region.count.bytes());
    if (op_has_data(op)) data.assign(bytes, static_cast<std::byte>(tag));
    memory = IoMemory::contiguous(data.data(), data.size());
  }
  // How the first region ended, when it has.
  std::vector<Told> told() const { return recorder.told(); }
  bool returned() const { return recorder.returned(); }
  RegionState state() const {
    EXPECT_FALSE(told().empty());
    return told().empty() ? RegionState::Error : told().back().state;
  }
  bool holds(char tag) const {
    return std::all_of(data.begin(), data.end(), [&](std::byte b) { return b == std::byte(tag); });
  }

  std::vector<std::byte> data;
  Recorder recorder;

 private:
  std::vector<IoRegion> where_;
};

inline std::unique_ptr<IoClient> make_client(Clock& clock, IoClient::Options options) {
  auto client = IoClient::create(clock, options);
  if (!client) {
    ADD_FAILURE() << client.error().message;
    return nullptr;
  }
  return *std::move(client);
}

inline bool file_holds(const MemoryFile& file, Sectors at, Sectors count, char tag) {
  std::vector<std::byte> bytes = file.peek(at, count);
  return std::all_of(bytes.begin(), bytes.end(), [&](std::byte b) { return b == std::byte(tag); });
}

}  // namespace dmfs::test
