// SPDX-License-Identifier: Apache-2.0
// THE extension interface. A target maps a stretch of a device onto something below. To write
// one: read targets/linear.cc, then man dmfs-hacking(7) once it exists.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/args.h"
#include "core/base/clock.h"
#include "core/base/registry.h"
#include "core/base/result.h"
#include "core/base/units.h"
#include "core/dm/device_store.h"
#include "core/dm/held.h"
#include "core/dm/path_report.h"
#include "core/io/backing_file.h"
#include "core/io/bio.h"

namespace dmfs {

// What map() did with a clone.
enum class MapResult {
  Submitted,  // the target keeps it and completes it later (or has completed it already)
  Remapped,   // clone.remap() was called; the core sends it to the backing file
  Requeue,    // push the original bio back (only within a noflush suspend; EIO otherwise)
  Kill,       // EIO, with what clone.sense says
};

// What end_io() answers when a remapped clone has ended.
enum class EndIo {
  Done,        // the clone is finished with the (possibly changed) status
  Incomplete,  // the target has taken the clone back and will complete it again
  Requeue,     // as MapResult::Requeue
};

// A target that has kept a clone (Submitted, Incomplete) may complete it with this: it is as if
// map() had answered Requeue. end_io() is not asked.
inline constexpr int kRequeue = -1;

// What the core has to know before it sends a target anything. Asked for once, when the table is
// complete; must not change after.
struct IoLimits {
  Sectors max_io_len{0};       // reads and writes are split at multiples of this; 0: no limit
  uint16_t num_flush_bios = 0; // how many clones of a flush to send (each with its slot); 0: none
  // Discards and write-zeroes are not split at max_io_len. The target gets this many clones, each
  // with the whole range inside the target and its slot. 0: EOPNOTSUPP.
  uint16_t num_discard_bios = 0;
  uint16_t num_write_zeroes_bios = 0;
};

// What tells whether two words name one device.
struct DeviceIdentity {
  std::string path;           // absolute, of what is no mapped device
  int64_t volume_minor = -1;  // of a mapped device
  FileId id;
};

// A target's view of the table that holds it. One per target, lives as long as the target.
class TargetContext {
 public:
  virtual ~TargetContext() = default;

  virtual Sectors begin() const = 0;   // first sector of the target on the device
  virtual Sectors length() const = 0;
  virtual bool read_only() const = 0;  // the table was loaded read-only
  // The position of a bio within the target.
  Sectors offset(const Bio& bio) const { return bio.sector - begin(); }

  // Only while the target is created: opens what a word of the table line names (a path, a mapped
  // device, MAJOR:MINOR). The table owns the result and hands out the same one for the same file.
  // [start, start + length) is checked against its size after the target's create() has returned
  // ("too small for target"). Errors: ENOENT, ENOTBLK, EACCES, EISDIR, ELOOP... with a sentence.
  virtual Result<BackingFile*> open(const std::string& word, Sectors start, Sectors length) = 0;
  // As open(), save that another name of a file that is open already is a device of its own: one
  // path of several to it.
  virtual Result<BackingFile*> open_path(const std::string& word, Sectors start, Sectors length) {
    return open(word, start, length);
  }

  // What a word, of a message say, names now, without opening it. Any thread; may block as open()
  // may, so no lock is held.
  virtual Result<DeviceIdentity> identify(const std::string& word) = 0;

  // Only while the target is created: the text of the script of that name: the one that this table
  // was loaded with, if it comes from the store, or what the handler path has now. It is kept with
  // the table. ENOENT: there is none.
  virtual Result<std::string> read_script(const std::string& name) {
    return Error{ENOENT, "no script '" + name + "'"};
  }

  // A line for whoever runs the daemon. Any thread, no lock held.
  virtual void log(const std::string& text) { (void)text; }

  // Raises the device's event number and wakes `wait`. Any thread, any time, no lock needed.
  virtual void raise_event() = 0;

  // What time it is, and work for later. Any thread. A target's destructor makes sure that nothing
  // of it still runs or will (Clock::cancel_and_wait).
  virtual Clock& clock() = 0;

  // From the presuspend hooks of a noflush suspend on until nothing is in flight or it has been
  // given up: what is requeued now comes back when the device is resumed, or at once if it was
  // given up. Any thread; the caller may hold its own locks.
  virtual bool noflush_suspending() const = 0;

  // What was saved last, before a restart or by a table that this one has taken over from; empty if
  // nothing was. Any thread.
  virtual std::string saved_state() const = 0;
  // Makes `state` durable: a daemon that dies after this has returned ok starts with it. Not before
  // resume(). Blocks for a commit of the store: not on a thread of I/O or of a clock, nor in a hook.
  virtual Status save_state(const std::string& state) = 0;

