// SPDX-License-Identifier: Apache-2.0
// Copying in the background, one decision at a time.
#include <gtest/gtest.h>

#include <random>
#include <thread>

#include "core/io/kcopyd.h"
#include "tests/support/io_rig.h"

namespace dmfs::test {
namespace {

using std::chrono::milliseconds;

class TestJob : public CopyJob {
 public:
  TestJob(MemoryFile* from, std::vector<MemoryFile*> to, Sectors length, Executor& on) {
    source = {from, {}};
    for (MemoryFile* file : to) places_.push_back({file, {}});
    destinations = places_;
    count = length;
    queue = &on;
  }
  void ended(const Outcome& outcome) override {
    EXPECT_FALSE(done) << "a job ends once";
    done = true;
    how = outcome;
  }
  std::vector<Place>& places() { return places_; }

  bool done = false;
  Outcome how;

 private:
  std::vector<Place> places_;
};

// A file that can copy from others of its kind by itself.
class CopyingFile : public HeldFile {
 public:
  using HeldFile::HeldFile;
  int copy_fd() const override { return 0; }
  bool copy_from(Bio& bio, BackingFile& from, Sectors at) override {
    ++copies;
    if (error == 0) {
      poke(bio.sector, static_cast<MemoryFile&>(from).peek(at, bio.count));
    }
    bio.complete(error);
    return true;
  }
  unsigned copies = 0;
  int error = 0;
};

class KcopydTest : public ::testing::Test {
 protected:
  ~KcopydTest() override {
    work_.run_all();
    kcopyd_.reset();
    queue_.run_all();
  }
  Kcopyd& kcopyd() {
    if (!client_) client_ = make_client(clock_, client_options_);
    if (!kcopyd_) {
      auto made = Kcopyd::create(*client_, clock_, work_, options_);
      EXPECT_TRUE(made);
      kcopyd_ = *std::move(made);
    }
    return *kcopyd_;
  }
  // Every sector differs from every other.
  static void fill(MemoryFile& file, uint64_t at, uint64_t count, char tag = 'a') {
    for (uint64_t i = at; i < at + count; ++i) {
      std::vector<std::byte> sector(512, std::byte(tag));
      sector[0] = std::byte(i);
      sector[511] = std::byte(i * 7 + 1);
      file.poke({i}, sector);
    }
  }
  static bool same(const MemoryFile& a, const MemoryFile& b, uint64_t count) {
    return a.peek({0}, {count}) == b.peek({0}, {count});
  }
  TestJob job(MemoryFile* from, std::vector<MemoryFile*> to, uint64_t count) {
    return TestJob(from, std::move(to), {count}, queue_);
  }
  // Until nothing more comes by itself.
  void settle() {
    while (work_.run_all() + queue_.run_all() > 0) {
    }
  }

  FakeClock clock_;
  ManualExecutor work_, queue_;
  DrySource source_;
  HeldFile from_{"from", {1024}}, a_{"a", {1024}}, b_{"b", {1024}}, c_{"c", {1024}};
  IoClient::Options client_options_{.devices = 3, .min_ios = 4, .max_size = 8192, .buffers = &source_};
  Kcopyd::Options options_{.pieces = 4, .piece = {8}, .buffers = &source_};
  std::unique_ptr<IoClient> client_;
  std::unique_ptr<Kcopyd> kcopyd_;

