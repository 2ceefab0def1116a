// SPDX-License-Identifier: Apache-2.0
// multipath: several ways to one device, in groups of which one is used. A way that fails is left,
// and what it has failed goes another one; when there is none, it fails or waits.
//
// Lock order: mutex_ > a selector's. Neither is held while a bio is submitted or completes, a
// handler is called or an event is raised.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/base/alarm.h"
#include "core/base/mutex.h"
#include "core/dm/target.h"
#include "core/targets/multipath/hw_handler.h"
#include "core/targets/multipath/multipath_args.h"
#include "core/targets/multipath/path_checker.h"
#include "core/targets/multipath/path_selector.h"
#include "core/targets/multipath/timed_path.h"

namespace dmfs {

class Multipath final : public Target, private HwHost, private PathChecker::Host {
 public:
  static Result<std::unique_ptr<Target>> create(TargetContext& context,
                                                std::span<const std::string> words);
  ~Multipath() override;

  // I/O (multipath.cc)
  MapResult map(Bio& bio) override;
  EndIo end_io(Bio& bio, int& error) override;
  size_t cancel(const BioCancel& cancel) override;
  void list_held(HeldList& list) const override;
  std::string freed_by() const override;
  void presuspend() override;
  void presuspend_undo() override { resume(); }
  void postsuspend() override;
  void resume() override;
  std::shared_ptr<Heirloom> leaves() override { return timed_ ? timed_->share_fence() : nullptr; }
  bool inherits(const std::shared_ptr<Heirloom>& heirloom) override;
  Status preresume() override;
  bool lingers() const override { 
    return (timed_ && timed_->any_late()) || (checker_ && checker_->any_late());
  }

  // What is asked of it (multipath_control.cc)
  std::string table_line() const override;
  std::string status_line() const override;
  Result<std::string> message(std::span<const std::string> words) override;
  std::optional<PathsReport> paths_report() const override;
  std::string fault() const override { return handler_ ? handler_->fault() : std::string(); }
  TableKind table_kind() const override;
  IoLimits limits() const override {
    return {.max_io_len = timed_ ? TimedPaths::kMaxIo : Sectors{0},
            .num_flush_bios = 1,
            .num_discard_bios = 1,
            .num_write_zeroes_bios = 1};
  }
  bool supports_discard() const override;
  Extent extent_at(Sectors offset, Sectors length) const override;
  Sectors allocated(Sectors length) const override;

 private:
  struct Path;
  struct Group {
    unsigned number = 0;  // from 1
    const PathSelectorType* type = nullptr;
    std::unique_ptr<PathSelector> selector;
    std::vector<Path*> paths;
    bool bypassed = false;  // guarded by mutex_
  };
  struct Path final : HwPath {
    Path(unsigned n, Group& g, unsigned i, BackingFile& d)
        : number_in_table(n), home(g), counts(g.type->counts), index(i), file(d) {}
    unsigned number() const override { return number_in_table; }
    unsigned group() const override { return home.number; }
    std::string name() const override { return file.name(); }
    bool active() const override { return works.load(std::memory_order_relaxed); }
    BackingFile& device() override { return file; }

    const unsigned number_in_table;  // from 1
    Group& home;
    const bool counts;     // its selector wants start_io and end_io
    const unsigned index;  // in the group
    BackingFile& file;
    BackingFile* way = &file;  // where I/O is sent: the file, or what keeps an eye on it
    std::atomic<bool> works{true};  // changed under mutex_
    std::atomic<uint32_t> in_flight{0};
    std::atomic<uint64_t> errors{0};
    std::atomic<int64_t> latency_ns{0};  // moving average of some of the I/O that went well
    uint32_t fail_count = 0;        // guarded by mutex_
  };
  // A bio's mark: the number of its path, 0 when it has none, and above it how often it was sent
  // again without a path having failed.
  static constexpr uint32_t kPathMask = (1u << 24) - 1;
  static constexpr unsigned kMaxRepeats = 60;
  // Beside HwFlags: the bio goes another path, and nothing is said of the one that it had.
  static constexpr unsigned kMoveOn = 1u << 31;
  enum class Fate { Done, Requeue, Kept };

  Multipath(TargetContext& context, MultipathFeatures features);
  // Construction (multipath_create.cc)
  Status parse_handler(ArgReader& args, std::string& name, std::vector<std::string>& words);
  Status attach_handler(const std::string& name, std::span<const std::string> args);
  Status parse_group(ArgReader& args);
  Status parse_path(ArgReader& args, Group& group, size_t arg_count);

  // HwHost
  std::span<HwPath* const> paths() override { return handler_paths_; }
  void pg_init_complete(HwPath& path, unsigned flags) override;
  Clock& clock() override { return context_.clock(); }
  void log(const char* text) override { context_.log(text); }

  // PathChecker::Host (multipath_checks.cc)
  void checked(unsigned path, bool fit, bool works) override;
  Status start_checker();
  // The path works again: whether its group is to be used, now or later.
  bool fail_back(const Path& path, bool first_of_group) DM_REQUIRES(mutex_);
  bool switch_back() DM_REQUIRES(mutex_);
  bool group_works(const Group& group) const DM_REQUIRES(mutex_);

