// SPDX-License-Identifier: Apache-2.0
// Legs that have missed what was acknowledged. After a restart, or when another table takes over,
// regions that differ are copied from the first leg that has missed nothing; so that a leg has is
// made durable before the first write that it has missed is acknowledged. The kernel forgets this,
// and copies from the first leg whatever it has missed.
//
// The state that is saved while there are such legs names the others: complete [<leg> <start>]+
#include <algorithm>
#include <string>
#include <utility>

#include <fmt/format.h>

#include "core/targets/mirror/mirror_write.h"

namespace dmfs {
namespace {

constexpr std::string_view kComplete = "complete";

}  // namespace

Legs::Mask Mirror::all_legs() const { return (Legs::Mask{1} << legs_.size()) - 1; }

std::string Mirror::stale_text(Legs::Mask stale) const {
  if (!stale) return {};
  std::string text(kComplete);
  for (unsigned i = 0; i < legs_.size(); ++i) {
    if (stale >> i & 1) continue;
    text += fmt::format(" {} {}", quote_arg(legs_[i].file.name()), legs_[i].start.n);
  }
  return text;
}

Legs::Mask Mirror::stale_in(const std::string& text) const {
  auto words = split_args(text);
  if (!words || words->empty() || words->front() != kComplete) return 0;
  Legs::Mask complete = 0;
  for (size_t at = 1; at + 1 < words->size(); at += 2) {
    for (unsigned i = 0; i < legs_.size(); ++i) {
      const Legs::Leg& leg = legs_[i];
      if (leg.file.name() != (*words)[at] || std::to_string(leg.start.n) != (*words)[at + 1]) continue;
      complete |= Legs::Mask{1} << i;
    }
  }
  return all_legs() & ~complete;
}

void Mirror::begin_with_stale(Legs::Mask stale) {
  // If none is known to have all the first one is as good as any.
  if (!stale || stale == all_legs()) return;
  MutexLock lock(mutex_);
  stale_ = saved_stale_ = stale;
  unsigned first = 0;
  while (stale >> first & 1) ++first;
  legs_.set_primary(first);
  complete_ = Legs::Mask{1} << first;
  in_sync_ = false;
  if (log_->persistent()) return;
  for (RegionIndex region = 0; region < region_count(); ++region) log_->set_in_sync(region, false);
}

std::optional<std::string> Mirror::hand_over() const {
  MutexLock lock(mutex_);
  return stale_text(all_legs() & ~complete_);
}

std::optional<std::string> Mirror::take_over(std::span<const TargetSpec> before) {
  Legs::Mask stale = 0;
  for (const TargetSpec& target : before) {
    // A leg that the table before did not have is none to begin from either.
    if (target.type == "mirror") stale |= stale_in(target.state);
  }
  if (!stale || stale == all_legs()) return std::nullopt;
  begin_with_stale(stale);
  return stale_text(stale);
}

bool Mirror::narrow_complete(Legs::Mask having) {
  if (!(complete_ & having)) return false;
  complete_ &= having;
  // The primary one may have failed just now, and another one been chosen that has not got this.
  // Without handle_errors the kernel stays with the first, and what that has not cannot be read.
  if (features_.handle_errors || times_out()) legs_.set_primary(whole_leg());
  return true;
}

unsigned Mirror::whole_leg() const {
  unsigned leg = legs_.primary();
  for (unsigned i = 0; i < legs_.size() && !(complete_ >> leg & 1); ++i) {
    if (complete_ >> i & 1) leg = i;
  }
  return leg;
}

bool Mirror::is_remembered() const {
  Legs::Mask all = all_legs();
  if (complete_ == all) return true;
  if (saved_stale_ == all || (log_->assumes_sync() && !saved_stale_)) return false;
  Legs::Mask fresh = all & ~saved_stale_;
  return complete_ & (fresh & -fresh);  // the first of them
}

bool Mirror::wait_until_remembered(Write& write, int& error) {
  Legs::Mask having = write.sent & ~(write.failed | write.late);
  if (having == all_legs()) return false;
  MutexLock lock(mutex_);
  if (!narrow_complete(having)) {
    error = EIO;
    return false;
  }
  if (is_remembered()) return false;
  stale_ = all_legs() & ~complete_;
  awaiting_save_.push_back(&write);
  want_save();
  return true;
}

void Mirror::want_save() {
  if (!std::exchange(saving_, true)) worker_.post([this] { save_stale(); });
}

void Mirror::save_stale() {
  for (bool may_forget = true;;) {
    Legs::Mask forget;
    {
      MutexLock lock(mutex_);
      bool none_waits = awaiting_save_.empty();
      if (in_sync_ && complete_ == all_legs() && none_waits && may_forget) stale_ = 0;
      if (none_waits && (asleep_ || stale_ == saved_stale_)) {
        saving_ = false;
        changed_.notify_all();
        return;
      }
      forget = saved_stale_ & ~stale_;
    }
    // What was copied to them is on stable storage first.
    if (forget && !flush_legs()) {
      MutexLock lock(mutex_);
      may_forget = false;
      stale_ |= forget;
      continue;
    }
    Legs::Mask wanted;
    {
      MutexLock lock(mutex_);
      wanted = stale_;
      saved_stale_ &= wanted;  // until it is written nobody knows which of the two is there
    }
    Status saved = context_.save_state(stale_text(wanted));
    std::vector<Write*> done;
    {
      MutexLock lock(mutex_);
      if (saved) {
        saved_stale_ = wanted;
      } else {
        stale_ = saved_stale_;
        may_forget = false;
      }
      // What makes one of them sure makes all of them sure.
      if (!saved || is_remembered()) {
        done.assign(awaiting_save_.begin(), awaiting_save_.end());
        awaiting_save_.clear();
      }
    }
    for (Write* write : done) end_write(*write, saved ? 0 : EIO);
  }
}

bool Mirror::flush_legs() {
  std::array<IoRegion, Legs::kMax> regions;
  for (unsigned i = 0; i < legs_.size(); ++i) regions[i] = IoRegion(legs_[i].file, {}, {});
  IoRequest request;
  request.op = Op::Flush;
  request.regions = {regions.data(), legs_.size()};
  request.timeout = features_.io_timeout;
  request.cancel_on_timeout = times_out();
  request.cancellable = times_out();
  return client_->submit_and_wait(request) == 0;
}

}  // namespace dmfs
