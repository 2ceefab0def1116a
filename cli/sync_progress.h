// SPDX-License-Identifier: Apache-2.0
// How far the mirrors of a device are, and how that is shown.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "cli/table_text.h"

namespace dmfs::cli {

struct SyncProgress {
  uint64_t done = 0;    // sectors, from the regions that are in sync
  uint64_t total = 0;
  std::string failed;   // a leg that has failed and keeps it from going on; empty: none

  bool complete() const { return done == total; }
  double percent() const;
};

// From the status of a device's targets. nullopt: none of them synchronises anything.
std::optional<SyncProgress> read_sync_progress(const std::vector<TableLine>& status);

// Tells rate and time left of what is sampled now and then.
class SyncRate {
 public:
  void sample(double seconds, const SyncProgress& progress);
  // Bytes in a second since the first sample; 0 while nobody can tell.
  double rate() const;
  // Seconds; nullopt while nobody can tell.
  std::optional<double> left() const;

 private:
  bool started_ = false;
  double first_seconds_ = 0, seconds_ = 0;
  uint64_t first_done_ = 0, done_ = 0, total_ = 0;
};

// "disk  [=====>    ]  52.0%  118 MiB/s  0:03 left", no wider than `columns`.
std::string progress_bar(const std::string& name, const SyncProgress& progress,
                         const SyncRate& rate, unsigned columns);
// The same without the bar, for logs.
std::string progress_text(const std::string& name, const SyncProgress& progress,
                          const SyncRate& rate);

}  // namespace dmfs::cli
