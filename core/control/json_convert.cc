// SPDX-License-Identifier: Apache-2.0
#include "core/control/json_convert.h"

#include <string>
#include <utility>

namespace dmfs {

using nlohmann::json;

DeviceSelector read_selector(ParamReader& params) {
  DeviceSelector device;
  device.name = params.optional_text("name");
  device.uuid = params.optional_text("uuid");
  device.minor = params.optional_u32("minor");
  int given = device.name.has_value() + device.uuid.has_value() + device.minor.has_value();
  if (given == 0) params.refuse("one of name, uuid and minor is missing");
  if (given > 1) params.refuse("only one of name, uuid and minor can be given");
  return device;
}

std::vector<TargetSpec> read_targets(ParamReader& params) {
  const json& array = params.array("targets");
  std::vector<TargetSpec> targets;
  targets.reserve(array.size());
  for (size_t i = 0; i < array.size(); ++i) {
    std::string where = "targets[" + std::to_string(i) + "]";
    if (!array[i].is_object()) {
      params.refuse(where + ": not an object but a " + array[i].type_name());
      return {};
    }
    ParamReader target(array[i], where + ".");
    TargetSpec spec;
    spec.start = Sectors{target.u64("start")};
    spec.length = Sectors{target.u64("length")};
    spec.type = target.text("type");
    spec.params = target.text("params");
    if (Status read = target.finish(); !read) {
      params.refuse(read.error().message);
      return {};
    }
    targets.push_back(std::move(spec));
  }
  return targets;
}

json to_json(const DeviceInfo& info) {
  json object = {{"name", info.name},
          {"uuid", info.uuid},
          {"major", info.major},
          {"minor", info.minor},
          {"open_count", info.open_count},
          {"event_nr", info.event_nr},
          {"target_count", info.target_count},
          {"suspended", info.suspended},
          {"read_only", info.read_only},
          {"ordered", info.ordered},
          {"live_table", info.live_table},
          {"inactive_table", info.inactive_table},
          {"deferred_remove", info.deferred_remove},
          {"read_ahead", info.read_ahead},
          {"held", info.held},
          {"size", info.size.n},
          {"geometry",
           {{"cylinders", info.geometry.cylinders},
            {"heads", info.geometry.heads},
            {"sectors", info.geometry.sectors},
            {"start", info.geometry.start}}},
          {"not_activated", info.not_activated},
          {"fault", info.fault}};
  if (!info.frozen.empty()) object["frozen"] = info.frozen;
  if (!info.notes.empty()) object["notes"] = info.notes;
  return object;
}

json to_json(const TableStatus& table) {
  json targets = json::array();
  for (const TargetSpec& target : table.targets) {
    targets.push_back({{"start", target.start.n},
                       {"length", target.length.n},
                       {"type", target.type},
                       {"params", target.params}});
  }
  return {{"info", to_json(table.info)}, {"targets", std::move(targets)}};
}

json to_json(const WaitReport& report) {
  json held = json::array();
  for (const HeldBio& bio : report.held.bios) {
    held.push_back({{"where", bio.where},
                    {"op", op_name(bio.op)},
                    {"fua", bio.fua},
                    {"sector", bio.sector.n},
                    {"count", bio.count.n},
                    {"pid", bio.pid},
                    {"age_ms", bio.age.count() / 1'000'000}});
  }
  return {{"info", to_json(report.info)},     {"suspending", report.suspending},
          {"in_flight", report.in_flight},    {"refused", report.refused},
          {"held_count", report.held.count},  {"held", std::move(held)},
          {"freed_by", report.freed_by}};
}

json to_json(const PathsOfDevice& device) {
  json targets = json::array();
  for (const DevicePaths& target : device.targets) {
    json groups = json::array();
    for (const PathGroupReport& group : target.paths.groups) {
      json paths = json::array();
      for (const PathReport& path : group.paths) {
        paths.push_back({{"name", path.name},
                         {"state", path.active ? "active" : "failed"},
                         {"checker", path.checker},
                         {"in_flight", path.in_flight},
                         {"stale", path.stale},
                         {"fail_count", path.fail_count},
                         {"errors", path.errors},
                         {"latency_ns", path.latency.count()}});
      }
      const char* state = group.state == PathGroupReport::State::Active    ? "active"
                          : group.state == PathGroupReport::State::Enabled ? "enabled"
                                                                           : "disabled";
      groups.push_back({{"number", group.number},
                        {"state", state},
                        {"selector", group.selector},
                        {"paths", std::move(paths)}});
    }
    targets.push_back({{"start", target.start.n},
                       {"length", target.length.n},
                       {"type", target.type},
                       {"features", target.paths.features},
                       {"handler", target.paths.handler},
                       {"queueing", target.paths.queueing},
                       {"waiting", target.paths.waiting},
                       {"groups", std::move(groups)}});
  }
  return {{"info", to_json(device.info)}, {"targets", std::move(targets)}};
}

json to_json(const TableDeps& table) {
  json deps = json::array();
  for (const Dependency& dep : table.deps) {
    deps.push_back(
        {{"name", dep.name}, {"path", dep.path}, {"major", dep.major}, {"minor", dep.minor}});
  }
  return {{"info", to_json(table.info)}, {"deps", std::move(deps)}};
}

}  // namespace dmfs
