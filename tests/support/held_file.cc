// SPDX-License-Identifier: Apache-2.0
#include "tests/support/held_file.h"

#include <algorithm>
#include <cassert>

namespace dmfs::test {

Sectors MemoryFile::size() const {
  MutexLock lock(mutex_);
  return size_;
}

void MemoryFile::set_size(Sectors size) {
  MutexLock lock(mutex_);
  size_ = size;
  blocks_.erase(blocks_.lower_bound(size.n), blocks_.end());
}

void MemoryFile::fail_nth(unsigned n, int error) {
  MutexLock lock(mutex_);
  fail_in_ = n;
  fail_in_error_ = error;
}

void MemoryFile::fail_all(int error) {
  MutexLock lock(mutex_);
  fail_all_ = error;
}

void MemoryFile::record(const Bio& bio) {
  MutexLock lock(mutex_);
  seen_.push_back({bio.op, bio.flags, bio.slot, bio.sector, bio.count});
}

std::vector<SeenBio> MemoryFile::seen() const {
  MutexLock lock(mutex_);
  return seen_;
}

void MemoryFile::forget_seen() {
  MutexLock lock(mutex_);
  seen_.clear();
}

int MemoryFile::check(const Bio& bio) {
  if (fail_in_ > 0 && --fail_in_ == 0) return fail_in_error_;
  if (fail_all_ != 0) return fail_all_;
  if (bio.op == Op::Flush) return 0;
  if (bio.sector > size_ || bio.count > size_ - bio.sector) return EIO;
  if (read_only_ && op_modifies(bio.op)) return EROFS;
  if (bio.op == Op::Discard && !supports_discard_) return EOPNOTSUPP;
  if (bio.op == Op::WriteZeroes && !supports_write_zeroes_) return EOPNOTSUPP;
  return 0;
}

int MemoryFile::perform(Bio& bio) {
  MutexLock lock(mutex_);
  if (int error = check(bio)) return error;
  if (bio.op == Op::Discard || bio.op == Op::WriteZeroes) {
    blocks_.erase(blocks_.lower_bound(bio.sector.n),
                  blocks_.lower_bound((bio.sector + bio.count).n));
  }
  if (!op_has_data(bio.op)) return 0;
  for (uint64_t i = 0; i < bio.count.n; ++i) {
    auto at = static_cast<size_t>(Sectors{i}.bytes());
    if (bio.op == Op::Write) {
      copy_from_bio(bio.data, at, blocks_[bio.sector.n + i]);
    } else if (auto block = blocks_.find(bio.sector.n + i); block != blocks_.end()) {
      copy_to_bio(bio.data, at, block->second);
    } else {
      zero_bio(bio.data, at, kSectorSize);
    }
  }
  return 0;
}

void MemoryFile::submit(Bio& bio) {
  record(bio);
  bio.complete(perform(bio));
}

void MemoryFile::poke(Sectors at, std::span<const std::byte> bytes) {
  assert(sector_aligned(bytes.size()));
  MutexLock lock(mutex_);
  for (; !bytes.empty(); bytes = bytes.subspan(kSectorSize), at += Sectors{1}) {
    std::copy_n(bytes.begin(), kSectorSize, blocks_[at.n].begin());
  }
}

std::vector<std::byte> MemoryFile::peek(Sectors at, Sectors count) const {
  MutexLock lock(mutex_);
  std::vector<std::byte> out(static_cast<size_t>(count.bytes()));
  for (uint64_t i = 0; i < count.n; ++i) {
    auto block = blocks_.find(at.n + i);
    if (block == blocks_.end()) continue;
    std::copy(block->second.begin(), block->second.end(),
              out.begin() + static_cast<ptrdiff_t>(i * kSectorSize));
  }
  return out;
}

Extent MemoryFile::extent_at(Sectors start, Sectors length) const {
  MutexLock lock(mutex_);
  auto block = blocks_.lower_bound(start.n);
  if (block == blocks_.end() || block->first != start.n) {
    uint64_t hole = block == blocks_.end() ? length.n : block->first - start.n;
    return {false, {std::min(hole, length.n)}};
  }
  uint64_t run = 0;
  for (; run < length.n && block != blocks_.end() && block->first == start.n + run; ++block) ++run;
  return {true, {run}};
}

Sectors MemoryFile::allocated(Sectors start, Sectors length) const {
  MutexLock lock(mutex_);
  auto count = std::distance(blocks_.lower_bound(start.n), blocks_.lower_bound((start + length).n));
  return {static_cast<uint64_t>(count)};
}

HeldFile::~HeldFile() {
  assert(held() == 0 && "a test left a bio outstanding");
}

void HeldFile::submit(Bio& bio) {
  record(bio);
  {
    MutexLock lock(hold_mutex_);
    if (holding_) {
      held_.push_back(&bio);
      arrived_.notify_all();
      return;
    }
  }
  bio.complete(perform(bio));
}

void HeldFile::hold(bool value) {
  MutexLock lock(hold_mutex_);
  holding_ = value;
}

size_t HeldFile::held() const {
  MutexLock lock(hold_mutex_);
  return held_.size();
}

std::vector<Bio*> HeldFile::held_bios() const {
  MutexLock lock(hold_mutex_);
  return held_;
}

bool HeldFile::wait_held(size_t count) const {
  auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  MutexLock lock(hold_mutex_);
  while (held_.size() < count) {
    if (!arrived_.wait_until(hold_mutex_, deadline)) return held_.size() >= count;
  }
  return true;
}

bool HeldFile::complete_at(size_t index, int error, Sense sense) {
  Bio* bio = nullptr;
  {
    MutexLock lock(hold_mutex_);
    if (index >= held_.size()) return false;
    bio = held_[index];
    held_.erase(held_.begin() + static_cast<ptrdiff_t>(index));
  }
  bio->complete(error != 0 ? error : perform(*bio), sense);
  return true;
}

size_t HeldFile::complete_all(int error) {
  size_t count = 0;
  while (complete_next(error)) ++count;
  return count;
}

}  // namespace dmfs::test
