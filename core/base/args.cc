// SPDX-License-Identifier: Apache-2.0
#include "core/base/args.h"

#include <algorithm>
#include <charconv>

#include <fmt/format.h>

namespace dmfs {
namespace {

bool is_space(char c) {
  return c == ' ' || c == '\t' || c == '\n' || c == '\v' || c == '\f' || c == '\r';
}

}  // namespace

Result<std::vector<std::string>> split_args(std::string_view line) {
  std::vector<std::string> words;
  size_t i = 0;
  while (true) {
    while (i < line.size() && is_space(line[i])) ++i;
    if (i == line.size()) return words;
    if (words.size() == kMaxArgs) {
      return Error{EINVAL, fmt::format("more than {} words in a table line", kMaxArgs)};
    }
    std::string word;
    for (; i < line.size() && !is_space(line[i]); ++i) {
      if (line[i] == '\\' && i + 1 < line.size()) ++i;
      if (line[i] == '\0') return Error{EINVAL, "a NUL byte in a table line"};
      word.push_back(line[i]);
    }
    words.push_back(std::move(word));
  }
}

std::string quote_arg(std::string_view word) {
  std::string out;
  out.reserve(word.size());
  for (char c : word) {
    if (is_space(c) || c == '\\') out.push_back('\\');
    out.push_back(c);
  }
  return out;
}

bool parse_u64(std::string_view word, uint64_t& value) {
  if (word.empty() || word[0] < '0' || word[0] > '9') return false;
  auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), value);
  return error == std::errc{} && end == word.data() + word.size();
}

bool same_word(std::string_view word, std::string_view lower_case) {
  auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; };
  return std::equal(word.begin(), word.end(), lower_case.begin(), lower_case.end(),
                    [&](char a, char b) { return lower(a) == b; });
}

std::string_view ArgReader::peek() const {
  return next_ < args_.size() ? std::string_view(args_[next_]) : std::string_view();
}

Error ArgReader::fail(std::string_view what, std::string_view word, int code) const {
  if (word.empty()) return Error{code, fmt::format("{}: {}", type_, what)};
  return Error{code, fmt::format("{}: {}: '{}'", type_, what, word)};
}

Result<std::string> ArgReader::word(std::string_view missing) {
  if (next_ == args_.size()) return fail(missing);
  return args_[next_++];
}

Result<uint64_t> ArgReader::number(std::string_view what, uint64_t min, uint64_t max) {
  if (next_ == args_.size()) return fail(what);
  const std::string& text = args_[next_];
  uint64_t value = 0;
  if (!parse_u64(text, value) || value < min || value > max) return fail(what, text);
  ++next_;
  return value;
}

Result<Sectors> ArgReader::sectors(std::string_view what) {
  DM_TRY(uint64_t n, number(what));
  return Sectors{n};
}

}  // namespace dmfs
