// SPDX-License-Identifier: Apache-2.0
// lockfs in the state machine of suspend and resume: when a freezer is asked to freeze and to thaw,
// and what becomes of a suspend that fails after. The freezer is the test's; real file systems are
// the business of the scenarios.
#include <gtest/gtest.h>

#include <future>
#include <optional>
#include <thread>

#include "tests/support/harness.h"
#include "tests/support/manager_rig.h"

namespace dmfs::test {
namespace {

using Words = std::vector<std::string>;

// What happened, in order: hooks, freezes, thaws, commits.
class Diary {
 public:
  void write(std::string word) {
    MutexLock lock(mutex_);
    words_.push_back(std::move(word));
  }
  // What is new since the last call.
  Words take() {
    MutexLock lock(mutex_);
    return std::exchange(words_, {});
  }

 private:
  Mutex mutex_;
  Words words_ DM_GUARDED_BY(mutex_);
};

// A target type is a plain function, so what its targets write to is found here.
struct Scene {
  Diary diary;
  bool refuse_resume = false;
  bool hold = false;  // keeps I/O until released
  std::vector<Bio*> held;
};
Scene* scene = nullptr;

class Actor final : public Target {
 public:
  explicit Actor(std::string name) : name_(std::move(name)) {}
  MapResult map(Bio& bio) override {
    if (scene->hold) {
      scene->held.push_back(&bio);
    } else {
      scene->diary.write(bio.op == Op::Read ? "read" : "write");
      bio.complete(0);
    }
    return MapResult::Submitted;
  }
  std::string table_line() const override { return name_; }
  void presuspend() override { scene->diary.write("presuspend " + name_); }
  void presuspend_undo() override { scene->diary.write("undo " + name_); }
  void postsuspend() override { scene->diary.write("postsuspend " + name_); }
  Status preresume() override {
    if (!scene->refuse_resume) return {};
    scene->diary.write("refuses " + name_);
    return Error{EIO, "will not resume, as the test wants"};
  }
  void resume() override { scene->diary.write("resume " + name_); }

 private:
  const std::string name_;
};

Result<std::unique_ptr<Target>> create_actor(TargetContext&, std::span<const std::string> words) {
  return std::unique_ptr<Target>(std::make_unique<Actor>(words.empty() ? "" : words[0]));
}
const TargetType kActor{"actor", {1, 0, 0}, create_actor};

class FakeFreezer final : public FsFreezer {
 public:
  explicit FakeFreezer(Diary& diary) : diary_(diary) {}

  Result<FreezeReport> freeze(uint32_t minor, CancelToken& cancel) override {
    diary_.write("freeze " + std::to_string(minor));
    if (device) io(*device, Op::Write);
    if (interrupt) interrupt->cancel();
    if (cancel.cancelled()) return Error{EINTR, "interrupted"};
    if (error) return Error{error, "the freeze fails, as the test wants"};
    ++frozen;
    return report;
  }
  Words thaw(uint32_t minor, CancelToken& cancel) override {
    --frozen;
    diary_.write("thaw " + std::to_string(minor) + (cancel.cancelled() ? " unattended" : ""));
    if (device) io(*device, Op::Write);
    return thaw_notes;
  }

  // As a file system: writes, and waits for it.
  void io(MappedDevice& over, Op op) {
    TestBio bio(op, Sectors{0}, Sectors{8});
    over.submit(bio);
    ASSERT_TRUE(bio.done()) << "a file system that freezes or thaws would hang";
    last_error = bio.error();
  }

  MappedDevice* device = nullptr;
  CancelToken* interrupt = nullptr;
  int error = 0;
  int last_error = 0;
  int frozen = 0;  // freezes that are owed a thaw
  FreezeReport report;
  Words thaw_notes;

 private:
  Diary& diary_;
};

class LockFs : public testing::Test {
 protected:
  LockFs() {
    scene = &scene_;
    EXPECT_TRUE(registry_.add(kActor));
    EXPECT_TRUE(load("old"));
    EXPECT_TRUE(resume());
    EXPECT_EQ(take(), Words({"resume old", "commit"}));
    freezer_.device = &device_;
  }
  ~LockFs() override {
    freezer_.device = nullptr;
    retire();
    EXPECT_EQ(freezer_.frozen, 0);
    scene = nullptr;
  }

