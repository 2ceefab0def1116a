// SPDX-License-Identifier: Apache-2.0
// IoClient: what it promises, one by one. All orders of events are in io_client_orders_test.cc.
#include <gtest/gtest.h>

#include <random>
#include <thread>

#include "tests/support/io_rig.h"

namespace dmfs::test {
namespace {

using std::chrono::milliseconds;

class IoClientTest : public ::testing::Test {
 protected:
  IoClient& client() {
    if (!client_) client_ = make_client(clock_, options_);
    return *client_;
  }
  HeldFile& file(size_t index) {
    while (files_.size() <= index) {
      files_.push_back(std::make_unique<HeldFile>("f" + std::to_string(files_.size()), Sectors{4096}));
    }
    return *files_[index];
  }
  std::unique_ptr<TestRequest> write(size_t index, uint64_t at, uint64_t count, char tag = 'a') {
    return std::make_unique<TestRequest>(Op::Write, std::vector<IoRegion>{{file(index), {at}, {count}}},
                                         tag);
  }
  std::unique_ptr<TestRequest> read(size_t index, uint64_t at, uint64_t count) {
    return std::make_unique<TestRequest>(Op::Read, std::vector<IoRegion>{{file(index), {at}, {count}}},
                                         '-');
  }

  FakeClock clock_;
  DrySource source_;
  std::vector<std::unique_ptr<HeldFile>> files_;
  IoClient::Options options_{.devices = 4, .min_ios = 4, .max_size = 16384, .buffers = &source_};
  std::unique_ptr<IoClient> client_;
};

// --- Notices

TEST_F(IoClientTest, EachRegionReportsForItself) {
  TestRequest request(Op::Write, {{file(0), {0}, {8}}, {file(1), {16}, {4}}, {file(2), {0}, {1}}});
  IoHandle handle = client().submit(request);
  EXPECT_TRUE(request.told().empty());
  file(1).complete_next(EIO, {3, 0x11, 4, true});
  EXPECT_EQ(request.recorder.sense(), (Sense{3, 0x11, 4, true}));
  file(2).complete_next();
  EXPECT_FALSE(handle.finished());
  file(0).complete_next();
  EXPECT_TRUE(handle.finished());
  EXPECT_EQ(request.told(), (std::vector<Told>{{1, RegionState::Error, EIO},
                                               {2, RegionState::Ok},
                                               {0, RegionState::Ok, 0, true}}));
  EXPECT_TRUE(file_holds(file(0), {0}, {8}, 'a'));
  EXPECT_TRUE(file_holds(file(2), {0}, {1}, 'a'));
  EXPECT_TRUE(file_holds(file(2), {1}, {7}, 0));
}

TEST_F(IoClientTest, TheNoticeBearsTheHandle) {
  auto request = write(0, 0, 1);
  IoHandle seen;
  request->recorder.on_notice = [&](const IoNotice& notice) { seen = notice.handle; };
  IoHandle handle = client().submit(*request);
  file(0).complete_next();
  EXPECT_EQ(seen, handle);
}

TEST_F(IoClientTest, ACancelFromTheNoticeOfATimeoutComesAfterIt) {
  auto request = write(0, 0, 8);
  request->timeout = milliseconds(5);
  size_t told_inside = 0;
  request->recorder.on_notice = [&](const IoNotice& notice) {
    if (notice.state != RegionState::Timeout) return;
    EXPECT_EQ(client().cancel(notice.handle), 1u);
    EXPECT_EQ(client().cancel(notice.handle), 0u);
    told_inside = request->told().size();
  };
  (void)client().submit(*request);
  clock_.advance(milliseconds(5));
  EXPECT_EQ(told_inside, 1u);
  EXPECT_EQ(request->told(), (std::vector<Told>{{0, RegionState::Timeout, ETIMEDOUT},
                                                {0, RegionState::Cancelled, ECANCELED, true}}));
  file(0).complete_all();
}

TEST_F(IoClientTest, ACompletionWhileATimeoutIsToldComesAfterIt) {
  TestRequest request(Op::Write, {{file(0), {0}, {8}}, {file(1), {0}, {8}}});
  request.timeout = milliseconds(5);
  bool first = true;
  request.recorder.on_notice = [&](const IoNotice&) {
    if (!std::exchange(first, false)) return;
    // On another thread, that goes away without waiting for this notice.
    std::thread([&] {
      file(0).complete_next(EIO);
      file(1).complete_next();
    }).join();
    EXPECT_EQ(request.told().size(), 1u);
  };
  (void)client().submit(request);
  clock_.advance(milliseconds(5));
  EXPECT_EQ(request.recorder.told(0), (std::vector<Told>{{0, RegionState::Timeout, ETIMEDOUT},
                                                {0, RegionState::Error, EIO}}));
  EXPECT_EQ(request.recorder.told(1), (std::vector<Told>{{1, RegionState::Timeout, ETIMEDOUT},
                                                {1, RegionState::Ok, 0, true}}));
}

TEST_F(IoClientTest, TheLastNoticeMayFreeAllOfIt) {
  struct Own : IoNotify {
    void notified(const IoNotice& notice) override {
      if (notice.last) {
        *gone = true;
        delete this;
      }
    }
    explicit Own(HeldFile& file, bool* flag) : gone(flag), region(file, {0}, {8}), data(4096) {
      request.op = Op::Write;
      request.regions = {&region, 1};
      request.memory = IoMemory::contiguous(data.data(), data.size());
      request.notify = this;
    }
    bool* gone;
    IoRegion region;
    std::vector<std::byte> data;
    IoRequest request;
  };
  bool gone[3] = {};
  for (bool& flag : gone) {
    auto* own = new Own(file(0), &flag);
    own->region.sector = {static_cast<uint64_t>(&flag - gone) * 8};
    IoHandle handle = client().submit(own->request);
    if (&flag == &gone[2]) (void)client().cancel(handle);
  }
  EXPECT_TRUE(gone[2]);
  file(0).complete_all();
  EXPECT_TRUE(gone[0] && gone[1]);
}

TEST_F(IoClientTest, ChainsOfRequestsDoNotPileUpOnTheStack) {
  file(0).hold(false);
  auto request = write(0, 0, 1);
  struct Chain : IoNotify {
    void notified(const IoNotice& notice) override {
      EXPECT_EQ(depth++, 0);
      if (notice.last && --left > 0) (void)client->submit(*request);
      --depth;
    }
    IoClient* client;
    IoRequest* request;
    int left = 200000;
    int depth = 0;
  } chain;
  chain.client = &client();
  chain.request = request.get();
  request->notify = &chain;
  (void)client().submit(*request);
  EXPECT_EQ(chain.left, 0);
  EXPECT_EQ(file(0).seen().size(), 200000u);
}

TEST_F(IoClientTest, WithoutACopyTheFileSeesTheCallersMemory) {
  std::vector<std::byte> pages(2 * kPageSize, std::byte{'p'});
  std::byte* list[] = {pages.data() + kPageSize, pages.data()};
  auto request = write(0, 0, 8);
  request->memory = IoMemory::pages(list, 100);
  request->cancellable = false;
  IoHandle handle = client().submit(*request);
  const BioData& data = file(0).held_bios()[0]->data;
  ASSERT_EQ(data.segment_count, 2u);
  EXPECT_EQ(data.segments[0].iov_base, pages.data() + kPageSize + 100);
  EXPECT_EQ(data.segments[1].iov_base, pages.data());
  EXPECT_EQ(data.segments[1].iov_len, 100u);
  // It cannot be cancelled now, only asked back.
  EXPECT_EQ(client().cancel(handle), 0u);
  EXPECT_TRUE(request->told().empty());
  file(0).complete_next();
  EXPECT_EQ(request->state(), RegionState::Ok);
}

TEST_F(IoClientTest, RequestsThatCannotBe) {
  auto refused = [&](TestRequest& request) {
    (void)client().submit(request);
    EXPECT_TRUE(request.returned());
    for (const Told& told : request.told()) {
      EXPECT_EQ(told.state, RegionState::Error);
      EXPECT_EQ(told.error, EINVAL);
    }
    EXPECT_EQ(request.told().size(), request.regions.size());
  };
  TestRequest two_reads(Op::Read, {{file(0), {0}, {8}}, {file(1), {0}, {8}}});
  refused(two_reads);
  TestRequest five(Op::Write, std::vector<IoRegion>(5, IoRegion(file(0), {0}, {1})));
  refused(five);
  TestRequest large(Op::Write, {{file(0), {0}, {33}}});
  refused(large);
  TestRequest none(Op::Write, {{file(0), {0}, {0}}});
  refused(none);
  TestRequest no_file(Op::Flush, {IoRegion()});
  refused(no_file);
  TestRequest short_of(Op::Write, {{file(0), {0}, {8}}});
  short_of.memory = IoMemory::contiguous(short_of.data.data(), 4095);
  refused(short_of);
  TestRequest far(Op::Discard, {{file(0), {~uint64_t{0}}, {8}}});
  refused(far);
  TestRequest copied_read(Op::Read, {{file(0), {0}, {8}}});
  copied_read.source = &file(1);
  refused(copied_read);
  five.recorder.again();
  EXPECT_EQ(client().submit_and_wait(five), 0x1fu);
  // Large ranges without data are fine.
  TestRequest discard(Op::Discard, {{file(0), {0}, {4096}}});
  (void)client().submit(discard);
  file(0).complete_all();
  EXPECT_EQ(discard.state(), RegionState::Ok);
}

// --- Handles

TEST_F(IoClientTest, AHandleIsGoodForAsLongAsOneHoldsIt) {
  IoHandle nothing;
  EXPECT_FALSE(nothing);
  EXPECT_TRUE(nothing.finished());
  EXPECT_EQ(client().cancel(nothing), 0u);
  auto request = write(0, 0, 8);
  IoHandle handle = client().submit(*request);
  IoHandle copy = handle;
  EXPECT_EQ(copy, handle);
  EXPECT_FALSE(copy.finished());
  file(0).complete_next();
  EXPECT_TRUE(copy.finished());
  // The same request again is another one: the old handle does not cancel it.
  IoHandle second = client().submit(*request);
  EXPECT_NE(second, handle);
  request->recorder.again();
  EXPECT_EQ(client().cancel(handle), 0u);
  EXPECT_FALSE(second.finished());
  // A handle of another client names nothing here.
  auto other = make_client(clock_, options_);
  auto elsewhere = write(1, 0, 8);
  IoHandle foreign = other->submit(*elsewhere);
  EXPECT_EQ(client().cancel(foreign), 0u);
  file(0).complete_all();
  file(1).complete_all();
  other.reset();
  client_.reset();
  EXPECT_EQ(source_.outstanding(), 0u) << "a handle keeps the reserves";
  EXPECT_TRUE(second.finished());
  EXPECT_TRUE(foreign.finished());
}

TEST_F(IoClientTest, CancelOfAFileLeavesTheOthers) {
  TestRequest both(Op::Write, {{file(0), {0}, {8}}, {file(1), {0}, {8}}});
  auto first = write(0, 64, 8);
  auto second = write(1, 64, 8);
  (void)client().submit(both);
  (void)client().submit(*first);
  (void)client().submit(*second);
  EXPECT_EQ(client().cancel(file(0)), 2u);
  EXPECT_EQ(first->state(), RegionState::Cancelled);
  EXPECT_EQ(both.told(), (std::vector<Told>{{0, RegionState::Cancelled, ECANCELED}}));
  EXPECT_TRUE(second->told().empty());
  EXPECT_EQ(client().late(file(0)), 2u);
  EXPECT_EQ(client().late(file(1)), 0u);
  file(1).complete_all();
  EXPECT_TRUE(both.returned());
  EXPECT_EQ(second->state(), RegionState::Ok);
  file(0).complete_all();
  EXPECT_EQ(client().late(), 0u);
}

// A file that gives back what it is asked for.
class GivingFile : public HeldFile {
 public:
  using HeldFile::HeldFile;
  size_t cancel(const BioCancel& cancel) override {
    size_t count = 0;
    for (size_t i = 0; i < held();) {
      if (cancel.wants(*held_bios()[i]) && complete_at(i, cancel.error)) {
        ++count;
      } else {
        ++i;
      }
    }
    return count;
  }
};

TEST_F(IoClientTest, WhatAFileGivesBackIsNotLate) {
  GivingFile giving("g", {64});
  for (bool cancellable : {true, false}) {
    TestRequest request(Op::Write, {{giving, {0}, {8}}});
    TestRequest other(Op::Write, {{giving, {8}, {8}}});
    request.cancellable = cancellable;
    IoHandle handle = client().submit(request);
    (void)client().submit(other);
    (void)client().cancel(handle);
    EXPECT_EQ(request.told(),
              (std::vector<Told>{{0, RegionState::Cancelled, ECANCELED, true}}));
    EXPECT_EQ(client().late(), 0u);
    EXPECT_EQ(giving.held(), 1u);
    giving.complete_all();
    EXPECT_EQ(other.state(), RegionState::Ok);
  }
  // Overdue, and in the file's own memory: it is asked back too.
  TestRequest overdue(Op::Write, {{giving, {0}, {8}}});
  overdue.cancellable = false;
  overdue.cancel_on_timeout = true;
  overdue.timeout = milliseconds(5);
  (void)client().submit(overdue);
  clock_.advance(milliseconds(5));
  EXPECT_EQ(overdue.told(), (std::vector<Told>{{0, RegionState::Timeout, ETIMEDOUT},
                                               {0, RegionState::Cancelled, ECANCELED, true}}));
}

// --- Timeouts

TEST_F(IoClientTest, DifferentTimeouts) {
  std::vector<std::unique_ptr<TestRequest>> requests;
  for (int ms : {30, 10, 0, 20, 10}) {
    requests.push_back(write(0, requests.size() * 8, 8));
    requests.back()->timeout = milliseconds(ms);
    (void)client().submit(*requests.back());
  }
  auto overdue = [&] {
    std::string out;
    for (auto& request : requests) out += request->told().empty() ? '.' : 'T';
    return out;
  };
  clock_.advance(milliseconds(9));
  EXPECT_EQ(overdue(), ".....");
  clock_.advance(milliseconds(1));
  EXPECT_EQ(overdue(), ".T..T");
  clock_.advance(milliseconds(10));
  EXPECT_EQ(overdue(), ".T.TT");
  clock_.advance(milliseconds(1000));
  EXPECT_EQ(overdue(), "TT.TT");
  file(0).complete_all();
  for (auto& request : requests) EXPECT_TRUE(request->returned());
  auto forever = write(0, 0, 8);
  forever->timeout = Clock::Duration::max();
  (void)client().submit(*forever);
  clock_.advance(std::chrono::hours(1));
  EXPECT_TRUE(forever->told().empty());
  file(0).complete_all();
}

// --- What is late

TEST_F(IoClientTest, AWriteWaitsBehindACancelledOne) {
  auto old = write(0, 8, 8, 'o');
  IoHandle handle = client().submit(*old);
  (void)client().cancel(handle);
  EXPECT_EQ(old->state(), RegionState::Cancelled);
  auto overlapping = write(0, 12, 8, 'n');
  auto beside = write(0, 16, 8, 'b');  // not the old one, but behind the overlapping one
  auto apart = write(0, 32, 8, 'x');
  auto reading = read(0, 8, 8);
  auto elsewhere = write(1, 8, 8, 'e');
  for (auto* request : {&overlapping, &beside, &apart, &reading, &elsewhere}) {
    (void)client().submit(**request);
  }
  ASSERT_EQ(file(0).held(), 3u);  // the old one, apart, reading
  EXPECT_EQ(file(0).held_bios()[1]->sector.n, 32u);
  EXPECT_EQ(file(0).held_bios()[2]->op, Op::Read);
  EXPECT_EQ(file(1).held(), 1u);
  file(0).complete_next();  // late, and it reaches the file
  EXPECT_TRUE(file_holds(file(0), {8}, {8}, 'o'));
  ASSERT_EQ(file(0).held(), 3u);
  EXPECT_EQ(file(0).held_bios()[2]->sector.n, 12u);
  file(0).complete_at(2);
  ASSERT_EQ(file(0).held(), 3u);
  file(0).complete_all();
  file(1).complete_all();
  EXPECT_TRUE(file_holds(file(0), {8}, {4}, 'o'));
  EXPECT_TRUE(file_holds(file(0), {12}, {4}, 'n'));
  EXPECT_TRUE(file_holds(file(0), {16}, {8}, 'b'));
}

TEST_F(IoClientTest, AllKindsOfChangesKeepTheirOrder) {
  for (Op first : {Op::Write, Op::Discard, Op::WriteZeroes}) {
    for (Op second : {Op::Write, Op::Discard, Op::WriteZeroes}) {
      TestRequest a(first, {{file(0), {0}, {8}}});
      TestRequest b(second, {{file(0), {7}, {8}}});
      a.timeout = milliseconds(1);
      (void)client().submit(a);
      (void)client().submit(b);
      EXPECT_EQ(file(0).held(), 1u);
      clock_.advance(milliseconds(1));  // overdue: still running, still first
      EXPECT_EQ(file(0).held(), 1u);
      file(0).complete_next();
      EXPECT_EQ(file(0).held(), 1u);
      file(0).complete_next();
      EXPECT_TRUE(a.returned() && b.returned());
    }
  }
  TestRequest flush(Op::Flush, {{file(0), {0}, {0}}});
  auto a = write(0, 0, 8);
  (void)client().submit(*a);
  (void)client().submit(flush);
  EXPECT_EQ(file(0).held(), 2u);
  file(0).complete_all();
}

TEST_F(IoClientTest, OneThatWaitsCanBeCancelledAndTheNextStillWaits) {
  auto a = write(0, 0, 8, 'a');
  auto b = write(0, 0, 16, 'b');
  auto c = write(0, 0, 8, 'c');
  auto d = write(0, 8, 8, 'd');
  IoHandle first = client().submit(*a);
  (void)client().cancel(first);
  IoHandle second = client().submit(*b);
  (void)client().submit(*c);
  (void)client().submit(*d);  // waits for b only
  EXPECT_EQ(file(0).held(), 1u);
  (void)client().cancel(second);
  EXPECT_EQ(b->state(), RegionState::Cancelled);
  ASSERT_EQ(file(0).held(), 2u);
  EXPECT_EQ(file(0).held_bios()[1]->sector.n, 8u);
  file(0).complete_all();
  EXPECT_EQ(c->state(), RegionState::Ok);
  EXPECT_TRUE(file_holds(file(0), {0}, {8}, 'c'));
  EXPECT_EQ(client().late(), 0u);
}

// After anything at all: a sector holds what the last successful write put there, or what one that
// came later and did not succeed did.
TEST_F(IoClientTest, NothingStaleEverWins) {
  for (unsigned seed = 1; seed <= 60; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 random(seed);
    HeldFile target("t", {16});
    std::vector<std::unique_ptr<TestRequest>> writes;
    std::vector<IoHandle> handles;
    {
      auto client = make_client(clock_, options_);
      for (int step = 0; step < 300; ++step) {
        switch (random() % 4) {
          case 0:
          case 1: {
            if (writes.size() == 100) break;
            uint64_t at = random() % 12, count = 1 + random() % 4;
            char tag = static_cast<char>(writes.size() + 1);
            writes.push_back(std::make_unique<TestRequest>(
                Op::Write, std::vector<IoRegion>{{target, {at}, {count}}}, tag));
            writes.back()->timeout = milliseconds(random() % 20);
            writes.back()->cancel_on_timeout = random() % 2;
            handles.push_back(client->submit(*writes.back()));
            break;
          }
          case 2:
            if (target.held() > 0) target.complete_at(random() % target.held(), random() % 8 ? 0 : EIO);
            break;
          case 3:
            if (random() % 2 && !handles.empty()) {
              (void)client->cancel(handles[random() % handles.size()]);
            } else {
              clock_.advance(milliseconds(1));
            }
            break;
        }
      }
      while (client->outstanding() > 0 || client->late() > 0) target.complete_all();
    }
    for (uint64_t sector = 0; sector < 16; ++sector) {
      auto found = static_cast<size_t>(target.peek({sector}, {1})[0]);
      size_t last_ok = 0;
      for (size_t i = 0; i < writes.size(); ++i) {
        const IoRegion& region = writes[i]->regions[0];
        bool covers = region.sector.n <= sector && sector < (region.sector + region.count).n;
        if (covers && writes[i]->state() == RegionState::Ok) last_ok = i + 1;
      }
      EXPECT_GE(found, last_ok) << "sector " << sector;
    }
  }
}

TEST_F(IoClientTest, AFileThatHangsHoldsUpNobodyElse) {
  options_.min_ios = 4;  // so 2 may be late in one file
  client();
  source_.set_dry(true);
  std::vector<std::unique_ptr<TestRequest>> stuck;
  for (uint64_t i = 0; i < 10; ++i) {
    stuck.push_back(write(0, i * 8, 8));
    stuck.back()->timeout = milliseconds(1);
    stuck.back()->cancel_on_timeout = true;
    (void)client().submit(*stuck.back());
    clock_.advance(milliseconds(1));
    EXPECT_EQ(stuck.back()->state(), RegionState::Cancelled);
  }
  EXPECT_EQ(file(0).held(), 2u);
  EXPECT_EQ(client().late(file(0)), 2u);
  EXPECT_EQ(client().waiting(), 0u);
  // Others, with what the reserve has left; also together with the one that hangs.
  TestRequest both(Op::Write, {{file(0), {900}, {8}}, {file(1), {0}, {8}}});
  (void)client().submit(both);
  EXPECT_EQ(file(1).held(), 1u);
  file(1).complete_next();
  EXPECT_EQ(both.told(), (std::vector<Told>{{1, RegionState::Ok}}));
  file(0).complete_next();  // it wakes up
  EXPECT_EQ(file(0).held(), 2u);
  file(0).complete_all();
  EXPECT_TRUE(both.returned());
}

TEST_F(IoClientTest, WaitLate) {
  auto a = write(0, 0, 8);
  IoHandle handle = client().submit(*a);
  client().wait_late(file(0));  // nothing is yet
  (void)client().cancel(handle);
  std::atomic<bool> idle{false};
  std::thread waiter([&] {
    client().wait_late(file(0));
    idle = true;
  });
  EXPECT_FALSE(idle);
  file(0).complete_next();
  waiter.join();
  EXPECT_TRUE(idle);
}

// --- Reserves

TEST_F(IoClientTest, ReservesAreGotAtOnceOrNotAtAll) {
  source_.set_left(5);  // two pieces a request
  auto failed = IoClient::create(clock_, options_);
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().code, ENOMEM);
  EXPECT_EQ(source_.outstanding(), 0u);
  for (IoClient::Options bad : {IoClient::Options{.devices = 0}, IoClient::Options{.devices = 65},
                                IoClient::Options{.min_ios = 0}, IoClient::Options{.max_size = 1}}) {
    auto refused = IoClient::create(clock_, bad);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, EINVAL);
  }
}

