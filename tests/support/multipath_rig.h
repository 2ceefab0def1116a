// SPDX-License-Identifier: Apache-2.0
// A device of 100 sectors that is one multipath over the files p1 to p4, and short ways to say what
// tests of it do.
#pragma once

#include <gtest/gtest.h>

#include <future>

#include "tests/support/harness.h"

namespace dmfs::test {

inline constexpr SuspendOptions kNoflush{.noflush = true, .lockfs = false};

class MultipathRig : public ::testing::Test {
 protected:
  MultipathRig() {
    for (const char* name : {"p1", "p2", "p3", "p4"}) rig_.file(name, 100);
  }

  // The words behind "multipath"; the device is live after.
  void start(const std::string& line) {
    ASSERT_TRUE(load(line));
    ASSERT_TRUE(rig_.resume());
  }
  Status load(const std::string& line) { return rig_.load("0 100 multipath " + line); }
  Status say(const std::string& text) {
    auto answer = target().message(*split_args(text));
    return answer ? Status() : Status(answer.error());
  }
  Target& target() { return *device().live_table()->entries()[0].target; }
  std::string status() { return device().live_table()->status().targets[0].params; }
  std::string table() { return device().live_table()->spec().targets[0].params; }
  uint32_t events() { return device().events().number(); }
  MappedDevice& device() { return rig_.device(); }
  HeldFile& file(const char* name) { return rig_.file(name); }
  size_t seen(const char* name) { return file(name).seen().size(); }
  // Starts a suspend on another thread, and returns when it waits for what is inside.
  std::future<Status> suspending(SuspendOptions options, CancelToken* cancel = nullptr) {
    auto done = std::async(std::launch::async,
                           [this, options, cancel] { return rig_.suspend(options, cancel); });
    while (!device().defers()) std::this_thread::yield();
    return done;
  }

  Rig rig_;
};

// Tables of one group and of two.
inline constexpr const char* kOneGroup =
    "2 queue_mode bio 0 1 1 round-robin 0 2 1 p1 1 p2 1";
inline constexpr const char* kQueueing =
    "3 queue_if_no_path queue_mode bio 0 1 1 round-robin 0 2 1 p1 1 p2 1";
inline constexpr const char* kTwoGroups =
    "2 queue_mode bio 0 2 1 round-robin 0 2 1 p1 1 p2 1 round-robin 0 2 1 p3 1 p4 1";

}  // namespace dmfs::test
