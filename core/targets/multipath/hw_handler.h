// SPDX-License-Identifier: Apache-2.0
// Hardware handlers: what multipath has to know about an array. A handler makes an array ready to
// serve through a group of paths, and says what its errors mean.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/clock.h"
#include "core/base/mutex.h"
#include "core/base/result.h"
#include "core/io/backing_file.h"

namespace dmfs {

// What a handler says of an activation or of an error: none (all is well; send it again), or any of
enum HwFlags : unsigned {
  kHwFailPath = 1,     // the path does not work
  kHwBypassGroup = 2,  // use other groups as long as they have paths
  kHwErrorIo = 4,      // it would fail on any path: it fails
  kHwRetry = 8,        // once more, a little later
};

// A path as a handler sees it. Lives as long as the handler.
class HwPath {
 public:
  virtual unsigned number() const = 0;  // in the table, from 1
  virtual unsigned group() const = 0;   // from 1
  virtual std::string name() const = 0;
  virtual bool active() const = 0;      // it has not failed
  virtual BackingFile& device() = 0;

 protected:
  ~HwPath() = default;
};

// A bio that a path has failed.
struct HwError {
  Op op;
  Sectors sector, count;  // on the path
  int error;              // errno
  Sense sense;
};

// Multipath as a handler sees it. All functions: any thread, no lock held.
class HwHost {
 public:
  // In the order of the table.
  virtual std::span<HwPath* const> paths() = 0;
  // Ends the pg_init() of `path`, also from within it. What is not under way is ignored.
  virtual void pg_init_complete(HwPath& path, unsigned flags) = 0;
  virtual Clock& clock() = 0;
  // A line for whoever runs the daemon.
  virtual void log(const char* text) = 0;

 protected:
  ~HwHost() = default;
};

enum class HwStatus { Info, Table };

// Destroying one ends what it is about: when the destructor returns nothing of it runs, and what it
// has not completed or decided it never will.
class HwHandler {
 public:
  virtual ~HwHandler() = default;

  // A group was selected of which `path` is to be made ready; no I/O is sent until this is
  // complete. `bypassed`: the group is bypassed, and used for want of others. Returns at once; one
  // at a time.
  virtual void pg_init(bool bypassed, HwPath& path) = 0;

  // What to do about an error: calls `decide` once with HwFlags, now or later, on any thread. Many
  // at a time.
  using Decide = std::function<void(unsigned flags)>;
  virtual void error(HwPath& path, const HwError& error, Decide decide);

  // "<#words> <word>..." for a status line, or for the table line, which create() accepts again.
  virtual std::string status(HwStatus kind) const = 0;
  // What went wrong in the handler itself, in a sentence; empty while all is well.
  virtual std::string fault() const { return {}; }
};

struct HwHandlerType {
  std::string name;
  // `host` outlives the handler, and is not called before create() has returned. Thread of the
  // command.
  std::function<Result<std::unique_ptr<HwHandler>>(HwHost& host, std::span<const std::string> args)>
      create;
};

// The handlers that are there by name, and how many use each. Any thread.
class HwHandlerRegistry {
 public:
  // Keeps a handler type from being removed.
  class Use {
   public:
    Use() = default;
    Use(Use&& other) noexcept { *this = std::move(other); }
    Use& operator=(Use&& other) noexcept;
    ~Use() { release(); }
    const HwHandlerType& type() const { return *type_; }

   private:
    friend class HwHandlerRegistry;
    Use(HwHandlerRegistry& registry, const HwHandlerType& type)
        : registry_(&registry), type_(&type) {}
    void release();
    HwHandlerRegistry* registry_ = nullptr;
    const HwHandlerType* type_ = nullptr;
  };

  Status add(HwHandlerType type) DM_EXCLUDES(mutex_);           // EEXIST: there is one
  Status remove(std::string_view name) DM_EXCLUDES(mutex_);     // EINVAL: none; ETXTBSY: in use
  Result<Use> use(std::string_view name) DM_EXCLUDES(mutex_);   // EINVAL: none
  unsigned uses(std::string_view name) const DM_EXCLUDES(mutex_);

 private:
  struct Entry {
    std::unique_ptr<const HwHandlerType> type;
    unsigned uses = 0;
  };
  mutable Mutex mutex_;  // leaf
  std::map<std::string, Entry, std::less<>> entries_ DM_GUARDED_BY(mutex_);
};

// Where multipath looks first.
HwHandlerRegistry& hw_handlers();

// The default decoder: HwFlags for an error with this sense.
unsigned scsi_error(const Sense& sense);
// What becomes of an error without a handler: that, or by its errno where there is no sense.
// Errors that every path would give (ENOSPC, EOPNOTSUPP ...) are kHwErrorIo.
unsigned default_error(int error, const Sense& sense);

}  // namespace dmfs
