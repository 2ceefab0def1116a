// SPDX-License-Identifier: Apache-2.0
#include "core/control/dispatcher.h"

#include <unistd.h>

#include <string_view>
#include <utility>

#include "core/base/errno_names.h"
#include "core/control/json_convert.h"
#include "core/control/protocol.h"

namespace dmfs {

using nlohmann::json;

namespace {

Result<json> info_reply(const Result<DeviceInfo>& info) {
  if (!info) return info.error();
  return to_json(*info);
}

// One braced list, so that the reads happen in the order of the members.
TableArgs read_table_args(ParamReader& params) {
  return {.device = read_selector(params), .inactive = params.flag("inactive")};
}

}  // namespace

struct Dispatcher::Entry {
  std::string_view name;
  Method method;
};

const Dispatcher::Entry Dispatcher::kMethods[] = {
    {"version", &Dispatcher::version},   {"create", &Dispatcher::create},
    {"remove", &Dispatcher::remove},     {"remove_all", &Dispatcher::remove_all},
    {"rename", &Dispatcher::rename},     {"suspend", &Dispatcher::suspend},
    {"resume", &Dispatcher::resume},     {"status", &Dispatcher::status},
    {"load", &Dispatcher::load},         {"clear", &Dispatcher::clear},
    {"table", &Dispatcher::table},       {"table_status", &Dispatcher::table_status},
    {"deps", &Dispatcher::deps},         {"list", &Dispatcher::list},
    {"targets", &Dispatcher::targets},   {"message", &Dispatcher::message},
    {"wait", &Dispatcher::wait},         {"set_geometry", &Dispatcher::set_geometry},
    {"why", &Dispatcher::why},           {"fail_held", &Dispatcher::fail_held},
    {"paths", &Dispatcher::paths},       {"shutdown", &Dispatcher::shutdown},
};

json Dispatcher::handle(const json& message, CancelToken& cancel) {
  auto request = decode_request(message);
  if (!request) {
    return error_reply(reply_id(message), RpcCode::InvalidRequest, request.error());
  }
  for (const Entry& entry : kMethods) {
    if (entry.name != request->method) continue;
    ParamReader params(request->params);
    Reply reply = (this->*entry.method)(params, cancel);
    if (reply) return result_reply(request->id, *std::move(reply));
    if (!params.refused()) return error_reply(request->id, RpcCode::CommandFailed, reply.error());
    Error error{EINVAL, request->method + ": " + reply.error().message};
    return error_reply(request->id, RpcCode::BadParams, error);
  }
  return error_reply(request->id, RpcCode::NoSuchMethod,
                     Error{EINVAL, "no such method: '" + request->method + "'"});
}

Dispatcher::Reply Dispatcher::version(ParamReader& params, CancelToken&) {
  DM_TRY_STATUS(params.finish());
  return json{{"name", "dmfs"},           {"version", kVersion},
              {"driver", kDriverVersion}, {"protocol", kProtocolVersion},
              {"pid", ::getpid()},        {"mount", hooks_.mount},
              {"store", hooks_.store},    {"engine", hooks_.engine}};
}

Dispatcher::Reply Dispatcher::create(ParamReader& params, CancelToken&) {
  CreateArgs args{.name = params.text("name"),
                  .uuid = params.optional_text("uuid").value_or(""),
                  .minor = params.optional_u32("minor"),
                  .read_ahead = params.optional_u32("read_ahead")};
  DM_TRY_STATUS(params.finish());
  return info_reply(commands_.create(args));
}

Dispatcher::Reply Dispatcher::remove(ParamReader& params, CancelToken&) {
  RemoveArgs args{.device = read_selector(params), .deferred = params.flag("deferred")};
  DM_TRY_STATUS(params.finish());
  DM_TRY(bool deferred, commands_.remove(args));
  return json{{"deferred", deferred}};
}

Dispatcher::Reply Dispatcher::remove_all(ParamReader& params, CancelToken&) {
  bool deferred = params.flag("deferred");
  DM_TRY_STATUS(params.finish());
  DM_TRY(RemoveAllResult result, commands_.remove_all(deferred));
  return json{{"open", result.open}};
}

Dispatcher::Reply Dispatcher::rename(ParamReader& params, CancelToken&) {
  RenameArgs args{.device = read_selector(params),
                  .new_name = params.optional_text("new_name"),
                  .new_uuid = params.optional_text("new_uuid")};
  if (args.new_name.has_value() == args.new_uuid.has_value()) {
    params.refuse(args.new_name ? "only one of new_name and new_uuid can be given"
                                : "one of new_name and new_uuid is missing");
  }
  DM_TRY_STATUS(params.finish());
  return info_reply(commands_.rename(args));
}

Dispatcher::Reply Dispatcher::suspend(ParamReader& params, CancelToken& cancel) {
  SuspendArgs args{.device = read_selector(params),
                   .noflush = params.flag("noflush"),
                   .lockfs = params.flag("lockfs", true)};
  if (auto timeout = params.optional_u32("timeout_ms")) {
    args.timeout = std::chrono::milliseconds(*timeout);
  }
  DM_TRY_STATUS(params.finish());
  return info_reply(commands_.suspend(args, cancel));
}

Dispatcher::Reply Dispatcher::resume(ParamReader& params, CancelToken& cancel) {
  ResumeArgs args{.device = read_selector(params),
                  .noflush = params.flag("noflush"),
                  .lockfs = params.flag("lockfs", true),
                  .read_ahead = params.optional_u32("read_ahead")};
  DM_TRY_STATUS(params.finish());
  return info_reply(commands_.resume(args, cancel));
}

Dispatcher::Reply Dispatcher::why(ParamReader& params, CancelToken&) {
  DeviceSelector device = read_selector(params);
  DM_TRY_STATUS(params.finish());
  DM_TRY(WaitReport report, commands_.why(device));
  return to_json(report);
}

Dispatcher::Reply Dispatcher::paths(ParamReader& params, CancelToken&) {
  DeviceSelector device = read_selector(params);
  DM_TRY_STATUS(params.finish());
  DM_TRY(PathsOfDevice paths, commands_.paths(device));
  return to_json(paths);
}

Dispatcher::Reply Dispatcher::fail_held(ParamReader& params, CancelToken&) {
  DeviceSelector device = read_selector(params);
  std::string word = params.optional_text("errno").value_or("EIO");
  int error = parse_errno(word);
  if (error == 0) params.refuse("errno: '" + word + "' is no errno's name or number");
  DM_TRY_STATUS(params.finish());
  DM_TRY(uint64_t failed, commands_.fail_held(device, error));
  return json{{"failed", failed}};
}

Dispatcher::Reply Dispatcher::status(ParamReader& params, CancelToken&) {
  DeviceSelector device = read_selector(params);
  DM_TRY_STATUS(params.finish());
  return info_reply(commands_.status(device));
}

Dispatcher::Reply Dispatcher::load(ParamReader& params, CancelToken&) {
  LoadArgs args;
  args.device = read_selector(params);
  args.table.targets = read_targets(params);
  args.table.read_only = params.flag("read_only");
  args.table.ordered = params.flag("ordered");
  args.cwd = params.optional_text("cwd").value_or("");
  DM_TRY_STATUS(params.finish());
  return info_reply(commands_.load(args));
}

Dispatcher::Reply Dispatcher::clear(ParamReader& params, CancelToken&) {
  DeviceSelector device = read_selector(params);
  DM_TRY_STATUS(params.finish());
  return info_reply(commands_.clear(device));
}

Dispatcher::Reply Dispatcher::table(ParamReader& params, CancelToken&) {
  TableArgs args = read_table_args(params);
  DM_TRY_STATUS(params.finish());
  DM_TRY(TableStatus table, commands_.table(args));
  return to_json(table);
}

Dispatcher::Reply Dispatcher::table_status(ParamReader& params, CancelToken&) {
  TableArgs args = read_table_args(params);
  DM_TRY_STATUS(params.finish());
  DM_TRY(TableStatus table, commands_.table_status(args));
  return to_json(table);
}

Dispatcher::Reply Dispatcher::deps(ParamReader& params, CancelToken&) {
  TableArgs args = read_table_args(params);
  DM_TRY_STATUS(params.finish());
  DM_TRY(TableDeps deps, commands_.deps(args));
  return to_json(deps);
}

Dispatcher::Reply Dispatcher::list(ParamReader& params, CancelToken&) {
  DM_TRY_STATUS(params.finish());
  json devices = json::array();
  for (const DeviceInfo& info : commands_.list()) devices.push_back(to_json(info));
  return json{{"devices", std::move(devices)}};
}

Dispatcher::Reply Dispatcher::targets(ParamReader& params, CancelToken&) {
  DM_TRY_STATUS(params.finish());
  json types = json::array();
  for (const TargetType* type : commands_.target_types()) {
    const TargetVersion& v = type->version;
    types.push_back({{"name", type->name}, {"version", json::array({v.major, v.minor, v.patch})}});
  }
  return json{{"targets", std::move(types)}};
}

Dispatcher::Reply Dispatcher::message(ParamReader& params, CancelToken&) {
  DeviceSelector device = read_selector(params);
  Sectors sector{params.u64("sector")};
  std::string text = params.text("message");
  DM_TRY_STATUS(params.finish());
  DM_TRY(std::string result, commands_.message(device, sector, text));
  return json{{"result", std::move(result)}};
}

Dispatcher::Reply Dispatcher::wait(ParamReader& params, CancelToken& cancel) {
  DeviceSelector device = read_selector(params);
  uint32_t event_nr = params.u32("event_nr");
  DM_TRY_STATUS(params.finish());
  return info_reply(commands_.wait(device, event_nr, cancel));
}

Dispatcher::Reply Dispatcher::set_geometry(ParamReader& params, CancelToken&) {
  DeviceSelector device = read_selector(params);
  Geometry geometry{.cylinders = params.u64("cylinders"),
                    .heads = params.u64("heads"),
                    .sectors = params.u64("sectors"),
                    .start = params.u64("start")};
  DM_TRY_STATUS(params.finish());
  return info_reply(commands_.set_geometry(device, geometry));
}

Dispatcher::Reply Dispatcher::shutdown(ParamReader& params, CancelToken&) {
  DM_TRY_STATUS(params.finish());
  if (hooks_.shutdown) DM_TRY_STATUS(hooks_.shutdown());
  return json::object();
}

}  // namespace dmfs
