// SPDX-License-Identifier: Apache-2.0
// From a table line to a multipath.
#include <fmt/format.h>

#include "core/targets/multipath/lua_handler.h"
#include "core/targets/multipath/multipath.h"
#include "core/targets/open_device.h"

namespace dmfs {
namespace {

constexpr uint64_t kMaxArgWords = 1024;
constexpr uint64_t kMaxGroups = 1024;
constexpr uint64_t kMaxPaths = 1024;  // in a group

Result<std::vector<std::string>> take_words(ArgReader& args, size_t count) {
  std::vector<std::string> words;
  while (words.size() < count) {
    DM_TRY(std::string word, args.word("not enough arguments"));
    words.push_back(std::move(word));
  }
  return words;
}

// What a selector says of its arguments, said by us.
Error in_multipath(const Error& error) { return Error{error.code, "multipath: " + error.message}; }

}  // namespace

// <#handler args> [<handler> [<arg>...]]
Status Multipath::parse_handler(ArgReader& args, std::string& name,
                                std::vector<std::string>& words) {
  DM_TRY(size_t count, arg_count(args, "invalid number of hardware handler args", kMaxArgWords));
  DM_TRY(words, take_words(args, count));
  // The kernel reads and forgets them, too.
  if (features_.queue_mode == QueueMode::Bio || words.empty()) return {};
  name = words[0];
  words.erase(words.begin());
  return {};
}

// <selector> <#selector args> [<arg>...] <#paths> <#path args> [<path> [<arg>...]]+
Status Multipath::parse_group(ArgReader& args) {
  if (args.left() < 2) return args.fail("not enough priority group arguments");
  auto group = std::make_unique<Group>();
  group->number = static_cast<unsigned>(groups_.size() + 1);
  DM_TRY(std::string name, args.word("unknown path selector type"));
  group->type = path_selectors().find(name);
  if (!group->type) return args.fail("unknown path selector type", name);
  DM_TRY(size_t count, arg_count(args, "invalid number of path selector args", kMaxArgWords));
  DM_TRY(auto words, take_words(args, count));
  auto selector = group->type->create(context_.clock(), words);
  if (!selector) {
    return args.fail(fmt::format("path selector constructor failed: {}", selector.error().message));
  }
  group->selector = *std::move(selector);
  DM_TRY(uint64_t paths, args.number("invalid number of paths", 1, kMaxPaths));
  DM_TRY(uint64_t path_args, args.number("invalid number of selector args", 0, kMaxArgWords));
  for (uint64_t i = 0; i < paths; ++i) {
    if (args.left() < 1 + path_args) return args.fail("not enough path parameters");
    DM_TRY_STATUS(parse_path(args, *group, static_cast<size_t>(path_args)));
  }
  groups_.push_back(std::move(group));
  return {};
}

Status Multipath::parse_path(ArgReader& args, Group& group, size_t arg_count) {
  constexpr std::string_view kDevice = "error getting device";
  DM_TRY(std::string word, args.word("no device given"));
  DM_TRY(auto words, take_words(args, arg_count));
  auto file = context_.open_path(word, {}, context_.length());
  if (!file) {
    const Error& reason = file.error();
    Error error = args.fail(kDevice, {}, reason.code);
    bool named = reason.message.find('\'' + word + '\'') != std::string::npos;
    error.message += (named ? ": " : ": '" + word + "': ") + reason.message;
    return error;
  }
  if (Status added = group.selector->add_path(words); !added) return in_multipath(added.error());
  if (paths_.size() == kPathMask) return args.fail("too many paths");
  auto path = std::make_unique<Path>(static_cast<unsigned>(paths_.size() + 1), group,
                                     static_cast<unsigned>(group.paths.size()), **file);
  if (timed_) path->way = &timed_->add(**file, path->works);
  group.paths.push_back(path.get());
  handler_paths_.push_back(path.get());
  paths_.push_back(std::move(path));
  return {};
}

// One of the program's own, or else a script.
Status Multipath::attach_handler(const std::string& name, std::span<const std::string> args) {
  auto use = hw_handlers().use(name);
  if (use) {
    DM_TRY(handler_, use->type().create(*this, args));
    handler_use_ = *std::move(use);
    return {};
  }
  auto script = context_.read_script(name);
  if (!script) {
    if (script.error().code == ENOENT) return use.error();
    return script.error();
  }
  DM_TRY(handler_, create_lua_handler(*this, name, *script, args));
  return {};
}

// <#features> [<feature>...] <#handler args> [<handler> [<arg>...]] <#groups> <initial group>
//   [<selector> <#selector args> [<arg>...] <#paths> <#path args> [<path> [<arg>...]]+]+
Result<std::unique_ptr<Target>> Multipath::create(TargetContext& context,
                                                  std::span<const std::string> words) {
  constexpr std::string_view kInitial = "invalid initial priority group";
  ArgReader args("multipath", words);
  DM_TRY(auto features, MultipathFeatures::parse(args));
  std::unique_ptr<Multipath> multipath(new Multipath(context, features));
  if (features.path_timeout_ms) {
    DM_TRY(multipath->timed_,
           TimedPaths::create(context, std::chrono::milliseconds(*features.path_timeout_ms)));
  }
  std::string handler;
  std::vector<std::string> handler_args;
  DM_TRY_STATUS(multipath->parse_handler(args, handler, handler_args));
  DM_TRY(uint64_t groups, args.number("invalid number of priority groups", 0, kMaxGroups));
  DM_TRY(uint64_t initial, args.number("invalid initial priority group number", 0, kMaxGroups));
  if ((groups == 0) != (initial == 0)) return args.fail(kInitial, fmt::to_string(initial));
  while (args.left() > 0) DM_TRY_STATUS(multipath->parse_group(args));
  if (multipath->groups_.size() != groups) {
    return args.fail(fmt::format("priority group count mismatch: {} of {}",
                                 multipath->groups_.size(), groups));
  }
  if (!handler.empty()) {
    if (Status attached = multipath->attach_handler(handler, handler_args); !attached) {
      return args.fail("error attaching hardware handler: " + attached.error().message, {},
                       attached.error().code);
    }
  }
  DM_TRY_STATUS(multipath->start_checker());
  MutexLock lock(multipath->mutex_);
  multipath->valid_paths_ = multipath->paths_.size();
  // As in the kernel, a number that no group has is none.
  if (initial > 0 && initial <= groups) multipath->next_ = multipath->groups_[initial - 1].get();
  multipath->watch_no_path();
  return std::unique_ptr<Target>(std::move(multipath));
}

extern const TargetType kMultipathTarget;
const TargetType kMultipathTarget{"multipath", {1, 14, 0}, Multipath::create, kTargetImmutable};

}  // namespace dmfs
