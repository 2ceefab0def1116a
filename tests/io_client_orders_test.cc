// SPDX-License-Identifier: Apache-2.0
// Every order in which completion, timeout and cancel can come, against a model.
#include <gtest/gtest.h>

#include <algorithm>
#include <sstream>
#include <thread>

#include "tests/support/io_rig.h"

namespace dmfs::test {
namespace {

constexpr Sectors kCount{3};
constexpr size_t kBytes = 3 * 512;
constexpr auto kTimeout = std::chrono::milliseconds(100);

// The end of a region (>= 0), or one of these.
enum Event : int { kTimesOut = -1, kCancelHandle = -2, kCancelFile0 = -3 };

struct Case {
  Op op = Op::Write;
  unsigned regions = 1;
  int failing = -1;  // the region whose I/O fails
  bool cancel_on_timeout = false;
  bool cancellable = true;
  bool sync = false;
  bool notify = true;
  unsigned memory = 0;  // a kind

  std::string describe(const std::vector<int>& order) const {
    std::ostringstream out;
    out << op_name(op) << " regions " << regions << " failing " << failing << " cancel_on_timeout "
        << cancel_on_timeout << " cancellable " << cancellable << " sync " << sync << " memory "
        << memory << " order";
    for (int event : order) out << ' ' << event;
    return out.str();
  }
  bool cancels_overdue() const { return cancel_on_timeout || (sync && !notify); }
};

// What each region has to be told.
std::vector<std::vector<Told>> model(const Case& c, const std::vector<int>& order) {
  std::vector<std::vector<Told>> told(c.regions);
  std::vector<bool> ended(c.regions);
  auto end = [&](unsigned region, RegionState state, int error) {
    if (ended[region]) return;
    ended[region] = true;
    bool last = std::all_of(ended.begin(), ended.end(), [](bool e) { return e; });
    told[region].push_back({region, state, error, last});
  };
  for (int event : order) {
    if (event >= 0) {
      auto region = static_cast<unsigned>(event);
      end(region, event == c.failing ? RegionState::Error : RegionState::Ok,
          event == c.failing ? EREMOTEIO : 0);
    }
    for (unsigned region = 0; region < c.regions; ++region) {
      if (ended[region]) continue;
      if (event == kTimesOut) told[region].push_back({region, RegionState::Timeout, ETIMEDOUT});
      bool cancels = event == kCancelHandle || (event == kCancelFile0 && region == 0) ||
                     (event == kTimesOut && c.cancels_overdue());
      if (cancels && c.cancellable) end(region, RegionState::Cancelled, ECANCELED);
    }
  }
  return told;
}

// Memory of each kind, entered at an odd place, with guards around it.
class OddMemory {
 public:
  explicit OddMemory(unsigned kind) : bytes_(3 * kPageSize, std::byte{'g'}) {
    std::byte* base = bytes_.data();
    switch (kind % 3) {
      case 0:
        memory_ = IoMemory::contiguous(base + 7, kBytes);
        break;
      case 1:
        segments_ = {{base + 1, 13}, {base + 100, 511}, {base + 1000, 1}, {base + 2000, 2000}};
        memory_ = IoMemory::scatter(segments_, 20);
        break;
      case 2:
        pages_ = {base + 2 * kPageSize, base, base + kPageSize};
        memory_ = IoMemory::pages(pages_, kPageSize - 333);
        break;
    }
  }
  IoMemory memory() const { return memory_; }
  void fill(char tag) {
    std::vector<std::byte> data(kBytes, std::byte(tag));
    memory_.copy_in(data);
  }
  // All of it is `tag`, and nothing else is.
  bool only(char tag) const {
    std::vector<std::byte> data(kBytes);
    memory_.copy_out(data);
    return std::count(data.begin(), data.end(), std::byte(tag)) == ssize_t{kBytes} &&
           std::count(bytes_.begin(), bytes_.end(), std::byte(tag)) == ssize_t{kBytes};
  }

