// SPDX-License-Identifier: Apache-2.0
#include "store/schema.h"

#include <algorithm>
#include <fmt/format.h>

#include <array>
#include <cstdlib>

namespace dmfs {
namespace {

// Version 1. A target's numbers and the geometry are unsigned 64-bit values, kept as SQLite's
// signed ones bit for bit. STRICT lets quick_check find values of a wrong kind.
constexpr const char* kVersion1 = R"sql(
CREATE TABLE device(
  minor INTEGER PRIMARY KEY CHECK(minor BETWEEN 0 AND 4294967295),
  name TEXT NOT NULL UNIQUE,
  uuid TEXT NOT NULL,
  suspended INTEGER NOT NULL CHECK(suspended IN (0, 1)),
  deferred_remove INTEGER NOT NULL CHECK(deferred_remove IN (0, 1)),
  event_nr INTEGER NOT NULL CHECK(event_nr BETWEEN 0 AND 4294967295),
  read_ahead INTEGER NOT NULL CHECK(read_ahead BETWEEN 0 AND 4294967295),
  cylinders INTEGER NOT NULL,
  heads INTEGER NOT NULL,
  sectors INTEGER NOT NULL,
  geometry_start INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX device_uuid ON device(uuid) WHERE uuid <> '';
CREATE TABLE slot(
  minor INTEGER NOT NULL REFERENCES device(minor) ON DELETE CASCADE,
  slot INTEGER NOT NULL CHECK(slot IN (0, 1)),
  read_only INTEGER NOT NULL CHECK(read_only IN (0, 1)),
  PRIMARY KEY(minor, slot)
) STRICT, WITHOUT ROWID;
CREATE TABLE target(
  minor INTEGER NOT NULL,
  slot INTEGER NOT NULL,
  position INTEGER NOT NULL,
  start INTEGER NOT NULL,
  length INTEGER NOT NULL,
  type TEXT NOT NULL,
  params TEXT NOT NULL,
  PRIMARY KEY(minor, slot, position),
  FOREIGN KEY(minor, slot) REFERENCES slot(minor, slot) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
)sql";

// Version 2: tables whose FUA writes are barriers.
constexpr const char* kVersion2 = R"sql(
ALTER TABLE slot ADD COLUMN ordered INTEGER NOT NULL DEFAULT 0 CHECK(ordered IN (0, 1));
)sql";

// Version 3: what targets want to know after a restart.
constexpr const char* kVersion3 = R"sql(
ALTER TABLE target ADD COLUMN state TEXT NOT NULL DEFAULT '';
)sql";

// Version 4: scripts that a target has read, each with the table that was loaded with it.
constexpr const char* kVersion4 = R"sql(
CREATE TABLE attachment(
  minor INTEGER NOT NULL,
  slot INTEGER NOT NULL,
  position INTEGER NOT NULL,
  number INTEGER NOT NULL,
  name TEXT NOT NULL,
  text TEXT NOT NULL,
  PRIMARY KEY(minor, slot, position, number),
  FOREIGN KEY(minor, slot, position) REFERENCES target(minor, slot, position) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
)sql";

constexpr std::array<Migration, kShippedVersion> kShipped = {
    Migration{kVersion1}, Migration{kVersion2}, Migration{kVersion3}, Migration{kVersion4}};

// Everything that defines the tables, as one text. ANALYZE's tables are harmless.
Result<std::string> describe(Database& db) {
  return db.query(
      "SELECT group_concat(line, char(10)) FROM (SELECT type || ' ' || name || ' ' || tbl_name || "
      "' ' || coalesce(sql, '') AS line FROM sqlite_schema "
      "WHERE name NOT LIKE 'sqlite_stat%' ORDER BY type, name)");
}

Status apply(Database& db, Migrations steps) {
  for (const Migration& step : steps) DM_TRY_STATUS(db.exec(step.sql));
  return {};
}

Result<size_t> version_of(Database& db) {
  DM_TRY(std::string text, db.query("PRAGMA user_version"));
  long long version = std::atoll(text.c_str());
  if (version < 1) {
    return Error{
        EINVAL, fmt::format("store {} is not a dmfs store: schema version {}", db.path(), version)};
  }
  return static_cast<size_t>(version);
}

// The first complaint of a checking pragma is damage.
Status check_with(Database& db, std::string_view pragma, std::string_view good) {
  auto verdict = db.query(pragma);
  if (!verdict) return verdict.error();
  if (*verdict == good) return {};
  std::replace(verdict->begin(), verdict->end(), '\n', ' ');  // one error, one line
  return Error{EUCLEAN, fmt::format("store {} is damaged: {}", db.path(), *verdict)};
}

constexpr std::string_view kKeyCheck =
    "SELECT \"table\" || ' ' || coalesce(rowid, '') || ': row without its ' || parent "
    "FROM pragma_foreign_key_check LIMIT 1";

}  // namespace

