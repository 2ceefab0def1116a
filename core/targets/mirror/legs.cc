// SPDX-License-Identifier: Apache-2.0
#include "core/targets/mirror/legs.h"

namespace dmfs {

bool Legs::any_late() const {
  for (unsigned i = 0; i < size(); ++i) {
    if (late(i)) return true;
  }
  return false;
}

bool Legs::any_failed() const {
  for (unsigned i = 0; i < size(); ++i) {
    if (failed(i)) return true;
  }
  return false;
}

std::optional<unsigned> Legs::first_valid() const {
  for (unsigned i = 0; i < size(); ++i) {
    if (!failed(i)) return i;
  }
  return std::nullopt;
}

std::optional<unsigned> Legs::choose() const {
  // In the kernel's order: from the primary one downwards, and round.
  unsigned first = primary(), i = first;
  do {
    if (!failed(i)) return i;
    i = (i == 0 ? size() : i) - 1;
  } while (i != first);
  return std::nullopt;
}

void Legs::forget_errors() {
  for (Leg& leg : legs_) leg.errors.store(0, std::memory_order_release);
}

std::string Legs::letters() const {
  std::string letters;
  for (unsigned i = 0; i < size(); ++i) {
    uint32_t e = errors(i);
    letters += e == 0                         ? 'A'
               : e & kFlushError              ? 'F'
               : e & (kWriteError | kLate)    ? 'D'
               : e & kSyncError               ? 'S'
               : e & kReadError               ? 'R'
                                              : 'U';
  }
  return letters;
}

}  // namespace dmfs
