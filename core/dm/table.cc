// SPDX-License-Identifier: Apache-2.0
#include "core/dm/table.h"

#include <algorithm>
#include <limits>

#include <fmt/format.h>

namespace dmfs {
namespace {

// stat() on a volume walks its targets; past this many it answers from the first ones.
constexpr size_t kMaxEntriesCounted = 1024;

}  // namespace

class Table::Context final : public TargetContext {
 public:
  Context(Table& table, uint64_t position, const TargetSpec& line, Clock& clock)
      : table_(table),
        position_(position),
        begin_(line.start),
        length_(line.length),
        clock_(clock),
        state_(line.state) {}

  Sectors begin() const override { return begin_; }
  Sectors length() const override { return length_; }
  bool read_only() const override { return table_.read_only_; }
  void raise_event() override {
    if (table_.raise_event_) table_.raise_event_();
  }
  Clock& clock() override { return clock_; }
  bool noflush_suspending() const override {
    return table_.noflush_suspending_ && table_.noflush_suspending_();
  }
  HeldBudget& held_budget() override { return *table_.budget_; }

  std::string saved_state() const override {
    MutexLock lock(state_mutex_);
    return state_;
  }
  Status save_state(const std::string& state) override {
    MutexLock save(save_mutex_);
    {
      // Seen by whoever stores the whole table from here on, before or after our own commit.
      MutexLock lock(state_mutex_);
      state_ = state;
    }
    return table_.save_state_ ? table_.save_state_(position_, state) : Status();
  }
  void set_state(std::string state) {
    MutexLock lock(state_mutex_);
    state_ = std::move(state);
  }

  Result<DeviceIdentity> identify(const std::string& word) override {
    if (table_.identify_) return table_.identify_(word);
    return Error{ENOENT, fmt::format("'{}': nothing is known of devices here", word)};
  }

  Result<BackingFile*> open(const std::string& word, Sectors start, Sectors length) override {
    return open(word, start, length, Alias::Same);
  }
  Result<BackingFile*> open_path(const std::string& word, Sectors start, Sectors length) override {
    return open(word, start, length, Alias::Own);
  }

 private:
  // What another name of a file is.
  enum class Alias { Same, Own };

  Result<BackingFile*> open(const std::string& word, Sectors start, Sectors length, Alias alias) {
    if (!opener_) return Error{EINVAL, "a file opened after its target was created"};
    auto known = opened_->find(word);
    BackingFile* file = known == opened_->end() ? nullptr : known->second;
    if (!file) {
      DM_TRY(auto opened, opener_->open(word, table_.read_only_));
      file = opened.get();
      // The same file by another name is the same device: it is kept once.
      FileId id = file->id();
      auto [same, is_new] = by_id_->emplace(id, file);
      BackingFile* known_as = is_new || id == FileId{} ? nullptr : same->second;
      if (known_as && alias == Alias::Own) known_as = find_alias(id, file->name());
      if (known_as) {
        file = known_as;
      } else {
        table_.devices_.push_back(std::move(opened));
        table_.device_list_.push_back(file);
      }
      opened_->emplace(word, file);
    }
    areas_.push_back({file, start, length});
    return file;
  }
  BackingFile* find_alias(FileId id, const std::string& name) const {
    for (BackingFile* file : table_.device_list_) {
      if (file->id() == id && file->name() == name) return file;
    }
    return nullptr;
  }

 public:
  void log(const std::string& text) override {
    if (table_.log_) table_.log_(text);
  }

  Result<std::string> read_script(const std::string& name) override {
    if (!opener_) return Error{EINVAL, "a script read after its target was created"};
    for (const Attachment& stored : *stored_) {
      if (stored.name != name) continue;
      attachments_.push_back(stored);
      return stored.text;
    }
    if (!*read_script_) return TargetContext::read_script(name);
    DM_TRY(std::string text, (*read_script_)(name));
    attachments_.push_back({name, text});
    return text;
  }
  // What was read, in order.
  const std::vector<Attachment>& attachments() const { return attachments_; }
  void begin_scripts(const std::vector<Attachment>& stored,
                     const std::function<Result<std::string>(const std::string&)>& read) {
    stored_ = &stored;
    read_script_ = &read;
  }

  // While the target is created, open() works.
  void begin_create(DeviceOpener& opener, std::map<std::string, BackingFile*>& opened,
                    std::map<FileId, BackingFile*>& by_id) {
    opener_ = &opener;
    opened_ = &opened;
    by_id_ = &by_id;
  }
  // Checks what was opened against its size; the kernel does this last, and so it is no error of
  // the target's.
  Status end_create() {
    opener_ = nullptr;
    opened_ = nullptr;
    by_id_ = nullptr;
    for (const Area& area : areas_) {
      Sectors size = area.file->size();
      if (area.start > size || area.length > size - area.start) {
        return Error{EINVAL, fmt::format("'{}' too small for target: start={}, len={}, dev_size={}",
                                         area.file->name(), area.start.n, area.length.n, size.n)};
      }
    }
    areas_ = {};
    return {};
  }

