// SPDX-License-Identifier: Apache-2.0
// The edge to SQLite's C interface: owners for a connection and a prepared statement, and SQLite's
// codes turned into an Error with an errno. Nothing outside store/ sees this.
#pragma once

#include <sqlite3.h>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "core/base/result.h"

namespace dmfs {

// A prepared statement. Parameters are bound in turn: s.bind(1).bind("x").run(). Text that was
// bound is borrowed until run() or reset().
class Statement {
 public:
  Statement() = default;

  Statement& bind(uint64_t value);
  Statement& bind(std::string_view text);
  // SQLITE_ROW, SQLITE_DONE or an extended error code (also that of a bind that failed).
  int step();
  // Steps to the end without looking at rows, then resets. SQLITE_DONE or an error code.
  int run();
  // Ready for new parameters. A statement that is not reset holds its transaction open.
  void reset();

  uint64_t integer(int column);
  std::string text(int column);

 private:
  friend class Database;
  struct Finalize {
    void operator()(sqlite3_stmt* s) const { sqlite3_finalize(s); }
  };
  std::unique_ptr<sqlite3_stmt, Finalize> stmt_;
  int bound_ = 0;
  int bind_error_ = SQLITE_OK;
};

// One connection, used by one thread at a time. Statements die before it.
class Database {
 public:
  enum class Mode {
    Memory,     // private, in memory; `path` is only a label
    Immutable,  // reads the main file alone: no lock, no write, no -wal or -journal touched
    Exclusive,  // reads and writes, keeps every other connection out while it lives
  };
  enum class CheckpointOnClose { No, Yes };

  // The file exists: never creates it.
  static Result<Database> open(const std::string& path, Mode mode);

  // Whether closing moves the log into the main file. Yes unless set.
  void set_checkpoint_on_close(CheckpointOnClose yes_or_no);
  // Runs one or several statements without parameters.
  Status exec(const std::string& sql);
  Result<Statement> prepare(std::string_view sql);
  // The first column of the first row; empty when there is no row.
  Result<std::string> query(std::string_view sql);
  // Rows that the last statement has changed.
  int changes() const { return sqlite3_changes(db_.get()); }
  bool in_transaction() const { return sqlite3_get_autocommit(db_.get()) == 0; }

  // The Error for `code`, which a call on this connection has just returned:
  // "store <path>: <doing>: <SQLite's text>".
  Error error(int code, std::string_view doing) const;
  const std::string& path() const { return path_; }
  sqlite3* handle() { return db_.get(); }

 private:
  struct Close {
    void operator()(sqlite3* db) const { sqlite3_close(db); }
  };
  std::string path_;
  std::unique_ptr<sqlite3, Close> db_;
};

}  // namespace dmfs
