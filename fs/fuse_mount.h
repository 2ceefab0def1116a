// SPDX-License-Identifier: Apache-2.0
// A FUSE mount that serves a DeviceManager, from mounting to unmounting.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/base/result.h"
#include "core/dm/device_manager.h"
#include "fs/fuse_front.h"
#include "fs/fuse_loop.h"
#include "fs/mount_point.h"
#include "fs/volume_node.h"

struct fuse_session;

namespace dmfs {

class FuseMount final : public OwnMount {
  struct Private {};

 public:
  struct Options {
    MountRequest request;
    FrontOptions front;
    bool root_may_enter = false;  // -o allow_root: root and the owner, nobody else
    unsigned threads = 10;
  };

  // Mounts and serves; when this returns the mount answers. `ended` is called on a thread of the
  // mount's when it was unmounted, by whomever. `manager` must outlive it.
  static Result<std::unique_ptr<FuseMount>> mount(DeviceManager& manager, const Options& options,
                                                  std::function<void()> ended);
  FuseMount(Private, DeviceManager& manager, const Options& options);
  // After finish() or a failed mount().
  ~FuseMount() override;

  int64_t minor_of(int path_fd) const override;
  dev_t device_number() const { return device_number_; }
  // Whether anybody has the volume's file open. Any thread.
  bool is_open(uint32_t minor) const { return volumes_.find(minor) != nullptr; }

  // After a command that may have changed sizes: makes the kernel ask for the size of open volumes
  // again. It asks by itself whenever somebody does, but asynchronous direct reads go by what it
  // knew last. Any thread but the mount's.
  void tell_sizes();

  // After a command that may have changed what volumes contain: returns when the kernel has dropped
  // what it had cached of them. Any thread that serves nothing.
  void tell_contents(CancelToken& cancel);

  // Unmounts if nobody has anything open, else EBUSY with the names. Any thread.
  Status unmount();

  // The end, in two steps: no more requests are taken ...
  void stop_serving();
  // ... and, once the manager has failed what it held, all that is outstanding is waited for, for a
  // while. False: something still is (a backing file hangs), and this object must not be destroyed.
  bool finish();

 private:
  Status begin(std::function<void()> ended);
  void close_cache();

  // constant after construction (the session and the device number: after begin())
  const Options options_;
  DeviceManager& manager_;
  VolumeTable volumes_;
  fuse_session* session_ = nullptr;
  std::unique_ptr<PageCache> cache_;  // nullptr when the kernel keeps no pages
  FuseFront front_;
  std::unique_ptr<FuseLoop> loop_;
  dev_t device_number_ = 0;

  // own synchronisation
  std::atomic<bool> gone_{false};  // unmounted: what is at the path now is not ours
};

}  // namespace dmfs
