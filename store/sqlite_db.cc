// SPDX-License-Identifier: Apache-2.0
#include "store/sqlite_db.h"

#include <fmt/format.h>

namespace dmfs {
namespace {

// Another program (sqlite3, a backup) may hold the file for a moment while we open it.
constexpr int kBusyTimeoutMs = 2000;

// SQLite reads the letters behind '?' and '#' of a URI as parameters.
std::string immutable_uri(const std::string& path) {
  std::string uri = "file:";
  for (unsigned char c : path) {
    bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                 c == '/' || c == '.' || c == '-' || c == '_';
    uri += plain ? std::string(1, static_cast<char>(c)) : fmt::format("%{:02x}", c);
  }
  return uri + "?immutable=1";
}

int errno_of(int code, int system_errno) {
  switch (code & 0xff) {
    case SQLITE_FULL:
      return ENOSPC;
    case SQLITE_READONLY:
      return EROFS;
    case SQLITE_NOMEM:
      return ENOMEM;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
    case SQLITE_CONSTRAINT:
      return EBUSY;
    case SQLITE_PERM:
    case SQLITE_AUTH:
      return EACCES;
    case SQLITE_TOOBIG:
      return E2BIG;
    case SQLITE_CORRUPT:
      return EUCLEAN;
    case SQLITE_CANTOPEN:
      return system_errno != 0 ? system_errno : EIO;
    default:  // an open set: SQLite may add codes
      break;
  }
  // SQLite takes errno a little late, when another call may have changed it. So only what a disk
  // says is believed.
  switch (system_errno) {
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
    case EROFS:
      return system_errno;
    default:
      return EIO;
  }
}

}  // namespace

Statement& Statement::bind(uint64_t value) {
  int rc = sqlite3_bind_int64(stmt_.get(), ++bound_, static_cast<sqlite3_int64>(value));
  if (bind_error_ == SQLITE_OK) bind_error_ = rc;
  return *this;
}

Statement& Statement::bind(std::string_view text) {
  // A null pointer would bind NULL, and an empty string_view may carry one.
  const char* data = text.data() != nullptr ? text.data() : "";
  int rc =
      sqlite3_bind_text64(stmt_.get(), ++bound_, data, text.size(), SQLITE_STATIC, SQLITE_UTF8);
  if (bind_error_ == SQLITE_OK) bind_error_ = rc;
  return *this;
}

int Statement::step() {
  if (bind_error_ != SQLITE_OK) return bind_error_;
  return sqlite3_step(stmt_.get());
}

int Statement::run() {
  int rc;
  do {
    rc = step();
  } while (rc == SQLITE_ROW);
  reset();
  return rc;
}

void Statement::reset() {
  sqlite3_reset(stmt_.get());
  sqlite3_clear_bindings(stmt_.get());
  bound_ = 0;
  bind_error_ = SQLITE_OK;
}

uint64_t Statement::integer(int column) {
  return static_cast<uint64_t>(sqlite3_column_int64(stmt_.get(), column));
}

std::string Statement::text(int column) {
  const unsigned char* data = sqlite3_column_text(stmt_.get(), column);
  if (data == nullptr) return {};
  size_t size = static_cast<size_t>(sqlite3_column_bytes(stmt_.get(), column));
  return std::string(reinterpret_cast<const char*>(data), size);
}

Result<Database> Database::open(const std::string& path, Mode mode) {
  std::string name = path;
  int flags = SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_PRIVATECACHE;
  switch (mode) {
    case Mode::Memory:
      name = ":memory:";
      flags |= SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE;
      break;
    case Mode::Immutable:
      name = immutable_uri(path);
      flags |= SQLITE_OPEN_READONLY | SQLITE_OPEN_URI;
      break;
    case Mode::Exclusive:
      flags |= SQLITE_OPEN_READWRITE;
      break;
  }
  Database db;
  db.path_ = path;
  sqlite3* handle = nullptr;
  int rc = sqlite3_open_v2(name.c_str(), &handle, flags, nullptr);
  db.db_.reset(handle);  // also on failure: it then carries the text
  if (rc != SQLITE_OK) return db.error(rc, "cannot be opened");
  sqlite3_extended_result_codes(handle, 1);
  sqlite3_busy_timeout(handle, kBusyTimeoutMs);
  sqlite3_db_config(handle, SQLITE_DBCONFIG_DEFENSIVE, 1, nullptr);
  sqlite3_db_config(handle, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, nullptr);
  DM_TRY_STATUS(db.exec("PRAGMA cell_size_check=ON; PRAGMA temp_store=MEMORY"));
  // Before the first read, so that the log's index lives in our memory and not in an -shm file.
  if (mode == Mode::Exclusive) DM_TRY_STATUS(db.exec("PRAGMA locking_mode=EXCLUSIVE"));
  return db;
}

void Database::set_checkpoint_on_close(CheckpointOnClose yes_or_no) {
  int no = yes_or_no == CheckpointOnClose::No ? 1 : 0;
  sqlite3_db_config(db_.get(), SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, no, nullptr);
}

Status Database::exec(const std::string& sql) {
  int rc = sqlite3_exec(db_.get(), sql.c_str(), nullptr, nullptr, nullptr);
  if (rc != SQLITE_OK) return error(rc, fmt::format("'{}' failed", sql.substr(0, 60)));
  return {};
}

Result<Statement> Database::prepare(std::string_view sql) {
  Statement s;
  sqlite3_stmt* stmt = nullptr;
  int rc = sqlite3_prepare_v3(db_.get(), sql.data(), static_cast<int>(sql.size()),
                              SQLITE_PREPARE_PERSISTENT, &stmt, nullptr);
  s.stmt_.reset(stmt);
  if (rc != SQLITE_OK) return error(rc, fmt::format("'{}' failed", sql.substr(0, 60)));
  return s;
}

Result<std::string> Database::query(std::string_view sql) {
  DM_TRY(Statement s, prepare(sql));
  int rc = s.step();
  if (rc == SQLITE_ROW) return s.text(0);
  if (rc == SQLITE_DONE) return std::string();
  return error(rc, fmt::format("'{}' failed", sql));
}

Error Database::error(int code, std::string_view doing) const {
  int system_errno = db_ ? sqlite3_system_errno(db_.get()) : 0;
  // The connection's own text says more, unless another call has replaced it since.
  bool fresh = db_ && sqlite3_extended_errcode(db_.get()) == code;
  const char* text = fresh ? sqlite3_errmsg(db_.get()) : sqlite3_errstr(code);
  int number = errno_of(code, system_errno);
  switch (code & 0xff) {
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
      return Error{EUCLEAN, fmt::format("store {} is damaged: {}", path_, text)};
    case SQLITE_BUSY:
      return Error{number, fmt::format("store {} is in use by another program: {}", path_, text)};
    default:
      return Error{number, fmt::format("store {}: {}: {}", path_, doing, text)};
  }
}

}  // namespace dmfs
