// SPDX-License-Identifier: Apache-2.0
#include "cli/sync_progress.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include <fmt/format.h>

#include "core/base/args.h"
#include "core/base/units.h"

namespace dmfs::cli {
namespace {

std::optional<uint64_t> number(std::string_view word) {
  uint64_t value = 0;
  auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), value);
  if (word.empty() || error != std::errc() || end != word.data() + word.size()) return std::nullopt;
  return value;
}

// <#legs> <leg>... <in sync>/<regions> <#letters' words> <letters> ...
void add_mirror(const TableLine& line, SyncProgress& sum) {
  auto words = split_args(line.params);
  if (!words || words->empty()) return;
  auto legs = number((*words)[0]);
  if (!legs || words->size() < *legs + 4) return;
  const std::string& ratio = (*words)[*legs + 1];
  size_t slash = ratio.find('/');
  if (slash == std::string::npos) return;
  auto done = number(std::string_view(ratio).substr(0, slash));
  auto total = number(std::string_view(ratio).substr(slash + 1));
  if (!done || !total || *total == 0 || *done > *total) return;
  sum.total += line.length;
  // The last region may be a short one.
  sum.done += *done == *total ? line.length
                              : static_cast<uint64_t>(static_cast<double>(line.length) *
                                                      static_cast<double>(*done) /
                                                      static_cast<double>(*total));
  const std::string& letters = (*words)[*legs + 3];
  for (size_t i = 0; i < letters.size() && i < *legs; ++i) {
    // Read errors do not keep a leg from being written.
    if (letters[i] != 'A' && letters[i] != 'R' && *done != *total && sum.failed.empty()) {
      sum.failed = (*words)[i + 1];
    }
  }
}

std::string rate_text(double bytes) {
  static constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  size_t unit = 0;
  while (bytes >= 1024 && unit + 1 < std::size(kUnits)) bytes /= 1024, ++unit;
  return bytes < 10 && unit > 0 ? fmt::format("{:.1f} {}/s", bytes, kUnits[unit])
                                : fmt::format("{:.0f} {}/s", bytes, kUnits[unit]);
}

std::string time_text(double seconds) {
  auto whole = static_cast<uint64_t>(std::ceil(std::min(seconds, 359999.0)));
  if (whole < 3600) return fmt::format("{}:{:02}", whole / 60, whole % 60);
  return fmt::format("{}:{:02}:{:02}", whole / 3600, whole / 60 % 60, whole % 60);
}

// "52.0%  118 MiB/s  0:03 left"
std::string figures(const SyncProgress& progress, const SyncRate& rate) {
  std::string text = fmt::format("{:5.1f}%", progress.percent());
  if (rate.rate() > 0) text += "  " + rate_text(rate.rate());
  if (auto left = rate.left(); left && !progress.complete()) text += "  " + time_text(*left) + " left";
  return text;
}

}  // namespace

double SyncProgress::percent() const {
  if (complete()) return 100;
  // Not 100 before it is.
  return std::min(99.9, 100.0 * static_cast<double>(done) / static_cast<double>(total));
}

std::optional<SyncProgress> read_sync_progress(const std::vector<TableLine>& status) {
  SyncProgress sum;
  for (const TableLine& line : status) {
    if (line.type == "mirror") add_mirror(line, sum);
  }
  if (sum.total == 0) return std::nullopt;
  return sum;
}

void SyncRate::sample(double seconds, const SyncProgress& progress) {
  // Another table, or regions that became dirty: from here on.
  if (!started_ || progress.total != total_ || progress.done < done_) {
    started_ = true;
    first_seconds_ = seconds;
    first_done_ = progress.done;
  }
  seconds_ = seconds;
  done_ = progress.done;
  total_ = progress.total;
}

double SyncRate::rate() const {
  if (seconds_ <= first_seconds_) return 0;
  return static_cast<double>((done_ - first_done_) * kSectorSize) / (seconds_ - first_seconds_);
}

std::optional<double> SyncRate::left() const {
  if (rate() <= 0) return std::nullopt;
  return static_cast<double>((total_ - done_) * kSectorSize) / rate();
}

std::string progress_bar(const std::string& name, const SyncProgress& progress,
                         const SyncRate& rate, unsigned columns) {
  std::string text = figures(progress, rate);
  size_t taken = name.size() + text.size() + 6;  // blanks and brackets
  if (columns < taken + 10) return fmt::format("{}  {}", name, text).substr(0, columns);
  size_t width = std::min<size_t>(columns - taken, 60);
  auto filled = static_cast<size_t>(static_cast<double>(width) * progress.percent() / 100);
  std::string bar(filled, '=');
  if (filled < width) bar += '>';
  bar.resize(width, ' ');
  return fmt::format("{}  [{}]  {}", name, bar, text);
}

std::string progress_text(const std::string& name, const SyncProgress& progress,
                          const SyncRate& rate) {
  std::string text = figures(progress, rate);
  return fmt::format("{}: {}", name, text.substr(text.find_first_not_of(' ')));
}

}  // namespace dmfs::cli