 private:
  std::vector<std::byte> bytes_;
  std::vector<iovec> segments_;
  std::vector<std::byte*> pages_;
  IoMemory memory_;
};

void run(const Case& c, const std::vector<int>& order) {
  SCOPED_TRACE(c.describe(order));
  FakeClock clock;
  std::vector<std::unique_ptr<HeldFile>> files;
  for (unsigned i = 0; i < c.regions; ++i) {
    files.push_back(std::make_unique<HeldFile>("f" + std::to_string(i), Sectors{64}));
    files.back()->poke({8}, std::vector<std::byte>(kBytes, std::byte{'F'}));
  }
  auto client = make_client(clock, {.devices = 4, .min_ios = 1, .max_size = kPageSize});
  OddMemory memory(c.memory);
  memory.fill('M');
  Recorder recorder;
  std::vector<IoRegion> regions;
  for (auto& file : files) regions.emplace_back(*file, Sectors{8}, kCount);
  IoRequest request;
  request.op = c.op;
  request.regions = regions;
  if (op_has_data(c.op)) request.memory = memory.memory();
  if (c.notify) request.notify = &recorder;
  request.timeout = kTimeout;
  request.cancel_on_timeout = c.cancel_on_timeout;
  request.cancellable = c.cancellable;

  IoHandle handle;
  uint64_t bits = 0;
  std::thread waiter;
  if (c.sync) {
    waiter = std::thread([&] { bits = client->submit_and_wait(request); });
    for (auto& file : files) ASSERT_TRUE(file->wait_held(1));
  } else {
    handle = client->submit(request);
  }
  auto expected = model(c, order);
  bool done = false;
  std::vector<bool> written(c.regions);
  for (int event : order) {
    switch (event) {
      case kTimesOut:
        clock.advance(kTimeout);
        break;
      case kCancelHandle:
        (void)client->cancel(handle);
        break;
      case kCancelFile0:
        (void)client->cancel(*files[0]);
        break;
      default:
        ASSERT_TRUE(files[static_cast<size_t>(event)]->complete_next(
            event == c.failing ? EREMOTEIO : 0));
        written[static_cast<size_t>(event)] = event != c.failing;
        break;
    }
    if (c.notify && recorder.returned() && !done) {
      done = true;
      // The memory is ours again: a read has changed it or it never will; a write does not see this.
      if (c.op == Op::Read) {
        EXPECT_TRUE(memory.only(expected[0].back().state == RegionState::Ok ? 'F' : 'M'));
      }
      memory.fill('X');
    }
  }
  if (c.sync) waiter.join();
  if (c.notify) {
    EXPECT_TRUE(done);
    for (unsigned region = 0; region < c.regions; ++region) {
      EXPECT_EQ(recorder.told(region), expected[region]);
    }
    EXPECT_TRUE(memory.only('X'));
  }
  if (c.sync) {
    uint64_t wanted = 0;
    for (unsigned region = 0; region < c.regions; ++region) {
      if (expected[region].back().state != RegionState::Ok) wanted |= uint64_t{1} << region;
    }
    EXPECT_EQ(bits, wanted);
  } else {
    EXPECT_TRUE(handle.finished());
  }
  EXPECT_EQ(client->outstanding(), 0u);
  EXPECT_EQ(client->late(), 0u);
  // What went to the file is what was in memory at first, late or not.
  for (unsigned region = 0; c.op == Op::Write && region < c.regions; ++region) {
    EXPECT_TRUE(file_holds(*files[region], {8}, kCount, written[region] ? 'M' : 'F'));
  }
  clock.advance(kTimeout);
}

void run_all(Case c) {
  std::vector<int> order{kTimesOut, kCancelFile0};
  if (!c.sync) order.push_back(kCancelHandle);
  for (int region = 0; region < static_cast<int>(c.regions); ++region) order.push_back(region);
  std::sort(order.begin(), order.end());
  do {
    run(c, order);
    if (::testing::Test::HasFailure()) return;
    ++c.memory;
  } while (std::next_permutation(order.begin(), order.end()));
}

void run_all_kinds(const Case& base) {
  for (bool cancel_on_timeout : {false, true}) {
    for (bool cancellable : {true, false}) {
      Case c = base;
      c.cancel_on_timeout = cancel_on_timeout;
      c.cancellable = cancellable;
      run_all(c);
    }
  }
}

TEST(IoClientOrders, Writes) {
  for (unsigned regions = 1; regions <= 3; ++regions) {
    for (int failing = -1; failing < static_cast<int>(regions); ++failing) {
      run_all_kinds({.op = Op::Write, .regions = regions, .failing = failing});
    }
  }
}

TEST(IoClientOrders, WritesToFour) {
  run_all_kinds({.op = Op::Write, .regions = 4});
  run_all_kinds({.op = Op::Write, .regions = 4, .failing = 2});
}

TEST(IoClientOrders, Reads) {
  for (int failing : {-1, 0}) run_all_kinds({.op = Op::Read, .failing = failing});
}

TEST(IoClientOrders, OtherOperations) {
  for (Op op : {Op::Flush, Op::Discard, Op::WriteZeroes}) run_all_kinds({.op = op, .regions = 2});
}

TEST(IoClientOrders, WaitedFor) {
  for (unsigned regions = 1; regions <= 4; ++regions) {
    for (int failing : {-1, 0}) {
      run_all_kinds({.op = Op::Write, .regions = regions, .failing = failing, .sync = true});
    }
  }
  run_all_kinds({.op = Op::Read, .sync = true});
}

// The caller learns error bits only; what is overdue is cancelled.
TEST(IoClientOrders, WaitedForWithoutNotify) {
  for (unsigned regions = 1; regions <= 3; ++regions) {
    run_all_kinds({.op = Op::Write, .regions = regions, .sync = true, .notify = false});
  }
}

}  // namespace
}  // namespace dmfs::test
