// SPDX-License-Identifier: Apache-2.0
// Typed reading of a request's parameters. The first refusal is kept and names the parameter;
// after it every read gives an empty value, so a caller reads all it needs and then asks once.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/result.h"

namespace dmfs {

// One thread. The object must outlive the reader, and so must the names (literals).
class ParamReader {
 public:
  // `where` prefixes names ("targets[3]."); `params` is an object.
  explicit ParamReader(const nlohmann::json& params, std::string where = {})
      : params_(params), where_(std::move(where)) {}

  // Required.
  std::string text(const char* name);
  uint64_t u64(const char* name);
  uint32_t u32(const char* name);
  const nlohmann::json& array(const char* name);

  // Empty (`fallback`) when it is missing.
  std::optional<std::string> optional_text(const char* name);
  std::optional<uint32_t> optional_u32(const char* name);
  bool flag(const char* name, bool fallback = false);

  bool has(const char* name) const { return params_.contains(name); }
  // Keeps a refusal of the caller's own, or of a nested reader.
  void refuse(std::string message);
  bool refused() const { return refused_; }
  // The first refusal; else a refusal of a parameter that nobody has read.
  Status finish();

 private:
  const nlohmann::json* take(const char* name);
  const nlohmann::json* require(const char* name);
  std::string to_text(const char* name, const nlohmann::json& value);
  uint64_t to_number(const char* name, const nlohmann::json& value, uint64_t max);
  void wrong(const char* name, const std::string& why) { refuse(where_ + name + ": " + why); }

  const nlohmann::json& params_;
  std::string where_;
  std::vector<std::string_view> read_;  // literals of the callers
  bool refused_ = false;
  std::string refusal_;
};

}  // namespace dmfs
