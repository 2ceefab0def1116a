// SPDX-License-Identifier: Apache-2.0
// name -> const type. One idiom for every plug-in kind: targets now; path selectors, hardware
// handlers, dirty logs and exception stores later. Types are registered by an explicit list
// (targets/builtin.cc); a static constructor in a static library is dropped by the linker.
#pragma once

#include <map>
#include <string>
#include <string_view>

#include "core/base/result.h"

namespace dmfs {

// T has a member `name` (std::string_view) and static storage duration. Filled before the first
// thread starts, read-only after.
template <typename T>
class Registry {
 public:
  Status add(const T& type) {
    if (!types_.emplace(std::string(type.name), &type).second) {
      return Error{EEXIST, std::string(type.name) + ": registered twice"};
    }
    return {};
  }
  // nullptr when there is none.
  const T* find(std::string_view name) const {
    auto it = types_.find(name);
    return it == types_.end() ? nullptr : it->second;
  }
  // In name order.
  const std::map<std::string, const T*, std::less<>>& all() const { return types_; }

 private:
  std::map<std::string, const T*, std::less<>> types_;
};

}  // namespace dmfs
