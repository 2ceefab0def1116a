// SPDX-License-Identifier: Apache-2.0
#include "core/io/io_service.h"

#include <fmt/format.h>

namespace dmfs {

IoService::IoService(Options options) : options_(options) {
  bool wanted = options_.engine == Engine::Auto || options_.engine == Engine::Uring;
  if (!wanted) return;
  auto uring = Uring::create();
  if (uring) {
    uring_ = *std::move(uring);
    return;
  }
  no_uring_ = uring.error().message;
  if (options_.engine == Engine::Uring) {
    status_ = Error{uring.error().code, "engine io_uring cannot be had here: " + no_uring_};
  }
}

std::string IoService::describe() const {
  std::string blocking = uring_ ? "io_uring" : "threads";
  std::string files;
  if (options_.direct) {
    files = "O_DIRECT through " + blocking;
  } else if (options_.engine == Engine::Auto || options_.engine == Engine::Inline) {
    files = "inline, what would block through " + blocking;
  } else {
    files = "through " + blocking;
  }
  std::string text = fmt::format("{}: local files {}; network and FUSE files through threads",
                                 kEngineNames[static_cast<size_t>(options_.engine)], files);
  if (!no_uring_.empty()) text += fmt::format(" (no io_uring: {})", no_uring_);
  return text;
}

}  // namespace dmfs
