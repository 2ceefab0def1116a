// SPDX-License-Identifier: Apache-2.0
#include "core/control/param_reader.h"

#include <algorithm>
#include <utility>

namespace dmfs {

using nlohmann::json;

void ParamReader::refuse(std::string message) {
  if (refused_) return;
  refused_ = true;
  refusal_ = std::move(message);
}

const json* ParamReader::take(const char* name) {
  read_.push_back(name);
  auto it = params_.find(name);
  return it == params_.end() ? nullptr : &*it;
}

const json* ParamReader::require(const char* name) {
  const json* value = take(name);
  if (value == nullptr) wrong(name, "missing");
  return value;
}

std::string ParamReader::to_text(const char* name, const json& value) {
  if (!value.is_string()) {
    wrong(name, std::string("not a string but a ") + value.type_name());
    return {};
  }
  const auto& text = value.get_ref<const std::string&>();
  // Below here names and paths meet C functions, for which the text would end there.
  if (text.find('\0') != std::string::npos) {
    wrong(name, "has a NUL byte");
    return {};
  }
  return text;
}

uint64_t ParamReader::to_number(const char* name, const json& value, uint64_t max) {
  bool whole =
      value.is_number_unsigned() || (value.is_number_integer() && value.get<int64_t>() >= 0);
  if (!whole) {
    wrong(name, value.is_number()
                    ? value.dump() + " is not a whole number from 0 to " + std::to_string(max)
                    : std::string("not a number but a ") + value.type_name());
    return 0;
  }
  auto number = value.get<uint64_t>();
  if (number > max) {
    wrong(name, std::to_string(number) + " is more than " + std::to_string(max));
    return 0;
  }
  return number;
}

std::string ParamReader::text(const char* name) {
  const json* value = require(name);
  return value == nullptr ? std::string() : to_text(name, *value);
}

uint64_t ParamReader::u64(const char* name) {
  const json* value = require(name);
  return value == nullptr ? 0 : to_number(name, *value, UINT64_MAX);
}

uint32_t ParamReader::u32(const char* name) {
  const json* value = require(name);
  return value == nullptr ? 0 : static_cast<uint32_t>(to_number(name, *value, UINT32_MAX));
}

const json& ParamReader::array(const char* name) {
  static const json kEmpty = json::array();
  const json* value = require(name);
  if (value != nullptr && value->is_array()) return *value;
  if (value != nullptr) wrong(name, std::string("not an array but a ") + value->type_name());
  return kEmpty;
}

std::optional<std::string> ParamReader::optional_text(const char* name) {
  const json* value = take(name);
  if (value == nullptr) return std::nullopt;
  return to_text(name, *value);
}

std::optional<uint32_t> ParamReader::optional_u32(const char* name) {
  const json* value = take(name);
  if (value == nullptr) return std::nullopt;
  return static_cast<uint32_t>(to_number(name, *value, UINT32_MAX));
}

bool ParamReader::flag(const char* name, bool fallback) {
  const json* value = take(name);
  if (value == nullptr) return fallback;
  if (!value->is_boolean()) {
    wrong(name, std::string("neither true nor false but a ") + value->type_name());
    return fallback;
  }
  return value->get<bool>();
}

Status ParamReader::finish() {
  if (!refused_) {
    for (const auto& item : params_.items()) {
      if (std::find(read_.begin(), read_.end(), item.key()) == read_.end()) {
        refuse("unknown parameter '" + where_ + item.key() + "'");
        break;
      }
    }
  }
  if (refused_) return Error{EINVAL, refusal_};
  return {};
}

}  // namespace dmfs
