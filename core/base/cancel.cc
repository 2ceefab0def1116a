// SPDX-License-Identifier: Apache-2.0
#include "core/base/cancel.h"

#include <algorithm>

namespace dmfs {

void CancelToken::cancel() {
  MutexLock lock(mutex_);
  if (cancelled_.exchange(true, std::memory_order_acq_rel)) return;
  for (Waker* waker : wakers_) waker->wake_();
}

CancelToken::Waker::Waker(CancelToken& token, std::function<void()> wake)
    : token_(token), wake_(std::move(wake)) {
  {
    MutexLock lock(token_.mutex_);
    token_.wakers_.push_back(this);
    if (!token_.cancelled()) return;
  }
  wake_();
}

CancelToken::Waker::~Waker() {
  MutexLock lock(token_.mutex_);
  std::erase(token_.wakers_, this);
}

}  // namespace dmfs
