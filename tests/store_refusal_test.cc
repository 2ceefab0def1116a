// SPDX-License-Identifier: Apache-2.0
// Stores that are damaged, foreign or out of reach.
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <random>

#include "tests/support/child.h"
#include "tests/support/store_fixture.h"

namespace dmfs {
namespace {

class StoreRefusalTest : public StoreFixture {
 protected:
  void sql(const std::string& statements) {
    sqlite3* db = nullptr;
    ASSERT_EQ(sqlite3_open(path_.c_str(), &db), SQLITE_OK);
    ASSERT_EQ(sqlite3_exec(db, statements.c_str(), nullptr, nullptr, nullptr), SQLITE_OK)
        << sqlite3_errmsg(db);
    sqlite3_close(db);
  }
  // "<errno> <message>" of open(), tried as an ordinary user.
  std::string refusal_as_nobody() {
    Child child([this](int out) {
      if (geteuid() == 0 && (setgid(65534) != 0 || setuid(65534) != 0)) return;
      auto store = SqliteStore::open(path_);
      std::string text =
          store ? "opened" : std::to_string(store.error().code) + " " + store.error().message;
      (void)!::write(out, text.data(), text.size());
    });
    return child.read(4096);
  }
  void give_to_nobody() {
    if (geteuid() != 0) return;
    for (const auto& entry : std::filesystem::directory_iterator(dir_)) {
      ASSERT_EQ(lchown(entry.path().c_str(), 65534, 65534), 0);
    }
    ASSERT_EQ(chown(dir_.c_str(), 65534, 65534), 0);
  }
};

TEST_F(StoreRefusalTest, TruncatedAtEveryLength) {
  fill();
  std::string whole = bytes(path_);
  ASSERT_GT(whole.size(), 20'000u);
  std::vector<size_t> lengths;
  for (size_t n = 1; n < whole.size(); n += n < 128 ? 3 : 1021) lengths.push_back(n);
  for (size_t n = 4096; n < whole.size(); n += 4096) lengths.push_back(n);
  lengths.push_back(whole.size() - 1);
  for (size_t n : lengths) {
    write(path_, whole.substr(0, n));
    refused(EUCLEAN, "is damaged");
    if (HasFailure()) FAIL() << "at length " << n;
  }
  write(path_, whole);
  open();
  EXPECT_EQ(load().size(), 2u);
}

TEST_F(StoreRefusalTest, EmptyFileIsANewStoreAndKeepsItsMode) {
  write(path_, "");
  ASSERT_EQ(chmod(path_.c_str(), 0640), 0);
  open();
  EXPECT_TRUE(load().empty());
  struct stat st;
  ASSERT_EQ(stat(path_.c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 0777, 0640u);
}

TEST_F(StoreRefusalTest, LostMainFileWithItsLog) {
  open();
  commit({PutDevice{device(0, "a")}});
  std::string log = bytes(path_ + "-wal");
  ASSERT_FALSE(log.empty());
  store_.reset();
  write(path_ + "-wal", log);
  std::filesystem::remove(path_);
  refused(EUCLEAN, "is missing, but its log");
  write(path_, "");
  refused(EUCLEAN, "is empty, but its log");
}

TEST_F(StoreRefusalTest, Garbage) {
  std::mt19937 random(1);
  std::string garbage(50'000, '\0');
  for (char& c : garbage) c = static_cast<char>(random());
  write(path_, garbage);
  refused(EINVAL, "is not a dmfs store: not an SQLite file");
  write(path_, "x");
  refused(EINVAL, "is not a dmfs store");
  write(path_, std::string(4096, '\0'));
  refused(EINVAL, "is not a dmfs store");
}

TEST_F(StoreRefusalTest, EveryDamagedPageIsFound) {
  fill();
  std::string whole = bytes(path_);
  std::mt19937 random(2);
  for (size_t page = 0; page < whole.size() / 4096; page++) {
    std::string damaged = whole;
    // Behind the file's header, so that it is still one of ours.
    for (size_t i = page == 0 ? 100 : 0; i < 4096; i++) {
      damaged[page * 4096 + i] = static_cast<char>(random());
    }
    write(path_, damaged);
    refused(EUCLEAN, "is damaged");
    if (HasFailure()) FAIL() << "page " << page;
  }
}

TEST_F(StoreRefusalTest, DamageUnderALogIsFoundAndNotTouched) {
  fill();
  open();
  commit({PutDevice{device(2, "c")}});
  std::string main = bytes(path_), log = bytes(path_ + "-wal");
  store_.reset();
  ASSERT_GT(log.size(), 0u);
  std::mt19937 random(3);
  for (size_t i = main.size() - 4096; i < main.size(); i++) main[i] = static_cast<char>(random());
  write(path_, main);
  write(path_ + "-wal", log);
  refused(EUCLEAN, "is damaged");
}

TEST_F(StoreRefusalTest, RandomDamageNeverCrashes) {
  fill();
  std::string whole = bytes(path_);
  for (unsigned seed = 0; seed < 100; seed++) {
    std::mt19937 random(seed);
    std::string damaged = whole;
    for (int i = 0; i < 8; i++) damaged[random() % whole.size()] = static_cast<char>(random());
    write(path_, damaged);
    std::filesystem::remove(path_ + "-wal");
    auto store = SqliteStore::open(path_);
    if (!store) {
      EXPECT_NE(store.error().message.find(path_), std::string::npos) << "seed " << seed;
      EXPECT_EQ(bytes(path_) == damaged, true) << "seed " << seed;
    } else {
      (void)(*store)->load();  // a changed letter in a name is beyond what a check can see
    }
  }
}

TEST_F(StoreRefusalTest, ForeignDatabases) {
  sql("CREATE TABLE bookmarks(url TEXT)");
  refused(EINVAL, "an SQLite file of another program (application id 0x0)");
  sql("PRAGMA application_id=252006673");  // fossil's
  refused(EINVAL, "another program (application id 0xf055111)");
  sql("PRAGMA application_id=" + std::to_string(kApplicationId));
  refused(EINVAL, "schema version 0");
  sql("PRAGMA user_version=1");
  refused(EINVAL, "its tables are not those of schema version 1");
}

TEST_F(StoreRefusalTest, ExtraTriggerOrTableInOurs) {
  fill();
  std::string whole = bytes(path_);
  sql("CREATE TRIGGER evil AFTER INSERT ON device BEGIN DELETE FROM slot; END");
  refused(EINVAL, "its tables are not those of schema version 4");
  write(path_, whole);
  sql("DROP TABLE target");
  refused(EINVAL, "its tables are not those of schema version 4");
  write(path_, whole);
  sql("PRAGMA user_version=-1");
  refused(EINVAL, "schema version -1");
  write(path_, whole);
  sql("ANALYZE");  // harmless
  open();
  EXPECT_EQ(load().size(), 2u);
}

TEST_F(StoreRefusalTest, RowsThatNoCommitWrote) {
  fill();
  std::string whole = bytes(path_);
  sql("DELETE FROM slot WHERE minor=0");  // keys are off in a bare connection
  refused(EUCLEAN, "row without its slot");
  for (const char* change : {"UPDATE slot SET slot=7 WHERE minor=1; UPDATE target SET slot=7 "
                             "WHERE minor=1",
                             "UPDATE device SET event_nr=4294967296 WHERE minor=1",
                             "UPDATE device SET minor=-1 WHERE minor=0;"
                             "UPDATE slot SET minor=-1 WHERE minor=0;"
                             "UPDATE target SET minor=-1 WHERE minor=0"}) {
    write(path_, whole);
    sql(std::string("PRAGMA ignore_check_constraints=ON;") + change);
    std::string changed = bytes(path_);
    open();
    auto devices = store_->load();
    ASSERT_FALSE(devices) << change;
    EXPECT_EQ(devices.error().code, EUCLEAN);
    EXPECT_NE(devices.error().message.find(path_ + " is damaged"), std::string::npos);
    store_.reset();
    EXPECT_TRUE(bytes(path_) == changed);
  }
}

TEST_F(StoreRefusalTest, NewerVersion) {
  fill();
  sql("PRAGMA user_version=2147483647");
  refused(ENOTSUP, "was written by a newer dmfs: it has schema version 2147483647");
}

TEST_F(StoreRefusalTest, RollbackJournalIsNotPlayed) {
  fill();
  write(path_ + "-journal", std::string("\xd9\xd5\x05\xf9\x20\xa1\x63\xd7", 8));
  refused(EUCLEAN, "rollback journal");
}

TEST_F(StoreRefusalTest, WhatIsNotAFile) {
  std::filesystem::create_directory(path_);
  refused(EISDIR, "is a directory");
  std::filesystem::remove(path_);
  ASSERT_EQ(mkfifo(path_.c_str(), 0600), 0);
  refused(EINVAL, "is not a regular file");
  std::filesystem::remove(path_);
  std::filesystem::create_symlink(dir_ + "/nowhere", path_);
  refused(ENOENT, "is a symbolic link to a file that does not exist");
  std::filesystem::remove(path_);
  path_ = dir_ + "/new/";
  refused(EISDIR, "names a directory");
  path_ = dir_ + "/" + std::string(250, 'x') + "/";
  for (int i = 0; i < 2; i++) {
    std::filesystem::create_directory(path_);
    path_ += std::string(200, 'y') + "/";
  }
  path_.back() = 'z';
  refused(ENAMETOOLONG, "more than 500");
  EXPECT_FALSE(SqliteStore::open(""));
  EXPECT_FALSE(SqliteStore::open(std::string("/tmp/a\0b", 8)));
}

TEST_F(StoreRefusalTest, OddNamesWork) {
  path_ = dir_ + "/a b?mode=memory#x%41&\xff'\".db";
  fill();
  EXPECT_TRUE(std::filesystem::exists(path_));
  open();
  EXPECT_EQ(load().size(), 2u);
}

TEST_F(StoreRefusalTest, MissingParentIsNamedAndNotMade) {
  path_ = dir_ + "/sub/dmfs.db";
  refused(ENOENT, dir_ + "/sub does not exist");
  EXPECT_FALSE(std::filesystem::exists(dir_ + "/sub"));
  write(dir_ + "/file", "");
  path_ = dir_ + "/file/dmfs.db";
  refused(ENOTDIR, dir_ + "/file is a file");
}

TEST_F(StoreRefusalTest, UnreadableReadOnlyAndReadOnlyDirectory) {
  fill();
  auto before = everything();
  give_to_nobody();
  ASSERT_EQ(chmod(path_.c_str(), 0), 0);
  EXPECT_EQ(refusal_as_nobody(), "13 store " + path_ + " cannot be read: Permission denied");
  ASSERT_EQ(chmod(path_.c_str(), 0400), 0);
  EXPECT_EQ(refusal_as_nobody(), "13 store " + path_ + " is read-only: Permission denied");
  ASSERT_EQ(chmod(path_.c_str(), 0600), 0);
  ASSERT_EQ(chmod(dir_.c_str(), 0500), 0);
  EXPECT_EQ(refusal_as_nobody(), "13 store " + path_ + " cannot be written: its directory " + dir_ +
                                     " is read-only: Permission denied");
  EXPECT_TRUE(everything() == before);
  ASSERT_EQ(chmod(dir_.c_str(), 0700), 0);
  EXPECT_EQ(refusal_as_nobody(), "opened");
}

TEST_F(StoreRefusalTest, ReadOnlyAndFullFileSystem) {
  std::string mount_point = dir_ + "/fs";
  std::filesystem::create_directory(mount_point);
  if (mount("tmpfs", mount_point.c_str(), "tmpfs", 0, "size=1m") != 0) {
    GTEST_SKIP() << "no right to mount a tmpfs: " << strerror(errno);
  }
  path_ = mount_point + "/dmfs.db";
  fill();
  EXPECT_EQ(mount("", mount_point.c_str(), "", MS_REMOUNT | MS_RDONLY, ""), 0);
  auto store = SqliteStore::open(path_);
  EXPECT_FALSE(store);
  EXPECT_EQ(store.error().code, EROFS);
  EXPECT_EQ(store.error().message, "store " + path_ + " is read-only: Read-only file system");
  EXPECT_EQ(mount("", mount_point.c_str(), "", MS_REMOUNT, "size=1m"), 0);
  open();
  auto before = load();
  Status done = store_->commit({PutTable{0, Slot::Inactive, table(50'000)}});
  EXPECT_FALSE(done);
  EXPECT_EQ(done.error().code, ENOSPC) << done.error().message;
  EXPECT_TRUE(load() == before);
  commit({PutDevice{device(9, "small")}});  // the failed one's room is free again
  open();
  EXPECT_EQ(load().size(), 3u);
  store_.reset();
  EXPECT_EQ(umount(mount_point.c_str()), 0);
}

}  // namespace
}  // namespace dmfs
