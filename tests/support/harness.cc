// SPDX-License-Identifier: Apache-2.0
#include "tests/support/harness.h"

#include <gtest/gtest.h>

#include <cstring>
#include <sstream>

#include <fmt/format.h>

namespace dmfs::test {
namespace {

// What a table owns: forwards to the rig's file, which outlives it.
class Opened final : public BackingFile {
 public:
  Opened(HeldFile& file, std::shared_ptr<std::atomic<int>> count)
      : file_(file), count_(std::move(count)) {
    ++*count_;
  }
  ~Opened() override { --*count_; }
  void submit(Bio& bio) override { file_.submit(bio); }
  std::string name() const override { return file_.name(); }
  Sectors size() const override { return file_.size(); }
  bool supports_discard() const override { return file_.supports_discard(); }
  Extent extent_at(Sectors start, Sectors length) const override {
    return file_.extent_at(start, length);
  }
  Sectors allocated(Sectors start, Sectors length) const override {
    return file_.allocated(start, length);
  }

 private:
  HeldFile& file_;
  std::shared_ptr<std::atomic<int>> count_;
};

}  // namespace

TableSpec parse_table(const std::string& text) {
  TableSpec spec;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    TargetSpec target;
    words >> target.start.n >> target.length.n >> target.type;
    EXPECT_FALSE(words.fail()) << line;
    std::getline(words >> std::ws, target.params);
    spec.targets.push_back(target);
  }
  return spec;
}

const TargetRegistry& builtin_registry() {
  static const TargetRegistry registry = [] {
    TargetRegistry all;
    register_builtin_targets(all);
    return all;
  }();
  return registry;
}

TestBio::TestBio(Op o, Sectors at, Sectors n, uint8_t f) : Bio(&TestBio::ended) {
  op = o;
  flags = f;
  sector = at;
  count = n;
  if (op_has_data(op)) {
    memory_.resize(bytes());
    segment_ = {memory_.data(), memory_.size()};
    data = {&segment_, 1, 0};
  }
}

void TestBio::ended(Bio& bio) {
  static_cast<TestBio&>(bio).done_.store(true, std::memory_order_release);
}

void TestBio::fill(char tag) {
  for (uint64_t i = 0; i < count.n; ++i) {
    std::memset(&memory_[i * kSectorSize], 0, kSectorSize);
    std::string text = fmt::format("{}{:014x}\n", tag, sector.n + i);
    std::memcpy(&memory_[i * kSectorSize], text.data(), text.size());
  }
}

bool TestBio::holds(char tag, uint64_t first) const {
  for (uint64_t i = 0; i < count.n; ++i) {
    std::string text = fmt::format("{}{:014x}\n", tag, first + i);
    if (std::memcmp(&memory_[i * kSectorSize], text.data(), text.size()) != 0) return false;
  }
  return true;
}

bool TestBio::holds_zeroes() const {
  for (std::byte b : memory_) {
    if (b != std::byte{0}) return false;
  }
  return true;
}

HeldFile& TestOpener::add(const std::string& name, uint64_t sectors) {
  files_[name] = std::make_unique<HeldFile>(name, Sectors{sectors});
  files_[name]->hold(false);
  opens_[name] = std::make_shared<std::atomic<int>>(0);
  return *files_[name];
}

int TestOpener::open_count(const std::string& name) const { return *opens_.at(name); }

Result<std::unique_ptr<BackingFile>> TestOpener::open(const std::string& word, bool) {
  auto it = files_.find(word);
  if (it == files_.end()) return Error{ENOENT, fmt::format("'{}': no such test file", word)};
  return std::unique_ptr<BackingFile>(std::make_unique<Opened>(*it->second, opens_.at(word)));
}

Rig::~Rig() {
  std::vector<std::shared_ptr<Table>> tables;
  {
    MutexLock lock(device_->command_mutex());
    tables = device_->retire();
  }
}

HeldFile& Rig::file(const std::string& name, uint64_t sectors) { return opener_.add(name, sectors); }

Status Rig::load(const std::string& text, bool read_only, bool ordered) {
  TableSpec spec = parse_table(text);
  spec.read_only = read_only;
  spec.ordered = ordered;
  return load(std::move(spec));
}

Status Rig::load(TableSpec spec) {
  Table::Options options{builtin_registry(), opener_, clock_};
  options.raise_event = [this] { device_->events().raise(); };
  options.noflush_suspending = [this] { return device_->noflush_suspending(); };
  options.save_state = save_;
  DM_TRY(auto table, Table::build(spec, options));
  std::shared_ptr<Table> replaced;
  MutexLock lock(device_->command_mutex());
  replaced = device_->set_inactive(std::move(table));
  return {};
}

Status Rig::commit() {
  ++commits_;
  if (int error = commit_error_) return Error{error, "commit failed, as the test wants"};
  return {};
}

Status Rig::suspend(SuspendOptions options, CancelToken* cancel) {
  CancelToken never;
  MutexLock lock(device_->command_mutex());
  return device_->suspend(options, cancel ? *cancel : never, [this] { return commit(); });
}

Status Rig::resume(CancelToken* cancel) {
  CancelToken never;
  std::shared_ptr<Table> replaced;
  MutexLock lock(device_->command_mutex());
  return device_->resume({}, cancel ? *cancel : never, [this] { return commit(); }, replaced);
}

std::shared_ptr<TestBio> Rig::submit(std::shared_ptr<TestBio> bio) {
  bios_.push_back(bio);
  device_->submit(*bio);
  return bio;
}

std::shared_ptr<TestBio> Rig::read(uint64_t at, uint64_t count) {
  return submit(std::make_shared<TestBio>(Op::Read, Sectors{at}, Sectors{count}));
}

std::shared_ptr<TestBio> Rig::write(uint64_t at, uint64_t count, char tag, uint8_t flags) {
  auto bio = std::make_shared<TestBio>(Op::Write, Sectors{at}, Sectors{count}, flags);
  bio->fill(tag);
  return submit(bio);
}

std::shared_ptr<TestBio> Rig::send(Op op, uint64_t at, uint64_t count) {
  return submit(std::make_shared<TestBio>(op, Sectors{at}, Sectors{count}));
}

}  // namespace dmfs::test
