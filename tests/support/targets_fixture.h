// SPDX-License-Identifier: Apache-2.0
// Makes one built-in target at a time, over devices in memory.
#pragma once

#include <gtest/gtest.h>

#include "core/targets/builtin.h"
#include "tests/support/test_context.h"

namespace dmfs::test {

// A target, its context with devices a, b, c, d of 2048 sectors each (as the golden /dev/ramN).
class TargetsFixture : public ::testing::Test {
 protected:
  TargetsFixture() { register_builtin_targets(registry_); }

  Result<std::unique_ptr<Target>> try_make(Sectors length, const char* type, const char* params,
                                           Sectors begin = {}) {
    context_ = std::make_unique<TestContext>(begin, length);
    for (const char* word : {"a", "b", "c", "d"}) context_->add_device(word, {2048});
    return make_target(registry_, *context_, type, params);
  }
  std::unique_ptr<Target> make(Sectors length, const char* type, const char* params,
                               Sectors begin = {}) {
    auto made = try_make(length, type, params, begin);
    EXPECT_TRUE(made) << made.error().message;
    return made ? *std::move(made) : nullptr;
  }
  HeldFile& file(const char* word) { return context_->device(word); }

  TargetRegistry registry_;
  std::unique_ptr<TestContext> context_;
};

}  // namespace dmfs::test