Migrations shipped_migrations() {
  return kShipped;
}

Result<std::string> new_store_image(Migrations migrations) {
  DM_TRY(Database db, Database::open("(new)", Database::Mode::Memory));
  DM_TRY_STATUS(apply(db, migrations));
  DM_TRY_STATUS(db.exec(fmt::format("PRAGMA application_id={}; PRAGMA user_version={}",
                                    kApplicationId, migrations.size())));
  sqlite3_int64 size = 0;
  std::unique_ptr<unsigned char, decltype(&sqlite3_free)> bytes(
      sqlite3_serialize(db.handle(), "main", &size, 0), &sqlite3_free);
  if (!bytes) return Error{ENOMEM, "no memory for an empty store"};
  std::string image(reinterpret_cast<const char*>(bytes.get()), static_cast<size_t>(size));
  // The file format's read and write versions: 2 is WAL. Set here, because switching later would
  // rewrite page 1 through a rollback journal, one more state that a crash could leave behind.
  image[18] = image[19] = 2;
  return image;
}

Status check_store(Database& db, Migrations migrations) {
  auto version = version_of(db);
  if (!version) return version.error();
  if (*version > migrations.size()) {
    return Error{ENOTSUP,
                 fmt::format("store {} was written by a newer dmfs: it has schema version {}, "
                             "this dmfs knows up to {}",
                             db.path(), *version, migrations.size())};
  }
  DM_TRY(Database model, Database::open("(model)", Database::Mode::Memory));
  DM_TRY_STATUS(apply(model, migrations.first(*version)));
  DM_TRY(std::string expected, describe(model));
  DM_TRY(std::string found, describe(db));
  if (found != expected) {
    return Error{EINVAL, fmt::format("store {} is not a dmfs store: its tables are not those of "
                                     "schema version {}",
                                     db.path(), *version)};
  }
  DM_TRY_STATUS(check_with(db, "PRAGMA quick_check(1)", "ok"));
  return check_with(db, kKeyCheck, "");
}

Status migrate_store(Database& db, Migrations migrations) {
  auto version = version_of(db);
  if (!version) return version.error();
  if (*version == migrations.size()) return {};
  DM_TRY_STATUS(db.exec("BEGIN IMMEDIATE"));
  auto steps = [&]() -> Status {
    DM_TRY_STATUS(apply(db, migrations.subspan(*version)));
    DM_TRY_STATUS(db.exec(fmt::format("PRAGMA user_version={}", migrations.size())));
    DM_TRY_STATUS(check_with(db, kKeyCheck, ""));
    return db.exec("COMMIT");
  };
  Status done = steps();
  if (!done) {
    if (db.in_transaction()) (void)db.exec("ROLLBACK");
    return Error{done.error().code,
                 fmt::format("store {} cannot be brought from schema version {} to {}: {}",
                             db.path(), *version, migrations.size(), done.error().message)};
  }
  return {};
}

}  // namespace dmfs