  // What may be kept for long, in all (see KeptBios). Outlives the target.
  virtual HeldBudget& held_budget() = 0;
};

// The kernel's kinds of mapped devices, which the first table of a device settles. They differ here in
// nothing but that.
enum class TableKind : uint8_t {
  Any = 0,      // goes with both
  Bio = 1,      // "bio-based"
  Request = 2,  // "request-based"
};

// What a target leaves to the tables that come after its own, when that is gone or going.
class Heirloom {
 public:
  virtual ~Heirloom() = default;
};

class Target {
 public:
  virtual ~Target() = default;

  // Any thread; many at a time; never blocks. `bio.sector` still counts from the start of the
  // mapped device. A flush, discard or write-zeroes clone carries its slot.
  virtual MapResult map(Bio& bio) = 0;
  // A clone that map() remapped, or took and completed, has ended with `error` (and bio.sense),
  // which may be changed. Any thread.
  virtual EndIo end_io(Bio& bio, int& error) { (void)bio; (void)error; return EndIo::Done; }

  // For targets that keep clones for long: completes those that `cancel` wants with its error, and
  // returns how many. Any thread, also during hooks. Who is about to keep a clone looks at
  // Bio::cancelled() first, under the same lock. Nobody holds a lock while a clone completes.
  virtual size_t cancel(const BioCancel& cancel) { (void)cancel; return 0; }

  // The parameters as `dmctl table` prints them; create() accepts them again.
  virtual std::string table_line() const = 0;
  // What `dmctl status` prints behind "<start> <length> <type> ".
  virtual std::string status_line() const { return {}; }
  // EINVAL with a sentence by default, as the kernel. Any thread, many at a time, also while the
  // device is being suspended or this table replaced; no lock held.
  virtual Result<std::string> message(std::span<const std::string> words);

  virtual IoLimits limits() const { return {}; }
  virtual TableKind table_kind() const { return TableKind::Bio; }
  // Whether discards go through; asked when one arrives.
  virtual bool supports_discard() const { return limits().num_discard_bios > 0; }

  // For the same targets: what they keep now, and the message (or other act) that frees it, in a
  // few words.
  virtual void list_held(HeldList& list) const { (void)list; }
  virtual std::string freed_by() const { return {}; }

  // The hooks of suspend and resume, in the kernel's order; called from the thread of the
  // command, one at a time for a device, no lock held that map(), message() or cancel() need. map()
  // is still called after presuspend(). A target that keeps clones ends them in presuspend(), at
  // the latest what it keeps for ever: with kRequeue if noflush_suspending(), or the suspend waits.
  virtual void presuspend() {}
  virtual void presuspend_undo() {}
  virtual void postsuspend() {}
  virtual Status preresume() { return {}; }
  virtual void resume() {}

  // The table is about to be replaced: what its successor should know, if that is more than what was
  // saved. After postsuspend().
  virtual std::optional<std::string> hand_over() const { return std::nullopt; }
  // The table is about to replace another one of the device, of which these hand over a state (see
  // TargetSpec::state). Before preresume(). The answer becomes the state of this target.
  virtual std::optional<std::string> take_over(std::span<const TargetSpec> before) {
    (void)before;
    return std::nullopt;
  }
  // The same in memory, whether or not anything was saved: what the next table of the device has to
  // know of this one, asked when nothing is in flight any more; and what such tables have left.
  // True: this target sees to it, and leaves it in turn. What no target takes waits for the table
  // after. Both before preresume().
  virtual std::shared_ptr<Heirloom> leaves() { return nullptr; }
  virtual bool inherits(const std::shared_ptr<Heirloom>& heirloom) {
    (void)heirloom;
    return false;
  }
  // Whether its destructor may have to wait for a file that does not answer: nobody should wait for
  // that destructor then. Asked when the table has been replaced.
  virtual bool lingers() const { return false; }

  // Of a target that has paths: how they are. Any thread, no lock held.
  virtual std::optional<PathsReport> paths_report() const { return std::nullopt; }

  // What went wrong in the target for good, in a sentence; empty while all is well.
  virtual std::string fault() const { return {}; }

  // Data or hole at `offset` within the target, at most to the target's end.
  virtual Extent extent_at(Sectors offset, Sectors length) const { (void)offset; return {true, length}; }
  // How much of the target is allocated below.
  virtual Sectors allocated(Sectors length) const { return length; }
};

struct TargetVersion {
  unsigned major, minor, patch;
};

enum TargetTraits : uint8_t {
  kTargetImmutable = 1,  // stands alone in its table, or with its own; only the same may replace it
  kTargetWildcard = 2,   // a table with one may replace any
};

struct TargetType {
  std::string_view name;
  TargetVersion version;
  // Builds a target from the words behind its type. Thread of the command; may block on opens.
  Result<std::unique_ptr<Target>> (*create)(TargetContext& context,
                                            std::span<const std::string> args);
  uint8_t traits = 0;  // TargetTraits
};

using TargetRegistry = Registry<TargetType>;

}  // namespace dmfs
