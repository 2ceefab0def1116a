// SPDX-License-Identifier: Apache-2.0
#include "tests/bench/micro_rig.h"

#include <fmt/format.h>

#include <cstdio>
#include <cstdlib>
#include <new>
#include <utility>

#include "core/targets/builtin.h"

namespace {

thread_local uint64_t allocation_count = 0;

void* counted(size_t size, size_t align) {
  ++allocation_count;
  void* memory = align > alignof(std::max_align_t)
                     ? std::aligned_alloc(align, (size + align - 1) / align * align)
                     : std::malloc(size ? size : 1);
  if (!memory) throw std::bad_alloc();
  return memory;
}

}  // namespace

void* operator new(size_t size) {
  return counted(size, 0);
}
void* operator new(size_t size, std::align_val_t align) {
  return counted(size, static_cast<size_t>(align));
}
void operator delete(void* memory) noexcept {
  std::free(memory);
}
void operator delete(void* memory, size_t) noexcept {
  std::free(memory);
}
void operator delete(void* memory, std::align_val_t) noexcept {
  std::free(memory);
}
void operator delete(void* memory, size_t, std::align_val_t) noexcept {
  std::free(memory);
}

namespace dmfs::bench {
namespace {

[[noreturn]] void give_up(const Error& error) {
  fprintf(stderr, "%s\n", error.message.c_str());
  std::exit(1);
}

// What VolumeBacking is, without a manager.
class Below final : public BackingFile {
 public:
  explicit Below(MappedDevice& device) : device_(device) {}
  void submit(Bio& bio) override { device_.submit(bio); }
  std::string name() const override { return "below"; }
  Sectors size() const override { return device_.size(); }

 private:
  MappedDevice& device_;
};

const TargetRegistry& registry() {
  static const TargetRegistry all = [] {
    TargetRegistry made;
    register_builtin_targets(made);
    return made;
  }();
  return all;
}

}  // namespace

uint64_t allocations() {
  return allocation_count;
}

RelayFile::RelayFile() : thread_([this] { run(); }) {}

RelayFile::~RelayFile() {
  stopping_.store(true);
  thread_.join();
}

void RelayFile::submit(Bio& bio) {
  bio.next = stack_.load(std::memory_order_relaxed);
  while (!stack_.compare_exchange_weak(bio.next, &bio, std::memory_order_release,
                                       std::memory_order_relaxed)) {
  }
}

void RelayFile::run() {
  while (!stopping_.load(std::memory_order_relaxed)) {
    Bio* bio = stack_.exchange(nullptr, std::memory_order_acquire);
    if (!bio) std::this_thread::yield();
    while (bio) {
      Bio* next = bio->next;
      bio->complete(0);
      bio = next;
    }
  }
}

Result<std::unique_ptr<BackingFile>> Opener::open(const std::string& word, bool) {
  if (word == "relay") return std::unique_ptr<BackingFile>(std::make_unique<RelayFile>());
  if (word == "below") return std::unique_ptr<BackingFile>(std::make_unique<Below>(*below_));
  return std::unique_ptr<BackingFile>(std::make_unique<NullFile>());
}

Device::Device(const TableSpec& spec, MappedDevice* below) {
  Opener opener(below);
  activate(spec, opener, {});
}

Device::Device(const TableSpec& spec, DeviceOpener& opener, const std::string& script) {
  activate(spec, opener, script);
}

void Device::activate(const TableSpec& spec, DeviceOpener& opener, const std::string& script) {
  Table::Options options{registry(), opener, clock_};
  options.read_script = [&](const std::string&) { return script; };
  auto table = Table::build(spec, options);
  if (!table) give_up(table.error());
  CancelToken never;
  std::shared_ptr<Table> replaced;
  MutexLock lock(device_.command_mutex());
  replaced = device_.set_inactive(std::move(*table));
  Status active = device_.resume(
      {}, never, [] { return Status(); }, replaced);
  if (!active) give_up(active.error());
  table_ = device_.live_table();
}

Device::~Device() {
  std::vector<std::shared_ptr<Table>> tables;
  {
    MutexLock lock(device_.command_mutex());
    tables = device_.retire();
  }
  table_.reset();
}

TableSpec one_target(Sectors length, const std::string& type, const std::string& words) {
  TableSpec spec;
  spec.targets.push_back({{0}, length, type, words});
  return spec;
}

TableSpec linear_table(size_t targets, Sectors length, const std::string& word) {
  TableSpec spec;
  for (size_t i = 0; i < targets; ++i) {
    uint64_t at = i * length.n;
    spec.targets.push_back({{at}, length, "linear", fmt::format("{} {}", word, at)});
  }
  return spec;
}

}  // namespace dmfs::bench
