// SPDX-License-Identifier: Apache-2.0
#include "store/sqlite_store.h"

#include <fmt/format.h>

#include <map>
#include <optional>
#include <utility>

#include "store/store_file.h"

namespace dmfs {
namespace {

Error damaged(const std::string& path, const std::string& how) {
  return Error{EUCLEAN, fmt::format("store {} is damaged: {}", path, how)};
}

Result<Database> open_checked(const std::string& path, Migrations migrations) {
  DM_TRY(StoreFile file, inspect_store_file(path));
  if (file == StoreFile::New) {
    DM_TRY(std::string image, new_store_image(migrations));
    DM_TRY_STATUS(create_store_file(path, image));
  }
  // Without a log, the check needs nothing but the main file, and leaves no trace.
  if (file == StoreFile::Clean) {
    DM_TRY(Database reader, Database::open(path, Database::Mode::Immutable));
    DM_TRY_STATUS(check_store(reader, migrations));
  }
  DM_TRY(Database db, Database::open(path, Database::Mode::Exclusive));
  if (file == StoreFile::WithLog) {
    // The log has to be read for the check. That writes nothing, but closing would.
    db.set_checkpoint_on_close(Database::CheckpointOnClose::No);
    DM_TRY_STATUS(check_store(db, migrations));
    db.set_checkpoint_on_close(Database::CheckpointOnClose::Yes);
  }
  // The log shrinks again after a big transaction.
  DM_TRY_STATUS(db.exec("PRAGMA synchronous=FULL; PRAGMA journal_size_limit=4194304"));
  DM_TRY(std::string mode, db.query("PRAGMA journal_mode=WAL"));
  if (mode != "wal") {
    return Error{EIO, fmt::format("store {}: cannot keep a write-ahead log here (journal mode {})",
                                  path, mode)};
  }
  // The store's name, if it is new, and that of the log, which the line above has created. SQLite
  // syncs the directory too, but does not look whether that worked.
  DM_TRY_STATUS(sync_store_directory(path));
  DM_TRY_STATUS(migrate_store(db, migrations));
  DM_TRY_STATUS(db.exec("PRAGMA foreign_keys=ON"));
  return db;
}

}  // namespace

Result<std::unique_ptr<SqliteStore>> SqliteStore::open(const std::string& path,
                                                       Migrations migrations) {
  DM_TRY(std::string real, resolve_store_path(path));
  DM_TRY(StoreLock lock, StoreLock::take(real));
  DM_TRY(Database db, open_checked(real, migrations));
  DM_TRY(Statements statements, Statements::prepare(db));
  return std::unique_ptr<SqliteStore>(
      new SqliteStore(std::move(lock), std::move(db), std::move(statements)));
}

Result<SqliteStore::Statements> SqliteStore::Statements::prepare(Database& db) {
  Statements s;
  const std::pair<Statement*, std::string_view> list[] = {
      {&s.begin, "BEGIN IMMEDIATE"},
      {&s.commit, "COMMIT"},
      {&s.rollback, "ROLLBACK"},
      // Not INSERT OR REPLACE: that deletes the row first, and its tables with it.
      {&s.put_device,
       "INSERT INTO device(minor, name, uuid, suspended, deferred_remove, event_nr, read_ahead,"
       " cylinders, heads, sectors, geometry_start) VALUES(?,?,?,?,?,?,?,?,?,?,?)"
       " ON CONFLICT(minor) DO UPDATE SET name=excluded.name, uuid=excluded.uuid,"
       " suspended=excluded.suspended, deferred_remove=excluded.deferred_remove,"
       " event_nr=excluded.event_nr, read_ahead=excluded.read_ahead,"
       " cylinders=excluded.cylinders, heads=excluded.heads, sectors=excluded.sectors,"
       " geometry_start=excluded.geometry_start"},
      {&s.erase_device, "DELETE FROM device WHERE minor=?"},
      {&s.name_owner, "SELECT minor FROM device WHERE name=? AND minor<>?"},
      {&s.uuid_owner, "SELECT minor, name FROM device WHERE uuid=? AND uuid<>'' AND minor<>?"},
      {&s.put_slot, "INSERT INTO slot(minor, slot, read_only, ordered) VALUES(?,?,?,?)"},
      {&s.drop_slot, "DELETE FROM slot WHERE minor=? AND slot=?"},
      {&s.put_target,
       "INSERT INTO target(minor, slot, position, start, length, type, params, state)"
       " VALUES(?,?,?,?,?,?,?,?)"},
      {&s.put_state, "UPDATE target SET state=? WHERE minor=? AND slot=? AND position=?"},
      {&s.put_attachment,
       "INSERT INTO attachment(minor, slot, position, number, name, text) VALUES(?,?,?,?,?,?)"},
  };
  for (const auto& [statement, sql] : list) {
    DM_TRY(*statement, db.prepare(sql));
  }
  return s;
}

Result<std::vector<StoredDevice>> SqliteStore::load() {
  MutexLock lock(mutex_);
  std::vector<StoredDevice> devices;
  std::map<uint64_t, size_t> index_of;
  DM_TRY(Statement d, db_.prepare("SELECT minor, name, uuid, suspended, deferred_remove, event_nr,"
                                  " read_ahead, cylinders, heads, sectors, geometry_start"
                                  " FROM device ORDER BY minor"));
  int rc;
  while ((rc = d.step()) == SQLITE_ROW) {
    StoredDevice device;
    DeviceRecord& r = device.record;
    r.minor = static_cast<uint32_t>(d.integer(0));
    r.name = d.text(1);
    r.uuid = d.text(2);
    r.suspended = d.integer(3) != 0;
    r.deferred_remove = d.integer(4) != 0;
    r.event_nr = static_cast<uint32_t>(d.integer(5));
    r.read_ahead = static_cast<uint32_t>(d.integer(6));
    r.geometry = Geometry{.cylinders = d.integer(7),
                          .heads = d.integer(8),
                          .sectors = d.integer(9),
                          .start = d.integer(10)};
    if (r.minor != d.integer(0) || r.event_nr != d.integer(5) || r.read_ahead != d.integer(6)) {
      return damaged(path_, fmt::format("device {} has a number past 32 bits", r.name));
    }
    index_of.emplace(r.minor, devices.size());
    devices.push_back(std::move(device));
  }
  if (rc != SQLITE_DONE) return db_.error(rc, "cannot read the devices");

  // nullptr when there is no such device or slot. Open has checked that already, but not the
  // CHECK clauses: SQLite skips those on the read-only connection that it checked with.
  auto slot_of = [&](Statement& row) -> std::optional<TableSpec>* {
    auto it = index_of.find(row.integer(0));
    if (it == index_of.end()) return nullptr;
    StoredDevice& device = devices[it->second];
    if (row.integer(1) == static_cast<uint64_t>(Slot::Live)) return &device.live;
    return row.integer(1) == static_cast<uint64_t>(Slot::Inactive) ? &device.inactive : nullptr;
  };
  // A table may have no targets, so the slots come from their own table.
  DM_TRY(Statement s, db_.prepare("SELECT minor, slot, read_only, ordered FROM slot"));
  while ((rc = s.step()) == SQLITE_ROW) {
    auto* slot = slot_of(s);
    if (slot == nullptr) {
      return damaged(path_, fmt::format("minor {} has a table in slot {}", s.integer(0),
                                        static_cast<int64_t>(s.integer(1))));
    }
    *slot = TableSpec{
        .targets = {}, .read_only = s.integer(2) != 0, .ordered = s.integer(3) != 0};
  }
  if (rc != SQLITE_DONE) return db_.error(rc, "cannot read the tables");

  DM_TRY(Statement t, db_.prepare("SELECT minor, slot, start, length, type, params, state FROM target"
                                  " ORDER BY minor, slot, position"));
  while ((rc = t.step()) == SQLITE_ROW) {
    auto* slot = slot_of(t);
    if (slot == nullptr || !*slot) {
      return damaged(path_, fmt::format("minor {} has a target without a table", t.integer(0)));
    }
    (*slot)->targets.push_back(TargetSpec{.start = Sectors{t.integer(2)},
                                          .length = Sectors{t.integer(3)},
                                          .type = t.text(4),
                                          .params = t.text(5),
                                          .state = t.text(6)});
  }
  if (rc != SQLITE_DONE) return db_.error(rc, "cannot read the tables");

  // Positions count from 0 without a gap, as PutTable writes them.
  DM_TRY(Statement a, db_.prepare("SELECT minor, slot, position, name, text FROM attachment"
                                  " ORDER BY minor, slot, position, number"));
  while ((rc = a.step()) == SQLITE_ROW) {
    auto* slot = slot_of(a);
    if (slot == nullptr || !*slot || a.integer(2) >= (*slot)->targets.size()) {
      return damaged(path_, fmt::format("minor {} has a script without a target", a.integer(0)));
    }
    (*slot)->targets[a.integer(2)].attachments.push_back({a.text(3), a.text(4)});
  }
  if (rc != SQLITE_DONE) return db_.error(rc, "cannot read the scripts");
  return devices;
}

Status SqliteStore::commit(const std::vector<StoreChange>& changes) {
  if (changes.empty()) return {};
  MutexLock lock(mutex_);
  if (int rc = statements_.begin.run(); rc != SQLITE_DONE) {
    return db_.error(rc, "cannot begin a change");
  }
  Status done = apply_all(changes);
  if (done) {
    int rc = statements_.commit.run();
    if (rc != SQLITE_DONE) done = db_.error(rc, "cannot commit");
  }
  // After some errors (a full disk, an I/O error) SQLite has rolled back by itself.
  if (!done && db_.in_transaction()) (void)statements_.rollback.run();
  return done;
}

Status SqliteStore::apply_all(const std::vector<StoreChange>& changes) {
  for (const StoreChange& change : changes) {
    Status done;
    if (auto* put = std::get_if<PutDevice>(&change))
      done = apply(*put);
    else if (auto* table = std::get_if<PutTable>(&change))
      done = apply(*table);
    else if (auto* state = std::get_if<PutTargetState>(&change))
      done = apply(*state);
    else if (auto* drop = std::get_if<DropTable>(&change))
      done = apply(*drop);
    else
      done = apply(std::get<EraseDevice>(change));
    if (!done) return done;
  }
  return {};
}

Status SqliteStore::apply(const PutDevice& change) {
  const DeviceRecord& r = change.record;
  const Geometry& g = r.geometry;
  int rc = statements_.put_device.bind(r.minor)
               .bind(r.name)
               .bind(r.uuid)
               .bind(uint64_t{r.suspended})
               .bind(uint64_t{r.deferred_remove})
               .bind(r.event_nr)
               .bind(r.read_ahead)
               .bind(g.cylinders)
               .bind(g.heads)
               .bind(g.sectors)
               .bind(g.start)
               .run();
  if (rc != SQLITE_DONE) return taken(r, rc);
  return {};
}

// Why a device cannot be put: its name, its uuid, or the disk.
Error SqliteStore::taken(const DeviceRecord& record, int code) {
  Error error = db_.error(code, fmt::format("cannot keep device {}", record.name));
  if ((code & 0xff) != SQLITE_CONSTRAINT) return error;
  Statement& by_name = statements_.name_owner.bind(record.name).bind(record.minor);
  if (by_name.step() == SQLITE_ROW) {
    error = Error{EBUSY, fmt::format("device name '{}' is already in use by minor {}", record.name,
                                     by_name.integer(0))};
  }
  by_name.reset();
  Statement& by_uuid = statements_.uuid_owner.bind(record.uuid).bind(record.minor);
  if (by_uuid.step() == SQLITE_ROW) {
    error = Error{EBUSY, fmt::format("uuid '{}' is already in use by device {} (minor {})",
                                     record.uuid, by_uuid.text(1), by_uuid.integer(0))};
  }
  by_uuid.reset();
  return error;
}

Status SqliteStore::apply(const PutTable& change) {
  DM_TRY_STATUS(apply(DropTable{change.minor, change.slot}));
  auto slot = static_cast<uint64_t>(change.slot);
  int rc = statements_.put_slot.bind(change.minor)
               .bind(slot)
               .bind(uint64_t{change.table.read_only})
               .bind(uint64_t{change.table.ordered})
               .run();
  if (rc == SQLITE_CONSTRAINT_FOREIGNKEY) {
    return Error{ENXIO, fmt::format("store {}: cannot keep a table: there is no device with "
                                    "minor {}",
                                    path_, change.minor)};
  }
  uint64_t position = 0;
  for (const TargetSpec& target : change.table.targets) {
    if (rc != SQLITE_DONE) break;
    rc = statements_.put_target.bind(change.minor)
             .bind(slot)
             .bind(position++)
             .bind(target.start.n)
             .bind(target.length.n)
             .bind(target.type)
             .bind(target.params)
             .bind(target.state)
             .run();
    uint64_t number = 0;
    for (const Attachment& attachment : target.attachments) {
      if (rc != SQLITE_DONE) break;
      rc = statements_.put_attachment.bind(change.minor)
               .bind(slot)
               .bind(position - 1)
               .bind(number++)
               .bind(attachment.name)
               .bind(attachment.text)
               .run();
    }
  }
  if (rc != SQLITE_DONE) return db_.error(rc, "cannot keep a table");
  return {};
}

Status SqliteStore::apply(const PutTargetState& change) {
  int rc = statements_.put_state.bind(change.state)
               .bind(change.minor)
               .bind(static_cast<uint64_t>(change.slot))
               .bind(change.position)
               .run();
  if (rc != SQLITE_DONE) return db_.error(rc, "cannot keep the state of a target");
  if (db_.changes() == 1) return {};
  return Error{ENXIO, fmt::format("store {}: cannot keep the state of a target: minor {} has no "
                                  "target {}",
                                  path_, change.minor, change.position)};
}

Status SqliteStore::apply(const DropTable& change) {
  int rc = statements_.drop_slot.bind(change.minor).bind(static_cast<uint64_t>(change.slot)).run();
  if (rc != SQLITE_DONE) return db_.error(rc, "cannot drop a table");
  return {};
}

Status SqliteStore::apply(const EraseDevice& change) {
  int rc = statements_.erase_device.bind(change.minor).run();
  if (rc != SQLITE_DONE) return db_.error(rc, "cannot erase a device");
  return {};
}

}  // namespace dmfs
