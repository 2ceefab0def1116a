// SPDX-License-Identifier: Apache-2.0
// Asks paths now and then whether they work, one that hangs too, and says when one that has failed
// is fit for use again.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/base/alarm.h"
#include "core/base/mutex.h"
#include "core/base/result.h"
#include "core/io/io_client.h"

namespace dmfs {

class PathChecker {
 public:
  // A path that has failed `errors` times within `window` is marginal: it is fit for use when it
  // has answered for as long as `good`, and not before.
  struct Marginal {
    uint32_t errors = 1;
    std::chrono::seconds window{0}, good{0};
  };
  struct Options {
    std::chrono::seconds interval{0};
    Clock::Duration timeout{};
    // A block of 4096 bytes for each path, from this sector of it on, is written and read again;
    // without it the first sector is read.
    std::optional<Sectors> area;
    std::optional<Marginal> marginal;
  };
  class Host {
   public:
    // The path with this index does not work, or is fit for use. No lock held; after each check.
    virtual void checked(unsigned path, bool fit, bool works) = 0;

   protected:
    ~Host() = default;
  };

  static Result<std::unique_ptr<PathChecker>> create(Host& host, Clock& clock, const Options& options,
                                                     const std::vector<BackingFile*>& paths);
  // Waits for what paths still have: with one that hangs, for ever.
  ~PathChecker();

  // Between these two paths are checked, each `interval` after the last time; what is under way when it
  // stops says nothing any more. Any thread.
  void start() DM_EXCLUDES(mutex_);
  void stop() DM_EXCLUDES(mutex_);
  // The path has failed I/O. The caller may hold its lock.
  void failed(unsigned path) DM_EXCLUDES(mutex_);
  // "up", "down: EIO", "down: timeout", "marginal", "unchecked".
  std::string state(unsigned path) const DM_EXCLUDES(mutex_);
  bool any_late() const { return client_->late() > 0 || client_->outstanding() > 0; }

 private:
  static constexpr size_t kBytes = 4096;
  enum class Step : uint8_t { Idle, Writing, Reading };
  struct Check final : IoNotify {
    void notified(const IoNotice& notice) override { checker->ended(*this, notice); }

    PathChecker* checker = nullptr;
    unsigned index = 0;
    BackingFile* file = nullptr;
    IoRegion region;
    IoRequest request;
    // Of whoever is at the step, which is guarded by the checker's mutex like the rest.
    std::array<std::byte, kBytes> written{}, memory{};
    uint64_t round = 0;  // which start() it belongs to
    Step step = Step::Idle;
    bool overdue = false;  // the path still has what it was asked
    std::string state = "unchecked";
    std::deque<Clock::Time> failures;  // of marginal.errors at most
    bool marginal = false;
    std::optional<Clock::Time> good_since;
  };

  PathChecker(Host& host, Clock& clock, const Options& options);
  void due();
  void begin(Check& check);
  void submit(Check& check, Op op);
  void ended(Check& check, const IoNotice& notice);
  void say(Check& check, int error) DM_EXCLUDES(mutex_);

  // constant after construction
  Host& host_;
  Clock& clock_;
  const Options options_;
  std::vector<std::unique_ptr<Check>> checks_;

  mutable Mutex mutex_;  // leaf
  bool on_ DM_GUARDED_BY(mutex_) = false;
  uint64_t round_ DM_GUARDED_BY(mutex_) = 0;
  Clock::Time next_ DM_GUARDED_BY(mutex_);

  // own synchronisation
  std::unique_ptr<IoClient> client_;
  Alarm alarm_;
};

}  // namespace dmfs
