// SPDX-License-Identifier: Apache-2.0
// For tests of what lies on files: each runs with every way of doing file I/O.
#pragma once

#include <gtest/gtest.h>

#include <string>

#include "core/io/io_service.h"

namespace dmfs::test {

// Skips, aloud, where io_uring is forbidden.
class EveryEngine : public ::testing::TestWithParam<IoService::Options> {
 protected:
  void SetUp() override {
    if (options().engine != Engine::Uring) return;
    if (Status had = IoService(options()).status(); !had) GTEST_SKIP() << had.error().message;
  }
  static IoService::Options options() { return GetParam(); }
};

inline std::string engine_test_name(const ::testing::TestParamInfo<IoService::Options>& info) {
  std::string name(kEngineNames[static_cast<size_t>(info.param.engine)]);
  return info.param.direct ? name + "_direct" : name;
}

#define DM_FOR_EVERY_ENGINE(suite)                                                    \
  INSTANTIATE_TEST_SUITE_P(                                                           \
      Engines, suite,                                                                 \
      ::testing::Values(IoService::Options{.engine = Engine::Auto},                   \
                        IoService::Options{.engine = Engine::Inline},                 \
                        IoService::Options{.engine = Engine::Threads},                \
                        IoService::Options{.engine = Engine::Uring},                  \
                        IoService::Options{.engine = Engine::Threads, .direct = true}, \
                        IoService::Options{.engine = Engine::Uring, .direct = true}), \
      engine_test_name)

}  // namespace dmfs::test