TEST_F(IoClientTest, WithoutMemoryRequestsTakeTurns) {
  options_.min_ios = 2;
  client();
  source_.set_dry(true);
  std::vector<std::unique_ptr<TestRequest>> requests;
  std::vector<IoHandle> handles;
  for (uint64_t i = 0; i < 7; ++i) {
    requests.push_back(write(0, i * 8, 8, static_cast<char>('a' + i)));
    if (i == 3) requests.back()->timeout = milliseconds(1);
    if (i == 4) requests.back()->cancellable = false;
    handles.push_back(client().submit(*requests.back()));
  }
  EXPECT_EQ(file(0).held(), 2u);
  EXPECT_EQ(client().waiting(), 5u);
  clock_.advance(milliseconds(1));  // waiting counts
  EXPECT_EQ(requests[3]->told(), (std::vector<Told>{{0, RegionState::Timeout, ETIMEDOUT}}));
  EXPECT_EQ(client().cancel(handles[5]), 1u);  // at once: nothing of it is anywhere
  EXPECT_EQ(requests[5]->told(), (std::vector<Told>{{0, RegionState::Cancelled, ECANCELED, true}}));
  EXPECT_EQ(client().waiting(), 4u);
  std::vector<uint64_t> order;
  while (file(0).held() > 0) {
    EXPECT_LE(file(0).held(), 2u);
    order.push_back(file(0).held_bios()[0]->sector.n / 8);
    file(0).complete_next();
  }
  EXPECT_EQ(order, (std::vector<uint64_t>{0, 1, 2, 3, 4, 6}));
  for (auto& request : requests) EXPECT_TRUE(request->returned());
  // With memory again, more than the reserve at a time.
  source_.set_dry(false);
  std::vector<std::unique_ptr<TestRequest>> many;
  for (uint64_t i = 0; i < 20; ++i) {
    many.push_back(write(0, i * 8, 8));
    (void)client().submit(*many.back());
  }
  EXPECT_EQ(file(0).held(), 20u);
  file(0).complete_all();
}

