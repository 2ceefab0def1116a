// SPDX-License-Identifier: Apache-2.0
#include "cli/mangle.h"

#include <fmt/format.h>

namespace dmfs::cli {
namespace {

bool is_safe(char c) {
  return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
         (c != '\0' && std::string_view("#+-.:=@_").find(c) != std::string_view::npos);
}

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

// The byte that a \xNN at the start of `text` stands for, or -1.
int escaped_byte(std::string_view text) {
  if (text.size() < 4 || text[0] != '\\' || text[1] != 'x') return -1;
  int high = hex_digit(text[2]), low = hex_digit(text[3]);
  return high < 0 || low < 0 ? -1 : high * 16 + low;
}

}  // namespace

std::optional<Mangling> parse_mangling(std::string_view word) {
  if (word == "none") return Mangling::None;
  if (word == "auto") return Mangling::Auto;
  if (word == "hex") return Mangling::Hex;
  return std::nullopt;
}

Result<std::string> mangle(std::string_view text, Mangling mode) {
  if (mode == Mangling::None) return std::string(text);
  std::string out;
  bool kept = false, changed = false;
  for (size_t i = 0; i < text.size();) {
    if (mode == Mangling::Auto && escaped_byte(text.substr(i)) >= 0) {
      out += text.substr(i, 4);
      i += 4;
      kept = true;
      continue;
    }
    if (is_safe(text[i])) {
      out += text[i];
    } else {
      out += fmt::format("\\x{:02x}", static_cast<unsigned char>(text[i]));
      changed = true;
    }
    i++;
  }
  if (kept && changed) {
    return Error{EINVAL, fmt::format("\"{}\" mixes \\xNN with characters that need it", text)};
  }
  return out;
}

std::string unmangle(std::string_view text, Mangling mode) {
  if (mode == Mangling::None) return std::string(text);
  std::string out;
  for (size_t i = 0; i < text.size();) {
    int byte = escaped_byte(text.substr(i));
    if (byte >= 0) {
      out += static_cast<char>(byte);
      i += 4;
    } else {
      out += text[i++];
    }
  }
  return out;
}

}  // namespace dmfs::cli
