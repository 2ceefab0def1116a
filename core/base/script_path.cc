// SPDX-License-Identifier: Apache-2.0
#include "core/base/script_path.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>

#include <fmt/format.h>

#include "core/base/fd.h"

namespace dmfs {
namespace {

bool is_name(const std::string& name) {
  constexpr std::string_view kAllowed =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-";
  return !name.empty() && name.size() <= 64 && name.find_first_not_of(kAllowed) == name.npos;
}

Result<std::string> read_file(int fd, const std::string& path) {
  struct stat st;
  if (fstat(fd, &st) != 0) return Error{errno, fmt::format("'{}': {}", path, strerror(errno))};
  if (!S_ISREG(st.st_mode)) return Error{EINVAL, fmt::format("'{}' is no regular file", path)};
  std::string text(kMaxScriptBytes + 1, '\0');
  size_t size = 0;
  while (size < text.size()) {
    ssize_t got = ::read(fd, text.data() + size, text.size() - size);
    if (got < 0) return Error{errno, fmt::format("'{}': {}", path, strerror(errno))};
    if (got == 0) break;
    size += static_cast<size_t>(got);
  }
  if (size > kMaxScriptBytes) {
    return Error{EFBIG, fmt::format("'{}' is longer than {} bytes", path, kMaxScriptBytes)};
  }
  text.resize(size);
  return text;
}

}  // namespace

Result<std::string> ScriptPath::read(const std::string& name) const {
  if (is_name(name)) {
    for (const std::string& directory : directories_) {
      std::string path = fmt::format("{}/{}.lua", directory, name);
      // A FIFO does not block us.
      Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
      if (fd) return read_file(fd.get(), path);
      if (errno != ENOENT && errno != ENOTDIR) {
        return Error{errno, fmt::format("'{}': {}", path, strerror(errno))};
      }
    }
  }
  return Error{ENOENT, fmt::format("no script '{}'", name)};
}

}  // namespace dmfs