TEST_F(IoClientTest, MemoryThatComesBackIsUsed) {
  options_.min_ios = 1;
  client();
  auto a = write(0, 0, 8), b = write(0, 8, 8), c = write(0, 16, 8);
  (void)client().submit(*a);
  source_.set_dry(true);
  (void)client().submit(*b);
  EXPECT_EQ(client().waiting(), 1u);
  source_.set_dry(false);
  (void)client().submit(*c);  // behind b, which is tried again
  EXPECT_EQ(client().waiting(), 0u);
  EXPECT_EQ(file(0).held_bios()[1]->sector.n, 8u);
  file(0).complete_all();
}

TEST_F(IoClientTest, ALateOneKeepsItsShareUntilItEnds) {
  options_.min_ios = 1;
  client();
  source_.set_dry(true);
  auto a = write(0, 0, 8, 'a');
  auto b = write(1, 0, 8, 'b');
  IoHandle handle = client().submit(*a);
  (void)client().submit(*b);
  (void)client().cancel(handle);
  EXPECT_EQ(client().waiting(), 1u);
  file(0).complete_next();
  EXPECT_TRUE(file_holds(file(0), {0}, {8}, 'a'));
  EXPECT_EQ(file(1).held(), 1u);
  file(1).complete_next();
  EXPECT_EQ(b->state(), RegionState::Ok);
}

