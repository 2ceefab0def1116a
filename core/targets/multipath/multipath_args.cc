// SPDX-License-Identifier: Apache-2.0
#include "core/targets/multipath/multipath_args.h"

#include <fmt/format.h>

namespace dmfs {
namespace {

constexpr uint64_t kKernelsFeatureWords = 8;
// no_path_timeout, path_timeout, checker, marginal, failback
constexpr uint64_t kOurFeatureWords = 2 + 2 + 3 + 4 + 2;
constexpr uint64_t kMaxFeatureWords = kKernelsFeatureWords + kOurFeatureWords;

constexpr uint64_t kMaxSeconds = 86400;

// read | write@<sector>
Result<std::optional<Sectors>> checker_area(ArgReader& args, const std::string& method) {
  if (same_word(method, "read")) return std::optional<Sectors>();
  uint64_t at = 0;
  if (!method.starts_with("write@") || !parse_u64(method.substr(6), at) || at > kMaxDeviceSectors.n) {
    return args.fail("unknown checker", method);
  }
  return std::optional<Sectors>(Sectors{at});
}

Status parse_failback(ArgReader& args, MultipathFeatures& features) {
  DM_TRY(std::string when, args.word("no failback given"));
  uint64_t seconds = 0;
  if (same_word(when, "manual")) {
    features.failback = Failback::Manual;
  } else if (same_word(when, "immediate")) {
    features.failback = Failback::Immediate;
  } else if (same_word(when, "followover")) {
    features.failback = Failback::FollowOver;
  } else if (parse_u64(when, seconds) && seconds >= 1 && seconds <= kMaxSeconds) {
    features.failback = Failback::After;
    features.failback_after = std::chrono::seconds(seconds);
  } else {
    return args.fail("failback must be manual, immediate, followover, or 1 to 86400", when);
  }
  return {};
}

}  // namespace

Result<size_t> arg_count(ArgReader& args, std::string_view what, uint64_t most) {
  std::string text(args.peek());
  DM_TRY(uint64_t count, args.number(what, 0, most));
  if (count > args.left()) return args.fail(what, text);
  return static_cast<size_t>(count);
}

Result<MultipathFeatures> MultipathFeatures::parse(ArgReader& args) {
  constexpr std::string_view kUnknown = "Unrecognised multipath feature request";
  MultipathFeatures features;
  constexpr std::string_view kCount = "invalid number of feature args";
  DM_TRY(size_t left, arg_count(args, kCount, kMaxFeatureWords));
  const size_t count = left;
  auto unknown = [&](const std::string& name) {
    // Where the kernel does not look at them any more.
    if (count > kKernelsFeatureWords) return args.fail(kCount, fmt::to_string(count));
    return args.fail(kUnknown, name);
  };
  while (left > 0) {
    DM_TRY(std::string name, args.word(kUnknown));
    --left;
    if (same_word(name, "queue_if_no_path")) {
      features.queue_if_no_path = true;
    } else if (same_word(name, "retain_attached_hw_handler")) {
      features.retain_attached_hw_handler = true;
    } else if (left == 0) {
      return unknown(name);  // also one that lacks its value
    } else if (same_word(name, "pg_init_retries")) {
      DM_TRY(uint64_t n, args.number("pg_init_retries must be between 1 and 50", 1, 50));
      features.pg_init_retries = static_cast<uint32_t>(n);
      --left;
    } else if (same_word(name, "pg_init_delay_msecs")) {
      DM_TRY(uint64_t n, args.number("pg_init_delay_msecs must be between 0 and 60000", 0, 60000));
      features.pg_init_delay_ms = static_cast<uint32_t>(n);
      --left;
    } else if (same_word(name, "no_path_timeout")) {
      DM_TRY(uint64_t n, args.number("no_path_timeout must be between 1 and 86400", 1, 86400));
      features.no_path_timeout_s = static_cast<uint32_t>(n);
      --left;
    } else if (same_word(name, "path_timeout")) {
      DM_TRY(uint64_t n, args.number("path_timeout must be between 1 and 3600000", 1, 3'600'000));
      features.path_timeout_ms = static_cast<uint32_t>(n);
      --left;
    } else if (same_word(name, "failback")) {
      DM_TRY_STATUS(parse_failback(args, features));
      --left;
    } else if (same_word(name, "checker") && left >= 2) {
      DM_TRY(std::string method, args.word("unknown checker"));
      DM_TRY(auto area, checker_area(args, method));
      DM_TRY(uint64_t n, args.number("checker interval must be between 1 and 86400", 1, kMaxSeconds));
      if (!features.checker) features.checker.emplace();
      features.checker->area = area;
      features.checker->interval = std::chrono::seconds(n);
      left -= 2;
    } else if (same_word(name, "marginal") && left >= 3) {
      constexpr std::string_view kMarginal = "bad marginal values";
      DM_TRY(uint64_t errors, args.number(kMarginal, 1, 1000));
      DM_TRY(uint64_t window, args.number(kMarginal, 1, kMaxSeconds));
      DM_TRY(uint64_t good, args.number(kMarginal, 1, kMaxSeconds));
      if (!features.checker) features.checker.emplace();
      features.checker->marginal = {static_cast<uint32_t>(errors), std::chrono::seconds(window),
                                    std::chrono::seconds(good)};
      left -= 3;
    } else if (same_word(name, "queue_mode")) {
      DM_TRY(std::string mode, args.word(kUnknown));
      if (same_word(mode, "bio")) {
        features.queue_mode = QueueMode::Bio;
      } else if (same_word(mode, "rq") || same_word(mode, "mq")) {
        features.queue_mode = QueueMode::Request;
      } else {
        return args.fail("Unknown 'queue_mode' requested", mode);
      }
      --left;
    } else {
      return unknown(name);
    }
  }
  if (features.checker && features.checker->interval.count() == 0) {
    return args.fail("marginal without checker");
  }
  // As in the kernel.
  if (features.queue_mode == QueueMode::Bio) features.retain_attached_hw_handler = true;
  return features;
}

std::string MultipathFeatures::print() const {
  size_t count = 0;
  std::string words;
  auto add = [&](size_t words_in, std::string_view text) {
    count += words_in;
    words += fmt::format("{} ", text);
  };
  if (queue_if_no_path) add(1, "queue_if_no_path");
  if (pg_init_retries > 0) add(2, fmt::format("pg_init_retries {}", pg_init_retries));
  if (pg_init_delay_ms) add(2, fmt::format("pg_init_delay_msecs {}", *pg_init_delay_ms));
  if (retain_attached_hw_handler) add(1, "retain_attached_hw_handler");
  if (no_path_timeout_s) add(2, fmt::format("no_path_timeout {}", *no_path_timeout_s));
  if (path_timeout_ms) add(2, fmt::format("path_timeout {}", *path_timeout_ms));
  if (checker) {
    std::string area = checker->area ? fmt::format("write@{}", checker->area->n) : "read";
    add(3, fmt::format("checker {} {}", area, checker->interval.count()));
    if (const auto& m = checker->marginal) {
      add(4, fmt::format("marginal {} {} {}", m->errors, m->window.count(), m->good.count()));
    }
  }
  switch (failback) {
    case Failback::Manual: break;
    case Failback::Immediate: add(2, "failback immediate"); break;
    case Failback::FollowOver: add(2, "failback followover"); break;
    case Failback::After: add(2, fmt::format("failback {}", failback_after.count())); break;
  }
  if (queue_mode == QueueMode::Bio) add(2, "queue_mode bio");
  return fmt::format("{} {}", count, words);
}

}  // namespace dmfs
