// SPDX-License-Identifier: Apache-2.0
// The table line of mirror: parsed and printed here.
#include <fmt/format.h>

#include "core/targets/mirror/mirror.h"
#include "core/targets/open_device.h"

namespace dmfs {
namespace {

constexpr uint64_t kMaxIoTimeoutMs = 3600'000;

Result<std::unique_ptr<DirtyLog>> parse_log(TargetContext& context, ArgReader& args) {
  constexpr std::string_view kFew = "Insufficient mirror log arguments";
  if (args.left() < 2) return args.fail(kFew);
  DM_TRY(auto name, args.word(kFew));
  DM_TRY(uint64_t count, args.number("Invalid mirror log argument count", 0, UINT32_MAX));
  if (args.left() < count) return args.fail(kFew);
  std::vector<std::string> words;
  while (words.size() < count) {
    DM_TRY(auto word, args.word(kFew));
    words.push_back(std::move(word));
  }
  constexpr std::string_view kCreate = "Error creating mirror dirty log";
  const DirtyLogType* type = builtin_dirty_logs().find(name);
  if (!type) return args.fail(kCreate, name);
  auto log = type->create(context, words);
  if (!log) {
    Error error = args.fail(kCreate);
    error.message += ": " + log.error().message;
    return error;
  }
  return log;
}

Result<MirrorFeatures> parse_features(ArgReader& args) {
  MirrorFeatures features;
  if (args.left() == 0) return features;
  DM_TRY(uint64_t count, args.number("Invalid number of features", 0, UINT32_MAX));
  constexpr std::string_view kFew = "Not enough arguments to support feature count";
  if (args.left() < count) return args.fail(kFew);
  for (size_t end = args.left() - count; args.left() > end;) {
    DM_TRY(auto word, args.word(kFew));
    if (word == "handle_errors") {
      features.handle_errors = true;
    } else if (word == "keep_log") {
      features.keep_log = true;
    } else if (word == "io_timeout" && args.left() > end) {
      DM_TRY(uint64_t ms, args.number("Invalid io_timeout", 1, kMaxIoTimeoutMs));
      features.io_timeout = std::chrono::milliseconds(ms);
    } else if (word == "io_timeout") {
      return args.fail(kFew, word);
    } else {
      return args.fail("Unrecognised feature requested", word);
    }
  }
  if (features.keep_log && !features.handle_errors) {
    return args.fail("keep_log feature requires the handle_errors feature");
  }
  return features;
}

// <log type> <#log args> [<log arg>]+ <#legs> [<device> <start sector>]{2,9}
//     [<#features> [handle_errors] [keep_log] [io_timeout <ms>]]
// with the logs  core <region size> [sync|nosync]
//           and  disk <device> <region size> [sync|nosync]
Result<std::unique_ptr<Target>> create(TargetContext& context, std::span<const std::string> words) {
  ArgReader args("mirror", words);
  Mirror::Parts parts;
  DM_TRY(parts.log, parse_log(context, args));
  constexpr std::string_view kLegs = "Invalid number of mirrors";
  if (args.left() == 0) return args.fail(kLegs);
  DM_TRY(uint64_t legs, args.number(kLegs, 2, Legs::kMax));
  constexpr std::string_view kFew = "Too few mirror arguments";
  if (args.left() < 2 * legs) return args.fail(kFew);
  while (parts.legs.size() < legs) {
    DM_TRY(auto word, args.word(kFew));
    DM_TRY(Sectors start, args.sectors("Invalid offset"));
    DM_TRY(BackingFile * file, open_device(context, args, "Device lookup failure", word, start,
                                           context.length()));
    parts.legs.emplace_back(file, start);
  }
  DM_TRY(parts.features, parse_features(args));
  if (args.left() > 0) return args.fail("Too many mirror arguments", args.peek());
  return Mirror::make(context, std::move(parts));
}

}  // namespace

std::string Mirror::table_line() const {
  std::string line = fmt::format("{} {}", log_->table_words(), legs_.size());
  for (unsigned i = 0; i < legs_.size(); ++i) {
    line += fmt::format(" {} {}", quote_arg(legs_[i].file.name()), legs_[i].start.n);
  }
  int count = features_.handle_errors + features_.keep_log + 2 * times_out();
  if (count == 0) return line;
  line += fmt::format(" {}", count);
  if (features_.handle_errors) line += " handle_errors";
  if (features_.keep_log) line += " keep_log";
  if (times_out()) line += fmt::format(" io_timeout {}", features_.io_timeout.count());
  return line;
}

extern const TargetType kMirrorTarget;
const TargetType kMirrorTarget{"mirror", {1, 14, 0}, create};

}  // namespace dmfs
