// SPDX-License-Identifier: Apache-2.0
// A disk with a write-back cache that forgets: what was not flushed, or written with FUA, may be
// there after a power cut or not, sector by sector. Bios stay outstanding until the test ends one.
#pragma once

#include <cstdint>
#include <cstring>
#include <deque>
#include <map>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "core/base/mutex.h"
#include "core/io/backing_file.h"

namespace dmfs::test {

// Any thread. A sector holds one number, the first eight bytes written to it; 0 before that.
class VolatileDisk final : public BackingFile {
 public:
  VolatileDisk(std::string name, Sectors size) : name_(std::move(name)), size_(size) {}

  void submit(Bio& bio) override {
    MutexLock lock(mutex_);
    queue_.push_back({&bio, applied_});
  }
  std::string name() const override { return name_; }
  Sectors size() const override { return size_; }

  size_t queued() const {
    MutexLock lock(mutex_);
    return queue_.size();
  }
  // Ends the `index`-th of those that are outstanding, if there are so many.
  bool end(size_t index, int error = 0) {
    Queued ended;
    {
      MutexLock lock(mutex_);
      if (index >= queue_.size()) return false;
      ended = queue_[index];
      queue_.erase(queue_.begin() + static_cast<ptrdiff_t>(index));
      if (!error) error = apply(ended);
    }
    ended.bio->complete(error);
    return true;
  }
  // What the platters might hold if the power went now: of each sector its last durable state, or
  // any later one, also of writes that have not ended.
  std::map<uint64_t, uint64_t> cut(std::mt19937_64& random) const {
    MutexLock lock(mutex_);
    std::map<uint64_t, std::vector<uint64_t>> candidates;
    for (const auto& [sector, versions] : versions_) {
      for (const Version& version : versions) candidates[sector].push_back(version.data);
    }
    for (const Queued& queued : queue_) {
      if (queued.bio->op != Op::Write) continue;
      for (uint64_t i = 0; i < queued.bio->count.n; ++i) {
        auto& of_sector = candidates[queued.bio->sector.n + i];
        if (of_sector.empty()) of_sector.push_back(0);
        of_sector.push_back(number(*queued.bio, i));
      }
    }
    std::map<uint64_t, uint64_t> platters;
    for (const auto& [sector, of_sector] : candidates) {
      platters[sector] = of_sector[random() % of_sector.size()];
    }
    return platters;
  }

 private:
  struct Queued {
    Bio* bio = nullptr;
    uint64_t applied = 0;  // before it was submitted
  };
  struct Version {
    uint64_t data;
    uint64_t applied;  // what it is counted as
  };

  static uint64_t number(const Bio& bio, uint64_t sector) {
    std::byte bytes[sizeof(uint64_t)];
    copy_from_bio(bio.data, static_cast<size_t>(sector * kSectorSize), bytes);
    uint64_t value;
    std::memcpy(&value, bytes, sizeof(value));
    return value;
  }

  int apply(const Queued& queued) DM_REQUIRES(mutex_) {
    const Bio& bio = *queued.bio;
    if (bio.op == Op::Flush) {
      // What had ended before the flush came; of the rest nobody knows.
      for (auto& [sector, versions] : versions_) {
        while (versions.size() > 1 && versions[1].applied <= queued.applied) versions.pop_front();
      }
      return 0;
    }
    if (bio.op != Op::Write || bio.sector + bio.count > size_) return EIO;
    ++applied_;
    for (uint64_t i = 0; i < bio.count.n; ++i) {
      auto& versions = versions_[bio.sector.n + i];
      if (versions.empty()) versions.push_back({0, 0});
      versions.push_back({number(bio, i), applied_});
      if (bio.flags & kBioFua) versions.erase(versions.begin(), versions.end() - 1);
    }
    return 0;
  }

  // Constant after construction.
  const std::string name_;
  const Sectors size_;

  mutable Mutex mutex_;
  // Guarded by mutex_.
  std::deque<Queued> queue_ DM_GUARDED_BY(mutex_);
  // The first is durable, the others come after it in order.
  std::map<uint64_t, std::deque<Version>> versions_ DM_GUARDED_BY(mutex_);
  uint64_t applied_ DM_GUARDED_BY(mutex_) = 0;  // writes that have ended
};

}  // namespace dmfs::test
