// SPDX-License-Identifier: Apache-2.0
#include "fs/volume_node.h"

#include <ctime>

namespace dmfs {

int64_t coarse_now() {
  timespec now{};
  clock_gettime(CLOCK_REALTIME_COARSE, &now);
  return int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

VolumeTable::~VolumeTable() {
  close_all();
}

int64_t VolumeTable::mtime(uint32_t minor) const {
  if (minor >= kMaxMinors) return born_;
  const Page* page = pages_[minor / kPageSize].load(std::memory_order_acquire);
  int64_t stored = page ? (*page)[minor % kPageSize].mtime.load(std::memory_order_relaxed) : 0;
  return stored != 0 ? stored : born_;
}

Status VolumeTable::open(uint32_t minor) {
  if (minor >= kMaxMinors) return Error{ENXIO, "no such volume"};
  DM_TRY(std::shared_ptr<MappedDevice> device, manager_.open(minor));
  if (!device->live_table()) {
    manager_.close(minor);
    return Error{ENXIO, "the device has no table"};
  }
  MutexLock lock(mutex_);
  Slot& place = slot(minor);
  VolumeNode* node = place.node.load(std::memory_order_relaxed);
  if (!node) {
    int64_t stored = place.mtime.load(std::memory_order_relaxed);
    node = std::make_unique<VolumeNode>(device, stored != 0 ? stored : born_).release();
    place.node.store(node, std::memory_order_release);
  }
  ++node->opens_;
  return {};
}

void VolumeTable::release(uint32_t minor) {
  std::unique_ptr<VolumeNode> last;
  {
    MutexLock lock(mutex_);
    Slot& place = slot(minor);
    VolumeNode* node = place.node.load(std::memory_order_relaxed);
    if (!node) return;
    if (--node->opens_ == 0) {
      if (node->mtime() != born_) place.mtime.store(node->mtime(), std::memory_order_relaxed);
      place.node.store(nullptr, std::memory_order_release);
      last.reset(node);
    }
  }
  last.reset();  // before the manager may think the device unused
  manager_.close(minor);
}

std::vector<std::string> VolumeTable::resized() {
  std::vector<uint32_t> minors = open_minors();
  std::vector<uint32_t> changed;
  {
    MutexLock lock(mutex_);
    for (uint32_t minor : minors) {
      VolumeNode* node = slot(minor).node.load(std::memory_order_relaxed);
      if (!node || node->told_size_ == node->device().size()) continue;
      node->told_size_ = node->device().size();
      changed.push_back(minor);
    }
  }
  std::vector<std::string> names;
  for (uint32_t minor : changed) names.push_back(manager_.name_of(minor));
  return names;
}

std::vector<std::string> VolumeTable::open_names() const {
  std::vector<std::string> names;
  for (uint32_t minor : open_minors()) names.push_back(manager_.name_of(minor));
  return names;
}

void VolumeTable::fail_held(int error) {
  for (uint32_t minor : open_minors()) {
    if (VolumeNode* node = find(minor)) node->device().fail_held(error);
  }
}

void VolumeTable::close_all() {
  for (uint32_t minor : open_minors()) {
    while (find(minor)) release(minor);
  }
}

VolumeTable::Slot& VolumeTable::slot(uint32_t minor) {
  std::atomic<Page*>& page = pages_[minor / kPageSize];
  if (!page.load(std::memory_order_relaxed)) {
    owned_.push_back(std::make_unique<Page>());
    page.store(owned_.back().get(), std::memory_order_release);
  }
  return (*page.load(std::memory_order_relaxed))[minor % kPageSize];
}

std::vector<uint32_t> VolumeTable::open_minors() const {
  MutexLock lock(mutex_);
  std::vector<uint32_t> minors;
  for (uint32_t i = 0; i < pages_.size(); ++i) {
    const Page* page = pages_[i].load(std::memory_order_relaxed);
    for (uint32_t j = 0; page && j < kPageSize; ++j) {
      if ((*page)[j].node.load(std::memory_order_relaxed)) minors.push_back(i * kPageSize + j);
    }
  }
  return minors;
}

}  // namespace dmfs
