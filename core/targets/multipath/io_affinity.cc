// SPDX-License-Identifier: Apache-2.0
// io-affinity: the path that the table gives to the CPU on which the request is handled.
#include <sched.h>

#include <atomic>
#include <memory>

#include "core/targets/multipath/path_order.h"
#include "core/targets/multipath/path_selector.h"

namespace dmfs {
namespace {

constexpr std::string_view kName = "io-affinity";
// Not what the machine has: a table means the same wherever it is loaded.
constexpr size_t kMaxCpus = 1024;
constexpr size_t kGroupBits = 32;

// 32 bits a group, the lowest first.
using CpuMask = std::vector<uint32_t>;

// Groups of one to eight hexadecimal digits with commas between, the highest first.
bool parse_mask(std::string_view text, CpuMask& mask) {
  uint32_t group = 0;
  size_t digits = 0;
  auto end_group = [&] {
    if (digits == 0) return false;
    mask.insert(mask.begin(), std::exchange(group, 0));
    digits = 0;
    return true;
  };
  for (char c : text) {
    if (c == ',') {
      if (!end_group()) return false;
      continue;
    }
    constexpr std::string_view kDigits = "0123456789abcdef";
    size_t digit = kDigits.find(c >= 'A' && c <= 'F' ? static_cast<char>(c - 'A' + 'a') : c);
    if (digit == kDigits.npos || ++digits > 8) return false;
    group = group << 4 | static_cast<uint32_t>(digit);
  }
  if (!end_group()) return false;
  while (mask.size() > 1 && mask.back() == 0) mask.pop_back();
  return mask.size() <= kMaxCpus / kGroupBits;
}

std::string print_mask(const CpuMask& mask) {
  std::string text = fmt::format("{:x}", mask.back());
  for (size_t i = mask.size() - 1; i > 0; --i) text += fmt::format(",{:08x}", mask[i - 1]);
  return text;
}

class IoAffinity final : public PathSelector {
 public:
  IoAffinity() : owners_(kMaxCpus, kNone) {}

  // <CPU mask>
  Status add_path(std::span<const std::string> args) override {
    if (args.size() != 1) {
      return selector_error(kName, "invalid number of arguments", args.empty() ? "" : args[1]);
    }
    CpuMask mask;
    if (!parse_mask(args[0], mask)) return selector_error(kName, "invalid cpumask", args[0]);
    bool any = false;
    for (size_t cpu = 0; cpu < mask.size() * kGroupBits; ++cpu) {
      bool wanted = mask[cpu / kGroupBits] >> cpu % kGroupBits & 1;
      // The first path that asks for a CPU has it.
      if (!wanted || owners_[cpu] != kNone) continue;
      owners_[cpu] = static_cast<int>(paths_.size());
      any = true;
    }
    if (!any) return selector_error(kName, "No new/valid CPU mapping found", args[0]);
    paths_.push_back(std::make_unique<Path>(std::move(mask)));
    return {};
  }

  int select(uint64_t) override {
    int cpu = sched_getcpu();
    int own = cpu >= 0 && cpu < static_cast<int>(kMaxCpus) ? owners_[static_cast<size_t>(cpu)] : kNone;
    if (works(own)) return own;
    if (own == kNone) misses_.fetch_add(1, std::memory_order_relaxed);
    // The paths' CPUs in order, as far as they have a path that works.
    for (int path : owners_) {
      if (works(path)) return path;
    }
    return kNone;
  }
  void fail_path(unsigned path) override { paths_[path]->failed.store(true); }
  void reinstate_path(unsigned path) override { paths_[path]->failed.store(false); }

  std::string path_table(unsigned path) const override { return print_mask(paths_[path]->mask); }
  // How many requests came on a CPU that no path has, of the whole group.
  std::string path_info(unsigned) const override { return fmt::to_string(misses_.load()); }

 private:
  struct Path {
    explicit Path(CpuMask m) : mask(std::move(m)) {}
    const CpuMask mask;
    std::atomic<bool> failed{false};
  };
  bool works(int path) const {
    return path != kNone && !paths_[static_cast<size_t>(path)]->failed.load(std::memory_order_relaxed);
  }

  // Constant once the table is built.
  std::vector<std::unique_ptr<Path>> paths_;
  std::vector<int> owners_;  // by CPU: the path, or kNone
  // Own synchronisation.
  std::atomic<uint32_t> misses_{0};
};

// Arguments are accepted and ignored, as in the kernel.
Result<std::unique_ptr<PathSelector>> create(Clock&, std::span<const std::string>) {
  return std::unique_ptr<PathSelector>(std::make_unique<IoAffinity>());
}

}  // namespace

extern const PathSelectorType kIoAffinitySelector;
const PathSelectorType kIoAffinitySelector{kName, 1, 1, false, false, create};

}  // namespace dmfs
