// SPDX-License-Identifier: Apache-2.0
// The commands of device-mapper, with the granularity and the flags of the kernel's dm ioctls, so
// that every door (JSON-RPC now, an ioctl door later) does the same. A command is durable in the
// store when it returns ok. All functions: any thread; they may block (suspend, wait, opening
// files); none holds up another device's commands while it waits.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/base/cancel.h"
#include "core/base/result.h"
#include "core/dm/device_store.h"
#include "core/dm/held.h"
#include "core/dm/target.h"

namespace dmfs {

class DeviceManager;

inline constexpr uint32_t kVirtualMajor = 253;
inline constexpr size_t kMaxNameLength = 127;
inline constexpr size_t kMaxUuidLength = 128;

// Names one device. Exactly one of the three is set.
struct DeviceSelector {
  std::optional<std::string> name;
  std::optional<std::string> uuid;
  std::optional<uint32_t> minor;
};

// What every command answers about a device (struct dm_ioctl's fields, and more).
struct DeviceInfo {
  std::string name;
  std::string uuid;
  uint32_t major = kVirtualMajor;
  uint32_t minor = 0;
  uint32_t open_count = 0;
  uint32_t event_nr = 0;
  uint32_t target_count = 0;   // of the live table
  bool suspended = false;
  bool read_only = false;      // the live table's
  bool ordered = false;        // the live table's
  bool live_table = false;
  bool inactive_table = false;
  bool deferred_remove = false;
  uint32_t read_ahead = 0;     // sectors
  uint64_t held = 0;           // bios that wait: deferred, pushed back, or kept by a target
  Sectors size;                // of the live table
  Geometry geometry;
  std::string not_activated;   // why the live table could not be built at start; empty: it is fine
  std::string fault;           // what went wrong below, such as a file that has shrunk; empty: fine
  // Answers to suspend and resume only:
  std::vector<std::string> frozen;  // mount points of file systems that this suspend has frozen
  std::vector<std::string> notes;   // what lockfs could not do, and why
};

struct CreateArgs {
  std::string name;
  std::string uuid;
  std::optional<uint32_t> minor;  // lowest free when not given
  std::optional<uint32_t> read_ahead;
};

struct LoadArgs {
  DeviceSelector device;
  TableSpec table;       // an empty list of targets drops the inactive table, as the kernel
  std::string cwd;       // relative paths in the table are resolved against it; may be empty
};

struct SuspendArgs {
  DeviceSelector device;
  bool noflush = false;
  bool lockfs = true;
  std::optional<std::chrono::milliseconds> timeout = {};  // to wait for what is in flight
};

struct ResumeArgs {
  DeviceSelector device;
  bool noflush = false;  // for the suspend that a swap of an active device's table implies
  bool lockfs = true;
  std::optional<uint32_t> read_ahead;
};

struct RemoveArgs {
  DeviceSelector device;
  bool deferred = false;  // if it is open, at the last close
};

struct RenameArgs {
  DeviceSelector device;
  std::optional<std::string> new_name;  // one of the two
  std::optional<std::string> new_uuid;
};

struct TableArgs {
  DeviceSelector device;
  bool inactive = false;
};

struct TableStatus {
  DeviceInfo info;
  std::vector<TargetSpec> targets;  // params: the TABLE or STATUS text
};

struct Dependency {
  std::string name;        // of the mapped device; empty for a file
  std::string path;        // of the file; empty for a mapped device
  uint32_t major = 0, minor = 0;
};

struct TableDeps {
  DeviceInfo info;
  std::vector<Dependency> deps;  // in the kernel's order: last opened first
};

// What waits on a device, and why.
struct WaitReport {
  DeviceInfo info;
  bool suspending = false;    // a suspend waits for what is in flight
  int64_t in_flight = 0;      // bios inside: with targets, or with what lies below
  uint64_t refused = 0;       // bios that were refused for want of memory, ever
  HeldList held;
  std::vector<std::string> freed_by;  // what would let it go, each in a sentence
};

struct RemoveAllResult {
  std::vector<std::string> open;  // names that are in use and stay (or wait for the last close)
};

// The paths of one target of a device.
struct DevicePaths {
  Sectors start, length;
  std::string type;
  PathsReport paths;
};
struct PathsOfDevice {
  DeviceInfo info;
  std::vector<DevicePaths> targets;  // those that have paths
};

class Commands {
 public:
  Commands(DeviceManager& manager, const TargetRegistry& registry)
      : manager_(manager), registry_(registry) {}

  Result<DeviceInfo> create(const CreateArgs& args);
  // The bool: whether the removal waits for the last close.
  Result<bool> remove(const RemoveArgs& args);
  Result<RemoveAllResult> remove_all(bool deferred);
  Result<DeviceInfo> rename(const RenameArgs& args);
  // `cancel` (client gone) ends a wait with EINTR, the timeout with ETIMEDOUT; the device is active
  // again then.
  Result<DeviceInfo> suspend(const SuspendArgs& args, CancelToken& cancel);
  Result<DeviceInfo> resume(const ResumeArgs& args, CancelToken& cancel);
  Result<WaitReport> why(const DeviceSelector& device);
  // Of the live table.
  Result<PathsOfDevice> paths(const DeviceSelector& device);
  // Completes all that waits with `error` (an errno); how many.
  Result<uint64_t> fail_held(const DeviceSelector& device, int error);
  Result<DeviceInfo> status(const DeviceSelector& device);
  Result<DeviceInfo> load(const LoadArgs& args);
  Result<DeviceInfo> clear(const DeviceSelector& device);
  Result<TableStatus> table(const TableArgs& args);         // TABLE
  Result<TableStatus> table_status(const TableArgs& args);  // STATUS (INFO)
  Result<TableDeps> deps(const TableArgs& args);
  std::vector<DeviceInfo> list();  // in name order
  std::vector<const TargetType*> target_types();  // in name order
  // Sends `message` (quoted words) to the target at `sector`; "@..." goes to the core.
  Result<std::string> message(const DeviceSelector& device, Sectors sector,
                              const std::string& message);
  // Returns when the event number differs from `event_nr`, or the device is removed (ENXIO).
  Result<DeviceInfo> wait(const DeviceSelector& device, uint32_t event_nr, CancelToken& cancel);
  Result<DeviceInfo> set_geometry(const DeviceSelector& device, const Geometry& geometry);

 private:
  DeviceManager& manager_;          // own synchronisation
  const TargetRegistry& registry_;  // constant
};

}  // namespace dmfs
