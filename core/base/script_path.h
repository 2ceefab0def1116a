// SPDX-License-Identifier: Apache-2.0
// Scripts by name: NAME.lua in the first of some directories that has it.
#pragma once

#include <string>
#include <vector>

#include "core/base/result.h"

namespace dmfs {

inline constexpr size_t kMaxScriptBytes = size_t{256} << 10;

class ScriptPath {
 public:
  explicit ScriptPath(std::vector<std::string> directories) : directories_(std::move(directories)) {}

  // The text of a script. A name is letters, digits, '_' and '-'; one that is not, or that no
  // directory has, is ENOENT. What is no regular file, too long (EFBIG) or cannot be read has an
  // error that names the file. May block. Any thread.
  Result<std::string> read(const std::string& name) const;

 private:
  const std::vector<std::string> directories_;
};

}  // namespace dmfs
