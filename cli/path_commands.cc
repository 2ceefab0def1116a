// SPDX-License-Identifier: Apache-2.0
// paths, fail-path, reinstate-path: devices that lead to the same by several paths.
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "cli/commands.h"
#include "core/base/args.h"

namespace dmfs::cli {

using nlohmann::json;

namespace {

std::string size_text(uint64_t sectors) {
  double size = static_cast<double>(sectors) / 2;
  const char* unit = "K";
  for (const char* next : {"M", "G", "T", "P"}) {
    if (size < 1024) break;
    size /= 1024;
    unit = next;
  }
  return size < 10 ? fmt::format("{:.1f}{}", size, unit) : fmt::format("{:.0f}{}", size, unit);
}

std::string latency_text(uint64_t ns) {
  if (ns == 0) return "-";
  return ns < 10'000'000 ? fmt::format("{} us", ns / 1000) : fmt::format("{} ms", ns / 1'000'000);
}

std::string path_line(const json& path) {
  std::string checker = path.at("checker").get<std::string>();
  std::string line = fmt::format("{} {}{}, {} in flight", path.at("name").get<std::string>(),
                                 path.at("state").get<std::string>(),
                                 checker.empty() ? "" : ", checker " + checker,
                                 path.at("in_flight").get<uint64_t>());
  if (auto stale = path.at("stale").get<uint64_t>()) line += fmt::format(" ({} overdue)", stale);
  return line + fmt::format(", {} errors, failed {} times, latency {}\n",
                            path.at("errors").get<uint64_t>(), path.at("fail_count").get<uint64_t>(),
                            latency_text(path.at("latency_ns").get<uint64_t>()));
}

std::string tree_text(const json& reply) {
  const json& info = reply.at("info");
  std::string out;
  for (const json& target : reply.at("targets")) {
    std::string handler = target.at("handler").get<std::string>();
    out += fmt::format("{} ({}:{}) dmfs,{}\nsize={} features='{}' hwhandler='{}' waiting={} wp={}\n",
                       info.at("name").get<std::string>(), info.at("major").get<uint64_t>(),
                       info.at("minor").get<uint64_t>(), target.at("type").get<std::string>(),
                       size_text(target.at("length").get<uint64_t>()),
                       target.at("features").get<std::string>(), handler.empty() ? "0" : handler,
                       target.at("waiting").get<uint64_t>(),
                       info.at("read_only").get<bool>() ? "ro" : "rw");
    const json& groups = target.at("groups");
    for (size_t g = 0; g < groups.size(); ++g) {
      bool last = g + 1 == groups.size();
      out += fmt::format("{}-+- policy='{}' status={}\n", last ? '`' : '|',
                         groups[g].at("selector").get<std::string>(),
                         groups[g].at("state").get<std::string>());
      const json& paths = groups[g].at("paths");
      for (size_t p = 0; p < paths.size(); ++p) {
        out += fmt::format("{} {}- {}", last ? ' ' : '|', p + 1 == paths.size() ? '`' : '|',
                           path_line(paths[p]));
      }
    }
  }
  return out;
}

bool print_paths(Session& session, const json& reply) {
  try {
    session.print(tree_text(reply));
    return true;
  } catch (const json::exception& e) {
    session.complain(fmt::format("the daemon's reply makes no sense: {}", e.what()));
    return false;
  }
}

bool has_paths(const json& reply) {
  auto targets = reply.find("targets");
  return targets != reply.end() && targets->is_array() && !targets->empty();
}

bool paths_of(Session& session, const DeviceRef& device) {
  auto reply = session.run("paths", device, "paths");
  if (!reply) return false;
  if (session.options().json) {
    session.print_line(*reply);
    return true;
  }
  if (has_paths(*reply)) return print_paths(session, *reply);
  session.complain(fmt::format("{}: no target with paths", device.label()));
  return false;
}

// Of all devices that have some.
bool all_paths(Session& session) {
  auto list = session.run("list", "list");
  if (!list) return false;
  json all = json::array();
  for (const json& info : list->value("devices", json::array())) {
    auto reply = session.call("paths", {{"name", info.value("name", "")}});
    if (!reply || !has_paths(*reply)) continue;  // it may be gone by now
    if (!session.options().json && !print_paths(session, *reply)) return false;
    all.push_back(*std::move(reply));
  }
  if (session.options().json) session.print_line({{"devices", all}});
  return true;
}

// As the daemon knows it: a path that is printed so, or the file of that name seen from here.
std::string path_word(const json& reply, const std::string& word) {
  for (const json& target : reply.value("targets", json::array())) {
    for (const json& group : target.value("groups", json::array())) {
      for (const json& path : group.value("paths", json::array())) {
        if (path.value("name", "") == word) return word;
      }
    }
  }
  std::error_code none;
  return std::filesystem::exists(word, none) ? std::filesystem::absolute(word, none).string() : word;
}

bool tell_path(Session& session, const Words& words, const char* what) {
  DeviceRef device;
  if (session.by_option() ? !session.find_by_option(device) : !session.find(words[0], device)) {
    return false;
  }
  auto reply = session.run("paths", device, "paths");
  if (!reply) return false;
  if (!has_paths(*reply)) {
    session.complain(fmt::format("{}: no target with paths", device.label()));
    return false;
  }
  std::string message = fmt::format("{} {}", what, quote_arg(path_word(*reply, words.back())));
  for (const json& target : reply->at("targets")) {
    json params = {{"sector", target.value("start", uint64_t{0})}, {"message", message}};
    if (!session.run("message", device, "message", params)) return false;
  }
  return true;
}

}  // namespace

bool paths_command(Session& session, const Words& words) {
  if (words.empty() && !session.by_option()) return all_paths(session);
  return for_each_device(session, words, paths_of);
}

bool fail_path_command(Session& session, const Words& words) {
  return tell_path(session, words, "fail_path");
}

bool reinstate_path_command(Session& session, const Words& words) {
  return tell_path(session, words, "reinstate_path");
}

}  // namespace dmfs::cli
