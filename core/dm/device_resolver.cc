// SPDX-License-Identifier: Apache-2.0
#include "core/dm/device_resolver.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <optional>
#include <utility>

#include <fmt/format.h>

#include "core/base/fd.h"
#include "core/dm/volume_backing.h"
#include "core/io/open_backing.h"

namespace dmfs {
namespace {

std::optional<std::pair<uint64_t, uint64_t>> parse_device_number(std::string_view word) {
  size_t colon = word.find(':');
  uint64_t major = 0, minor = 0;
  if (colon == std::string_view::npos || !parse_u64(word.substr(0, colon), major) ||
      !parse_u64(word.substr(colon + 1), minor)) {
    return std::nullopt;
  }
  return std::pair(major, minor);
}

// The node of a block device: /dev/block has links to them only where udev runs.
std::string node_of(uint64_t major, uint64_t minor) {
  std::string number = fmt::format("{}:{}", major, minor);
  std::error_code failed;
  auto device = std::filesystem::read_symlink("/sys/dev/block/" + number, failed);
  if (failed) return "/dev/block/" + number;
  return "/dev/" + device.filename().string();
}

}  // namespace

Result<std::unique_ptr<BackingFile>> DeviceResolver::open(const std::string& word,
                                                          bool read_only) {
  if (auto number = parse_device_number(word)) {
    if (number->first == kVirtualMajor) {
      if (number->second > kMaxMinor) return Error{ENXIO, fmt::format("'{}': no such mapped device", word)};
      return open_volume(static_cast<uint32_t>(number->second), word);
    }
    return open_path(node_of(number->first, number->second), read_only);
  }
  if (word.find('/') == std::string::npos) {
    if (auto device = options_.manager.find(word)) return open_volume(device->minor(), word);
  }
  if (!word.empty() && word[0] == '/') return open_path(word, read_only);
  if (options_.cwd.empty()) {
    return Error{ENOENT, fmt::format("'{}': no such mapped device, and no absolute path", word)};
  }
  std::string_view relative = word;
  while (relative.starts_with("./")) relative.remove_prefix(2);
  std::string_view cwd = options_.cwd;
  while (cwd.ends_with('/')) cwd.remove_suffix(1);
  return open_path(fmt::format("{}/{}", cwd, relative), read_only);
}

Result<DeviceIdentity> DeviceResolver::identify(const DeviceManager& manager,
                                                const std::string& word) {
  std::shared_ptr<MappedDevice> volume;
  std::string path = word;
  if (auto number = parse_device_number(word)) {
    if (number->first == kVirtualMajor) {
      if (number->second <= kMaxMinor) volume = manager.find(static_cast<uint32_t>(number->second));
      if (!volume) return Error{ENXIO, fmt::format("'{}': no such mapped device", word)};
    } else {
      path = node_of(number->first, number->second);
    }
  } else if (word.find('/') == std::string::npos) {
    volume = manager.find(word);
  }
  if (volume) return DeviceIdentity{{}, volume->minor(), VolumeBacking::id_of(volume->minor())};
  if (path.empty() || path[0] != '/') {
    return Error{ENOENT, fmt::format("'{}': no such mapped device, and no absolute path", word)};
  }
  int fd = ::open(path.c_str(), O_PATH | O_CLOEXEC);
  if (fd < 0) return Error{errno, fmt::format("'{}': {}", path, strerror(errno))};
  Fd closer(fd);
  int64_t minor = manager.own_minor_of(fd);
  if (minor >= 0) {
    return DeviceIdentity{{}, minor, VolumeBacking::id_of(static_cast<uint32_t>(minor))};
  }
  struct stat st;
  if (fstat(fd, &st) != 0) return Error{errno, fmt::format("'{}': {}", path, strerror(errno))};
  return DeviceIdentity{path, -1,
                        S_ISBLK(st.st_mode) ? FileId{st.st_rdev, 0} : FileId{st.st_dev, st.st_ino}};
}

Result<std::unique_ptr<BackingFile>> DeviceResolver::open_volume(uint32_t minor,
                                                                 const std::string& word) {
  if (minor == options_.self) {
    bool bare = word.find_first_of("/:") == std::string::npos;
    return Error{ELOOP, fmt::format("'{}': the device would lie on itself, a cycle{}", word,
                                    bare ? fmt::format("; a file of that name is './{}'", word) : "")};
  }
  if (options_.before_volume) options_.before_volume(minor);
  return VolumeBacking::open(options_.manager, minor);
}

Result<std::unique_ptr<BackingFile>> DeviceResolver::open_path(const std::string& path,
                                                               bool read_only) {
  // O_PATH does not open the file proper, so that a path into our own mount is recognised before
  // anything is asked of it, and a FIFO does not block us.
  int fd = ::open(path.c_str(), O_PATH | O_CLOEXEC);
  if (fd < 0) return Error{errno, fmt::format("'{}': {}", path, strerror(errno))};
  struct Closer {
    int fd;
    ~Closer() { close(fd); }
  } closer{fd};
  int64_t minor = options_.manager.own_minor_of(fd);
  if (minor >= 0) return open_volume(static_cast<uint32_t>(minor), path);
  return open_backing(options_.io, fd, path, read_only);
}

}  // namespace dmfs
