// SPDX-License-Identifier: Apache-2.0
// A work directory per test, and short words for what a store keeps.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "store/sqlite_store.h"

namespace dmfs {

inline bool operator==(const StoredDevice& a, const StoredDevice& b) {
  return a.record == b.record && a.live == b.live && a.inactive == b.inactive;
}

inline DeviceRecord device(uint32_t minor, std::string name, std::string uuid = "") {
  DeviceRecord record;
  record.minor = minor;
  record.name = std::move(name);
  record.uuid = std::move(uuid);
  return record;
}

// `count` linear targets of 8 sectors each.
inline TableSpec table(uint64_t count, bool read_only = false) {
  TableSpec spec;
  spec.read_only = read_only;
  for (uint64_t i = 0; i < count; i++) {
    spec.targets.push_back({Sectors{i * 8}, Sectors{8}, "linear", "/data/f " + std::to_string(i)});
  }
  return spec;
}

class StoreFixture : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string name = (std::filesystem::temp_directory_path() / "dmfs-store-XXXXXX").string();
    ASSERT_NE(mkdtemp(name.data()), nullptr);
    dir_ = std::filesystem::canonical(name).string();
    path_ = dir_ + "/dmfs.db";
  }
  void TearDown() override {
    store_.reset();
    std::filesystem::remove_all(dir_);
  }

  // Opens (closing the last one first) and keeps the store in store_.
  void open(Migrations migrations = shipped_migrations()) {
    store_.reset();
    auto store = SqliteStore::open(path_, migrations);
    ASSERT_TRUE(store) << store.error().message;
    store_ = std::move(*store);
  }
  void commit(const std::vector<StoreChange>& changes) {
    Status done = store_->commit(changes);
    ASSERT_TRUE(done) << done.error().message;
  }
  std::vector<StoredDevice> load() {
    auto devices = store_->load();
    EXPECT_TRUE(devices) << devices.error().message;
    return devices ? *devices : std::vector<StoredDevice>();
  }

  // A closed store with two devices.
  void fill() {
    open();
    commit({PutDevice{device(0, "a", "u")}, PutTable{0, Slot::Live, table(300)},
            PutDevice{device(1, "b")}, PutTable{1, Slot::Inactive, table(1)}});
    store_.reset();
  }

  static std::string bytes(const std::string& file) {
    std::ifstream in(file, std::ios::binary);
    return std::string(std::istreambuf_iterator<char>(in), {});
  }
  static void write(const std::string& file, const std::string& content) {
    std::ofstream(file, std::ios::binary | std::ios::trunc) << content;
  }
  // Every file of the directory with its bytes.
  std::map<std::string, std::string> everything() const {
    std::map<std::string, std::string> files;
    for (const auto& entry : std::filesystem::directory_iterator(dir_)) {
      files[entry.path().filename()] = entry.is_regular_file() ? bytes(entry.path()) : "";
    }
    return files;
  }
  // Opening is refused with `code` and a sentence that names the file and has `words` in it, and
  // leaves every byte of the directory as it was.
  void refused(int code, const std::string& words, Migrations migrations = shipped_migrations()) {
    auto before = everything();
    auto store = SqliteStore::open(path_, migrations);
    ASSERT_FALSE(store) << "expected: " << words;
    EXPECT_EQ(store.error().code, code) << store.error().message;
    EXPECT_NE(store.error().message.find(words), std::string::npos) << store.error().message;
    EXPECT_NE(store.error().message.find(path_), std::string::npos) << store.error().message;
    EXPECT_TRUE(everything() == before) << "the refusal changed a file: " << words;
  }

  std::string dir_, path_;
  std::unique_ptr<SqliteStore> store_;
};

}  // namespace dmfs
