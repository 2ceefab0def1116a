// SPDX-License-Identifier: Apache-2.0
// Words of a table line or a message: splitting and quoting as the kernel's dm_split_args does,
// and typed reading that names the offending word.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/result.h"
#include "core/base/units.h"

namespace dmfs {

inline constexpr size_t kMaxArgs = 1 << 20;

// Splits at white space; a backslash makes the next character part of a word.
Result<std::vector<std::string>> split_args(std::string_view line);

// The word with a backslash before each white-space character and backslash, so that
// split_args(quote_arg(w)) == {w}. An empty word cannot be quoted and stays empty.
std::string quote_arg(std::string_view word);

// Decimal digits only, as the kernel's sscanf("%llu%c"): no sign, no prefix, no suffix. Unlike
// the kernel, a number past 2^64-1 is refused instead of wrapped.
bool parse_u64(std::string_view word, uint64_t& value);

// Whether the words differ in no more than the case of ASCII letters; `lower_case` has no capital.
bool same_word(std::string_view word, std::string_view lower_case);

// Reads words in turn. Every refusal carries `what` (the kernel's own error text, such as
// "Invalid device sector") and the word in quotes.
class ArgReader {
 public:
  // `args` must outlive the reader. `type` prefixes every message ("linear: ...").
  ArgReader(std::string_view type, std::span<const std::string> args) : type_(type), args_(args) {}

  size_t size() const { return args_.size(); }
  size_t left() const { return args_.size() - next_; }
  // The next word, without taking it; empty at the end.
  std::string_view peek() const;

  // The next word; `missing` is the message when there is none.
  Result<std::string> word(std::string_view missing);
  // The next word as a number in [min, max].
  Result<uint64_t> number(std::string_view what, uint64_t min = 0, uint64_t max = UINT64_MAX);
  Result<Sectors> sectors(std::string_view what);

  // An EINVAL (or `code`) that reads "<type>: <what>: '<word>'" (no quotes when word is empty).
  Error fail(std::string_view what, std::string_view word = {}, int code = EINVAL) const;

 private:
  std::string_view type_;
  std::span<const std::string> args_;
  size_t next_ = 0;
};

}  // namespace dmfs