// --- The end

TEST_F(IoClientTest, ClosingCancels) {
  auto a = write(0, 0, 8), b = write(0, 0, 8), c = write(1, 0, 8);
  c->cancellable = false;
  (void)client().submit(*a);
  (void)client().submit(*b);
  (void)client().submit(*c);
  std::thread closer([&] { client_.reset(); });
  // It waits for the files.
  while (!a->returned() || !b->returned()) std::this_thread::yield();
  EXPECT_EQ(a->state(), RegionState::Cancelled);
  EXPECT_FALSE(c->returned());
  file(1).complete_next();
  file(0).complete_next();
  closer.join();
  EXPECT_EQ(c->state(), RegionState::Ok);
  EXPECT_EQ(file(0).held(), 0u);
  EXPECT_EQ(clock_.pending(), 0u);
}

TEST_F(IoClientTest, ClosingWaits) {
  options_.on_close = IoClient::OnClose::Wait;
  auto a = write(0, 0, 8), b = write(0, 0, 8);
  a->timeout = milliseconds(5);
  (void)client().submit(*a);
  (void)client().submit(*b);
  std::thread closer([&] { client_.reset(); });
  clock_.advance(milliseconds(5));
  EXPECT_EQ(a->told(), (std::vector<Told>{{0, RegionState::Timeout, ETIMEDOUT}}));
  file(0).complete_next();
  ASSERT_TRUE(file(0).wait_held(1));
  file(0).complete_next();
  closer.join();
  EXPECT_EQ(a->state(), RegionState::Ok);
  EXPECT_EQ(b->state(), RegionState::Ok);
}

}  // namespace
}  // namespace dmfs::test
