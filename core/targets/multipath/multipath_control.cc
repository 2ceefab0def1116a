// SPDX-License-Identifier: Apache-2.0
// What multipath prints, and its messages.
#include <fmt/format.h>

#include "core/targets/multipath/multipath.h"

namespace dmfs {
namespace {

// What of a line is not the same for all selectors: a space behind it if there is anything.
std::string with_space(std::string words) {
  if (!words.empty()) words += ' ';
  return words;
}

}  // namespace

TableKind Multipath::table_kind() const {
  return features_.queue_mode == QueueMode::Bio ? TableKind::Bio : TableKind::Request;
}

bool Multipath::supports_discard() const {
  for (const auto& path : paths_) {
    if (!path->file.supports_discard()) return false;
  }
  return !paths_.empty();
}

// All paths lead to the same.
Extent Multipath::extent_at(Sectors offset, Sectors length) const {
  for (const auto& path : paths_) {
    if (path->active()) return path->file.extent_at(offset, length);
  }
  return {true, length};
}

Sectors Multipath::allocated(Sectors length) const {
  for (const auto& path : paths_) {
    if (path->active()) return path->file.allocated({}, length);
  }
  return length;
}

std::string Multipath::table_line() const {
  std::string handler = handler_ ? handler_->status(HwStatus::Table) : "0";
  MutexLock lock(mutex_);
  MultipathFeatures features = features_;
  features.queue_if_no_path = queue_if_no_path_ || timed_out_;
  unsigned first = next_ ? next_->number : current_ ? current_->number : groups_.empty() ? 0 : 1;
  std::string line =
      features.print() + fmt::format("{} {} {} ", handler, groups_.size(), first);
  for (const auto& group : groups_) {
    line += fmt::format("{} {} {} {} ", group->type->name, group->selector->args(),
                        group->paths.size(), group->type->table_args);
    for (const Path* path : group->paths) {
      line += fmt::format("{} {}", quote_arg(path->name()),
                          with_space(group->selector->path_table(path->index)));
    }
  }
  return line;
}

// 2 <queues I/O> <activations> <handler's> <#groups> <next group>
//   [D|A|E <selector's> <#paths> <#path words> [<path> A|F <fail count> <selector's>]+]+
std::string Multipath::status_line() const {
  std::string handler = handler_ ? handler_->status(HwStatus::Info) : "0";
  MutexLock lock(mutex_);
  unsigned first = next_ ? next_->number : current_ ? current_->number : groups_.empty() ? 0 : 1;
  std::string line = fmt::format("2 {} {} {} {} {} ", queue_io_ ? 1 : 0, pg_init_count_, handler,
                                 groups_.size(), first);
  for (const auto& group : groups_) {
    char state = group->bypassed ? 'D' : group.get() == current_ ? 'A' : 'E';
    line += fmt::format("{} {} {} {} ", state, group->selector->args(), group->paths.size(),
                        group->type->info_args);
    for (const Path* path : group->paths) {
      line += fmt::format("{} {} {} {}", quote_arg(path->name()), path->works ? 'A' : 'F',
                          path->fail_count, with_space(group->selector->path_info(path->index)));
    }
  }
  return line;
}

std::optional<PathsReport> Multipath::paths_report() const {
  PathsReport report;
  auto without_count = [](const std::string& words) {
    size_t space = words.find(' ');
    return space == std::string::npos ? std::string() : words.substr(space + 1);
  };
  if (handler_) report.handler = without_count(handler_->status(HwStatus::Table));
  if (timed_) report.waiting = timed_->fence().waiting();
  MutexLock lock(mutex_);
  MultipathFeatures features = features_;
  features.queue_if_no_path = queue_if_no_path_ || timed_out_;
  report.features = without_count(features.print());
  if (!report.features.empty()) report.features.pop_back();  // print() ends in a space
  report.queueing = queue_if_no_path_;
  report.waiting += queued_.size() + repeated_.size() + asked_.size();
  for (const auto& group : groups_) {
    PathGroupReport of{.number = group->number,
                       .state = group->bypassed            ? PathGroupReport::State::Disabled
                                : group.get() == current_ ? PathGroupReport::State::Active
                                                          : PathGroupReport::State::Enabled,
                       .selector = fmt::format("{} {}", group->type->name, group->selector->args()),
                       .paths = {}};
    for (const Path* path : group->paths) {
      PathReport one{.name = path->name(), .active = path->works, .checker = {}};
      if (checker_) one.checker = checker_->state(path->number_in_table - 1);
      one.in_flight = path->in_flight.load(std::memory_order_relaxed);
      if (timed_) {
        one.stale = timed_->stale(*path->way);
        one.in_flight += one.stale;
      }
      one.fail_count = path->fail_count;
      one.errors = path->errors.load(std::memory_order_relaxed);
      one.latency = std::chrono::nanoseconds(path->latency_ns.load(std::memory_order_relaxed));
      of.paths.push_back(std::move(one));
    }
    report.groups.push_back(std::move(of));
  }
  return report;
}

// queue_if_no_path
// fail_if_no_path
// fail_path <path>
// reinstate_path <path>
// disable_group <group>
// enable_group <group>
// switch_group <group>
Result<std::string> Multipath::message(std::span<const std::string> words) {
  ArgReader args("multipath", words);
  {
    MutexLock lock(mutex_);
    if (suspended_) return args.fail("the device is suspended", {}, EBUSY);
  }
  const std::string& what = words[0];
  if (words.size() == 1) {
    bool queue = same_word(what, "queue_if_no_path");
    if (queue || same_word(what, "fail_if_no_path")) {
      {
        MutexLock lock(mutex_);
        set_queueing(queue, false);
      }
      work_now();
      return std::string();
    }
  }
  if (words.size() != 2) {
    return args.fail(fmt::format("Invalid multipath message arguments. Expected 2 arguments, got {}.",
                                 words.size()));
  }
  if (same_word(what, "disable_group") || same_word(what, "enable_group")) {
    return set_group(what, words[1]);
  }
  if (same_word(what, "switch_group")) return switch_group(words[1]);
  bool fail = same_word(what, "fail_path");
  if (!fail && !same_word(what, "reinstate_path")) {
    return args.fail(fmt::format("Unrecognised multipath message received: {}", what));
  }
  DM_TRY(auto paths, find_paths(words[1]));
  for (Path* path : paths) {
    bool event;
    {
      MutexLock lock(mutex_);
      event = fail ? fail_path(*path) : reinstate_path(*path);
    }
    if (event) context_.raise_event();
  }
  work_now();
  return std::string();
}

Result<std::string> Multipath::set_group(const std::string& what, const std::string& number) {
  uint64_t n = 0;
  if (!parse_u64(number, n) || n == 0 || n > groups_.size()) {
    return Error{EINVAL, fmt::format("multipath: invalid PG number supplied to bypass_pg: '{}'", number)};
  }
  {
    MutexLock lock(mutex_);
    groups_[n - 1]->bypassed = same_word(what, "disable_group");
    leave_group();
  }
  context_.raise_event();
  work_now();
  return std::string();
}

Result<std::string> Multipath::switch_group(const std::string& number) {
  uint64_t n = 0;
  if (!parse_u64(number, n) || n == 0 || n > groups_.size()) {
    return Error{EINVAL,
                 fmt::format("multipath: invalid PG number supplied to switch_pg_num: '{}'", number)};
  }
  {
    MutexLock lock(mutex_);
    for (const auto& group : groups_) group->bypassed = false;
    next_ = groups_[n - 1].get();
    leave_group();
  }
  context_.raise_event();
  work_now();
  return std::string();
}

// A path that is printed so; or else all that are what the word names.
Result<std::vector<Multipath::Path*>> Multipath::find_paths(const std::string& word) {
  std::vector<Path*> found;
  auto add_if = [&](auto&& wanted) {
    if (!found.empty()) return;
    for (const auto& path : paths_) {
      if (wanted(*path)) found.push_back(path.get());
    }
  };
  add_if([&](const Path& path) { return path.name() == word; });
  if (!found.empty()) return found;
  auto named = context_.identify(word);
  if (!named) {
    return Error{named.error().code,
                 fmt::format("multipath: message: error getting device {}: {}", word,
                             named.error().message)};
  }
  if (named->volume_minor >= 0) {
    add_if([&](const Path& path) { return path.file.volume_minor() == named->volume_minor; });
  } else {
    add_if([&](const Path& path) { return path.name() == named->path; });
    add_if([&](const Path& path) {
      return named->id != FileId{} && path.file.id() == named->id;
    });
  }
  if (found.empty()) {
    return Error{EINVAL, fmt::format("multipath: message: no path of this device: '{}'", word)};
  }
  return found;
}

}  // namespace dmfs