  Status load(const std::string& name) {
    auto table = Table::build(parse_table("0 100 actor " + name), {registry_, opener_, clock_});
    EXPECT_TRUE(table);
    std::shared_ptr<Table> replaced;
    MutexLock lock(device_.command_mutex());
    replaced = device_.set_inactive(*std::move(table));
    return {};
  }
  SuspendOptions options() { return {.freezer = &freezer_}; }
  Status commit() {
    diary().write("commit");
    if (commit_error_) return Error{commit_error_, "commit failed, as the test wants"};
    return {};
  }
  Status suspend(std::optional<SuspendOptions> how = {}, CancelToken* cancel = nullptr) {
    MutexLock lock(device_.command_mutex());
    return device_.suspend(how ? *how : options(), cancel ? *cancel : never_,
                           [this] { return commit(); });
  }
  Status resume(std::optional<SuspendOptions> how = {}) {
    std::shared_ptr<Table> replaced;
    MutexLock lock(device_.command_mutex());
    return device_.resume(how ? *how : options(), never_, [this] { return commit(); }, replaced);
  }
  FreezeReport report() {
    MutexLock lock(device_.command_mutex());
    return device_.take_report();
  }
  void retire() {
    std::vector<std::shared_ptr<Table>> tables;
    MutexLock lock(device_.command_mutex());
    tables = device_.retire();
  }
  std::shared_ptr<TestBio> read() {
    auto bio = std::make_shared<TestBio>(Op::Read, Sectors{0}, Sectors{8});
    device_.submit(*bio);
    bios_.push_back(bio);
    return bio;
  }
  Diary& diary() { return scene_.diary; }
  Words take() { return scene_.diary.take(); }

  Scene scene_;
  TargetRegistry registry_;
  FakeClock clock_;
  TestOpener opener_;
  CancelToken never_;
  int commit_error_ = 0;
  FakeFreezer freezer_{scene_.diary};
  std::vector<std::shared_ptr<TestBio>> bios_;
  MappedDevice device_{7};
};

TEST_F(LockFs, TheOrder) {
  ASSERT_TRUE(suspend());
  EXPECT_EQ(take(), Words({"presuspend old", "freeze 7", "write", "postsuspend old", "commit"}));
  auto held = read();
  EXPECT_EQ(take(), Words());
  ASSERT_TRUE(resume());
  EXPECT_EQ(take(), Words({"resume old", "commit", "read", "thaw 7", "write"}));
  EXPECT_TRUE(held->done());
}

TEST_F(LockFs, NotWithNolockfsNorNoflushNorWithoutAFreezer) {
  for (SuspendOptions how : {SuspendOptions{.lockfs = false, .freezer = &freezer_},
                             SuspendOptions{.noflush = true, .freezer = &freezer_},
                             SuspendOptions{}}) {
    ASSERT_TRUE(suspend(how));
    EXPECT_EQ(take(), Words({"presuspend old", "postsuspend old", "commit"}));
    // Suspended it is; what was not frozen then is not frozen now.
    ASSERT_TRUE(suspend());
    ASSERT_TRUE(resume());
    EXPECT_EQ(take(), Words({"resume old", "commit"}));
  }
}

TEST_F(LockFs, TwiceFreezesOnce) {
  ASSERT_TRUE(suspend());
  ASSERT_TRUE(suspend());
  EXPECT_EQ(freezer_.frozen, 1);
  ASSERT_TRUE(resume());
  ASSERT_TRUE(resume());
  EXPECT_EQ(freezer_.frozen, 0);
  EXPECT_EQ(take(), Words({"presuspend old", "freeze 7", "write", "postsuspend old", "commit",
                           "resume old", "commit", "thaw 7", "write"}));
}

TEST_F(LockFs, AFailedFreezeLeavesTheDeviceActive) {
  freezer_.error = EIO;
  Status status = suspend();
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, EIO);
  EXPECT_EQ(take(), Words({"presuspend old", "freeze 7", "write", "undo old"}));
  EXPECT_FALSE(device_.suspended() || device_.defers());
  EXPECT_TRUE(read()->done());
  freezer_.error = 0;
  ASSERT_TRUE(suspend());
  ASSERT_TRUE(resume());
}

TEST_F(LockFs, InterruptedWhileItFreezes) {
  CancelToken cancel;
  freezer_.interrupt = &cancel;
  Status status = suspend({}, &cancel);
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, EINTR);
  EXPECT_EQ(take(), Words({"presuspend old", "freeze 7", "write", "undo old"}));
  EXPECT_TRUE(read()->done());
}

