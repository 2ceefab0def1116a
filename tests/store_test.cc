// SPDX-License-Identifier: Apache-2.0
// What the store keeps, its constraints, its versions, and commits that fail.
#include <sys/syscall.h>
#include <unistd.h>

#include <thread>

#include "tests/support/store_fixture.h"

// The program's own write and sync stand before libc's for SQLite too, so that a test can count
// them and let the nth one fail.
namespace {

struct Disk {
  int syncs = 0;
  int calls_until_failure = -1;  // -1: never
  int code = 0;
  bool sync_failed = false;
  bool fails(bool sync = false) {
    if (calls_until_failure < 0 || calls_until_failure-- > 0) return false;
    sync_failed = sync;
    errno = code;
    return true;
  }
} disk;

}  // namespace

extern "C" {
int fsync(int fd) {
  disk.syncs++;
  return disk.fails(true) ? -1 : static_cast<int>(syscall(SYS_fsync, fd));
}
int fdatasync(int fd) {
  disk.syncs++;
  return disk.fails(true) ? -1 : static_cast<int>(syscall(SYS_fdatasync, fd));
}
ssize_t write(int fd, const void* data, size_t size) {
  return fd > 2 && disk.fails() ? -1 : syscall(SYS_write, fd, data, size);
}
ssize_t pwrite64(int fd, const void* data, size_t size, off64_t at) {
  return disk.fails() ? -1 : syscall(SYS_pwrite64, fd, data, size, at);
}
ssize_t pwrite(int fd, const void* data, size_t size, off_t at) {
  return disk.fails() ? -1 : syscall(SYS_pwrite64, fd, data, size, at);
}
}