 private:
  struct Area {
    BackingFile* file;
    Sectors start;
    Sectors length;
  };

  Table& table_;
  const uint64_t position_;
  const Sectors begin_;
  const Sectors length_;
  Clock& clock_;
  Mutex save_mutex_;           // one save at a time; held across the commit
  mutable Mutex state_mutex_;  // leaf
  std::string state_ DM_GUARDED_BY(state_mutex_);
  DeviceOpener* opener_ = nullptr;
  std::map<std::string, BackingFile*>* opened_ = nullptr;
  std::map<FileId, BackingFile*>* by_id_ = nullptr;
  std::vector<Area> areas_;
  const std::vector<Attachment>* stored_ = nullptr;
  const std::function<Result<std::string>(const std::string&)>* read_script_ = nullptr;
  std::vector<Attachment> attachments_;
};

// Stands where a target should be whose table could not be built: prints its line, fails its I/O.
class Table::Unavailable final : public Target {
 public:
  explicit Unavailable(std::string params) : params_(std::move(params)) {}
  MapResult map(Bio&) override { return MapResult::Kill; }
  std::string table_line() const override { return params_; }
  Sectors allocated(Sectors) const override { return {}; }

 private:
  const std::string params_;
};

Table::Table() = default;

Table::~Table() {
  // Targets may still name their files and contexts while they go.
  entries_.clear();
  contexts_.clear();
}

Result<std::unique_ptr<Table>> Table::build(const TableSpec& spec, const Options& options) {
  std::unique_ptr<Table> table(new Table);
  table->read_only_ = spec.read_only;
  table->ordered_ = spec.ordered;
  table->raise_event_ = options.raise_event;
  table->noflush_suspending_ = options.noflush_suspending;
  table->save_state_ = options.save_state;
  if (options.budget) table->budget_ = options.budget;
  table->identify_ = options.identify;
  table->log_ = options.log;
  table->entries_.reserve(spec.targets.size());
  table->contexts_.reserve(spec.targets.size());
  std::map<std::string, BackingFile*> opened;
  std::map<FileId, BackingFile*> by_id;
  Sectors at;
  for (const TargetSpec& line : spec.targets) {
    if (line.length.n == 0) return Error{EINVAL, "zero-length target"};
    if (line.start > kMaxDeviceSectors || line.length > kMaxDeviceSectors - line.start) {
      return Error{EINVAL, fmt::format("too large device: start={}, len={}", line.start.n,
                                       line.length.n)};
    }
    const TargetType* type = options.registry.find(line.type);
    if (!type) return Error{EINVAL, fmt::format("{}: unknown target type", line.type)};
    if (line.start != at) {
      return Error{EINVAL, fmt::format("{}: Gap in table: the target starts at {}, expected {}",
                                       line.type, line.start.n, at.n)};
    }
    if (!table->entries_.empty() && type != table->entries_[0].type &&
        ((type->traits | table->entries_[0].type->traits) & kTargetImmutable)) {
      return Error{EINVAL, fmt::format("{}: immutable target type cannot be mixed with other target "
                                       "types", line.type)};
    }
    DM_TRY(auto words, split_args(line.params));
    auto context = std::make_unique<Context>(*table, table->entries_.size(), line, options.clock);
    context->begin_create(options.opener, opened, by_id);
    context->begin_scripts(line.attachments, options.read_script);
    DM_TRY(auto target, type->create(*context, words));
    DM_TRY_STATUS(context->end_create());
    IoLimits limits = target->limits();
    table->contexts_.push_back(std::move(context));
    table->entries_.push_back({line.start, line.length, limits, std::move(target), type});
    at += line.length;
  }
  table->finish();
  return table;
}

std::unique_ptr<Table> Table::unavailable(const TableSpec& spec, std::string reason) {
  std::unique_ptr<Table> table(new Table);
  table->read_only_ = spec.read_only;
  table->ordered_ = spec.ordered;
  table->reason_ = std::move(reason);
  for (const TargetSpec& line : spec.targets) {
    table->entries_.push_back(
        {line.start, line.length, {}, std::make_unique<Unavailable>(line.params), nullptr});
    table->unavailable_.push_back(line);
  }
  table->finish();
  return table;
}

void Table::finish() {
  ends_.reserve(entries_.size());
  for (const Entry& entry : entries_) {
    ends_.push_back(entry.end().n);
    if (entry.limits.num_flush_bios > 0) flush_entries_.push_back(&entry);
  }
  size_ = entries_.empty() ? Sectors{} : entries_.back().end();
}

const Table::Entry& Table::find(Sectors sector) const {
  if (ends_.size() == 1) return entries_[0];
  // The first target that ends behind the sector; written so that the compiler needs no branch.
  const uint64_t* base = ends_.data();
  size_t count = ends_.size();
  while (count > 1) {
    size_t half = count / 2;
    base += base[half - 1] <= sector.n ? half : 0;
    count -= half;
  }
  return entries_[static_cast<size_t>(base - ends_.data())];
}

const TargetType* Table::immutable_type() const {
  const TargetType* first = entries_.empty() ? nullptr : entries_[0].type;
  return first && (first->traits & kTargetImmutable) ? first : nullptr;
}

bool Table::has_wildcard() const {
  return std::any_of(entries_.begin(), entries_.end(), [](const Entry& entry) {
    return entry.type && (entry.type->traits & kTargetWildcard);
  });
}

TableKind Table::kind() const {
  TableKind kind = TableKind::Any;
  for (const Entry& entry : entries_) {
    if (entry.type) kind = std::max(kind, entry.target->table_kind());
  }
  return kind;
}

TableSpec Table::spec() const {
  TableSpec spec;
  spec.read_only = read_only_;
  spec.ordered = ordered_;
  spec.targets.reserve(entries_.size());
  for (size_t i = 0; i < entries_.size(); ++i) {
    const Entry& entry = entries_[i];
    spec.targets.push_back({entry.begin, entry.length,
                            entry.type ? std::string(entry.type->name) : unavailable_[i].type,
                            entry.target->table_line(),
                            entry.type ? contexts_[i]->saved_state() : unavailable_[i].state,
                            entry.type ? contexts_[i]->attachments() : unavailable_[i].attachments});
  }
  return spec;
}

TableSpec Table::status() const {
  TableSpec spec;
  spec.read_only = read_only_;
  spec.ordered = ordered_;
  spec.targets.reserve(entries_.size());
  for (size_t i = 0; i < entries_.size(); ++i) {
    const Entry& entry = entries_[i];
    spec.targets.push_back({entry.begin, entry.length,
                            entry.type ? std::string(entry.type->name) : unavailable_[i].type,
                            entry.target->status_line()});
  }
  return spec;
}

void Table::take_over(const Table& before) {
  std::vector<std::shared_ptr<Heirloom>> left = before.heirlooms_;
  for (const Entry& entry : before.entries_) {
    if (auto heirloom = entry.target->leaves()) left.push_back(std::move(heirloom));
  }
  heirlooms_.clear();
  for (auto& heirloom : left) {
    bool taken = false;
    for (const Entry& entry : entries_) taken |= entry.target->inherits(heirloom);
    if (!taken) heirlooms_.push_back(std::move(heirloom));
  }
  std::vector<TargetSpec> saved = before.spec().targets;
  for (size_t i = 0; i < saved.size(); ++i) {
    if (auto state = before.entries_[i].target->hand_over()) saved[i].state = *std::move(state);
  }
  std::erase_if(saved, [](const TargetSpec& target) { return target.state.empty(); });
  if (saved.empty() || !reason_.empty()) return;
  for (size_t i = 0; i < entries_.size(); ++i) {
    if (auto state = entries_[i].target->take_over(saved)) contexts_[i]->set_state(*state);
  }
}

Extent Table::extent_at(Sectors sector) const {
  const Entry& entry = find(sector);
  Sectors offset = sector - entry.begin;
  return entry.target->extent_at(offset, entry.length - offset);
}

Sectors Table::allocated() const {
  Sectors sum;
  size_t counted = std::min(entries_.size(), kMaxEntriesCounted);
  for (size_t i = 0; i < counted; ++i) sum += entries_[i].target->allocated(entries_[i].length);
  if (counted == entries_.size()) return sum;
  double share = static_cast<double>(entries_[counted].begin.n) / static_cast<double>(size_.n);
  return {std::min(size_.n, static_cast<uint64_t>(static_cast<double>(sum.n) / share))};
}

bool Table::lingers() const {
  return std::any_of(entries_.begin(), entries_.end(),
                     [](const Entry& entry) { return entry.target->lingers(); });
}

std::string Table::fault() const {
  for (const BackingFile* device : device_list_) {
    if (std::string fault = device->fault(); !fault.empty()) return fault;
  }
  for (const Entry& entry : entries_) {
    if (std::string fault = entry.target->fault(); !fault.empty()) return fault;
  }
  return {};
}

}  // namespace dmfs