TEST_F(LockFs, InterruptedAfterItThaws) {
  scene_.hold = true;
  freezer_.device = nullptr;  // its writes would be kept too
  auto inside = read();
  CancelToken cancel;
  auto suspended = std::async(std::launch::async, [&] { return suspend({}, &cancel); });
  while (!device_.defers()) std::this_thread::yield();
  cancel.cancel();
  Status status = suspended.get();
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, EINTR);
  EXPECT_EQ(take(), Words({"presuspend old", "freeze 7", "undo old", "thaw 7 unattended"}));
  EXPECT_EQ(freezer_.frozen, 0);
  scene_.hold = false;
  for (Bio* bio : scene_.held) bio->complete(0);
  EXPECT_TRUE(inside->done() && read()->done());
}

TEST_F(LockFs, AFailedCommitThaws) {
  commit_error_ = ENOSPC;
  Status status = suspend();
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, ENOSPC);
  EXPECT_EQ(take(), Words({"presuspend old", "freeze 7", "write", "postsuspend old", "commit",
                           "resume old", "thaw 7", "write"}));
  EXPECT_FALSE(device_.suspended());
}

TEST_F(LockFs, ARefusedResumeStaysFrozen) {
  ASSERT_TRUE(suspend());
  ASSERT_TRUE(load("new"));
  (void)take();
  scene_.refuse_resume = true;
  EXPECT_FALSE(resume());
  EXPECT_EQ(take(), Words({"refuses new"}));
  EXPECT_TRUE(device_.suspended());
  EXPECT_EQ(freezer_.frozen, 1);
  scene_.refuse_resume = false;
  commit_error_ = EIO;
  EXPECT_FALSE(resume());
  EXPECT_EQ(freezer_.frozen, 1);
  commit_error_ = 0;
  (void)take();
  ASSERT_TRUE(resume());
  EXPECT_EQ(take(), Words({"resume new", "commit", "thaw 7", "write"}));
}

TEST_F(LockFs, ASwapOfAnActiveTable) {
  ASSERT_TRUE(load("new"));
  ASSERT_TRUE(resume());
  EXPECT_EQ(take(), Words({"presuspend old", "freeze 7", "write", "postsuspend old", "resume new",
                           "commit", "thaw 7", "write"}));
  ASSERT_TRUE(load("newer"));
  ASSERT_TRUE(resume(SuspendOptions{.lockfs = false, .freezer = &freezer_}));
  EXPECT_EQ(take(), Words({"presuspend new", "postsuspend new", "resume newer", "commit"}));
}

TEST_F(LockFs, AFailedSwapOfAnActiveTableThaws) {
  ASSERT_TRUE(load("new"));
  freezer_.error = EIO;
  EXPECT_FALSE(resume());
  EXPECT_EQ(take(), Words({"presuspend old", "freeze 7", "write", "undo old"}));
  freezer_.error = 0;
  commit_error_ = EIO;
  EXPECT_FALSE(resume());
  EXPECT_EQ(take(), Words({"presuspend old", "freeze 7", "write", "postsuspend old", "resume new",
                           "commit", "resume old", "thaw 7", "write"}));
  EXPECT_EQ(freezer_.frozen, 0);
  EXPECT_FALSE(device_.suspended());
  ASSERT_TRUE(device_.inactive_table());
  EXPECT_TRUE(read()->done());
}

TEST_F(LockFs, NothingToFreezeWithoutATable) {
  MappedDevice empty(9);
  CancelToken never;
  MutexLock lock(empty.command_mutex());
  ASSERT_TRUE(empty.suspend(options(), never, [] { return Status(); }));
  EXPECT_EQ(take(), Words());
}

TEST_F(LockFs, WhatItSays) {
  freezer_.report = {.frozen = {"/mnt"}, .notes = {"/other is not frozen"}};
  freezer_.thaw_notes = {"/mnt was thawed by somebody else"};
  ASSERT_TRUE(suspend());
  FreezeReport said = report();
  EXPECT_EQ(said.frozen, Words({"/mnt"}));
  EXPECT_EQ(said.notes, Words({"/other is not frozen"}));
  ASSERT_TRUE(suspend());
  EXPECT_EQ(report().notes, Words());
  ASSERT_TRUE(resume());
  said = report();
  EXPECT_EQ(said.frozen, Words());
  EXPECT_EQ(said.notes, freezer_.thaw_notes);
  ASSERT_TRUE(load("new"));
  ASSERT_TRUE(resume());
  said = report();
  EXPECT_EQ(said.frozen, Words());
  EXPECT_EQ(said.notes, Words({"/other is not frozen", "/mnt was thawed by somebody else"}));
}

