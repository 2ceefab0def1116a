// SPDX-License-Identifier: Apache-2.0
// load, table, status, deps.
#include <fmt/format.h>

#include <filesystem>
#include <sstream>

#include "cli/commands.h"
#include "cli/concise.h"
#include "cli/output.h"

namespace dmfs::cli {
namespace {

using nlohmann::json;

enum class Query { Table, Status, Deps };

struct QueryWords {
  std::string_view ioctl, method;
};

QueryWords query_words(Query query) {
  switch (query) {
    case Query::Table:
      return {"table", "table"};
    case Query::Status:
      return {"status", "table_status"};
    case Query::Deps:
      return {"deps", "deps"};
  }
  return {};
}

// What goes to stdout, gathered: --concise and --json join the devices.
class Answers {
 public:
  Answers(Session& session, Query query) : session_(session), query_(query) {}

  // `prefix` is empty when the user named the device.
  bool add(const json& reply, bool named) {
    const Options& options = session_.options();
    if (options.json) {
      replies_.push_back(reply);
      return true;
    }
    return query_ == Query::Deps ? add_deps(reply, named) : add_table(reply, named);
  }

  void finish(bool all) {
    if (session_.options().json) {
      session_.print_line(all || replies_.size() != 1 ? json{{"devices", replies_}} : replies_[0]);
    } else if (concise_ && !entries_.empty()) {
      session_.print(fmt::format("{}\n", fmt::join(entries_, ";")));
    }
  }

 private:
  bool add_deps(const json& reply, bool named) {
    auto deps = session_.expect(read_deps(reply, session_.options().mangling));
    if (!deps) return false;
    bool verbose = session_.options().verbose > 0;
    if (verbose) session_.print(info_text(deps->info));
    session_.print(deps_text(*deps, named || verbose ? "" : deps->info.name + ": ",
                             session_.options().name_form));
    return true;
  }

  bool add_table(const json& reply, bool named) {
    auto table = session_.expect(read_device_table(reply, session_.options().mangling));
    if (!table) return false;
    const std::string target = session_.options().target.value_or("");
    if (concise_) {
      std::erase_if(table->targets,
                    [&](const TableLine& line) { return !target.empty() && line.type != target; });
      if (target.empty() || !table->targets.empty()) entries_.push_back(format_concise(*table));
      return true;
    }
    bool verbose = session_.options().verbose > 0;
    std::string lines =
        targets_text(*table, named || verbose ? "" : table->info.name + ": ", target);
    if (verbose && !lines.empty()) {
      lines = info_text(table->info) + lines;
      if (!named) lines += '\n';
    }
    session_.print(lines);
    return true;
  }

  Session& session_;
  const Query query_;
  const bool concise_ = session_.options().concise && query_ == Query::Table;
  std::vector<json> replies_;
  std::vector<std::string> entries_;
};

json query_params(const Options& options) {
  json params = json::object();
  if (options.inactive) params["inactive"] = true;
  return params;
}

bool query_one(Session& session, Query query, const DeviceRef& device, Answers& answers) {
  auto [ioctl, method] = query_words(query);
  auto reply = session.call_on(device, method, query_params(session.options()));
  if (reply) return answers.add(*reply, true);
  if (query == Query::Status && reply.error().code == ENXIO) {
    session.complain("Device does not exist.");
  } else {
    session.ioctl_failed(ioctl, device, reply.error());
  }
  return false;
}

bool query_all(Session& session, Query query, Answers& answers) {
  std::vector<Device> devices;
  if (!list_devices(session, devices)) return false;
  auto [ioctl, method] = query_words(query);
  for (const Device& device : devices) {
    DeviceRef ref{.name = device.sent_name};
    auto reply = session.call_on(ref, method, query_params(session.options()));
    if (!reply && reply.error().code == ENXIO) continue;  // removed since the list was made
    if (!reply) {
      session.ioctl_failed(ioctl, ref, reply.error());
      return false;
    }
    if (!answers.add(*reply, false)) return false;
  }
  answers.finish(true);
  return true;
}

bool query_devices(Session& session, Query query, const Words& words) {
  Answers answers(session, query);
  if (words.empty() && !session.by_option()) return query_all(session, query, answers);
  bool ok = true;
  if (session.by_option()) {
    DeviceRef device;
    ok = session.find_by_option(device) && query_one(session, query, device, answers);
  } else {
    for (const std::string& word : words) {
      DeviceRef device;
      ok = session.find(word, device) && query_one(session, query, device, answers);
      if (!ok) break;
    }
  }
  if (ok) answers.finish(false);
  return ok;
}

}  // namespace

json load_params(const std::vector<TableLine>& table, TableModes modes) {
  json targets = json::array();
  for (const TableLine& line : table) {
    targets.push_back({{"start", line.start},
                       {"length", line.length},
                       {"type", line.type},
                       {"params", line.params}});
  }
  json params = {{"targets", std::move(targets)}};
  if (modes.read_only) params["read_only"] = true;
  if (modes.ordered) params["ordered"] = true;
  std::error_code failed;
  std::filesystem::path cwd = std::filesystem::current_path(failed);
  if (!failed) params["cwd"] = cwd.string();
  return params;
}

bool read_table_option(Session& session, const std::string& file, std::vector<TableLine>& table) {
  Result<std::vector<TableLine>> parsed = [&] {
    if (!session.options().table) return read_table(file);
    std::istringstream text(*session.options().table);
    return parse_table(text, "on command line");
  }();
  auto lines = session.expect(std::move(parsed));
  if (lines) table = *std::move(lines);
  return lines.has_value();
}

bool load_command(Session& session, const Words& words) {
  DeviceRef device;
  std::string file;
  if (session.by_option()) {
    if (!session.find_by_option(device)) return false;
    if (!words.empty()) file = words[0];
  } else if (words.empty()) {
    session.complain("Please specify device.");
    return false;
  } else {
    if (!session.find(words[0], device)) return false;
    if (words.size() > 1) file = words[1];
  }
  std::vector<TableLine> table;
  if (!read_table_option(session, file, table)) return false;
  const Options& options = session.options();
  auto reply =
      session.run("reload", device, "load", load_params(table, {options.read_only, options.ordered}));
  return reply && session.print_info_if_verbose(*reply);
}

bool table_command(Session& session, const Words& words) {
  return query_devices(session, Query::Table, words);
}

bool status_command(Session& session, const Words& words) {
  return query_devices(session, Query::Status, words);
}

bool deps_command(Session& session, const Words& words) {
  return query_devices(session, Query::Deps, words);
}

}  // namespace dmfs::cli
