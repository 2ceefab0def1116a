// SPDX-License-Identifier: Apache-2.0
// One daemon per store, and what is there after it was killed or the power went.
#include <unistd.h>

#include "tests/support/child.h"
#include "tests/support/store_fixture.h"

namespace dmfs {
namespace {

class StoreCrashTest : public StoreFixture {};

TEST_F(StoreCrashTest, SecondOpenIsToldWhoHoldsIt) {
  Child holder([this](int out) {
    auto store = SqliteStore::open(path_);
    (void)!::write(out, store ? "y" : "n", 1);
    for (;;) pause();
  });
  ASSERT_EQ(holder.read(1), "y");
  refused(EBUSY, "store " + path_ + " is in use by dmfs with pid " + std::to_string(holder.pid()));
  std::filesystem::create_symlink(path_, dir_ + "/other-name");
  auto by_link = SqliteStore::open(dir_ + "/other-name");
  ASSERT_FALSE(by_link);
  EXPECT_EQ(by_link.error().code, EBUSY);
  std::filesystem::create_hard_link(path_, dir_ + "/hard-link");
  auto by_hard_link = SqliteStore::open(dir_ + "/hard-link");
  ASSERT_FALSE(by_hard_link) << "another lock file, but SQLite's own lock is there too";
  EXPECT_EQ(by_hard_link.error().code, EBUSY);
  holder.kill_and_wait();
  open();  // the kernel has released the lock; the file with the dead pid does not matter
  store_.reset();
}

TEST_F(StoreCrashTest, SecondOpenInOneProcess) {
  open();
  auto second = SqliteStore::open(path_);
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code, EBUSY);
  EXPECT_NE(second.error().message.find("pid " + std::to_string(getpid())), std::string::npos);
  commit({PutDevice{device(0, "a")}});  // the first still has its lock and its file
  auto third = SqliteStore::open(path_);
  EXPECT_FALSE(third);
  store_.reset();
  EXPECT_FALSE(std::filesystem::exists(path_ + ".lock"));
}

TEST_F(StoreCrashTest, SqliteIsKeptOutToo) {
  open();
  sqlite3* db = nullptr;
  ASSERT_EQ(sqlite3_open(path_.c_str(), &db), SQLITE_OK);
  EXPECT_EQ(sqlite3_exec(db, "SELECT * FROM device", nullptr, nullptr, nullptr), SQLITE_BUSY);
  sqlite3_close(db);
}

TEST_F(StoreCrashTest, ForeignLockFileIsLeftAlone) {
  for (const char* content : {"my notes\n", "12", "0\n", "99999999999999\n", "-4\n"}) {
    write(path_ + ".lock", content);
    refused(EEXIST, "is not a lock file of dmfs");
  }
  std::filesystem::remove(path_ + ".lock");
  write(dir_ + "/victim", "");
  std::filesystem::create_symlink(dir_ + "/victim", path_ + ".lock");
  refused(ELOOP, "cannot be locked");
  std::filesystem::remove(path_ + ".lock");
  write(path_ + ".lock", "");
  open();
}

// Everything that was acknowledged is there after kill -9, and at most one more.
TEST_F(StoreCrashTest, KilledWhileCommitting) {
  uint32_t known = 0;
  for (int round = 0; round < 8; round++) {
    uint32_t first = known;
    Child child([&](int out) {
      auto store = SqliteStore::open(path_);
      if (!store) return;
      for (uint32_t i = first;; i++) {
        Status done = (*store)->commit(
            {PutDevice{device(i, "n" + std::to_string(i))}, PutTable{i, Slot::Live, table(20)}});
        if (!done || ::write(out, "k", 1) != 1) return;
      }
    });
    size_t heard = child.read(20 + 37 * static_cast<size_t>(round)).size();
    child.kill_and_wait();
    heard += child.read(1 << 20).size();  // written before it died, read after
    ASSERT_GT(heard, 0u);
    open();
    auto devices = load();
    ASSERT_GE(devices.size(), first + heard);
    ASSERT_LE(devices.size(), first + heard + 1);
    for (uint32_t i = 0; i < devices.size(); i++) {
      EXPECT_EQ(devices[i].record.minor, i);
      EXPECT_TRUE(devices[i].live == table(20));
    }
    known = static_cast<uint32_t>(devices.size());
    store_.reset();
  }
}

// A power cut may leave any prefix of the log: what opens is the state after some commit.
TEST_F(StoreCrashTest, LogCutAtManyLengths) {
  fill();
  open();
  std::vector<size_t> log_size_after{0};
  for (uint32_t i = 2; i < 8; i++) {
    commit({PutDevice{device(i, "n" + std::to_string(i))}, PutTable{i, Slot::Live, table(30)}});
    log_size_after.push_back(std::filesystem::file_size(path_ + "-wal"));
  }
  std::string main = bytes(path_), log = bytes(path_ + "-wal");
  store_.reset();
  for (size_t n = 0; n <= log.size(); n += 1031) {
    size_t commits = 0;
    while (commits + 1 < log_size_after.size() && log_size_after[commits + 1] <= n) commits++;
    write(path_, main);
    write(path_ + "-wal", log.substr(0, n));
    open();
    auto devices = load();
    store_.reset();
    ASSERT_EQ(devices.size(), 2 + commits) << "log cut at " << n;
    for (size_t i = 2; i < devices.size(); i++) ASSERT_TRUE(devices[i].live == table(30));
  }
}

}  // namespace
}  // namespace dmfs