TEST_F(LockFs, RemovalThawsAndNothingIsHeldAnyMore) {
  ASSERT_TRUE(suspend());
  auto held = read();
  (void)take();
  retire();
  EXPECT_EQ(take(), Words({"thaw 7 unattended"}));
  EXPECT_EQ(freezer_.last_error, ENXIO);
  EXPECT_TRUE(held->done());
  EXPECT_EQ(held->error(), ENXIO);
  EXPECT_EQ(read()->error(), ENXIO);
}

TEST_F(LockFs, AtTheEndHeldIoFailsBeforeItThaws) {
  ASSERT_TRUE(suspend());
  auto held = read();
  (void)take();
  {
    MutexLock lock(device_.command_mutex());
    EXPECT_TRUE(device_.locked_fs());
    device_.refuse_held(EIO);
    device_.let_go(never_);
    device_.let_go(never_);
    EXPECT_FALSE(device_.locked_fs());
  }
  EXPECT_EQ(take(), Words({"thaw 7"}));
  EXPECT_EQ(held->error(), EIO);
  EXPECT_EQ(freezer_.last_error, EIO);
  EXPECT_EQ(read()->error(), EIO);
  EXPECT_TRUE(device_.suspended());
}

TEST_F(LockFs, AtTheEndAnActiveOneGoesOn) {
  MutexLock lock(device_.command_mutex());
  device_.refuse_held(EIO);
  device_.let_go(never_);
  EXPECT_EQ(take(), Words());
  EXPECT_TRUE(read()->done());
}

// ---- through the manager ---------------------------------------------------------------------

class LockFsOfManager : public testing::Test {
 protected:
  LockFsOfManager() {
    rig_.manager().set_fs_freezer(&freezer_);
    EXPECT_TRUE(rig_.create("v", "0 8 zero"));
    EXPECT_TRUE(rig_.create("w", "0 8 zero"));
    EXPECT_EQ(diary_.take(), Words());  // a first table is no swap
  }
  Result<DeviceInfo> suspend(const std::string& name, bool lockfs = true) {
    return rig_.commands().suspend({ManagerRig::named(name), false, lockfs}, never_);
  }

  Diary diary_;
  FakeFreezer freezer_{diary_};
  CancelToken never_;
  ManagerRig rig_;
};

TEST_F(LockFsOfManager, RepliesSayIt) {
  freezer_.report = {.frozen = {"/mnt"}, .notes = {"a note"}};
  freezer_.thaw_notes = {"another note"};
  auto info = suspend("v");
  ASSERT_TRUE(info);
  EXPECT_EQ(info->frozen, Words({"/mnt"}));
  EXPECT_EQ(info->notes, Words({"a note"}));
  EXPECT_EQ(rig_.info("v").notes, Words());
  auto resumed = rig_.commands().resume({ManagerRig::named("v"), false, true, {}}, never_);
  ASSERT_TRUE(resumed);
  EXPECT_EQ(resumed->notes, Words({"another note"}));
  ASSERT_TRUE(suspend("v", false));
  ASSERT_TRUE(rig_.resume("v"));
  EXPECT_EQ(diary_.take(), Words({"freeze 0", "thaw 0"}));
}

TEST_F(LockFsOfManager, RemovalThaws) {
  ASSERT_TRUE(suspend("v"));
  ASSERT_TRUE(rig_.remove("v"));
  EXPECT_EQ(diary_.take(), Words({"freeze 0", "thaw 0 unattended"}));
  ASSERT_TRUE(suspend("w"));
  ASSERT_TRUE(rig_.commands().remove_all(false));
  EXPECT_EQ(diary_.take(), Words({"freeze 1", "thaw 1 unattended"}));
}

TEST_F(LockFsOfManager, TheEndThawsAllAndALaterResumeNothing) {
  ASSERT_TRUE(suspend("v"));
  ASSERT_TRUE(suspend("w"));
  rig_.manager().thaw_all(never_);
  EXPECT_EQ(diary_.take(), Words({"freeze 0", "freeze 1", "thaw 0", "thaw 1"}));
  rig_.restart();
  rig_.manager().set_fs_freezer(&freezer_);
  EXPECT_TRUE(rig_.info("v").suspended);
  ASSERT_TRUE(rig_.resume("v"));
  EXPECT_EQ(diary_.take(), Words());
}

TEST_F(LockFsOfManager, AFailedFreezeIsTheReply) {
  freezer_.error = EIO;
  auto info = suspend("v");
  ASSERT_FALSE(info);
  EXPECT_EQ(info.error().code, EIO);
  EXPECT_FALSE(rig_.info("v").suspended);
}

}  // namespace
}  // namespace dmfs::test
