// SPDX-License-Identifier: Apache-2.0
// What multipath does with what its checker finds: paths that come back, and groups with them.
#include <algorithm>

#include "core/targets/multipath/multipath.h"

namespace dmfs {

Status Multipath::start_checker() {
  if (!features_.checker) return {};
  PathChecker::Options options = *features_.checker;
  options.timeout = features_.path_timeout_ms ? Clock::Duration(std::chrono::milliseconds(*features_.path_timeout_ms))
                                              : Clock::Duration(options.interval);
  std::vector<BackingFile*> files;
  for (const auto& path : paths_) {
    Sectors end = options.area ? *options.area + Sectors{8 * paths_.size()} : Sectors{};
    if (options.area && *options.area < context_.length()) {
      return Error{EINVAL, "multipath: the checker would write into the device"};
    }
    if (end > path->file.size()) {
      return Error{EINVAL, "multipath: no room for the checker on '" + path->name() + "'"};
    }
    files.push_back(&path->file);
  }
  DM_TRY(checker_, PathChecker::create(*this, context_.clock(), options, files));
  return {};
}

void Multipath::checked(unsigned index, bool fit, bool works) {
  Path& path = *paths_[index];
  bool event = false;
  {
    MutexLock lock(mutex_);
    if (suspended_ || closing_) return;
    if (!works) {
      event = fail_path(path);
    } else if (fit && !path.works) {
      bool first = !group_works(path.home);
      event = reinstate_path(path);
      event |= fail_back(path, first);
    }
  }
  if (event) context_.raise_event();
  work_now();
}

bool Multipath::group_works(const Group& group) const {
  return std::any_of(group.paths.begin(), group.paths.end(),
                     [](const Path* path) { return path->active(); });
}

bool Multipath::fail_back(const Path& path, bool first_of_group) {
  switch (features_.failback) {
    case Failback::Manual:
      return false;
    case Failback::Immediate:
      return switch_back();
    case Failback::FollowOver:
      return first_of_group && current_ && path.home.number < current_->number && switch_back();
    case Failback::After:
      if (fail_back_at_ || !current_ || current_->number <= path.home.number) return false;
      fail_back_at_ = context_.clock().now() + features_.failback_after;
      alarm_.set(*fail_back_at_);
      return false;
  }
  return false;
}

// To the first group that can be used, if that is before the current one.
bool Multipath::switch_back() {
  for (const auto& group : groups_) {
    if (group.get() == current_) return false;
    if (group->bypassed || !group_works(*group)) continue;
    if (!current_) return false;  // it is chosen anyway
    next_ = group.get();
    leave_group();
    return true;
  }
  return false;
}

}  // namespace dmfs
