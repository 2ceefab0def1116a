// SPDX-License-Identifier: Apache-2.0
#include "fs/loop_devices.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/loop.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <optional>

#include "core/base/fd.h"

namespace dmfs {
namespace {

namespace files = std::filesystem;

constexpr size_t kMaxStack = 1024;  // devices on one loop device that are looked at

std::optional<std::string> first_line(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  if (!std::getline(file, line)) return std::nullopt;
  return line;
}

std::vector<std::string> names_in(const std::string& folder) {
  std::vector<std::string> names;
  std::error_code failed;
  files::directory_iterator entry(folder, failed);
  for (; !failed && entry != files::directory_iterator(); entry.increment(failed)) {
    names.push_back(entry->path().filename());
  }
  std::sort(names.begin(), names.end());
  return names;
}

std::optional<dev_t> parse_number(const std::string& text) {
  unsigned major = 0, minor = 0;
  if (std::sscanf(text.c_str(), "%u:%u", &major, &minor) != 2) return std::nullopt;
  return makedev(major, minor);
}

// What LOOP_GET_STATUS64 calls a device number: the kernel's own coding, of 32 bits.
dev_t decode_kernel_number(uint64_t number) {
  auto major = static_cast<unsigned>((number >> 8) & 0xfff);
  auto minor = static_cast<unsigned>((number & 0xff) | ((number >> 12) & 0xfff00));
  return makedev(major, minor);
}

}  // namespace

bool LoopDevices::lies_over(const std::string& name, const LoopFile& file) const {
  auto path = first_line(fmt::format("{}/block/{}/loop/backing_file", folders_.sysfs, name));
  if (!path) return false;  // has no file
  Fd loop(open(fmt::format("{}/{}", folders_.dev, name).c_str(), O_RDONLY | O_CLOEXEC));
  loop_info64 info{};
  if (loop && ioctl(loop.get(), LOOP_GET_STATUS64, &info) == 0) {
    return info.lo_inode == file.inode && decode_kernel_number(info.lo_device) == file.device;
  }
  if (loop && errno == ENXIO) return false;  // detached meanwhile
  return *path == file.path;
}

BlockStack LoopDevices::stack_on(const std::string& name) const {
  // One that lies on several is listed by each of them; the last time counts.
  std::vector<std::string> names{name};
  for (size_t at = 0; at < names.size() && names.size() < kMaxStack; ++at) {
    const std::string folder = fmt::format("{}/class/block/{}", folders_.sysfs, names[at]);
    std::vector<std::string> above = names_in(folder + "/holders");
    for (std::string& entry : names_in(folder)) {
      std::error_code failed;
      if (files::exists(fmt::format("{}/{}/partition", folder, entry), failed)) {
        above.push_back(std::move(entry));
      }
    }
    names.insert(names.end(), above.begin(), above.end());
  }
  BlockStack stack;
  for (auto at = names.begin(); at != names.end(); ++at) {
    if (std::find(std::next(at), names.end(), *at) != names.end()) continue;
    auto line = first_line(fmt::format("{}/class/block/{}/dev", folders_.sysfs, *at));
    auto number = line ? parse_number(*line) : std::nullopt;
    if (!number) continue;
    std::string node = *at;
    std::replace(node.begin(), node.end(), '!', '/');  // as sysfs has it
    stack.push_back({fmt::format("{}/{}", folders_.dev, node), *number});
  }
  return stack;
}

std::vector<dev_t> LoopDevices::btrfs_of(const BlockDevice& device) const {
  std::vector<dev_t> numbers{device.number};
  const std::string all = folders_.sysfs + "/fs/btrfs";
  for (const std::string& uuid : names_in(all)) {
    std::vector<dev_t> members;
    const std::string folder = fmt::format("{}/{}/devices", all, uuid);
    for (const std::string& name : names_in(folder)) {
      auto line = first_line(fmt::format("{}/{}/dev", folder, name));
      if (auto number = line ? parse_number(*line) : std::nullopt) members.push_back(*number);
    }
    if (std::find(members.begin(), members.end(), device.number) != members.end()) return members;
  }
  return numbers;
}

Result<std::vector<BlockStack>> LoopDevices::over(const LoopFile& file) const {
  std::string folder = folders_.sysfs + "/block";
  std::error_code failed;
  if (!files::is_directory(folder, failed)) {
    return Error{failed ? failed.value() : ENOENT, fmt::format("no block devices in {}", folder)};
  }
  std::vector<BlockStack> stacks;
  for (const std::string& name : names_in(folder)) {
    if (name.starts_with("loop") && lies_over(name, file)) stacks.push_back(stack_on(name));
  }
  return stacks;
}

}  // namespace dmfs