  // I/O
  MapResult map_slowly(Bio& bio);
  void aim(Bio& bio, Path& path);
  void unaim(Bio& bio) const;
  // What becomes of a bio that a path has failed, by what is said of the error. Kept: the caller
  // calls run_work() if `work` is set, and touches nothing else.
  Fate settle(Bio& bio, Path& path, unsigned flags, int& error, bool& work);
  // Takes back what was aimed and has not been sent.
  void abandon(Bio& bio);
  // The path has ended it, or will not be given it.
  void leave_path(Path& path, const Bio& bio, bool well);
  EndIo timed_end(Bio& bio, Path& path, int& error);
  EndIo go_on(Bio& bio, Path& path, unsigned flags, int& error);
  void ask_handler(Bio& bio, Path& path, int error);
  void decided(uint64_t question, Path& path, unsigned flags);

  // Choosing a path, as the kernel does
  Path* choose(uint64_t bytes) DM_REQUIRES(mutex_);
  Path* choose_in(Group& group, uint64_t bytes) DM_REQUIRES(mutex_);
  Path* path_for(const Bio& bio) DM_REQUIRES(mutex_);
  void leave_group() DM_REQUIRES(mutex_);
  void note_ready() DM_REQUIRES(mutex_);
  bool must_wait() const DM_REQUIRES(mutex_) { return queue_io_ || pg_init_required_; }

  // Changes of state; true: there is an event to raise
  bool fail_path(Path& path) DM_REQUIRES(mutex_);
  bool reinstate_path(Path& path) DM_REQUIRES(mutex_);
  void set_queueing(bool on, bool save) DM_REQUIRES(mutex_);
  void watch_no_path() DM_REQUIRES(mutex_);
  Result<std::vector<Path*>> find_paths(const std::string& word) DM_EXCLUDES(mutex_);
  Result<std::string> set_group(const std::string& what, const std::string& number);
  Result<std::string> switch_group(const std::string& number);

  // What has to be done with no lock held is done by one thread at a time, who has called
  // begin_work(): it sends what waits and can go, and starts activations, until there is nothing.
  bool begin_work() DM_REQUIRES(mutex_);
  void run_work() DM_EXCLUDES(mutex_);
  void take_work(BioList& send, BioList& requeue, BioList& fail) DM_REQUIRES(mutex_);
  Path* take_activation() DM_REQUIRES(mutex_);
  void work_now() DM_EXCLUDES(mutex_);
  void due();

  // Constant once the table is built.
  TargetContext& context_;
  const MultipathFeatures features_;
  std::vector<std::unique_ptr<Group>> groups_;
  std::vector<std::unique_ptr<Path>> paths_;
  std::vector<HwPath*> handler_paths_;
  HwHandlerRegistry::Use handler_use_;
  std::unique_ptr<HwHandler> handler_;
  std::unique_ptr<TimedPaths> timed_;  // with path_timeout
  // Without it: the fences of older tables. Of the thread of the command.
  std::vector<std::shared_ptr<PathFence>> unminded_;
  std::unique_ptr<PathChecker> checker_;

  // Own synchronisation.
  // The current group, when there is nothing in the way of its use: spares most I/O the lock.
  std::atomic<Group*> ready_{nullptr};

  mutable Mutex mutex_;
  CondVar idle_;
  Group* current_ DM_GUARDED_BY(mutex_) = nullptr;
  Path* current_path_ DM_GUARDED_BY(mutex_) = nullptr;  // the last one that was chosen
  Group* next_ DM_GUARDED_BY(mutex_) = nullptr;         // to be used first
  size_t valid_paths_ DM_GUARDED_BY(mutex_) = 0;
  bool queue_if_no_path_ DM_GUARDED_BY(mutex_) = false;
  bool saved_queueing_ DM_GUARDED_BY(mutex_) = false;  // what a resume brings back
  bool timed_out_ DM_GUARDED_BY(mutex_) = false;       // what a path that is back brings back
  bool suspended_ DM_GUARDED_BY(mutex_) = true;
  bool closing_ DM_GUARDED_BY(mutex_) = false;

  bool queue_io_ DM_GUARDED_BY(mutex_) = true;  // until the group is ready
  bool pg_init_required_ DM_GUARDED_BY(mutex_) = false;
  bool pg_init_delay_ DM_GUARDED_BY(mutex_) = false;
  unsigned pg_init_count_ DM_GUARDED_BY(mutex_) = 0;
  Path* activating_ DM_GUARDED_BY(mutex_) = nullptr;  // whose pg_init is under way

  KeptBios queued_ DM_GUARDED_BY(mutex_);    // not aimed
  KeptBios repeated_ DM_GUARDED_BY(mutex_);  // to be sent once more when repeat_at_ has come
  std::map<uint64_t, Bio*> asked_ DM_GUARDED_BY(mutex_);  // the handler has to say what is wrong
  uint64_t last_question_ DM_GUARDED_BY(mutex_) = 0;
  bool working_ DM_GUARDED_BY(mutex_) = false;
  std::optional<Clock::Time> repeat_at_ DM_GUARDED_BY(mutex_);
  std::optional<Clock::Time> no_path_at_ DM_GUARDED_BY(mutex_);
  std::optional<Clock::Time> activate_at_ DM_GUARDED_BY(mutex_);
  std::optional<Clock::Time> fail_back_at_ DM_GUARDED_BY(mutex_);

  // Own synchronisation.
  Alarm alarm_;  // last: its work uses all that stands above
};

}  // namespace dmfs
