// SPDX-License-Identifier: Apache-2.0
// How the targets of this folder open a device of their table line.
#pragma once

#include <string>

#include "core/dm/target.h"

namespace dmfs {

// TargetContext::open, with the refusal made "<type>: <what>: '<word>': <reason>" and the errno
// kept. `args` is the reader of the target's table line; `what` is the kernel's error text.
inline Result<BackingFile*> open_device(TargetContext& context, const ArgReader& args,
                                        std::string_view what, const std::string& word,
                                        Sectors start, Sectors length) {
  auto device = context.open(word, start, length);
  if (device) return device;
  const Error& reason = device.error();
  // A reason that names the word already is not made to say it twice.
  bool named = reason.message.find('\'' + word + '\'') != std::string::npos;
  Error error = args.fail(what, named ? std::string_view() : word, reason.code);
  error.message += ": " + reason.message;
  return error;
}

}  // namespace dmfs
