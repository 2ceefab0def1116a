// SPDX-License-Identifier: Apache-2.0
#include "core/io/io_client.h"

#include <utility>

#include <fmt/format.h>

#include "core/io/io_client_core.h"

namespace dmfs {

bool IoHandle::finished() const { return !core_ || !core_->live(id_); }

Result<std::unique_ptr<IoClient>> IoClient::create(Clock& clock, const Options& options) {
  if (options.devices == 0 || options.devices > kMaxDevices || options.min_ios == 0 ||
      options.max_size < kSectorSize) {
    return Error{EINVAL, fmt::format("I/O client of {} devices, {} requests, {} bytes",
                                     options.devices, options.min_ios, options.max_size)};
  }
  auto core = std::make_shared<IoClientCore>(clock, options);
  DM_TRY_STATUS(core->reserve());
  return std::unique_ptr<IoClient>(new IoClient(std::move(core), clock));
}

IoClient::IoClient(std::shared_ptr<IoClientCore> core, Clock& clock)
    : core_(std::move(core)),
      alarm_(std::make_unique<Alarm>(clock, [core = core_.get()] { core->overdue(); })) {
  core_->set_alarm(alarm_.get());
}

IoClient::~IoClient() {
  core_->close();
  core_->set_alarm(nullptr);
}

IoHandle IoClient::submit(IoRequest& request) { return core_->submit(request, nullptr); }

uint64_t IoClient::submit_and_wait(IoRequest& request) {
  IoSyncWait waiter;
  (void)core_->submit(request, &waiter);
  return core_->wait(waiter);
}

size_t IoClient::cancel(const IoHandle& handle) { return core_->cancel(handle); }
size_t IoClient::cancel(BackingFile& file) { return core_->cancel(file); }
size_t IoClient::late(BackingFile& file) const { return core_->late(&file); }
size_t IoClient::late() const { return core_->late(nullptr); }
void IoClient::wait_late(BackingFile& file) { core_->wait_late(file); }
size_t IoClient::outstanding() const { return core_->outstanding(); }
size_t IoClient::waiting() const { return core_->waiting(); }
size_t IoClient::max_size() const { return core_->options().max_size; }
unsigned IoClient::devices() const { return core_->options().devices; }

}  // namespace dmfs
