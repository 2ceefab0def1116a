// SPDX-License-Identifier: Apache-2.0
// A table: targets that lie end to end from sector 0. Built whole or not at all, never changed
// after; destroying it closes what it opened.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/base/result.h"
#include "core/dm/device_store.h"
#include "core/dm/target.h"

namespace dmfs {

// Opens what a word of a table line names. Implemented by DeviceResolver, and by tests.
class DeviceOpener {
 public:
  virtual ~DeviceOpener() = default;
  // The same file opened twice gives two objects; the table keeps one of each word.
  virtual Result<std::unique_ptr<BackingFile>> open(const std::string& word, bool read_only) = 0;
};

class Table {
 public:
  struct Options {
    const TargetRegistry& registry;
    DeviceOpener& opener;                   // used only while the table is built
    Clock& clock;                           // for the life of the table
    std::function<void()> raise_event = {}; // any thread, for the life of the table
    std::function<bool()> noflush_suspending = {};  // the same
    // Makes the state of the target at this place of the live table durable. The same; it blocks.
    std::function<Status(uint64_t position, const std::string&)> save_state = {};
    HeldBudget* budget = nullptr;           // the same; nullptr: one for the table
    std::function<Result<DeviceIdentity>(const std::string&)> identify = {};  // the same
    std::function<void(const std::string&)> log = {};                         // the same
    // Reads a script by name; used only while the table is built. ENOENT: there is none.
    std::function<Result<std::string>(const std::string&)> read_script = {};
  };

  // One target and where it lies.
  struct Entry {
    Sectors begin;
    Sectors length;
    IoLimits limits;
    std::unique_ptr<Target> target;
    const TargetType* type = nullptr;
    Sectors end() const { return begin + length; }
  };

  // Thread of the command; may block on opens. Errors as the kernel's: "zero-length target",
  // "too large device", "<type>: unknown target type", "<type>: Gap in table", those of the
  // target's create(), "<file> too small for target: ...".
  static Result<std::unique_ptr<Table>> build(const TableSpec& spec, const Options& options);
  // A table in the place of one that could not be built: it prints as `spec`, has its size, and
  // fails every I/O. `reason` says why.
  static std::unique_ptr<Table> unavailable(const TableSpec& spec, std::string reason);

  ~Table();
  Table(const Table&) = delete;
  Table& operator=(const Table&) = delete;

  Sectors size() const { return size_; }
  bool read_only() const { return read_only_; }
  bool ordered() const { return ordered_; }
  const std::vector<Entry>& entries() const { return entries_; }
  // The target that holds `sector`, which lies inside the table. O(log n).
  const Entry& find(Sectors sector) const;
  // Why this stands in the place of a table; empty for a real one.
  const std::string& unavailable_reason() const { return reason_; }

  // The type of which all targets are, if it is one that nothing else may replace.
  const TargetType* immutable_type() const;
  // Whether it may replace an immutable type all the same.
  bool has_wildcard() const;
  TableKind kind() const;

  // The targets that want flushes.
  const std::vector<const Entry*>& flush_entries() const { return flush_entries_; }

  // This takes the place of `before`: gives the targets what those of `before` have saved. Thread of
  // the command, before any hook.
  void take_over(const Table& before);

  // What was opened, each once, in the order of first use.
  const std::vector<BackingFile*>& devices() const { return device_list_; }

  // TABLE: what `table` prints and what the store keeps.
  TableSpec spec() const;
  // STATUS.
  TableSpec status() const;

  Extent extent_at(Sectors sector) const;  // sector < size()
  Sectors allocated() const;
  // Whether destroying it may take for ever (see Target::lingers).
  bool lingers() const;
  // The first fault of a file below or of a target, in a sentence; empty while all is well.
  std::string fault() const;

 private:
  class Context;
  class Unavailable;
  Table();
  void finish();

  // constant after construction
  std::function<void()> raise_event_;
  std::function<bool()> noflush_suspending_;
  std::function<Status(uint64_t position, const std::string&)> save_state_;
  HeldBudget own_budget_;
  HeldBudget* budget_ = &own_budget_;
  std::function<Result<DeviceIdentity>(const std::string&)> identify_;
  std::function<void(const std::string&)> log_;
  std::vector<std::unique_ptr<BackingFile>> devices_;
  std::vector<BackingFile*> device_list_;
  std::vector<std::unique_ptr<Context>> contexts_;
  std::vector<Entry> entries_;    // destroyed before contexts and devices (see ~Table)
  std::vector<uint64_t> ends_;    // entries_[i].end(), apart so that a search touches few lines
  std::vector<const Entry*> flush_entries_;
  std::vector<std::shared_ptr<Heirloom>> heirlooms_;  // that no target has taken; shared with those
                                                      // who left them; of take_over()
  std::vector<TargetSpec> unavailable_;  // what it stands for, target by target
  Sectors size_;
  bool read_only_ = false;
  bool ordered_ = false;
  std::string reason_;
};

}  // namespace dmfs
