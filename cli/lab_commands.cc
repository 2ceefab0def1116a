// SPDX-License-Identifier: Apache-2.0
// lab: arrays to try multipath with.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <filesystem>

#include "cli/commands.h"
#include "core/base/args.h"
#include "core/base/fd.h"

namespace dmfs::cli {
namespace {

using nlohmann::json;

constexpr uint64_t kMaxPaths = 64, kMaxControllers = 16, kMaxSlowMs = 86'400'000;
constexpr uint64_t kDefaultSize = uint64_t{64} << 20, kMaxSize = uint64_t{1} << 60;
constexpr uint64_t kMailbox = 8;  // sectors of a path that are no data
constexpr std::string_view kKinds[] = {"alua", "implicit", "emc", "rdac", "hp_sw"};

struct Plan {
  std::string name = {};  // mangled
  std::string kind = "alua";
  uint64_t paths = 4, controllers = 2, slow_ms = 0;
  std::string file = {};  // absolute
  uint64_t sectors = 0;
  bool create = false;

  std::string path(uint64_t number) const { return fmt::format("{}-path{}", name, number); }
  uint64_t controller(uint64_t path) const { return (path - 1) * controllers / paths + 1; }
};

// A value of one of lab's options, or `value` as it is when it is not given.
bool number_option(Session& session, const std::string& name, uint64_t max, uint64_t& value) {
  const auto& given = session.options().lab;
  auto at = given.find(name);
  if (at == given.end()) return true;
  if (parse_u64(at->second, value) && value >= 1 && value <= max) return true;
  session.complain(fmt::format("Invalid --{} '{}': 1 to {} is expected.", name, at->second, max));
  return false;
}

// Bytes: a number with or without K, M, G or T.
bool size_option(Session& session, std::optional<uint64_t>& bytes) {
  const auto& given = session.options().lab;
  auto at = given.find("size");
  if (at == given.end()) return true;
  std::string_view word = at->second;
  constexpr std::string_view kUnits = "KMGT";
  size_t unit = word.empty() ? kUnits.npos : kUnits.find(word.back());
  uint64_t scale = 1;
  if (unit != kUnits.npos) {
    scale = uint64_t{1024} << (10 * unit);
    word.remove_suffix(1);
  }
  uint64_t value = 0;
  if (parse_u64(word, value) && value > 0 && value <= kMaxSize / scale && value * scale % 512 == 0) {
    bytes = value * scale;
    return true;
  }
  session.complain(fmt::format("Invalid --size '{}': a multiple of 512 bytes is expected, such as 64M.",
                               at->second));
  return false;
}

bool file_failed(Session& session, const std::string& file) {
  session.complain(fmt::format("'{}': {}.", file, strerror(errno)));
  return false;
}

// Makes the file if it is not there.
bool open_file(Session& session, Plan& plan, std::optional<uint64_t> size) {
  Fd fd(::open(plan.file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0600));
  if (!fd) return file_failed(session, plan.file);
  off_t end = ::lseek(fd.get(), 0, SEEK_END);
  if (end < 0) return file_failed(session, plan.file);
  uint64_t bytes = static_cast<uint64_t>(end);
  if (bytes == 0) {
    bytes = size.value_or(kDefaultSize);
    if (::ftruncate(fd.get(), static_cast<off_t>(bytes)) != 0) return file_failed(session, plan.file);
  } else if (size && *size > bytes) {
    session.complain(fmt::format("'{}' has {} bytes, fewer than --size '{}'.", plan.file, bytes,
                                 session.options().lab.at("size")));
    return false;
  }
  plan.sectors = size.value_or(bytes) / 512;
  if (plan.sectors > 0) return true;
  session.complain(fmt::format("'{}' is too small.", plan.file));
  return false;
}

bool read_plan(Session& session, const std::string& word, Plan& plan) {
  const auto& given = session.options().lab;
  if (!session.mangle_word("name", word, plan.name)) return false;
  if (plan.name.size() > kMaxNameLength - 8) {
    session.complain(fmt::format("Name '{}' is too long for an array.", word));
    return false;
  }
  std::string_view first;
  for (std::string_view kind : kKinds) {
    if (!given.contains(std::string(kind))) continue;
    if (!first.empty()) {
      session.complain(fmt::format("--{} and --{} are incompatible.", first, kind));
      return false;
    }
    first = kind;
    plan.kind = kind;
  }
  if (!number_option(session, "paths", kMaxPaths, plan.paths) ||
      !number_option(session, "controllers", kMaxControllers, plan.controllers) ||
      !number_option(session, "slow", kMaxSlowMs, plan.slow_ms)) {
    return false;
  }
  if (plan.controllers > plan.paths) {
    bool named = given.contains("controllers");
    if (named) {
      session.complain(fmt::format("Invalid --controllers '{}': there are only {} paths.",
                                   plan.controllers, plan.paths));
      return false;
    }
    plan.controllers = plan.paths;
  }
  plan.create = given.contains("create");
  std::optional<uint64_t> size;
  if (!size_option(session, size)) return false;
  auto file = given.find("file");
  std::error_code failed;
  std::filesystem::path path =
      std::filesystem::absolute(file != given.end() ? file->second : word + ".img", failed);
  if (failed) {
    session.complain(fmt::format("'{}': {}.", path.string(), failed.message()));
    return false;
  }
  plan.file = path.lexically_normal().string();
  return open_file(session, plan, size);
}

TableLine path_line(const Plan& plan, uint64_t number) {
  return {.length = plan.sectors + kMailbox,
          .type = "lab",
          .params = fmt::format("{} {} {} {} {} 0", quote_arg(plan.name), plan.kind, number,
                                plan.controller(number), quote_arg(plan.file))};
}

TableLine multipath_line(const Plan& plan) {
  std::string params = fmt::format("3 queue_if_no_path pg_init_retries 50 1 {} {} 1",
                                   plan.kind == "implicit" ? "alua" : plan.kind, plan.controllers);
  for (uint64_t controller = 1, path = 1; controller <= plan.controllers; ++controller) {
    std::string words;
    uint64_t count = 0;
    for (; path <= plan.paths && plan.controller(path) == controller; ++path, ++count) {
      words += ' ' + quote_arg(plan.path(path));
    }
    params += fmt::format(" round-robin 0 {} 0{}", count, words);
  }
  return {.length = plan.sectors, .type = "multipath", .params = params};
}

bool send(Session& session, const std::string& device, const std::string& message) {
  return session
      .run("message", DeviceRef{.name = device}, "message", {{"sector", 0}, {"message", message}})
      .has_value();
}

bool remove_named(Session& session, const std::string& name) {
  return session.run("remove", {.name = name}, "remove").has_value();
}

bool make_array(Session& session, const Plan& plan) {
  uint64_t made = 0;
  bool good = true;
  while (good && made < plan.paths) {
    good = create_with_table(session, plan.path(made + 1), path_line(plan, made + 1));
    if (!good) break;
    ++made;
    if (plan.slow_ms > 0) good = send(session, plan.path(made), fmt::format("slow {}", plan.slow_ms));
  }
  if (good && plan.create) good = create_with_table(session, plan.name, multipath_line(plan));
  if (good) {
    session.print(format_line(multipath_line(plan)) + "\n");
    return true;
  }
  for (; made > 0; --made) (void)remove_named(session, plan.path(made));
  return false;
}

struct PathStatus {
  std::string name;       // as the daemon has it
  uint64_t number = 0;
  TableLine table = {};
};

std::optional<TableLine> first_target(Session& session, const std::string& name,
                                      std::string_view method) {
  auto reply = session.run(method == "table" ? "table" : "status", {.name = name}, method);
  if (!reply) return std::nullopt;
  auto table = session.expect(read_device_table(*reply, session.options().mangling));
  if (!table) return std::nullopt;
  return table->targets.empty() ? TableLine{} : table->targets[0];
}

// The paths of the array by number; a word on stderr when there are none.
bool find_paths(Session& session, const std::string& word, std::vector<PathStatus>& paths,
                bool& multipath) {
  std::string name;
  if (!session.mangle_word("name", word, name)) return false;
  auto reply = session.run("list", "list", json::object());
  if (!reply) return false;
  auto devices = session.expect(read_devices(*reply, session.options().mangling));
  if (!devices) return false;
  multipath = false;
  for (const Device& device : *devices) {
    std::string prefix = name + "-path";
    bool whole = device.sent_name == name;
    if (!whole && !device.sent_name.starts_with(prefix)) continue;
    PathStatus path{.name = device.sent_name};
    if (!whole && !parse_u64(device.sent_name.substr(prefix.size()), path.number)) continue;
    auto table = first_target(session, path.name, "table");
    if (!table) return false;
    if (whole) multipath = table->type == "multipath";
    if (whole || table->type != "lab") continue;
    path.table = *table;
    paths.push_back(std::move(path));
  }
  std::sort(paths.begin(), paths.end(),
            [](const PathStatus& a, const PathStatus& b) { return a.number < b.number; });
  if (!paths.empty()) return true;
  session.complain(fmt::format("There is no array '{}'.", word));
  return false;
}

bool array_command(Session& session, const Words& words) {
  Plan plan;
  return read_plan(session, words[0], plan) && make_array(session, plan);
}

bool set_command(Session& session, const Words& words) {
  DeviceRef device;
  if (!session.find(words[0], device)) return false;
  std::string message = fmt::format("{}", fmt::join(words.begin() + 1, words.end(), " "));
  return session.run("message", device, "message", {{"sector", 0}, {"message", message}}).has_value();
}

bool show_command(Session& session, const Words& words) {
  std::vector<PathStatus> paths;
  bool multipath;
  if (!find_paths(session, words[0], paths, multipath)) return false;
  json all = json::array();
  std::string out;
  for (PathStatus& path : paths) {
    auto status = first_target(session, path.name, "table_status");
    if (!status) return false;
    // state access controller owner moves kept
    auto what = split_args(status->params);
    auto given = split_args(path.table.params);
    if (!what || what->size() < 6 || !given || given->size() < 2) {
      session.complain(fmt::format("Status of '{}' is not of a path: '{}'.", path.name, status->params));
      return false;
    }
    const auto& w = *what;
    if (out.empty()) {
      out = fmt::format("{}: {}, controller {} owns the unit, moved {} times\n", words[0], (*given)[1],
                        w[3], w[4]);
    }
    out += fmt::format("  {}  controller {}  {:<13}  {}{}\n", path.name, w[2], w[1], w[0],
                       w[5] == "0" ? "" : fmt::format("  {} held", w[5]));
    all.push_back({{"path", path.name},
                   {"controller", w[2]},
                   {"access", w[1]},
                   {"state", w[0]},
                   {"owner", w[3]},
                   {"moves", w[4]},
                   {"held", w[5]}});
  }
  if (session.options().json) {
    session.print_line({{"array", words[0]}, {"paths", all}});
  } else {
    session.print(out);
  }
  return true;
}

bool remove_array(Session& session, const Words& words) {
  std::vector<PathStatus> paths;
  bool multipath;
  if (!find_paths(session, words[0], paths, multipath)) return false;
  std::string name;
  if (!session.mangle_word("name", words[0], name)) return false;
  if (multipath && !remove_named(session, name)) return false;
  return std::all_of(paths.begin(), paths.end(),
                     [&](const PathStatus& path) { return remove_named(session, path.name); });
}

struct Verb {
  std::string_view name;
  size_t min_words, max_words;
  bool (*run)(Session&, const Words&);
};
constexpr Verb kVerbs[] = {{"array", 1, 1, array_command},
                           {"set", 2, 8, set_command},
                           {"show", 1, 1, show_command},
                           {"remove", 1, 1, remove_array}};

}  // namespace

bool lab_command(Session& session, const Words& words) {
  for (const Verb& verb : kVerbs) {
    if (verb.name != words[0]) continue;
    Words rest(words.begin() + 1, words.end());
    if (rest.size() >= verb.min_words && rest.size() <= verb.max_words) return verb.run(session, rest);
    session.complain(rest.size() < verb.min_words
                         ? fmt::format("lab {}: too few words.", verb.name)
                         : fmt::format("lab {}: too many words: '{}'.", verb.name, rest[verb.max_words]));
    return false;
  }
  session.complain(fmt::format("Unknown lab command '{}': array, set, show or remove.", words[0]));
  return false;
}

}  // namespace dmfs::cli
