// SPDX-License-Identifier: Apache-2.0
// A small language for tests of mapped devices:
//   rig.file("a", 100); rig.load("0 100 linear a 0"); rig.resume();
//   auto w = rig.write(0, 8); EXPECT_FALSE(w->done()); rig.file("a").complete_all();
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/dm/mapped_device.h"
#include "core/dm/table.h"
#include "core/targets/builtin.h"
#include "tests/support/fake_clock.h"
#include "tests/support/held_file.h"

namespace dmfs::test {

// "start length type params" lines. Fails the test on a malformed line.
TableSpec parse_table(const std::string& text);

// The registry with all built-in targets.
const TargetRegistry& builtin_registry();

// A bio with memory of its own that knows whether it is done.
class TestBio : public Bio {
 public:
  TestBio(Op op, Sectors at, Sectors count, uint8_t flags = 0);
  bool done() const { return done_.load(std::memory_order_acquire); }
  int error() const { return status; }
  std::vector<std::byte>& memory() { return memory_; }
  // Every sector filled with `tag` and its own absolute number, as golden/bio.c does.
  void fill(char tag);
  // Whether every sector reads as fill(tag) made it, counting from `first`.
  bool holds(char tag, uint64_t first) const;
  bool holds_zeroes() const;

 private:
  static void ended(Bio& bio);
  std::vector<std::byte> memory_;
  iovec segment_{};
  std::atomic<bool> done_{false};
};

// Opens the rig's files by name; unknown names are ENOENT.
class TestOpener : public DeviceOpener {
 public:
  HeldFile& add(const std::string& name, uint64_t sectors);
  HeldFile& at(const std::string& name) { return *files_.at(name); }
  Result<std::unique_ptr<BackingFile>> open(const std::string& word, bool read_only) override;
  // How many users have the file open now.
  int open_count(const std::string& name) const;

 private:
  std::map<std::string, std::unique_ptr<HeldFile>> files_;
  std::map<std::string, std::shared_ptr<std::atomic<int>>> opens_;
};

// One mapped device over held files.
class Rig {
 public:
  explicit Rig(uint32_t minor = 0) : device_(std::make_unique<MappedDevice>(minor)) {}
  ~Rig();

  TestOpener& opener() { return opener_; }
  // A new file that completes inline until hold(true).
  HeldFile& file(const std::string& name, uint64_t sectors);
  HeldFile& file(const std::string& name) { return opener_.at(name); }
  FakeClock& clock() { return clock_; }
  MappedDevice& device() { return *device_; }

  Status load(TableSpec spec);
  Status load(const std::string& text, bool read_only = false, bool ordered = false);
  Status suspend(SuspendOptions options = {}, CancelToken* cancel = nullptr);
  Status resume(CancelToken* cancel = nullptr);
  // What the next commits answer.
  void fail_commits(int error) { commit_error_ = error; }
  int commits() const { return commits_; }
  // What is asked when a target saves its state; ok without. Set before the table is loaded.
  void on_save(std::function<Status(uint64_t position, const std::string&)> save) {
    save_ = std::move(save);
  }

  std::shared_ptr<TestBio> read(uint64_t at, uint64_t count);
  std::shared_ptr<TestBio> write(uint64_t at, uint64_t count, char tag = 'A', uint8_t flags = 0);
  std::shared_ptr<TestBio> send(Op op, uint64_t at = 0, uint64_t count = 0);

 private:
  Status commit();
  std::shared_ptr<TestBio> submit(std::shared_ptr<TestBio> bio);

  FakeClock clock_;
  TestOpener opener_;
  std::unique_ptr<MappedDevice> device_;
  std::vector<std::shared_ptr<TestBio>> bios_;
  std::atomic<int> commit_error_{0};
  std::atomic<int> commits_{0};
  std::function<Status(uint64_t position, const std::string&)> save_;
};

}  // namespace dmfs::test
