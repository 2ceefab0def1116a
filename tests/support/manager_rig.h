// SPDX-License-Identifier: Apache-2.0
// A DeviceManager over real files in a temporary directory and a store in memory, with short
// ways to say commands. Scripts are found in the directory. restart() is what a daemon's restart is to the core.
#pragma once

#include <future>
#include <memory>
#include <string>

#include "core/base/executor.h"
#include "core/base/script_path.h"
#include "core/dm/commands.h"
#include "core/dm/device_manager.h"
#include "tests/support/fake_clock.h"
#include "tests/support/harness.h"
#include "tests/support/map_store.h"
#include "tests/support/temp_dir.h"

namespace dmfs::test {

class ManagerRig {
 public:
  explicit ManagerRig(IoService::Options io_options = {}) : io_options_(io_options) { begin(); }
  ~ManagerRig() { end(); }

  TempDir& dir() { return dir_; }
  FakeClock& clock() { return clock_; }
  MapStore& store() { return store_; }
  DeviceManager& manager() { return *manager_; }
  Commands& commands() { return *commands_; }

  void restart() {
    end();
    begin();
  }

  static DeviceSelector named(const std::string& name) {
    DeviceSelector selector;
    selector.name = name;
    return selector;
  }
  Status create(const std::string& name, const std::string& table, bool read_only = false) {
    DM_TRY(auto info, commands_->create({name, {}, {}, {}}));
    if (Status loaded = load(name, table, read_only); !loaded) {
      (void)remove(name);
      return loaded;
    }
    return resume(name);
  }
  Status load(const std::string& name, const std::string& table, bool read_only = false,
              bool ordered = false) {
    LoadArgs args{named(name), parse_table(table), dir_.path("")};
    args.table.read_only = read_only;
    args.table.ordered = ordered;
    return status_of(commands_->load(args));
  }
  Status resume(const std::string& name) {
    return status_of(commands_->resume({named(name), false, true, {}}, never_));
  }
  Status suspend(const std::string& name) {
    return status_of(commands_->suspend({named(name), false, true}, never_));
  }
  Status remove(const std::string& name, bool deferred = false) {
    return status_of(commands_->remove({named(name), deferred}));
  }
  Status rename(const std::string& name, const std::string& to) {
    return status_of(commands_->rename({named(name), to, {}}));
  }
  DeviceInfo info(const std::string& name) { return *commands_->status(named(name)); }
  bool exists(const std::string& name) { return bool(commands_->status(named(name))); }
  // "start length type params" lines.
  std::string table(const std::string& name, bool inactive = false) {
    auto table = commands_->table({named(name), inactive});
    std::string text;
    for (const TargetSpec& t : table->targets) {
      text += std::to_string(t.start.n) + " " + std::to_string(t.length.n) + " " + t.type + " " +
              t.params + "\n";
    }
    return text;
  }
  // Waits until everything that was posted has run.
  void settle() {
    std::promise<void> done;
    executor_->post([&] { done.set_value(); });
    done.get_future().wait();
  }

  template <typename T>
  static Status status_of(const Result<T>& result) {
    return result ? Status() : Status(result.error());
  }

 private:
  void begin() {
    io_ = std::make_unique<IoService>(io_options_);
    executor_ = std::make_unique<ThreadExecutor>();
    DeviceManager::Options options{builtin_registry(), store_, *executor_, *io_, clock_};
    options.read_script = [scripts = ScriptPath({dir_.path("")})](const std::string& name) {
      return scripts.read(name);
    };
    manager_ = std::make_unique<DeviceManager>(std::move(options));
    commands_ = std::make_unique<Commands>(*manager_, builtin_registry());
    EXPECT_TRUE(manager_->start());
    settle();
  }
  void end() {
    manager_->stop();
    settle();
    commands_.reset();
    manager_.reset();
    executor_.reset();
    io_.reset();
  }

  const IoService::Options io_options_;
  FakeClock clock_;
  TempDir dir_;
  MapStore store_;
  CancelToken never_;
  std::unique_ptr<IoService> io_;
  std::unique_ptr<ThreadExecutor> executor_;
  std::unique_ptr<DeviceManager> manager_;
  std::unique_ptr<Commands> commands_;
};

}  // namespace dmfs::test
