// SPDX-License-Identifier: Apache-2.0
// DeviceStore on one SQLite file: WAL, synchronous=FULL, one transaction per commit().
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/base/mutex.h"
#include "core/dm/device_store.h"
#include "store/schema.h"
#include "store/sqlite_db.h"
#include "store/store_lock.h"

namespace dmfs {

class SqliteStore final : public DeviceStore {
 public:
  // Opens the store at `path`, or creates it when there is no file or one of 0 bytes. Holds the
  // store's lock until destruction, so call it after the daemon's last fork. Refused with a
  // sentence that names the file, and with no byte of it changed: a store in use (EBUSY), a
  // truncated or damaged one (EUCLEAN), a file that is not a store (EINVAL), one of a newer dmfs
  // (ENOTSUP), an unreadable or read-only one (EACCES, EROFS), a directory (EISDIR), a missing
  // parent directory (ENOENT). An older store is migrated. `migrations` is for tests.
  static Result<std::unique_ptr<SqliteStore>> open(const std::string& path,
                                                   Migrations migrations = shipped_migrations());

  Result<std::vector<StoredDevice>> load() override DM_EXCLUDES(mutex_);

  // A name or uuid that another device has: EBUSY, with that device in the sentence. A table for
  // a minor that is not there: ENXIO. When the disk's own flush fails (EIO), the change is undone
  // here, but whether a crash right after brings it back is unknown, as with any file.
  Status commit(const std::vector<StoreChange>& changes) override DM_EXCLUDES(mutex_);

  // The lock's and SQLite's name for the file: absolute, without symbolic links.
  const std::string& path() const { return path_; }

 private:
  struct Statements {
    static Result<Statements> prepare(Database& db);
    Statement begin, commit, rollback;
    Statement put_device, erase_device, name_owner, uuid_owner;
    Statement put_slot, drop_slot, put_target, put_state, put_attachment;
  };

  SqliteStore(StoreLock lock, Database db, Statements statements)
      : path_(db.path()),
        lock_(std::move(lock)),
        db_(std::move(db)),
        statements_(std::move(statements)) {}

  Status apply_all(const std::vector<StoreChange>& changes) DM_REQUIRES(mutex_);
  Status apply(const PutDevice& change) DM_REQUIRES(mutex_);
  Status apply(const PutTable& change) DM_REQUIRES(mutex_);
  Status apply(const PutTargetState& change) DM_REQUIRES(mutex_);
  Status apply(const DropTable& change) DM_REQUIRES(mutex_);
  Status apply(const EraseDevice& change) DM_REQUIRES(mutex_);
  Error taken(const DeviceRecord& record, int code) DM_REQUIRES(mutex_);

  // constant after construction
  const std::string path_;
  const StoreLock lock_;  // declared before db_, so released after it is closed

  // Held over the disk's sync: commits are serial by nature, and nobody else waits here. Take no
  // lock while holding this.
  Mutex mutex_;
  // guarded by mutex_
  Database db_ DM_GUARDED_BY(mutex_);
  Statements statements_ DM_GUARDED_BY(mutex_);  // die before db_
};

}  // namespace dmfs
