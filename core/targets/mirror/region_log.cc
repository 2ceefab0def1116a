// SPDX-License-Identifier: Apache-2.0
#include "core/targets/mirror/region_log.h"

#include <bit>

#include <fmt/format.h>

namespace dmfs {
namespace {

// Three bits of memory each.
constexpr uint64_t kMaxRegions = uint64_t{1} << 30;

Error refuse(std::string_view what, std::string_view word = {}) {
  std::string text = fmt::format("dirty region log: {}", what);
  if (!word.empty()) text += fmt::format(": '{}'", word);
  return Error{EINVAL, std::move(text)};
}

}  // namespace

Result<RegionLogArgs> parse_region_log_args(const TargetContext& context,
                                            std::span<const std::string> args) {
  RegionLogArgs parsed;
  if (args.empty() || args.size() > 2) return refuse("wrong number of arguments");
  if (args.size() > 1) {
    if (args[1] == "sync") {
      parsed.sync = SyncWish::All;
    } else if (args[1] == "nosync") {
      parsed.sync = SyncWish::Never;
    } else {
      return refuse("unrecognised sync argument", args[1]);
    }
  }
  uint64_t size = 0, length = context.length().n;
  if (!parse_u64(args[0], size) || size < 2 || size > UINT32_MAX || size > length ||
      !std::has_single_bit(size)) {
    return refuse("invalid region size", args[0]);
  }
  parsed.region_size = static_cast<uint32_t>(size);
  parsed.region_count = (length + size - 1) / size;
  if (parsed.region_count > kMaxRegions) {
    return refuse(fmt::format("more than {} regions", kMaxRegions), args[0]);
  }
  return parsed;
}

RegionLog::RegionLog(const RegionLogArgs& args)
    : args_(args),
      clean_(args.region_count, true),
      sync_(args.region_count, args.sync == SyncWish::Never),
      recovering_(args.region_count, false),
      sync_count_(sync_.count_set()) {}

void RegionLog::sync_from_clean() {
  sync_.copy_from(clean_);
  sync_count_.store(sync_.count_set(), std::memory_order_relaxed);
}

std::optional<RegionIndex> RegionLog::next_resync() {
  MutexLock lock(search_mutex_);
  while (search_ < args_.region_count) {
    RegionIndex region = sync_.first_clear(search_);
    search_ = region + 1;
    if (region < args_.region_count && recovering_.set(region)) return region;
  }
  return std::nullopt;
}

void RegionLog::restart_search() {
  MutexLock lock(search_mutex_);
  search_ = 0;
}

void RegionLog::set_in_sync(RegionIndex region, bool in_sync) {
  recovering_.clear(region);
  if (in_sync) {
    if (sync_.set(region)) sync_count_.fetch_add(1, std::memory_order_relaxed);
  } else if (sync_.clear(region)) {
    sync_count_.fetch_sub(1, std::memory_order_relaxed);
  }
}

std::string RegionLog::args_text() const {
  std::string text = fmt::format("{}", args_.region_size);
  if (args_.sync != SyncWish::IfNeeded) text += args_.sync == SyncWish::Never ? " nosync" : " sync";
  return text;
}

}  // namespace dmfs
