// SPDX-License-Identifier: Apache-2.0
// What the micro benchmarks map onto: a file that completes every bio at once, a file whose bios
// complete on another thread, and a device that lies on either or on another device.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <thread>

#include "core/base/clock.h"
#include "core/dm/mapped_device.h"
#include "core/dm/table.h"

namespace dmfs::bench {

inline constexpr Sectors kFileSize{uint64_t{1} << 40};

// Does nothing, at once: what is left is the cost of the mapper.
class NullFile final : public BackingFile {
 public:
  void submit(Bio& bio) override { bio.complete(0); }
  std::string name() const override { return "null"; }
  Sectors size() const override { return kFileSize; }
};

// Completes on a thread of its own, which never sleeps: bios end elsewhere than they began.
class RelayFile final : public BackingFile {
 public:
  RelayFile();
  ~RelayFile() override;
  void submit(Bio& bio) override;
  std::string name() const override { return "relay"; }
  Sectors size() const override { return kFileSize; }

 private:
  void run();

  std::atomic<Bio*> stack_{nullptr};
  std::atomic<bool> stopping_{false};
  std::thread thread_;
};

// "relay", "below" (the device given), or any other word for a null file.
class Opener final : public DeviceOpener {
 public:
  explicit Opener(MappedDevice* below = nullptr) : below_(below) {}
  Result<std::unique_ptr<BackingFile>> open(const std::string& word, bool read_only) override;

 private:
  MappedDevice* const below_;
};

// An active device. A table that does not load ends the program: a benchmark has no caller who
// could do better.
class Device {
 public:
  explicit Device(const TableSpec& spec, MappedDevice* below = nullptr);
  // With what the caller's opener gives, and a script for every name.
  Device(const TableSpec& spec, DeviceOpener& opener, const std::string& script = {});
  ~Device();
  MappedDevice& device() { return device_; }
  const Table& table() const { return *table_; }

 private:
  void activate(const TableSpec& spec, DeviceOpener& opener, const std::string& script);

  SystemClock clock_;
  MappedDevice device_{0};
  std::shared_ptr<const Table> table_;  // shared with the device
};

// `targets` linear targets of `length` sectors each, end to end, all on the file `word`.
TableSpec linear_table(size_t targets, Sectors length, const std::string& word = "null");

// A table of one target.
TableSpec one_target(Sectors length, const std::string& type, const std::string& words);

// Calls to operator new on this thread so far.
uint64_t allocations();

}  // namespace dmfs::bench
