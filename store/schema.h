// SPDX-License-Identifier: Apache-2.0
// The store's tables and how they came to be: a list of steps, where version N is what the first N
// steps make. The version stands in PRAGMA user_version, and PRAGMA application_id says that the
// file is ours.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "core/base/result.h"
#include "store/sqlite_db.h"

namespace dmfs {

inline constexpr uint32_t kApplicationId = 0x646d6673;  // "dmfs"

// One step: SQL statements that lead from one version to the next. A step that has shipped is
// never changed. Steps run with foreign keys off, so that they may rebuild tables; the keys are
// checked before the commit.
struct Migration {
  const char* sql;
};
using Migrations = std::span<const Migration>;

// The steps of this program. Their number is the version it reads and writes.
Migrations shipped_migrations();
inline constexpr size_t kShippedVersion = 4;

// The bytes of an empty store of the newest version, in WAL mode.
Result<std::string> new_store_image(Migrations migrations);

// Reads only. Refuses a version newer than ours (ENOTSUP), tables that differ from what the steps
// make (EINVAL), and damage (EUCLEAN).
Status check_store(Database& db, Migrations migrations);

// Brings the store to the newest version in one transaction, or leaves it as it was.
Status migrate_store(Database& db, Migrations migrations);

}  // namespace dmfs
