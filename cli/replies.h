// SPDX-License-Identifier: Apache-2.0
// The daemon's replies as types. A reply that lacks a member, or has one of another type, is
// EPROTO: nothing here throws.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "cli/mangle.h"
#include "cli/table_text.h"
#include "core/base/result.h"

namespace dmfs::cli {

struct Device {
  std::string name;  // for display
  std::string uuid;
  std::string sent_name;  // as the daemon has it, mangled
  std::string sent_uuid;
  uint32_t major = 0;
  uint32_t minor = 0;
  uint64_t open_count = 0;
  uint64_t event_nr = 0;
  uint64_t target_count = 0;
  bool suspended = false;
  bool read_only = false;
  bool ordered = false;
  bool live_table = false;
  bool inactive_table = false;
  bool deferred_remove = false;
  uint64_t read_ahead = 0;
  uint64_t held = 0;          // requests that wait
  std::string not_activated;  // why; empty: it is fine
  std::string fault;          // what went wrong below; empty: it is fine

  // A device that never had a table has no disk behind its name yet: no block device name and no
  // read-ahead.
  bool has_disk() const { return live_table || inactive_table; }
};

// A request that waits.
struct WaitingBio {
  std::string where;  // deferred, pushback, or the type of a target
  std::string op;
  bool fua = false;
  uint64_t sector = 0;
  uint64_t count = 0;
  uint64_t pid = 0;
  uint64_t age_ms = 0;
};

struct WaitReport {
  Device info;
  bool suspending = false;
  uint64_t in_flight = 0;
  uint64_t refused = 0;
  uint64_t held_count = 0;
  std::vector<WaitingBio> held;  // not always all
  std::vector<std::string> freed_by;
};

struct DeviceTable {
  Device info;
  std::vector<TableLine> targets;
};

// A volume has a name, a file a path.
struct Dependency {
  std::string name;  // for display
  std::string path;
  uint32_t major = 0;
  uint32_t minor = 0;

  bool is_volume() const { return !name.empty(); }
};

struct DeviceDeps {
  Device info;
  std::vector<Dependency> deps;
};

struct TargetVersion {
  std::string name;
  uint64_t version[3] = {};
};

struct DaemonVersion {
  std::string driver;
  std::string mount;
  std::string store;
  std::string engine;
  uint64_t pid = 0;
};

Result<Device> read_device(const nlohmann::json& reply, Mangling mode);
Result<std::vector<Device>> read_devices(const nlohmann::json& reply, Mangling mode);
Result<DeviceTable> read_device_table(const nlohmann::json& reply, Mangling mode);
Result<WaitReport> read_wait_report(const nlohmann::json& reply, Mangling mode);
Result<uint64_t> read_failed_count(const nlohmann::json& reply);
Result<DeviceDeps> read_deps(const nlohmann::json& reply, Mangling mode);
Result<std::vector<TargetVersion>> read_targets(const nlohmann::json& reply);
Result<DaemonVersion> read_version(const nlohmann::json& reply);
// What a suspend or resume has to say though it has succeeded; mostly nothing.
Result<std::vector<std::string>> read_notes(const nlohmann::json& reply);
Result<std::string> read_message_result(const nlohmann::json& reply);
// The names of devices that remove_all left.
Result<std::vector<std::string>> read_open_names(const nlohmann::json& reply);

}  // namespace dmfs::cli
