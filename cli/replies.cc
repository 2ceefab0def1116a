// SPDX-License-Identifier: Apache-2.0
#include "cli/replies.h"

#include <fmt/format.h>

#include <limits>

namespace dmfs::cli {
namespace {

using nlohmann::json;

// Reads members one after the other and keeps the first complaint, so that a reader is one line a
// member.
class Members {
 public:
  explicit Members(const json& object) : object_(object) {}

  void get(const char* key, std::string& value) {
    const json* member = find(key);
    if (member && member->is_string()) {
      value = member->get_ref<const std::string&>();
    } else {
      complain(key);
    }
  }
  void get(const char* key, bool& value) {
    const json* member = find(key);
    if (member && member->is_boolean()) {
      value = member->get<bool>();
    } else {
      complain(key);
    }
  }
  void get(const char* key, uint64_t& value) {
    const json* member = find(key);
    if (member && member->is_number_unsigned()) {
      value = member->get<uint64_t>();
    } else if (member && member->is_number_integer() && member->get<int64_t>() >= 0) {
      value = static_cast<uint64_t>(member->get<int64_t>());
    } else {
      complain(key);
    }
  }
  void get(const char* key, uint32_t& value) {
    uint64_t wide = 0;
    get(key, wide);
    if (wide > std::numeric_limits<uint32_t>::max()) return complain(key);
    value = static_cast<uint32_t>(wide);
  }
  // Null, with a complaint, when the member is no array.
  const json* array(const char* key) {
    const json* member = find(key);
    if (member && member->is_array()) return member;
    complain(key);
    return nullptr;
  }
  // Null, with a complaint, when it is not there.
  const json* any(const char* key) {
    const json* member = find(key);
    if (!member) complain(key);
    return member;
  }
  Status status() const {
    if (bad_.empty()) return {};
    return Error{EPROTO, fmt::format("the daemon's reply has no proper '{}'", bad_)};
  }

 private:
  const json* find(const char* key) const {
    if (!object_.is_object()) return nullptr;
    auto it = object_.find(key);
    return it == object_.end() ? nullptr : &*it;
  }
  void complain(const char* key) {
    if (bad_.empty()) bad_ = key;
  }

