// SPDX-License-Identifier: Apache-2.0
// core: a dirty log in memory. What is in sync is forgotten with the table.
#include <fmt/format.h>

#include "core/targets/mirror/region_log.h"

namespace dmfs {
namespace {

class CoreLog final : public RegionLog {
 public:
  using RegionLog::RegionLog;

  bool persistent() const override { return false; }
  bool assumes_sync() const override { return args_.sync == SyncWish::Never; }
  void resume(Done done) override {
    restart_search();
    done(0);
  }
  void flush(Done done) override { done(0); }

  std::string table_words() const override {
    return fmt::format("core {} {}", args_count(), args_text());
  }
  std::string status_words() const override { return "1 core"; }
};

// <region size> [sync|nosync]
Result<std::unique_ptr<DirtyLog>> create(TargetContext& context,
                                         std::span<const std::string> args) {
  DM_TRY(RegionLogArgs parsed, parse_region_log_args(context, args));
  return std::unique_ptr<DirtyLog>(std::make_unique<CoreLog>(parsed));
}

}  // namespace

extern const DirtyLogType kCoreLog;
const DirtyLogType kCoreLog{"core", create};

}  // namespace dmfs