namespace dmfs {
namespace {

class StoreTest : public StoreFixture {};

TEST_F(StoreTest, EmptyStoreIsCreatedPrivateAndReopens) {
  open();
  EXPECT_TRUE(load().empty());
  open();
  EXPECT_TRUE(load().empty());
  auto mode = std::filesystem::status(path_).permissions();
  EXPECT_EQ(mode, std::filesystem::perms::owner_read | std::filesystem::perms::owner_write);
  store_.reset();
  EXPECT_EQ(everything().size(), 1u) << "a closed store is one file";
}

TEST_F(StoreTest, CreationSyncsTheFileAndItsDirectory) {
  disk.syncs = 0;
  open();
  EXPECT_GE(disk.syncs, 2);
}

TEST_F(StoreTest, EveryFieldComesBack) {
  DeviceRecord record = device(4294967295u, std::string("a\\x20b\xff\0c", 9), "LVM-\xc3\xa4");
  record.suspended = true;
  record.deferred_remove = true;
  record.event_nr = 4294967295u;
  record.read_ahead = 0;
  record.geometry = {UINT64_MAX, 1, 2, uint64_t{1} << 63};
  TableSpec live{{{Sectors{0}, Sectors{UINT64_MAX}, "linear", "/a\\ b\xfe 0"},
                  {Sectors{UINT64_MAX}, Sectors{1}, "zero", ""}},
                 true};
  TableSpec inactive{{{Sectors{0}, Sectors{1}, "error", std::string("x\0y", 3)}}, false};
  open();
  commit({PutDevice{record}, PutTable{record.minor, Slot::Live, live},
          PutTable{record.minor, Slot::Inactive, inactive}});
  std::vector<StoredDevice> expected{{record, live, inactive}};
  EXPECT_TRUE(load() == expected);
  open();
  EXPECT_TRUE(load() == expected);
}

TEST_F(StoreTest, DevicesComeInOrderOfMinors) {
  open();
  commit({PutDevice{device(7, "a")}, PutDevice{device(0, "b")}, PutDevice{device(3, "c")}});
  auto devices = load();
  ASSERT_EQ(devices.size(), 3u);
  EXPECT_EQ(devices[0].record.name, "b");
  EXPECT_EQ(devices[1].record.name, "c");
  EXPECT_EQ(devices[2].record.name, "a");
}

TEST_F(StoreTest, PutDeviceKeepsItsTables) {
  open();
  commit({PutDevice{device(0, "old")}, PutTable{0, Slot::Live, table(2)},
          PutTable{0, Slot::Inactive, table(1, true)}});
  DeviceRecord renamed = device(0, "new", "u");
  renamed.event_nr = 5;
  commit({PutDevice{renamed}});
  std::vector<StoredDevice> expected{{renamed, table(2), table(1, true)}};
  EXPECT_TRUE(load() == expected);
}

TEST_F(StoreTest, PutTableReplacesOneSlot) {
  open();
  commit({PutDevice{device(0, "a")}, PutTable{0, Slot::Live, table(5)},
          PutTable{0, Slot::Inactive, table(4)}});
  commit({PutTable{0, Slot::Live, table(2)}});
  std::vector<StoredDevice> expected{{device(0, "a"), table(2), table(4)}};
  EXPECT_TRUE(load() == expected);
  commit({PutTable{0, Slot::Live, table(0, true)}});  // no targets is not the same as no table
  expected[0].live = table(0, true);
  EXPECT_TRUE(load() == expected);
}

TEST_F(StoreTest, DropAndEraseAndWhatIsNotThere) {
  open();
  commit({PutDevice{device(1, "a", "u")}, PutTable{1, Slot::Live, table(3)},
          PutTable{1, Slot::Inactive, table(3)}, PutDevice{device(2, "b")},
          PutTable{2, Slot::Live, table(1)}});
  commit({DropTable{1, Slot::Inactive}, DropTable{1, Slot::Inactive}, DropTable{9, Slot::Live}});
  std::vector<StoredDevice> expected{{device(1, "a", "u"), table(3), {}},
                                     {device(2, "b"), table(1), {}}};
  EXPECT_TRUE(load() == expected);
  commit({EraseDevice{1}, EraseDevice{1}, EraseDevice{77}});
  expected.erase(expected.begin());
  EXPECT_TRUE(load() == expected);
  commit({PutDevice{device(1, "a", "u")}});  // name, uuid and minor are free, no table is left
  open();
  expected.insert(expected.begin(), StoredDevice{device(1, "a", "u"), {}, {}});
  EXPECT_TRUE(load() == expected);
}

TEST_F(StoreTest, NamesAndUuidsAreUniqueAndEmptyUuidsAreNot) {
  open();
  commit({PutDevice{device(0, "a", "u0")}, PutDevice{device(1, "b")}, PutDevice{device(2, "c")}});
  auto before = load();

  Status name = store_->commit({PutDevice{device(5, "early")}, PutDevice{device(3, "a")}});
  ASSERT_FALSE(name);
  EXPECT_EQ(name.error().code, EBUSY);
  EXPECT_EQ(name.error().message, "device name 'a' is already in use by minor 0");

  Status uuid = store_->commit({PutDevice{device(1, "b", "u0")}});
  ASSERT_FALSE(uuid);
  EXPECT_EQ(uuid.error().code, EBUSY);
  EXPECT_EQ(uuid.error().message, "uuid 'u0' is already in use by device a (minor 0)");

  EXPECT_TRUE(load() == before) << "a refused commit left something behind";
  commit({PutDevice{device(0, "z", "u0")}, PutDevice{device(3, "a")}});
}

TEST_F(StoreTest, TableNeedsItsDevice) {
  open();
  Status done = store_->commit({PutDevice{device(0, "a")}, PutTable{8, Slot::Live, table(1)}});
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().code, ENXIO);
  EXPECT_NE(done.error().message.find("no device with minor 8"), std::string::npos);
  EXPECT_TRUE(load().empty());
  commit({});
}

TEST_F(StoreTest, HundredThousandTargets) {
  open();
  commit({PutDevice{device(0, "big")}, PutTable{0, Slot::Live, table(100'000)}});
  commit({PutTable{0, Slot::Live, table(99'999)}, PutTable{0, Slot::Inactive, table(100'000)}});
  open();
  std::vector<StoredDevice> expected{{device(0, "big"), table(99'999), table(100'000)}};
  EXPECT_TRUE(load() == expected);
}

TEST_F(StoreTest, EachCommitIsOneSync) {
  open();
  commit({PutDevice{device(0, "a")}});  // the log's first: its header and directory too
  for (uint32_t i = 1; i < 20; i++) {
    disk.syncs = 0;
    commit({PutDevice{device(i, "n" + std::to_string(i))}, PutTable{i, Slot::Live, table(1)}});
    EXPECT_EQ(disk.syncs, 1);
  }
}

TEST_F(StoreTest, CommitsFromManyThreads) {
  open();
  std::vector<std::thread> threads;
  for (uint32_t t = 0; t < 4; t++) {
    threads.emplace_back([this, t] {
      for (uint32_t i = 0; i < 25; i++) {
        uint32_t minor = t * 100 + i;
        EXPECT_TRUE(store_->commit({PutDevice{device(minor, std::to_string(minor))},
                                    PutTable{minor, Slot::Live, table(1)}}));
      }
    });
  }
  for (auto& thread : threads) thread.join();
  open();
  EXPECT_EQ(load().size(), 100u);
}

// Fails the nth write or sync of a commit, for every n: an error with the disk's errno and the
// old state, here and after a reopen, and the store still works.
TEST_F(StoreTest, FailedCommitLeavesTheStoreAsItWas) {
  std::vector<StoredDevice> before{{device(0, "keep"), table(3), {}}};
  open();
  commit({PutDevice{device(0, "keep")}, PutTable{0, Slot::Live, table(3)}});
  int failures = 0;
  for (int n = 0;; n++) {
    ASSERT_LT(n, 1000);
    disk.code = n % 2 == 0 ? ENOSPC : EIO;
    disk.calls_until_failure = n;
    Status done = store_->commit({PutDevice{device(1, "new")}, PutTable{1, Slot::Live, table(500)},
                                  PutTable{0, Slot::Live, table(500)}});
    bool was_hit = disk.calls_until_failure < 0;
    disk.calls_until_failure = -1;
    ASSERT_EQ(static_cast<bool>(done), !was_hit) << "call " << n;
    if (!was_hit) break;
    failures++;
    // SQLite forgets the errno of a sync.
    EXPECT_EQ(done.error().code, disk.sync_failed ? EIO : disk.code) << done.error().message;
    EXPECT_NE(done.error().message.find(path_), std::string::npos);
    ASSERT_TRUE(load() == before) << "failed call " << n;
    if (n % 5 == 0) {
      open();
      ASSERT_TRUE(load() == before) << "reopened after failed call " << n;
      commit({PutDevice{device(0, "keep")}});  // past the new log's header
    }
  }
  EXPECT_GT(failures, 20) << "a thousand rows are more pages than that";
  open();
  EXPECT_EQ(load().size(), 2u);
  EXPECT_EQ(load()[0].live->targets.size(), 500u);
}

// The same for the creation: refused, or there; never half of it.
TEST_F(StoreTest, FailedCreationLeavesNothing) {
  int refusals = 0;
  for (int n = 0; n < 20; n++) {
    disk.code = EIO;
    disk.calls_until_failure = n;
    auto store = SqliteStore::open(path_);
    disk.calls_until_failure = -1;
    if (!store) {
      refusals++;
      EXPECT_EQ(store.error().code, EIO) << store.error().message;
    } else {
      store->reset();
    }
    open();
    EXPECT_TRUE(load().empty());
    store_.reset();
    std::filesystem::remove(path_);
    EXPECT_TRUE(everything().empty());
  }
  EXPECT_GE(refusals, 4) << "the lock's pid, the image, its sync and the directory's";
}

static_assert(kShippedVersion == 4, "the lists below name the shipped steps one by one");
const Migration kNext[] = {shipped_migrations()[0], shipped_migrations()[1], shipped_migrations()[2], shipped_migrations()[3],
                          {"ALTER TABLE device ADD COLUMN note TEXT NOT NULL DEFAULT 'none';"
                           "CREATE TABLE runtime(minor INTEGER PRIMARY KEY) STRICT"}};
const Migration kBroken[] = {shipped_migrations()[0], shipped_migrations()[1], shipped_migrations()[2], shipped_migrations()[3],
                             {"ALTER TABLE device ADD COLUMN note TEXT; DELETE FROM nowhere"}};
const Migration kOrphans[] = {shipped_migrations()[0], shipped_migrations()[1], shipped_migrations()[2], shipped_migrations()[3], {"DELETE FROM slot"}};

TEST_F(StoreTest, StateOfATarget) {
  open();
  commit({PutDevice{device(0, "a")}, PutTable{0, Slot::Live, table(3)}, PutTable{0, Slot::Inactive, table(2)}});
  commit({PutTargetState{0, Slot::Live, 1, "b\nc"}});
  open();
  TableSpec expected = table(3);
  expected.targets[1].state = "b\nc";
  EXPECT_TRUE(load()[0].live == expected);
  EXPECT_TRUE(load()[0].inactive == table(2));
  commit({PutTargetState{0, Slot::Live, 1, "d"}, PutTargetState{0, Slot::Live, 1, ""}});
  EXPECT_TRUE(load()[0].live == table(3));
  for (PutTargetState nowhere : {PutTargetState{0, Slot::Live, 3, "x"}, {1, Slot::Live, 0, "x"}}) {
    Status done = store_->commit({PutTargetState{0, Slot::Live, 0, "undone"}, nowhere});
    ASSERT_FALSE(done);
    EXPECT_EQ(done.error().code, ENXIO);
  }
  EXPECT_TRUE(load()[0].live == table(3));
  // A whole table brings its states with it.
  commit({PutTable{0, Slot::Inactive, expected}});
  EXPECT_TRUE(load()[0].inactive == expected);
}

TEST_F(StoreTest, OlderVersionIsMigratedOnce) {
  open();
  commit({PutDevice{device(0, "a", "u")}, PutTable{0, Slot::Live, table(3)}});
  auto before = load();
  open(kNext);
  EXPECT_TRUE(load() == before);
  commit({PutDevice{device(1, "b")}});
  open(kNext);
  EXPECT_EQ(load().size(), 2u);
  store_.reset();
  {
    auto db = Database::open(path_, Database::Mode::Exclusive);
    ASSERT_TRUE(db);
    EXPECT_EQ(*db->query("PRAGMA user_version"), "5");
    EXPECT_EQ(*db->query("SELECT group_concat(note) FROM device"), "none,none");
  }
  refused(ENOTSUP, "it has schema version 5, this dmfs knows up to 4");
}

// A store that the first release wrote: its tables are not ordered.
TEST_F(StoreTest, StoreOfVersionOne) {
  auto image = new_store_image(shipped_migrations().first(1));
  ASSERT_TRUE(image);
  write(path_, *image);
  {
    auto db = Database::open(path_, Database::Mode::Exclusive);
    ASSERT_TRUE(db);
    ASSERT_TRUE(db->exec("INSERT INTO device VALUES(0,'a','u',0,0,7,256,1,2,3,4);"
                         "INSERT INTO slot VALUES(0,0,1);"
                         "INSERT INTO target VALUES(0,0,0,0,8,'linear','/data/f 0')"));
  }
  open();
  auto devices = load();
  ASSERT_EQ(devices.size(), 1u);
  EXPECT_EQ(devices[0].record.event_nr, 7u);
  EXPECT_TRUE(devices[0].live == table(1, true));
  TableSpec ordered = table(2);
  ordered.ordered = true;
  commit({PutTable{0, Slot::Inactive, ordered}});
  open();
  EXPECT_TRUE(load()[0].inactive == ordered);
  EXPECT_TRUE(load()[0].live == table(1, true));
}

TEST_F(StoreTest, ScriptsStayWithTheirTable) {
  open();
  TableSpec scripted = table(3), other = table(1);
  scripted.targets[0].attachments = {{"emc", "return {}\n-- \xc3\xa4"}, {"x", ""}};
  scripted.targets[2].attachments = {{"emc", std::string(100000, 'x')}};
  other.targets[0].attachments = {{"emc", "other"}};
  commit({PutDevice{device(0, "a")}, PutTable{0, Slot::Live, scripted}, PutTable{0, Slot::Inactive, other}});
  open();
  EXPECT_TRUE(load()[0].live == scripted);
  EXPECT_TRUE(load()[0].inactive == other);
  commit({PutTable{0, Slot::Live, table(3)}, DropTable{0, Slot::Inactive}});
  open();
  EXPECT_TRUE(load()[0].live == table(3));
  commit({PutTable{0, Slot::Live, scripted}, EraseDevice{0}, PutDevice{device(0, "a")},
          PutTable{0, Slot::Live, table(3)}});
  open();
  EXPECT_TRUE(load()[0].live == table(3));
}

TEST_F(StoreTest, OlderVersionWithALogIsMigrated) {
  open();
  commit({PutDevice{device(0, "a")}, PutTable{0, Slot::Live, table(3)}});
  auto expected = load();
  std::string main = bytes(path_), log = bytes(path_ + "-wal");
  store_.reset();
  write(path_, main);
  write(path_ + "-wal", log);
  open(kNext);
  EXPECT_TRUE(load() == expected);
}

TEST_F(StoreTest, MigrationThatFailsChangesNothing) {
  open();
  commit({PutDevice{device(0, "a")}, PutTable{0, Slot::Live, table(3)}});
  auto before = load();
  store_.reset();
  refused(EIO, "cannot be brought from schema version 4 to 5", kBroken);
  refused(EUCLEAN, "row without its slot", kOrphans);
  open();
  EXPECT_TRUE(load() == before);
}

}  // namespace
}  // namespace dmfs
