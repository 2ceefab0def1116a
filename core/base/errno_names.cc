// SPDX-License-Identifier: Apache-2.0
#include "core/base/errno_names.h"

#include <string.h>

#include <cstdint>

#include "core/base/args.h"

namespace dmfs {
namespace {

constexpr int kMaxErrno = 4095;

}  // namespace

int parse_errno(const std::string& word) {
  uint64_t number = 0;
  bool is_number = parse_u64(word, number);
  for (int code = 1; code <= kMaxErrno; ++code) {
    const char* name = strerrorname_np(code);
    if (name && (is_number ? number == static_cast<uint64_t>(code) : word == name)) return code;
  }
  return 0;
}

}  // namespace dmfs
