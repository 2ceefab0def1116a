// SPDX-License-Identifier: Apache-2.0
#include "fs/loop_freezer.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/fs.h>
#include <spdlog/spdlog.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <cassert>
#include <cerrno>
#include <cstring>
#include <optional>
#include <system_error>
#include <utility>

#include "fs/volume_node.h"

namespace dmfs {
namespace {

constexpr auto kForEver = std::chrono::steady_clock::time_point::max();

// No right to, or no way: said, and gone on. Anything else is a failure.
bool is_refusal(int code) {
  switch (code) {
    case EPERM:
    case EACCES:
    case EOPNOTSUPP:
    case ENOTTY:
    case ENOSYS:
    case EROFS:
    case ENOENT:
    case ENOTDIR:
    case ENODEV:
    case ENXIO:
      return true;
    default:
      return false;
  }
}

std::string label(const Mounted& mounted) {
  return fmt::format("{} ({} on {})", mounted.point, mounted.type, mounted.source);
}

// Which mount a file is on; 0 where the kernel does not say. Asks no file system.
uint64_t mount_id(int fd, const char* path) {
  struct statx st {};
  int flags = AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT | (*path ? 0 : AT_EMPTY_PATH);
  if (statx(fd, path, flags, STATX_MNT_ID, &st) != 0) return 0;
  return st.stx_mask & STATX_MNT_ID ? st.stx_mnt_id : 0;
}

Error interrupted() {
  return Error{EINTR, "suspend was interrupted while file systems over the volume were frozen"};
}

}  // namespace

LoopFreezer::~LoopFreezer() {
  std::vector<std::thread> threads;
  {
    MutexLock lock(mutex_);
    for (auto& [minor, volume] : volumes_) {
      if (volume.thread.joinable()) threads.push_back(std::move(volume.thread));
    }
  }
  for (std::thread& thread : threads) thread.join();
}

bool LoopFreezer::wait_settled(const Volume& volume, CancelToken& cancel,
                               std::chrono::steady_clock::time_point until) {
  CancelToken::Waker waker(cancel, [this] {
    MutexLock lock(mutex_);
    changed_.notify_all();
  });
  MutexLock lock(mutex_);
  while (volume.state == State::Freezing || volume.state == State::Thawing) {
    if (cancel.cancelled()) return false;
    if (until == kForEver) {
      changed_.wait(mutex_);
    } else if (!changed_.wait_until(mutex_, until)) {
      return volume.state != State::Freezing && volume.state != State::Thawing;
    }
  }
  return true;
}

Result<FreezeReport> LoopFreezer::freeze(uint32_t minor, CancelToken& cancel) {
  Volume* volume;
  {
    MutexLock lock(mutex_);
    volume = &volumes_[minor];
  }
  // One that was interrupted may still be at it.
  if (!wait_settled(*volume, cancel, kForEver)) return interrupted();
  if (!options_.is_open(minor)) return FreezeReport{};
  if (volume->thread.joinable()) volume->thread.join();
  Work work{.file = {.device = options_.device,
                     .inode = inode_of(minor),
                     .path = options_.mount + "/" + options_.name_of(minor)}};
  {
    MutexLock lock(mutex_);
    assert(volume->state == State::Idle);
    volume->state = State::Freezing;
    volume->abandoned = false;
  }
  try {
    volume->thread = std::thread([this, volume, work = std::move(work)]() mutable {
      run_freeze(*volume, std::move(work));
    });
  } catch (const std::system_error& failed) {
    MutexLock lock(mutex_);
    volume->state = State::Idle;
    return Error{failed.code().value(), fmt::format("lockfs: no thread: {}", failed.what())};
  }
  (void)wait_settled(*volume, cancel, kForEver);
  MutexLock lock(mutex_);
  if (volume->state == State::Freezing) {
    volume->abandoned = true;
    return interrupted();
  }
  return std::exchange(volume->report, FreezeReport{});
}

void LoopFreezer::run_freeze(Volume& volume, Work work) {
  Status done = freeze_all(work);
  {
    MutexLock lock(mutex_);
    if (done && !volume.abandoned) {
      volume.frozen = std::move(work.frozen);
      volume.report = std::move(work.report);
      volume.state = State::Frozen;
      changed_.notify_all();
      return;
    }
  }
  for (const std::string& note : thaw_these(work.frozen)) spdlog::warn("{}", note);
  MutexLock lock(mutex_);
  volume.report = done ? FreezeReport{} : Result<FreezeReport>(done.error());
  volume.state = State::Idle;
  changed_.notify_all();
}

std::vector<std::string> LoopFreezer::thaw(uint32_t minor, CancelToken& cancel) {
  Volume* volume;
  {
    MutexLock lock(mutex_);
    volume = &volumes_[minor];
    if (volume->state != State::Frozen) return {};
    volume->state = volume->frozen.empty() ? State::Idle : State::Thawing;
    if (volume->state == State::Idle) return {};
  }
  volume->thread.join();
  try {
    volume->thread = std::thread([this, volume] { run_thaw(*volume); });
  } catch (const std::system_error&) {
    run_thaw(*volume);  // then here, however long it takes
  }
  auto until = std::chrono::steady_clock::now() + kMaxThawWait;
  bool settled = wait_settled(*volume, cancel, until);
  MutexLock lock(mutex_);
  if (settled) return std::exchange(volume->thaw_notes, {});
  return {"lockfs: what was frozen is still being thawed: that waits for I/O"};
}

void LoopFreezer::run_thaw(Volume& volume) {
  std::vector<Frozen> frozen;
  {
    MutexLock lock(mutex_);
    std::swap(frozen, volume.frozen);
  }
  std::vector<std::string> notes = thaw_these(frozen);
  for (const std::string& note : notes) spdlog::warn("{}", note);
  MutexLock lock(mutex_);
  volume.thaw_notes = std::move(notes);
  volume.state = State::Idle;
  changed_.notify_all();
}

bool LoopFreezer::finish(std::chrono::seconds patience) {
  auto until = std::chrono::steady_clock::now() + patience;
  MutexLock lock(mutex_);
  auto busy = [](const auto& entry) {
    return entry.second.state == State::Freezing || entry.second.state == State::Thawing;
  };
  while (std::any_of(volumes_.begin(), volumes_.end(), busy)) {
    if (!changed_.wait_until(mutex_, until)) return false;
  }
  return true;
}

std::vector<std::string> LoopFreezer::thaw_these(std::vector<Frozen>& frozen) {
  std::vector<std::string> notes;
  while (!frozen.empty()) {
    const Frozen& last = frozen.back();
    if (ioctl(last.root.get(), FITHAW, 0) == 0) {
      spdlog::info("lockfs: thawed {}", last.point);
    } else if (errno == EINVAL) {
      notes.push_back(fmt::format("lockfs: {} was thawed by somebody else", last.point));
    } else {
      notes.push_back(fmt::format("lockfs: {} cannot be thawed: {} (fsfreeze -u)", last.point,
                                  std::strerror(errno)));
    }
    frozen.pop_back();
  }
  return notes;
}

Status LoopFreezer::freeze_all(Work& work) const {
  auto stacks = options_.loops.over(work.file);
  if (!stacks) {
    work.report.notes.push_back(fmt::format("lockfs: cannot look for loop devices: {}",
                                            stacks.error().message));
  } else if (!stacks->empty()) {
    work.mounts = list_mounts();
    // From the top down, for what is written out at one level ends up in the one below.
    for (const BlockStack& stack : *stacks) {
      bool any = false;
      for (auto device = stack.rbegin(); device != stack.rend(); ++device) {
        DM_TRY(bool found, freeze_on(*device, work));
        any = any || found;
      }
      for (auto device = stack.rbegin(); device != stack.rend(); ++device) {
        DM_TRY_STATUS(write_out(*device, any, work));
      }
    }
  }
  return options_.cache ? write_out_pages(work) : Status();
}

Result<bool> LoopFreezer::freeze_on(const BlockDevice& device, Work& work) const {
  std::optional<std::vector<dev_t>> btrfs;  // asked for at the first that might be one
  auto lies_on_device = [&](const Mounted& mounted) {
    if (mounted.device == device.number) return true;
    if (mounted.type != "btrfs") return false;
    // It has an anonymous number, but names one of its devices.
    struct stat source {};
    if (stat(mounted.source.c_str(), &source) != 0 || !S_ISBLK(source.st_mode)) return false;
    if (!btrfs) btrfs = options_.loops.btrfs_of(device);
    return std::find(btrfs->begin(), btrfs->end(), source.st_rdev) != btrfs->end();
  };
  bool found = false;
  // What could be reached last; a file system may be mounted in many places, and some are hidden
  // below other mounts.
  std::map<dev_t, std::pair<const Mounted*, int>> unreached;
  for (const Mounted& mounted : work.mounts) {
    if (!lies_on_device(mounted)) continue;
    found = true;
    if (work.seen.contains(mounted.device)) continue;
    Fd root(open(mounted.point.c_str(), O_RDONLY | O_DIRECTORY | O_NONBLOCK | O_CLOEXEC));
    int failure = root ? ENOENT : errno;
    uint64_t id = root ? mount_id(root.get(), "") : 0;
    if (!root || (id != 0 && id != mounted.id)) {
      unreached.insert_or_assign(mounted.device, std::pair(&mounted, failure));
      continue;
    }
    work.seen.insert(mounted.device);
    DM_TRY_STATUS(freeze_one(mounted, std::move(root), work));
  }
  for (const auto& [number, what] : unreached) {
    if (!work.seen.insert(number).second) continue;
    work.report.notes.push_back(fmt::format("lockfs: {} is not frozen: it cannot be opened: {}",
                                            label(*what.first), std::strerror(what.second)));
  }
  return found;
}

bool LoopFreezer::is_own(const Mounted& mounted, const Work& work) const {
  for (const std::string& path : options_.own_files) {
    uint64_t id = mount_id(AT_FDCWD, path.c_str());
    for (const Mounted& other : work.mounts) {
      if (id != 0 && other.id == id && other.device == mounted.device) return true;
    }
  }
  return false;
}

Status LoopFreezer::freeze_one(const Mounted& mounted, Fd root, Work& work) const {
  std::string why;
  if (is_own(mounted, work)) {
    why = "dmfs itself writes to it";
  } else if (ioctl(root.get(), FIFREEZE, 0) == 0) {
    spdlog::info("lockfs: froze {}", label(mounted));
    work.report.frozen.push_back(mounted.point);
    work.frozen.push_back({std::move(root), mounted.point});
    return {};
  } else if (errno == EBUSY) {
    work.report.notes.push_back(
        fmt::format("lockfs: {} was frozen already, and is left to who did that", label(mounted)));
    return {};
  } else if (!is_refusal(errno)) {
    int code = errno;
    return Error{code, fmt::format("lockfs: {} cannot be frozen: {}", label(mounted),
                                   std::strerror(code))};
  } else {
    why = std::strerror(errno);
  }
  work.report.notes.push_back(fmt::format("lockfs: {} is not frozen: {}", label(mounted), why));
  if (syncfs(root.get()) != 0 && !is_refusal(errno)) {
    int code = errno;
    return Error{code, fmt::format("lockfs: {} cannot be written out: {}", label(mounted),
                                   std::strerror(code))};
  }
  return {};
}

Status LoopFreezer::write_out(const BlockDevice& device, bool has_file_system, Work& work) const {
  Fd node(open(device.path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
  int code = errno;
  struct stat st {};
  if (node && (fstat(node.get(), &st) != 0 || !S_ISBLK(st.st_mode) ||
               st.st_rdev != device.number)) {
    node.reset();
    code = ENXIO;
  }
  if (!node) {
    // With a file system there, hardly anybody writes past it.
    if (has_file_system) return {};
    work.report.notes.push_back(fmt::format(
        "lockfs: what is cached of {} is not written out: {}", device.path, std::strerror(code)));
    return {};
  }
  if (fdatasync(node.get()) == 0 || is_refusal(errno) || errno == EINVAL) return {};
  code = errno;
  return Error{code, fmt::format("lockfs: {} cannot be written out: {}", device.path,
                                 std::strerror(code))};
}

Status LoopFreezer::write_out_pages(Work& work) const {
  Fd file(open(work.file.path.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC));
  struct stat st {};
  if (!file || fstat(file.get(), &st) != 0) {
    work.report.notes.push_back(fmt::format("lockfs: mapped pages of {} are not written out: {}",
                                            work.file.path, std::strerror(errno)));
    return {};
  }
  if (st.st_dev != work.file.device || st.st_ino != work.file.inode) {
    work.report.notes.push_back(fmt::format(
        "lockfs: mapped pages are not written out: {} is something else", work.file.path));
    return {};
  }
  if (fsync(file.get()) == 0 || is_refusal(errno)) return {};
  int code = errno;
  return Error{code, fmt::format("lockfs: mapped pages of {} cannot be written out: {}",
                                 work.file.path, std::strerror(code))};
}

}  // namespace dmfs
