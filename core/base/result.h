// SPDX-License-Identifier: Apache-2.0
// Errors of the control path: an errno and a sentence for the user. The I/O path uses bare errno
// values instead (see io/bio.h): no strings, no allocation.
#pragma once

#include <cassert>
#include <cerrno>
#include <string>
#include <utility>
#include <variant>

namespace dmfs {

// `code` is a positive errno. `message` names the offending word and has no trailing period or
// newline.
struct Error {
  int code = EINVAL;
  std::string message;
};

// Success, or an Error.
class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(Error error) : error_(std::move(error)), failed_(true) {}  // NOLINT: implicit by design
  static Status ok() { return {}; }

  explicit operator bool() const { return !failed_; }
  const Error& error() const { assert(failed_); return error_; }

 private:
  Error error_;
  bool failed_ = false;
};

// A value, or an Error.
template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}  // NOLINT
  Result(Error error) : state_(std::in_place_index<1>, std::move(error)) {}  // NOLINT

  explicit operator bool() const { return state_.index() == 0; }
  T& operator*() & { return std::get<0>(state_); }
  const T& operator*() const& { return std::get<0>(state_); }
  T&& operator*() && { return std::get<0>(std::move(state_)); }
  T* operator->() { return &std::get<0>(state_); }
  const T* operator->() const { return &std::get<0>(state_); }
  const Error& error() const { return std::get<1>(state_); }

 private:
  std::variant<T, Error> state_;
};

}  // namespace dmfs

#define DM_CONCAT_INNER(a, b) a##b
#define DM_CONCAT(a, b) DM_CONCAT_INNER(a, b)
#define DM_TRY_INNER(tmp, decl, expr)  \
  auto tmp = (expr);                   \
  if (!tmp) return tmp.error();        \
  decl = *std::move(tmp)

// DM_TRY(auto file, open(path)): declares `file`, or returns the Error.
#define DM_TRY(decl, expr) DM_TRY_INNER(DM_CONCAT(dm_try_, __LINE__), decl, expr)
// DM_TRY_STATUS(check()): goes on, or returns the Error.
#define DM_TRY_STATUS(expr)                                           \
  do {                                                                \
    if (auto dm_status = (expr); !dm_status) return dm_status.error(); \
  } while (false)