  void let_run() {
    for (HeldFile* file : {&from_, &a_, &b_, &c_}) file->hold(false);
  }
};

TEST_F(KcopydTest, CopiesToSeveralAtTheirPlaces) {
  let_run();
  fill(from_, 100, 50);
  auto one = job(&from_, {&a_, &b_}, 50);
  one.source.sector = {100};
  one.places()[0].sector = {7};
  one.places()[1].sector = {300};
  kcopyd().submit(one);
  EXPECT_EQ(one.total().n, 50u);
  EXPECT_EQ(kcopyd().jobs(), 1u);
  EXPECT_TRUE(from_.seen().empty()) << "nothing is done on the caller's thread";
  work_.run_all();
  EXPECT_FALSE(one.done) << "it ends on its own queue";
  EXPECT_EQ(one.copied().n, 50u);
  EXPECT_EQ(kcopyd().jobs(), 0u);
  queue_.run_all();
  ASSERT_TRUE(one.done);
  EXPECT_TRUE(one.how.ok());
  EXPECT_EQ(a_.peek({7}, {50}), from_.peek({100}, {50}));
  EXPECT_EQ(b_.peek({300}, {50}), from_.peek({100}, {50}));
  EXPECT_EQ(a_.allocated({0}, {1024}).n, 50u);
  for (const SeenBio& bio : a_.seen()) EXPECT_LE(bio.count.n, 8u);
}

TEST_F(KcopydTest, OnlySoManyPiecesAtATime) {
  fill(from_, 0, 200);
  auto one = job(&from_, {&a_}, 200);
  kcopyd().submit(one);
  work_.run_all();
  EXPECT_EQ(from_.held(), 4u);
  from_.complete_next();
  work_.run_all();
  EXPECT_EQ(from_.held(), 3u);
  EXPECT_EQ(a_.held(), 1u);
  EXPECT_EQ(one.copied().n, 0u);
  a_.complete_next();
  EXPECT_EQ(one.copied().n, 0u);
  work_.run_all();
  EXPECT_EQ(one.copied().n, 8u);
  EXPECT_EQ(from_.held(), 4u);
  let_run();
  while (!one.done) {
    from_.complete_all();
    a_.complete_all();
    settle();
  }
  EXPECT_TRUE(same(from_, a_, 200));
}

// --- Holes and zeroes

TEST_F(KcopydTest, HolesStayHoles) {
  let_run();
  fill(from_, 16, 5);
  fill(from_, 300, 3);
  fill(a_, 0, 1024, 'x');
  fill(b_, 17, 2, 'x');
  fill(b_, 700, 2, 'x');
  fill(c_, 40, 60, 'x');
  b_.set_discard_zeroes(true);
  c_.set_supports_write_zeroes(false);
  auto one = job(&from_, {&a_, &b_, &c_}, 1024);
  kcopyd().submit(one);
  settle();
  ASSERT_TRUE(one.done);
  EXPECT_TRUE(one.how.ok());
  EXPECT_EQ(one.copied().n, 1024u);
  for (HeldFile* file : {&a_, &b_, &c_}) EXPECT_TRUE(same(from_, *file, 1024)) << file->name();
  EXPECT_EQ(a_.allocated({0}, {1024}).n, 8u);
  EXPECT_EQ(b_.allocated({0}, {1024}).n, 8u);
  auto count = [](HeldFile& file, Op op) {
    auto seen = file.seen();
    return std::count_if(seen.begin(), seen.end(), [&](const SeenBio& bio) { return bio.op == op; });
  };
  EXPECT_EQ(count(a_, Op::Discard), 0);
  EXPECT_GT(count(a_, Op::WriteZeroes), 0);
  EXPECT_EQ(count(b_, Op::WriteZeroes), 0);
  EXPECT_EQ(count(b_, Op::Discard), 1);  // what reads as zeroes is left alone
  // Only where c has something: by writes of the buffer's size.
  for (const SeenBio& bio : c_.seen()) {
    EXPECT_LE(bio.op == Op::Write ? bio.count.n : 0, 8u);
  }
  EXPECT_EQ(count(from_, Op::Read), 2);
}

TEST_F(KcopydTest, Zeroes) {
  let_run();
  fill(a_, 0, 100, 'x');
  fill(b_, 50, 100, 'x');
  b_.set_supports_write_zeroes(false);
  auto one = job(nullptr, {&a_, &b_}, 120);
  kcopyd().submit(one);
  settle();
  ASSERT_TRUE(one.done);
  EXPECT_TRUE(one.how.ok());
  EXPECT_TRUE(file_holds(a_, {0}, {120}, 0));
  EXPECT_TRUE(file_holds(b_, {0}, {120}, 0));
  EXPECT_FALSE(file_holds(b_, {120}, {30}, 0));
}

TEST_F(KcopydTest, ADiscardThatIsRefusedBecomesZeroes) {
  let_run();
  fill(a_, 0, 64, 'x');
  a_.set_discard_zeroes(true);
  a_.fail_nth(1, EOPNOTSUPP);
  auto one = job(nullptr, {&a_}, 64);
  kcopyd().submit(one);
  settle();
  EXPECT_TRUE(one.how.ok());
  EXPECT_TRUE(file_holds(a_, {0}, {64}, 0));
}

// --- In the kernel

TEST_F(KcopydTest, TheKernelCopiesWhereItCan) {
  CopyingFile from("from", {256}), to("to", {256});
  fill(from, 0, 40);
  fill(from, 100, 40);
  for (bool in_kernel : {true, false}) {
    let_run();
    from.hold(false);
    to.hold(false);
    to.poke({0}, std::vector<std::byte>(256 * 512, std::byte{'x'}));
    auto one = job(&from, {&to, &a_}, 256);
    one.in_kernel = in_kernel;
    kcopyd().submit(one);
    settle();
    EXPECT_TRUE(one.how.ok());
    EXPECT_TRUE(same(from, to, 256));
    EXPECT_TRUE(same(from, a_, 256)) << "which cannot";
    EXPECT_EQ(to.copies, in_kernel ? 10u : 0u);
    to.copies = 0;
  }
  // It turns out that it cannot: asked for the first few only.
  to.error = EXDEV;
  auto other = job(&from, {&to}, 256);
  kcopyd().submit(other);
  settle();
  EXPECT_TRUE(other.how.ok());
  EXPECT_LE(to.copies, 4u);
  // It fails: reading and writing tells on which side.
  to.error = EIO;
  to.poke({0}, std::vector<std::byte>(40 * 512));
  auto third = job(&from, {&to}, 40);
  kcopyd().submit(third);
  settle();
  EXPECT_TRUE(third.how.ok());
  EXPECT_TRUE(same(from, to, 40));
}

// --- Errors

TEST_F(KcopydTest, AnErrorOfADestinationEndsTheJob) {
  let_run();
  fill(from_, 0, 400);
  auto one = job(&from_, {&a_, &b_, &c_}, 400);
  b_.fail_nth(3, ENOSPC);
  kcopyd().submit(one);
  settle();
  ASSERT_TRUE(one.done);
  EXPECT_FALSE(one.how.ok());
  EXPECT_FALSE(one.how.read_error);
  EXPECT_EQ(one.how.write_errors, 2u);
  EXPECT_EQ(one.how.error, ENOSPC);
  EXPECT_LT(one.copied().n, 64u);
}

TEST_F(KcopydTest, AnErrorOfTheSourceEndsTheJob) {
  let_run();
  fill(from_, 0, 400);
  auto one = job(&from_, {&a_, &b_}, 400);
  from_.fail_nth(2, EREMOTEIO);
  kcopyd().submit(one);
  settle();
  EXPECT_TRUE(one.how.read_error);
  EXPECT_EQ(one.how.write_errors, 0u);
  EXPECT_EQ(one.how.error, EREMOTEIO);
}

TEST_F(KcopydTest, AfterAnErrorNothingNewIsStarted) {
  fill(from_, 0, 400);
  auto one = job(&from_, {&a_}, 400);
  kcopyd().submit(one);
  settle();
  ASSERT_EQ(from_.held(), 4u);
  from_.complete_next(EIO);
  settle();
  EXPECT_FALSE(one.done) << "some is under way";
  EXPECT_EQ(from_.complete_all(), 3u);
  settle();
  EXPECT_TRUE(one.done && one.how.read_error);
  EXPECT_FALSE(one.how.cancelled);
  EXPECT_TRUE(a_.seen().empty());
  EXPECT_EQ(one.copied().n, 0u);
}

TEST_F(KcopydTest, ErrorsCanBeIgnored) {
  let_run();
  fill(from_, 0, 400);
  fill(a_, 0, 400, 'x');
  fill(b_, 0, 400, 'x');
  auto one = job(&from_, {&a_, &b_}, 400);
  one.ignore_errors = true;
  from_.fail_nth(2, EREMOTEIO);  // sectors 8 to 15
  b_.fail_nth(3, EIO);
  kcopyd().submit(one);
  settle();
  ASSERT_TRUE(one.done);
  EXPECT_TRUE(one.how.read_error);
  EXPECT_EQ(one.how.write_errors, 2u);
  EXPECT_EQ(one.copied().n, 392u);
  EXPECT_EQ(a_.peek({0}, {8}), from_.peek({0}, {8}));
  EXPECT_EQ(a_.peek({16}, {384}), from_.peek({16}, {384}));
  EXPECT_NE(a_.peek({8}, {8}), from_.peek({8}, {8})) << "what was not read is not written";
  unsigned bad = 0;
  for (uint64_t at = 0; at < 400; at += 8) bad += b_.peek({at}, {8}) != from_.peek({at}, {8});
  EXPECT_EQ(bad, 2u);
}

TEST_F(KcopydTest, ADestinationThatHangsTimesOut) {
  fill(from_, 0, 32);
  from_.hold(false);
  a_.hold(false);
  auto one = job(&from_, {&a_, &b_}, 32);
  one.timeout = milliseconds(10);
  one.ignore_errors = true;
  kcopyd().submit(one);
  settle();
  EXPECT_EQ(b_.held(), 4u);
  while (!one.done) {
    clock_.advance(milliseconds(10));
    settle();
  }
  EXPECT_EQ(one.how.write_errors, 2u);
  EXPECT_EQ(one.how.error, ETIMEDOUT);
  EXPECT_TRUE(same(from_, a_, 32));
  EXPECT_GT(client_->late(b_), 0u);
  b_.complete_all();
}

TEST_F(KcopydTest, JobsThatCannotBe) {
  auto nothing = job(&from_, {&a_}, 0);
  kcopyd().submit(nothing);
  settle();
  EXPECT_TRUE(nothing.done && nothing.how.ok());
  auto nowhere = job(&from_, {}, 8);
  auto too_many = job(&from_, {&a_, &b_, &c_, &a_}, 8);
  auto no_file = job(&from_, {nullptr}, 8);
  for (TestJob* bad : {&nowhere, &too_many, &no_file}) {
    kcopyd().submit(*bad);
    settle();
    EXPECT_TRUE(bad->done);
    EXPECT_EQ(bad->how.error, EINVAL);
    EXPECT_FALSE(kcopyd().cancel(*bad));
  }
  for (Kcopyd::Options bad : {Kcopyd::Options{.pieces = 0}, Kcopyd::Options{.piece = {0}},
                              Kcopyd::Options{.piece = {17}}, Kcopyd::Options{.throttle = 101}}) {
    EXPECT_EQ(Kcopyd::create(*client_, clock_, work_, bad).error().code, EINVAL);
  }
  source_.set_left(2);
  size_t before = source_.outstanding();
  EXPECT_EQ(Kcopyd::create(*client_, clock_, work_, options_).error().code, ENOMEM);
  EXPECT_EQ(source_.outstanding(), before);
}

// --- Cancel

// A step is a piece of work, or the end of one bio.
TEST_F(KcopydTest, CancelAtEachStep) {
  fill(from_, 0, 20);
  fill(from_, 40, 4);
  int steps = 0;
  for (bool finished = false; !finished; ++steps) {
    SCOPED_TRACE(steps);
    for (HeldFile* file : {&a_, &b_}) file->poke({0}, std::vector<std::byte>(64 * 512, std::byte{'x'}));
    b_.set_discard_zeroes(true);
    options_.pieces = 2;
    auto one = job(&from_, {&a_, &b_}, 64);
    kcopyd().submit(one);
    auto step = [&] {
      return work_.run_one() || from_.complete_next() || a_.complete_next() || b_.complete_next() ||
             queue_.run_one();
    };
    for (int i = 0; i < steps && step(); ++i) {
    }
    finished = one.done;
    bool cancelled = kcopyd().cancel(one);
    EXPECT_FALSE(finished && cancelled);
    EXPECT_FALSE(kcopyd().cancel(one));
    // Without any file ending anything:
    settle();
    ASSERT_TRUE(one.done);
    if (cancelled) {
      EXPECT_TRUE(one.how.cancelled);
      EXPECT_EQ(one.how.error, ECANCELED);
      EXPECT_EQ(one.how.write_errors, 0u);
      EXPECT_FALSE(one.how.read_error);
    } else {
      EXPECT_TRUE(one.how.ok());
      EXPECT_TRUE(same(from_, a_, 64) && same(from_, b_, 64));
    }
    EXPECT_EQ(kcopyd().jobs(), 0u);
    // What is late ends now, and nothing comes after it.
    size_t before = from_.seen().size() + a_.seen().size() + b_.seen().size();
    for (HeldFile* file : {&from_, &a_, &b_}) file->complete_all();
    settle();
    EXPECT_EQ(from_.seen().size() + a_.seen().size() + b_.seen().size(), before);
    EXPECT_EQ(client_->late(), 0u);
  }
  EXPECT_GT(steps, 20);
}

TEST_F(KcopydTest, OtherJobsGoOnWhenOneIsCancelled) {
  fill(from_, 0, 64);
  b_.hold(false);
  c_.hold(false);
  auto stuck = job(&from_, {&a_}, 64);
  auto other = job(nullptr, {&b_}, 64);
  fill(b_, 0, 64);
  stuck.priority = 1;
  kcopyd().submit(stuck);
  kcopyd().submit(other);
  settle();
  EXPECT_EQ(from_.held(), 4u);
  EXPECT_FALSE(other.done) << "all pieces are taken";
  EXPECT_TRUE(kcopyd().cancel(stuck));
  settle();
  EXPECT_TRUE(stuck.done && other.done);
  EXPECT_TRUE(other.how.ok());
  from_.complete_all();
}

TEST_F(KcopydTest, TheEndCancelsAll) {
  fill(from_, 0, 64);
  auto running = job(&from_, {&a_}, 64);
  auto waiting = job(&from_, {&b_}, 64);
  waiting.priority = -1;
  kcopyd().submit(running);
  kcopyd().submit(waiting);
  work_.run_all();
  std::thread closer([&] { kcopyd_.reset(); });
  while (!running.done || !waiting.done) settle();
  closer.join();
  EXPECT_TRUE(running.how.cancelled && waiting.how.cancelled);
  from_.complete_all();
}

// --- Whose turn it is

TEST_F(KcopydTest, TheEndComesInARest) {
  options_.throttle = 50;
  fill(from_, 0, 64);
  a_.hold(false);
  auto one = job(&from_, {&a_}, 64);
  kcopyd().submit(one);
  settle();
  clock_.advance(milliseconds(100));
  from_.complete_all();
  settle();
  EXPECT_EQ(clock_.pending(), 1u);
  std::thread closer([&] { kcopyd_.reset(); });
  while (!one.done) settle();
  closer.join();
  EXPECT_TRUE(one.how.cancelled);
  EXPECT_EQ(clock_.pending(), 0u);
}

TEST_F(KcopydTest, PrioritiesAndTurns) {
  let_run();
  options_.pieces = 1;
  std::vector<std::unique_ptr<TestJob>> jobs;
  for (int i = 0; i < 4; ++i) {
    jobs.push_back(std::make_unique<TestJob>(nullptr, std::vector<MemoryFile*>{&a_}, Sectors{16}, queue_));
    jobs.back()->places()[0].sector = {static_cast<uint64_t>(i) * 16};
    jobs.back()->priority = i == 0 ? -5 : i == 3 ? 7 : 0;
  }
  // As data, so that a piece is a piece.
  fill(from_, 0, 64);
  for (int i = 0; i < 4; ++i) {
    jobs[i]->source = {&from_, {static_cast<uint64_t>(i) * 16}};
    kcopyd().submit(*jobs[i]);
  }
  settle();
  std::vector<uint64_t> order;
  for (const SeenBio& bio : a_.seen()) order.push_back(bio.sector.n / 8);
  EXPECT_EQ(order, (std::vector<uint64_t>{6, 7, 2, 4, 3, 5, 0, 1}));
}

// --- The throttle

TEST_F(KcopydTest, ThrottleRestsInProportion) {
  options_.pieces = 1;
  options_.throttle = 25;
  fill(from_, 0, 64);
  a_.hold(false);
  auto one = job(&from_, {&a_}, 64);
  kcopyd().submit(one);
  settle();
  auto piece_takes = [&](milliseconds time) {
    ASSERT_EQ(from_.held(), 1u);
    clock_.advance(time);
    from_.complete_next();
    settle();
  };
  auto advance = [&](milliseconds time) {
    clock_.advance(time);
    settle();
  };
  piece_takes(milliseconds(60));
  EXPECT_EQ(from_.held(), 1u) << "not a burst yet";
  piece_takes(milliseconds(40));
  EXPECT_EQ(from_.held(), 0u) << "100 ms of work: 300 ms of rest";
  advance(milliseconds(299));
  EXPECT_EQ(from_.held(), 0u);
  advance(milliseconds(1));
  EXPECT_EQ(from_.held(), 1u);
  // Changed while it rests: 100 ms of work at 50 percent.
  piece_takes(milliseconds(100));
  kcopyd().set_throttle(50);
  EXPECT_EQ(kcopyd().throttle(), 50u);
  settle();
  advance(milliseconds(99));
  EXPECT_EQ(from_.held(), 0u);
  advance(milliseconds(1));
  EXPECT_EQ(from_.held(), 1u);
  // Off, while it rests, and a pause.
  piece_takes(milliseconds(500));
  EXPECT_EQ(from_.held(), 0u);
  kcopyd().set_throttle(0);
  settle();
  advance(std::chrono::hours(1));
  EXPECT_EQ(from_.held(), 0u);
  kcopyd().set_throttle(100);
  settle();
  piece_takes(milliseconds(900));
  EXPECT_EQ(from_.held(), 1u);
  EXPECT_TRUE(kcopyd().cancel(one));
  settle();
  from_.complete_all();
}

TEST_F(KcopydTest, ABurstOfManyPiecesEnds) {
  options_.throttle = 50;
  fill(from_, 0, 512);
  a_.hold(false);
  auto one = job(&from_, {&a_}, 512);
  kcopyd().submit(one);
  settle();
  EXPECT_EQ(from_.held(), 4u);
  // Never is there a moment without work; it ends all the same.
  for (int i = 0; i < 9; ++i) {
    clock_.advance(milliseconds(10));
    from_.complete_next();
    settle();
    EXPECT_EQ(from_.held(), 4u);
  }
  clock_.advance(milliseconds(10));
  from_.complete_next();
  settle();
  EXPECT_EQ(from_.held(), 3u);
  from_.complete_all();
  settle();
  EXPECT_EQ(from_.held(), 0u);
  clock_.advance(milliseconds(100));
  settle();
  EXPECT_EQ(from_.held(), 4u);
  from_.hold(false);
  while (!one.done) {
    from_.complete_all();
    clock_.advance(milliseconds(100));
    settle();
  }
  EXPECT_TRUE(same(from_, a_, 512));
}

// --- Memory

TEST_F(KcopydTest, GoesOnWithoutMemory) {
  client_options_.min_ios = 1;
  fill(from_, 0, 200);
  fill(from_, 300, 20);
  fill(a_, 100, 400, 'x');
  auto one = job(&from_, {&a_, &b_}, 600);
  auto other = job(nullptr, {&c_}, 100);
  fill(c_, 0, 100, 'x');
  kcopyd();
  source_.set_dry(true);
  kcopyd().submit(one);
  kcopyd().submit(other);
  while (!one.done || !other.done) {
    settle();
    EXPECT_LE(from_.held() + a_.held() + b_.held() + c_.held(), 2u) << "one request at a time";
    for (HeldFile* file : {&from_, &a_, &b_, &c_}) file->complete_all();
  }
  EXPECT_TRUE(one.how.ok() && other.how.ok());
  EXPECT_TRUE(same(from_, a_, 600) && same(from_, b_, 600));
  EXPECT_TRUE(file_holds(c_, {0}, {100}, 0));
}

// Any extents on either side, any kind of destination.
TEST_F(KcopydTest, AnyPatternOfHoles) {
  let_run();
  for (unsigned seed = 0; seed < 200; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 random(seed);
    HeldFile from("from", {512}), to("to", {512}), copy("copy", {512});
    for (HeldFile* file : {&from, &to, &copy}) {
      file->hold(false);
      for (uint64_t at = random() % 40; at < 500; at += random() % 60) {
        uint64_t length = 1 + random() % 40;
        fill(*file, at, std::min(length, 512 - at), static_cast<char>(random() % 100 + 1));
        at += length;
      }
    }
    to.set_discard_zeroes(seed % 2);
    to.set_supports_discard(seed % 3);
    copy.set_supports_write_zeroes(seed % 5);
    auto one = job(seed % 7 ? &from : nullptr, {&to, &copy}, 512);
    kcopyd().submit(one);
    settle();
    ASSERT_TRUE(one.done);
    EXPECT_TRUE(one.how.ok());
    if (seed % 7 == 0) {
      EXPECT_TRUE(file_holds(to, {0}, {512}, 0));
      EXPECT_TRUE(file_holds(copy, {0}, {512}, 0));
    } else {
      EXPECT_TRUE(same(from, to, 512));
      EXPECT_TRUE(same(from, copy, 512));
      EXPECT_EQ(to.allocated({0}, {512}), from.allocated({0}, {512}));
    }
  }
}

}  // namespace
}  // namespace dmfs::test