  const json& object_;
  std::string bad_;
};

Result<TableLine> read_line(const json& reply) {
  TableLine line;
  Members m(reply);
  m.get("start", line.start);
  m.get("length", line.length);
  m.get("type", line.type);
  m.get("params", line.params);
  DM_TRY_STATUS(m.status());
  return line;
}

Result<Dependency> read_dependency(const json& reply, Mangling mode) {
  Dependency dep;
  Members m(reply);
  m.get("name", dep.name);
  m.get("path", dep.path);
  m.get("major", dep.major);
  m.get("minor", dep.minor);
  DM_TRY_STATUS(m.status());
  dep.name = unmangle(dep.name, mode);
  return dep;
}

Result<TargetVersion> read_target(const json& reply) {
  TargetVersion target;
  Members m(reply);
  m.get("name", target.name);
  const json* version = m.array("version");
  DM_TRY_STATUS(m.status());
  for (size_t i = 0; i < 3 && i < version->size(); i++) {
    if ((*version)[i].is_number_integer()) target.version[i] = (*version)[i].get<uint64_t>();
  }
  return target;
}

// The elements of the array `key`, each through `read`.
template <typename T, typename Read>
Result<std::vector<T>> read_array(const json& reply, const char* key, Read read) {
  Members m(reply);
  const json* array = m.array(key);
  DM_TRY_STATUS(m.status());
  std::vector<T> out;
  out.reserve(array->size());
  for (const json& element : *array) {
    DM_TRY(T value, read(element));
    out.push_back(std::move(value));
  }
  return out;
}

Result<Device> read_info(const json& reply, Mangling mode) {
  Members m(reply);
  const json* info = m.any("info");
  DM_TRY_STATUS(m.status());
  return read_device(*info, mode);
}

}  // namespace

Result<Device> read_device(const json& reply, Mangling mode) {
  Device d;
  Members m(reply);
  m.get("name", d.sent_name);
  m.get("uuid", d.sent_uuid);
  m.get("major", d.major);
  m.get("minor", d.minor);
  m.get("open_count", d.open_count);
  m.get("event_nr", d.event_nr);
  m.get("target_count", d.target_count);
  m.get("suspended", d.suspended);
  m.get("read_only", d.read_only);
  m.get("ordered", d.ordered);
  m.get("live_table", d.live_table);
  m.get("inactive_table", d.inactive_table);
  m.get("deferred_remove", d.deferred_remove);
  m.get("read_ahead", d.read_ahead);
  m.get("not_activated", d.not_activated);
  m.get("fault", d.fault);
  m.get("held", d.held);
  DM_TRY_STATUS(m.status());
  d.name = unmangle(d.sent_name, mode);
  d.uuid = unmangle(d.sent_uuid, mode);
  return d;
}

Result<std::vector<Device>> read_devices(const json& reply, Mangling mode) {
  return read_array<Device>(reply, "devices", [&](const json& d) { return read_device(d, mode); });
}

Result<DeviceTable> read_device_table(const json& reply, Mangling mode) {
  DeviceTable table;
  DM_TRY(table.info, read_info(reply, mode));
  DM_TRY(table.targets, read_array<TableLine>(reply, "targets", read_line));
  return table;
}

Result<DeviceDeps> read_deps(const json& reply, Mangling mode) {
  DeviceDeps deps;
  DM_TRY(deps.info, read_info(reply, mode));
  DM_TRY(deps.deps, read_array<Dependency>(
                        reply, "deps", [&](const json& d) { return read_dependency(d, mode); }));
  return deps;
}

Result<std::vector<TargetVersion>> read_targets(const json& reply) {
  return read_array<TargetVersion>(reply, "targets", read_target);
}

Result<WaitReport> read_wait_report(const json& reply, Mangling mode) {
  WaitReport report;
  Members m(reply);
  const json* info = m.any("info");
  m.get("suspending", report.suspending);
  m.get("in_flight", report.in_flight);
  m.get("refused", report.refused);
  m.get("held_count", report.held_count);
  const json* freed_by = m.array("freed_by");
  DM_TRY_STATUS(m.status());
  DM_TRY(report.info, read_device(*info, mode));
  for (const json& act : *freed_by) {
    if (act.is_string()) report.freed_by.push_back(act.get<std::string>());
  }
  DM_TRY(report.held, read_array<WaitingBio>(reply, "held", [](const json& b) -> Result<WaitingBio> {
           WaitingBio bio;
           Members of(b);
           of.get("where", bio.where);
           of.get("op", bio.op);
           of.get("fua", bio.fua);
           of.get("sector", bio.sector);
           of.get("count", bio.count);
           of.get("pid", bio.pid);
           of.get("age_ms", bio.age_ms);
           DM_TRY_STATUS(of.status());
           return bio;
         }));
  return report;
}

Result<uint64_t> read_failed_count(const json& reply) {
  uint64_t failed = 0;
  Members m(reply);
  m.get("failed", failed);
  DM_TRY_STATUS(m.status());
  return failed;
}

Result<DaemonVersion> read_version(const json& reply) {
  DaemonVersion version;
  Members m(reply);
  m.get("driver", version.driver);
  m.get("mount", version.mount);
  m.get("store", version.store);
  m.get("engine", version.engine);
  m.get("pid", version.pid);
  DM_TRY_STATUS(m.status());
  return version;
}

Result<std::string> read_message_result(const json& reply) {
  std::string result;
  Members m(reply);
  m.get("result", result);
  DM_TRY_STATUS(m.status());
  return result;
}

Result<std::vector<std::string>> read_notes(const json& reply) {
  if (!reply.is_object() || !reply.contains("notes")) return std::vector<std::string>();
  return read_array<std::string>(reply, "notes", [](const json& note) -> Result<std::string> {
    if (!note.is_string()) return Error{EPROTO, "the daemon's reply has no proper 'notes'"};
    return note.get<std::string>();
  });
}

Result<std::vector<std::string>> read_open_names(const json& reply) {
  return read_array<std::string>(reply, "open", [](const json& name) -> Result<std::string> {
    if (!name.is_string()) return Error{EPROTO, "the daemon's reply has no proper 'open'"};
    return name.get<std::string>();
  });
}

}  // namespace dmfs::cli
