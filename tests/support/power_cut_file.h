// SPDX-License-Identifier: Apache-2.0
// Files whose power is cut, all at once. They complete inline and write down what happened; after
// that, for any moment, one can have what the disks might hold: what was flushed, and of the rest
// each sector as it was or as any later write left it.
#pragma once

#include <array>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "core/base/mutex.h"
#include "tests/support/held_file.h"

namespace dmfs::test {

class PowerCut {
 public:
  using Block = std::array<std::byte, kSectorSize>;
  using Image = std::map<uint64_t, Block>;  // sectors that are not there hold zeroes

  class File final : public MemoryFile {
   public:
    File(PowerCut& cut, std::string name, Sectors size)
        : MemoryFile(std::move(name), size), cut_(cut) {}
    void submit(Bio& bio) override {
      int error;
      {
        // Done and written down in one step, so that the order of both is the same.
        MutexLock lock(cut_.mutex_);
        error = perform(bio);
        if (!error) cut_.record(*this, bio);
      }
      bio.complete(error);
    }

   private:
    PowerCut& cut_;
  };

  // How many things have happened: one for each sector written, and for each flush.
  size_t moments() const {
    MutexLock lock(mutex_);
    return journal_.size();
  }
  // What `file` holds if the power is cut after the first `moment` things. Before the first of
  // them it holds `before`.
  Image image(const File& file, size_t moment, std::mt19937_64& random, Image before = {}) const {
    MutexLock lock(mutex_);
    Image durable = std::move(before);
    std::map<uint64_t, std::vector<Block>> pending;
    for (size_t i = 0; i < moment; ++i) {
      const Entry& entry = journal_[i];
      if (entry.file != &file) continue;
      if (!entry.flush) pending[entry.sector].push_back(entry.data);
      if (entry.flush) {
        for (auto& [sector, versions] : pending) durable[sector] = versions.back();
        pending.clear();
      } else if (entry.durable) {
        durable[entry.sector] = entry.data;
        pending.erase(entry.sector);
      }
    }
    for (auto& [sector, versions] : pending) {
      size_t choice = random() % (versions.size() + 1);
      if (choice > 0) durable[sector] = versions[choice - 1];
    }
    return durable;
  }
  static void restore(MemoryFile& file, const Image& image) {
    for (const auto& [sector, block] : image) file.poke({sector}, block);
  }

 private:
  struct Entry {
    const File* file;
    bool flush;
    bool durable;
    uint64_t sector;
    Block data;
  };

  void record(const File& file, const Bio& bio) DM_REQUIRES(mutex_) {
    if (bio.op == Op::Flush) journal_.push_back({&file, true, false, 0, {}});
    if (!op_modifies(bio.op)) return;
    for (uint64_t i = 0; i < bio.count.n; ++i) {
      Entry entry{&file, false, (bio.flags & kBioFua) != 0, bio.sector.n + i, {}};
      if (bio.op == Op::Write) copy_from_bio(bio.data, static_cast<size_t>(i * kSectorSize), entry.data);
      journal_.push_back(entry);
    }
  }

  mutable Mutex mutex_;  // taken before a file's own
  std::vector<Entry> journal_ DM_GUARDED_BY(mutex_);
};

}  // namespace dmfs::test
