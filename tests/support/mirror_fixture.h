// SPDX-License-Identifier: Apache-2.0
// A mirror over held files a, b and c of 2048 sectors, that begin with contents A, B and C, and a
// file log. The clock moves only when a test says so; copying is done by a thread, which tests wait
// for.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <thread>

#include "tests/support/harness.h"

namespace dmfs::test {

using namespace std::chrono_literals;

class MirrorTest : public ::testing::Test {
 protected:
  MirrorTest() {
    for (const char* name : {"a", "b", "c", "log"}) rig_.file(name, 2048);
    fill("a", 'A');
    fill("b", 'B');
    fill("c", 'C');
  }
  ~MirrorTest() override {
    for (const char* name : {"a", "b", "c", "log"}) {
      file(name).hold(false);
      file(name).complete_all();
    }
  }
  HeldFile& file(const std::string& name) { return rig_.file(name); }
  MappedDevice& device() { return rig_.device(); }

  void fill(const std::string& name, char tag) {
    TestBio all(Op::Write, {0}, {2048});
    all.fill(tag);
    file(name).poke({}, all.memory());
  }
  bool holds(const std::string& name, char tag, uint64_t at, uint64_t count) {
    TestBio some(Op::Read, {at}, {count});
    some.memory() = file(name).peek({at}, {count});
    return some.holds(tag, at);
  }
  void load(const std::string& params, uint64_t length = 2048) {
    auto loaded = rig_.load("0 " + std::to_string(length) + " mirror " + params);
    ASSERT_TRUE(loaded) << loaded.error().message;
    ASSERT_TRUE(rig_.resume());
  }
  std::string refusal(const std::string& params) {
    auto loaded = rig_.load("0 2048 mirror " + params);
    EXPECT_FALSE(loaded) << params;
    return loaded ? "" : loaded.error().message;
  }
  std::string status() { return device().live_table()->status().targets[0].params; }
  std::string table() { return device().live_table()->spec().targets[0].params; }
  uint32_t events() { return device().events().number(); }
  bool eventually(const std::function<bool()>& condition) {
    auto end = std::chrono::steady_clock::now() + 10s;
    while (!condition()) {
      if (std::chrono::steady_clock::now() > end) return false;
      std::this_thread::yield();
    }
    return true;
  }
  void expect_status(const std::string& want) {
    EXPECT_TRUE(eventually([&] { return status() == want; })) << status() << "\nwant: " << want;
  }
  bool becomes_done(const std::shared_ptr<TestBio>& bio) {
    return eventually([&] { return bio->done(); });
  }
  bool legs_equal(const std::string& a = "a", const std::string& b = "b") {
    return file(a).peek({}, {2048}) == file(b).peek({}, {2048});
  }
  void advance(Clock::Duration by) { rig_.clock().advance(by); }
  // The first bytes of the bitset on the log.
  std::vector<int> bits(size_t count) {
    std::vector<int> out;
    auto sector = file("log").peek({2}, {1});
    for (size_t i = 0; i < count; ++i) out.push_back(static_cast<int>(sector[i]));
    return out;
  }
  size_t count_seen(const std::string& name, Op op) {
    size_t n = 0;
    for (const SeenBio& bio : file(name).seen()) n += bio.op == op;
    return n;
  }
  void replace_table(const std::string& params, bool noflush = true) {
    ASSERT_TRUE(rig_.load("0 2048 " + params));
    ASSERT_TRUE(rig_.suspend({.noflush = noflush, .lockfs = false}));
    ASSERT_TRUE(rig_.resume());
  }

  Rig rig_;
};

}  // namespace dmfs::test
