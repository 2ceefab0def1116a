// SPDX-License-Identifier: Apache-2.0
// Hardware handlers: their registry, the default decoder, and activation by a handler that does what
// the test says.
#include <thread>

#include "core/targets/multipath/hw_handler.h"
#include "tests/support/multipath_rig.h"

namespace dmfs::test {
namespace {

using std::chrono::milliseconds;

// ---- the registry ------------------------------------------------------------------------------

HwHandlerType type_of(const std::string& name) {
  return {name, [](HwHost&, std::span<const std::string>) -> Result<std::unique_ptr<HwHandler>> {
            return Error{ENODEV, "nothing to handle"};
          }};
}

TEST(HwHandlerRegistry, UnknownInUseAndTwice) {
  HwHandlerRegistry registry;
  EXPECT_EQ(registry.use("emc").error().code, EINVAL);
  EXPECT_EQ(registry.use("emc").error().message, "unknown hardware handler 'emc'");
  EXPECT_EQ(registry.remove("emc").error().code, EINVAL);
  ASSERT_TRUE(registry.add(type_of("emc")));
  EXPECT_EQ(registry.add(type_of("emc")).error().code, EEXIST);
  ASSERT_TRUE(registry.add(type_of("rdac")));
  {
    auto one = registry.use("emc");
    ASSERT_TRUE(one);
    EXPECT_EQ(one->type().name, "emc");
    HwHandlerRegistry::Use two = *registry.use("emc");
    EXPECT_EQ(registry.uses("emc"), 2u);
    Status removed = registry.remove("emc");
    EXPECT_EQ(removed.error().code, ETXTBSY);
    EXPECT_EQ(removed.error().message, "hardware handler 'emc' is in use by 2");
    EXPECT_TRUE(registry.remove("rdac"));
    HwHandlerRegistry::Use moved = std::move(two);
    EXPECT_EQ(registry.uses("emc"), 2u);
  }
  EXPECT_EQ(registry.uses("emc"), 0u);
  EXPECT_TRUE(registry.remove("emc"));
  EXPECT_EQ(registry.uses("emc"), 0u);
}

// ---- the default decoder -----------------------------------------------------------------------

TEST(ScsiError, ByKey) {
  auto flags = [](uint8_t key, uint8_t asc = 0, uint8_t ascq = 0) {
    return scsi_error({key, asc, ascq, true});
  };
  for (uint8_t key : {0x3, 0x5, 0x7, 0x8, 0xa, 0xd, 0xe}) EXPECT_EQ(flags(key), kHwErrorIo) << int{key};
  for (uint8_t key : {0x2, 0x4, 0x9, 0xb}) EXPECT_EQ(flags(key), kHwFailPath) << int{key};
  EXPECT_EQ(flags(0x6), kHwFailPath);
  EXPECT_EQ(flags(0x6, 0x04, 0x01), kHwRetry);
  EXPECT_EQ(flags(0x6, 0x29, 0x01), kHwFailPath);
  EXPECT_EQ(flags(0x0), 0u);
  EXPECT_EQ(flags(0x1), 0u);
  EXPECT_EQ(scsi_error({}), kHwFailPath);
  EXPECT_EQ(default_error(EIO, {}), kHwFailPath);
  EXPECT_EQ(default_error(ENOSPC, {}), kHwErrorIo);
  EXPECT_EQ(default_error(ENOSPC, {0x4, 0, 0, true}), kHwFailPath);
}

// ---- activation ---------------------------------------------------------------------------------

class FakeHandler final : public HwHandler {
 public:
  struct Call {
    bool bypassed;
    HwPath* path;
  };
  FakeHandler(HwHost& host, std::vector<std::string> args, FakeHandler*& self)
      : host_(host), args_(std::move(args)), self_(self) {
    self_ = this;
  }
  ~FakeHandler() override { self_ = nullptr; }

  void pg_init(bool bypassed, HwPath& path) override {
    calls.push_back({bypassed, &path});
    if (at_once) host_.pg_init_complete(path, *at_once);
  }
  void error(HwPath& path, const HwError& what, Decide decide) override {
    if (!keep_errors) return HwHandler::error(path, what, std::move(decide));
    errors.push_back(what);
    decides.push_back(std::move(decide));
  }
  std::string status(HwStatus kind) const override {
    if (kind == HwStatus::Info) return "1 " + std::to_string(calls.size());
    std::string line = std::to_string(args_.size() + 1) + " fake";
    for (const std::string& arg : args_) line += " " + arg;
    return line;
  }
  std::string fault() const override { return said; }

