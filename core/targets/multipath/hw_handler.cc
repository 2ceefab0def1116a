// SPDX-License-Identifier: Apache-2.0
#include "core/targets/multipath/hw_handler.h"

#include <cassert>

#include <fmt/format.h>

namespace dmfs {

void HwHandler::error(HwPath& path, const HwError& error, Decide decide) {
  (void)path;
  decide(default_error(error.error, error.sense));
}

HwHandlerRegistry::Use& HwHandlerRegistry::Use::operator=(Use&& other) noexcept {
  std::swap(registry_, other.registry_);
  std::swap(type_, other.type_);
  return *this;
}

void HwHandlerRegistry::Use::release() {
  if (!registry_) return;
  MutexLock lock(registry_->mutex_);
  --registry_->entries_.find(type_->name)->second.uses;
}

Status HwHandlerRegistry::add(HwHandlerType type) {
  std::string name = type.name;
  MutexLock lock(mutex_);
  auto [at, is_new] = entries_.try_emplace(name);
  if (!is_new) return Error{EEXIST, fmt::format("hardware handler '{}' is registered already", name)};
  at->second.type = std::make_unique<HwHandlerType>(std::move(type));
  return {};
}

Status HwHandlerRegistry::remove(std::string_view name) {
  MutexLock lock(mutex_);
  auto at = entries_.find(name);
  if (at == entries_.end()) return Error{EINVAL, fmt::format("unknown hardware handler '{}'", name)};
  if (at->second.uses > 0) {
    return Error{ETXTBSY, fmt::format("hardware handler '{}' is in use by {}", name, at->second.uses)};
  }
  entries_.erase(at);
  return {};
}

Result<HwHandlerRegistry::Use> HwHandlerRegistry::use(std::string_view name) {
  MutexLock lock(mutex_);
  auto at = entries_.find(name);
  if (at == entries_.end()) return Error{EINVAL, fmt::format("unknown hardware handler '{}'", name)};
  ++at->second.uses;
  return Use(*this, *at->second.type);
}

unsigned HwHandlerRegistry::uses(std::string_view name) const {
  MutexLock lock(mutex_);
  auto at = entries_.find(name);
  return at == entries_.end() ? 0 : at->second.uses;
}

HwHandlerRegistry& hw_handlers() {
  static HwHandlerRegistry registry;
  return registry;
}

unsigned scsi_error(const Sense& sense) {
  if (!sense.valid) return kHwFailPath;
  switch (sense.key) {
    case 0x0:  // no sense
    case 0x1:  // recovered error
      return 0;
    case 0x3:  // medium error
    case 0x5:  // illegal request
    case 0x7:  // data protect
    case 0x8:  // blank check
    case 0xa:  // copy aborted
    case 0xd:  // volume overflow
    case 0xe:  // miscompare
      return kHwErrorIo;
    case 0x6:  // unit attention; 04/01: in process of becoming ready
      return sense.asc == 0x04 && sense.ascq == 0x01 ? unsigned{kHwRetry} : unsigned{kHwFailPath};
    case 0x2:  // not ready
    case 0x4:  // hardware error
    case 0x9:  // vendor specific
    case 0xb:  // aborted command
    default:
      return kHwFailPath;
  }
}

unsigned default_error(int error, const Sense& sense) {
  if (sense.valid) return scsi_error(sense);
  switch (error) {
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
    case EINVAL:
    case EILSEQ:
    case EOPNOTSUPP:
    case EREMOTEIO:  // the block layer's: of the target of a command,
    case EBADE:      // a reservation,
    case ENODATA:    // the medium
      return kHwErrorIo;
    default:
      return kHwFailPath;
  }
}

}  // namespace dmfs