  // Ends the last activation.
  void complete(unsigned flags) { host_.pg_init_complete(*calls.back().path, flags); }
  std::string last() const {
    return calls.back().path->name() + (calls.back().bypassed ? " bypassed" : "");
  }
  HwHost& host() { return host_; }

  std::vector<Call> calls;
  std::optional<unsigned> at_once;
  bool keep_errors = false;
  std::vector<HwError> errors;
  std::vector<Decide> decides;
  std::string said;

 private:
  HwHost& host_;
  const std::vector<std::string> args_;
  FakeHandler*& self_;
};

class Activation : public MultipathRig {
 protected:
  Activation() {
    EXPECT_TRUE(hw_handlers().add(
        {"fake", [this](HwHost& host, std::span<const std::string> args)
                     -> Result<std::unique_ptr<HwHandler>> {
           if (!args.empty() && args[0] == "refuse") return Error{ENODEV, "fake: refused"};
           return std::unique_ptr<HwHandler>(std::make_unique<FakeHandler>(
               host, std::vector<std::string>(args.begin(), args.end()), handler_));
         }}));
  }
  ~Activation() override {
    retire();
    EXPECT_EQ(handler_, nullptr);
    EXPECT_TRUE(hw_handlers().remove("fake"));
  }
  void retire() {
    std::vector<std::shared_ptr<Table>> tables;
    MutexLock lock(device().command_mutex());
    tables = device().retire();
  }
  FakeHandler& handler() { return *handler_; }
  FakeHandler* handler_ = nullptr;
};

constexpr const char* kOne = "0 1 fake 1 1 round-robin 0 2 1 p1 1 p2 1";
constexpr const char* kTwo = "0 1 fake 2 1 round-robin 0 1 1 p1 1 round-robin 0 1 1 p3 1";
constexpr const char* kTwoRetries =
    "4 pg_init_retries 2 pg_init_delay_msecs 500 1 fake 2 1 round-robin 0 1 1 p1 1 round-robin 0 1 1 p3 1";

TEST_F(Activation, NoIoBeforeItIsComplete) {
  start(kOne);
  EXPECT_EQ(table(), "0 1 fake 1 1 round-robin 0 2 1 p1 1 p2 1 ");
  EXPECT_EQ(status(), "2 1 0 1 0 1 1 E 0 2 0 p1 A 0 p2 A 0 ");
  EXPECT_EQ(handler().host().paths().size(), 2u);
  auto one = rig_.write(0, 1), two = rig_.write(1, 1);
  EXPECT_EQ(handler().calls.size(), 1u);
  EXPECT_EQ(handler().last(), "p1");
  EXPECT_FALSE(one->done() || two->done());
  EXPECT_EQ(seen("p1") + seen("p2"), 0u);
  EXPECT_EQ(status(), "2 1 1 1 1 1 1 A 0 2 0 p1 A 0 p2 A 0 ");
  EXPECT_EQ(device().held().count, 2u);
  EXPECT_EQ(target().freed_by(), "goes when the hardware handler has activated p1");
  handler().complete(0);
  EXPECT_EQ(one->error(), 0);
  EXPECT_EQ(two->error(), 0);
  EXPECT_TRUE(one->done() && two->done());
  EXPECT_EQ(status(), "2 0 1 1 1 1 1 A 0 2 0 p1 A 0 p2 A 0 ");
  EXPECT_EQ(rig_.write(2, 1)->error(), 0);
  EXPECT_EQ(handler().calls.size(), 1u);
  handler().complete(kHwFailPath);  // not asked for any more
  EXPECT_EQ(status(), "2 0 1 1 1 1 1 A 0 2 0 p1 A 0 p2 A 0 ");
  EXPECT_EQ(events(), 0u);
}

TEST_F(Activation, AtOnce) {
  start("0 3 fake x y 1 1 round-robin 0 2 1 p1 1 p2 1");
  EXPECT_EQ(table(), "0 3 fake x y 1 1 round-robin 0 2 1 p1 1 p2 1 ");
  handler().at_once = 0;
  EXPECT_EQ(rig_.write(0, 1)->error(), 0);
  EXPECT_EQ(hw_handlers().uses("fake"), 1u);
}

TEST_F(Activation, AFailedPathIsFollowedByTheNext) {
  start(kOne);
  auto w = rig_.write(0, 1);
  handler().complete(kHwFailPath);
  EXPECT_EQ(events(), 1u);
  ASSERT_EQ(handler().calls.size(), 2u);
  EXPECT_EQ(handler().last(), "p2");
  EXPECT_FALSE(handler().calls[0].path->active());
  handler().complete(0);
  EXPECT_EQ(w->error(), 0);
  EXPECT_EQ(seen("p2"), 1u);
  EXPECT_EQ(status(), "2 0 1 1 2 1 1 A 0 2 0 p1 F 1 p2 A 0 ");
}

TEST_F(Activation, AllFailed) {
  start(kOne);
  handler().at_once = kHwFailPath;
  EXPECT_EQ(rig_.write(0, 1)->error(), EIO);
  EXPECT_EQ(handler().calls.size(), 2u);
  EXPECT_EQ(events(), 2u);
}

TEST_F(Activation, ABypassedGroupIsFollowedByTheNext) {
  start(kTwo);
  auto w = rig_.write(0, 1);
  handler().complete(kHwBypassGroup);
  EXPECT_EQ(events(), 1u);
  EXPECT_EQ(handler().last(), "p3");
  EXPECT_EQ(status(), "2 1 1 1 2 2 2 D 0 1 0 p1 A 0 A 0 1 0 p3 A 0 ");
  // The other as well: the first one has to do, after a pause, and knows that it is bypassed.
  handler().complete(kHwBypassGroup);
  EXPECT_EQ(handler().calls.size(), 2u);
  rig_.clock().advance(milliseconds(1999));
  EXPECT_EQ(handler().calls.size(), 2u);
  rig_.clock().advance(milliseconds(1));
  ASSERT_EQ(handler().calls.size(), 3u);
  EXPECT_EQ(handler().last(), "p1 bypassed");
  // Whoever is bypassed already fails the path.
  handler().complete(kHwBypassGroup);
  EXPECT_EQ(status().substr(0, 45), "2 1 0 1 3 2 2 D 0 1 0 p1 F 1 D 0 1 0 p3 A 0 ");
  rig_.clock().advance(milliseconds(2000));
  EXPECT_EQ(handler().last(), "p3 bypassed");
  handler().complete(0);
  EXPECT_EQ(w->error(), 0);
  // An activation that succeeds takes the bypass off.
  EXPECT_EQ(status(), "2 0 1 1 4 2 2 D 0 1 0 p1 F 1 A 0 1 0 p3 A 0 ");
}

TEST_F(Activation, RetriesAfterAPause) {
  start(kTwoRetries);
  auto w = rig_.write(0, 1);
  for (int i = 0; i < 2; ++i) {
    handler().complete(kHwRetry);
    EXPECT_EQ(handler().calls.size(), 1u + static_cast<size_t>(i));
    rig_.clock().advance(milliseconds(499));
    EXPECT_EQ(handler().calls.size(), 1u + static_cast<size_t>(i));
    rig_.clock().advance(milliseconds(1));
    EXPECT_EQ(handler().calls.size(), 2u + static_cast<size_t>(i));
    EXPECT_EQ(handler().last(), "p1");
  }
  EXPECT_EQ(status().substr(0, 13), "2 1 3 1 3 2 1");
  EXPECT_EQ(events(), 0u);
  handler().complete(kHwRetry);  // once too often
  EXPECT_EQ(events(), 1u);
  EXPECT_EQ(handler().last(), "p3");
  EXPECT_FALSE(w->done());
  handler().complete(0);
  EXPECT_EQ(w->error(), 0);
}

TEST_F(Activation, RetryIsNoneByDefault) {
  start(kOne);
  auto w = rig_.write(0, 1);
  handler().complete(kHwRetry);
  EXPECT_EQ(handler().last(), "p2");
  EXPECT_EQ(events(), 1u);
  handler().complete(0);
  EXPECT_EQ(w->error(), 0);
}

TEST_F(Activation, ErrorIoFailsWhatWaits) {
  start(kOne);
  auto w = rig_.write(0, 1);
  handler().complete(kHwErrorIo);
  EXPECT_EQ(w->error(), EIO);
  EXPECT_TRUE(w->done());
  EXPECT_EQ(status(), "2 1 1 1 1 1 1 E 0 2 0 p1 A 0 p2 A 0 ");
  // The next one makes another attempt.
  auto next = rig_.write(0, 1);
  EXPECT_EQ(handler().calls.size(), 2u);
  handler().complete(kHwErrorIo | kHwFailPath);
  EXPECT_EQ(next->error(), EIO);
  EXPECT_EQ(events(), 1u);
}

TEST_F(Activation, FailoverToAnotherGroupActivatesIt) {
  start(kTwo);
  handler().at_once = 0;
  EXPECT_EQ(rig_.write(0, 1)->error(), 0);
  file("p1").fail_all(EIO);
  handler().at_once.reset();
  auto w = rig_.write(0, 1);
  EXPECT_EQ(handler().last(), "p3");
  EXPECT_EQ(seen("p3"), 0u);
  handler().complete(0);
  EXPECT_EQ(w->error(), 0);
  // Back by message: activated again.
  file("p1").fail_all(0);
  ASSERT_TRUE(say("reinstate_path p1"));
  ASSERT_TRUE(say("switch_group 1"));
  auto back = rig_.write(0, 1);
  EXPECT_EQ(handler().last(), "p1");
  handler().complete(0);
  EXPECT_EQ(back->error(), 0);
}

TEST_F(Activation, ASwitchDuringAnActivation) {
  start(kTwo);
  auto w = rig_.write(0, 1);
  ASSERT_TRUE(say("switch_group 2"));
  EXPECT_EQ(handler().calls.size(), 1u);  // one at a time
  handler().complete(0);
  ASSERT_EQ(handler().calls.size(), 2u);
  EXPECT_EQ(handler().last(), "p3");
  EXPECT_FALSE(w->done());
  handler().complete(0);
  EXPECT_EQ(w->error(), 0);
  EXPECT_EQ(seen("p3"), 1u);
}

TEST_F(Activation, APathThatIsFailedDuringItsActivation) {
  start(kOne);
  auto w = rig_.write(0, 1);
  ASSERT_TRUE(say("fail_path p1"));
  handler().complete(0);
  EXPECT_EQ(w->error(), 0);
  EXPECT_EQ(seen("p2"), 1u);
}

TEST_F(Activation, ANoflushSuspendTakesWhatWaits) {
  start(kOne);
  auto w = rig_.write(0, 1);
  ASSERT_TRUE(rig_.suspend(kNoflush));
  EXPECT_EQ(device().held_count(), 1u);
  handler().complete(0);
  EXPECT_FALSE(w->done());
  ASSERT_TRUE(rig_.resume());
  EXPECT_EQ(w->error(), 0);
  EXPECT_EQ(handler().calls.size(), 1u);
}

TEST_F(Activation, ASuspendThatFlushesWaitsForIt) {
  start(kOne);
  auto w = rig_.write(0, 1);
  auto suspended = suspending({});
  EXPECT_FALSE(w->done());
  handler().complete(0);
  EXPECT_TRUE(suspended.get());
  EXPECT_EQ(w->error(), 0);
}

TEST_F(Activation, ATableIsReplacedDuringIt) {
  start(kOne);
  auto w = rig_.write(0, 1);
  ASSERT_TRUE(load("0 0 1 1 round-robin 0 1 1 p3 1"));
  ASSERT_TRUE(rig_.suspend(kNoflush));
  ASSERT_TRUE(rig_.resume());
  EXPECT_EQ(handler_, nullptr);
  EXPECT_EQ(w->error(), 0);
  EXPECT_EQ(seen("p3"), 1u);
}

TEST_F(Activation, WhoWaitsIsKilled) {
  start(kOne);
  auto w = rig_.write(0, 1);
  EXPECT_TRUE(device().cancel_held(*w, EINTR));
  EXPECT_EQ(w->error(), EINTR);
  handler().complete(0);
}

// ---- errors -------------------------------------------------------------------------------------

TEST_F(Activation, TheHandlerDecidesOnErrors) {
  start(kTwo);
  handler().at_once = 0;
  handler().keep_errors = true;
  file("p1").fail_nth(1, ENOSPC);
  auto w = rig_.write(5, 2);
  ASSERT_EQ(handler().errors.size(), 1u);
  EXPECT_EQ(handler().errors[0].error, ENOSPC);
  EXPECT_EQ(handler().errors[0].sector, Sectors{5});
  EXPECT_FALSE(w->done());
  EXPECT_EQ(device().held().count, 1u);
  handler().decides[0](kHwFailPath);
  EXPECT_EQ(w->error(), 0);
  EXPECT_EQ(seen("p3"), 1u);

  file("p3").fail_nth(1, EIO);
  auto failed = rig_.write(5, 2);
  handler().decides[1](kHwErrorIo);
  EXPECT_EQ(failed->error(), EIO);
  EXPECT_EQ(events(), 1u);

  ASSERT_TRUE(say("reinstate_path p1"));
  file("p3").fail_nth(1, EIO);
  auto bypass = rig_.write(5, 2);
  handler().decides[2](kHwBypassGroup);
  EXPECT_EQ(bypass->error(), 0);
  EXPECT_EQ(seen("p1"), 2u);
  EXPECT_EQ(status().substr(14), "A 0 1 0 p1 A 1 D 0 1 0 p3 A 0 ");

  file("p1").fail_nth(1, EIO);
  auto killed = rig_.write(5, 2);
  EXPECT_TRUE(device().cancel_held(*killed, EINTR));
  EXPECT_EQ(killed->error(), EINTR);
  handler().decides[3](kHwFailPath);  // too late
  EXPECT_EQ(status().substr(14), "A 0 1 0 p1 A 1 D 0 1 0 p3 A 0 ");

  file("p1").fail_nth(1, EIO);
  auto again = rig_.write(5, 2);
  handler().decides[4](kHwRetry);
  EXPECT_FALSE(again->done());
  rig_.clock().advance(milliseconds(250));
  EXPECT_EQ(again->error(), 0);
  EXPECT_TRUE(again->done());
}

TEST_F(Activation, WhatTheHandlerSaysOfItselfIsTheDevicesFault) {
  start(kOne);
  EXPECT_EQ(device().live_table()->fault(), "");
  handler().said = "fake: broken";
  EXPECT_EQ(device().live_table()->fault(), "fake: broken");
}

TEST_F(Activation, AHandlerThatRefuses) {
  Status loaded = load("0 2 fake refuse 1 1 round-robin 0 1 1 p1 1");
  EXPECT_EQ(loaded.error().code, ENODEV);
  EXPECT_EQ(loaded.error().message, "multipath: error attaching hardware handler: fake: refused");
  EXPECT_EQ(hw_handlers().uses("fake"), 0u);
  Status unknown = load("0 1 other 1 1 round-robin 0 1 1 p1 1");
  EXPECT_EQ(unknown.error().code, EINVAL);
}

// Activations that end on another thread while I/O, failures and suspends go on.
TEST_F(Activation, OnAnotherThread) {
  start("1 queue_if_no_path 1 fake 2 1 round-robin 0 2 1 p1 1 p2 1 round-robin 0 2 1 p3 1 p4 1");
  std::atomic<bool> stop{false};
  std::atomic<unsigned> ended{0};
  std::thread writer([&] {
    while (!stop) {
      TestBio bio(Op::Write, {0}, {4});
      device().submit(bio);
      while (!bio.done()) std::this_thread::yield();
      EXPECT_EQ(bio.error(), 0);
      ++ended;
    }
  });
  std::thread completer([&] {
    while (!stop || device().in_flight() > 0) {
      for (HwPath* path : handler().host().paths()) handler().host().pg_init_complete(*path, 0);
      std::this_thread::yield();
    }
  });
  for (int i = 0; i < 300 || ended < 50; ++i) {
    ASSERT_TRUE(say(i % 2 ? "switch_group 1" : "switch_group 2"));
    ASSERT_TRUE(say("fail_path p1"));
    if (i % 7 == 0) {
      ASSERT_TRUE(rig_.suspend(kNoflush));
      ASSERT_TRUE(rig_.resume());
    }
    ASSERT_TRUE(say("reinstate_path p1"));
    std::this_thread::yield();
  }
  stop = true;
  writer.join();
  completer.join();
}

}  // namespace
}  // namespace dmfs::test
