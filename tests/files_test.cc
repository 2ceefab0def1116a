// SPDX-License-Identifier: Apache-2.0
// Files below targets, with every engine.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <random>
#include <thread>

#include "core/io/aligned_backing.h"
#include "core/io/open_backing.h"
#include "tests/support/every_engine.h"
#include "tests/support/harness.h"
#include "tests/support/temp_dir.h"

namespace dmfs::test {
namespace {

Result<std::unique_ptr<BackingFile>> open_file(IoService& service, const std::string& path,
                                               bool read_only = false) {
  int fd = ::open(path.c_str(), O_PATH | O_CLOEXEC);
  if (fd < 0) return Error{errno, path};
  auto file = open_backing(service, fd, path, read_only);
  ::close(fd);
  return file;
}

int run(BackingFile& file, TestBio& bio) {
  file.submit(bio);
  while (!bio.done()) std::this_thread::yield();
  return bio.error();
}

class Files : public EveryEngine {
 protected:
  Result<std::unique_ptr<BackingFile>> open(const std::string& path, bool read_only = false) {
    return open_file(service_, path, read_only);
  }
  TempDir dir_;
  IoService service_{options()};
};

TEST_P(Files, DoesEveryOperation) {
  auto file = open(dir_.file("a", 64));
  ASSERT_TRUE(file);
  EXPECT_EQ((*file)->size().n, 64u);
  TestBio write(Op::Write, {8}, {16});
  write.fill('A');
  EXPECT_EQ(run(**file, write), 0);
  TestBio fua(Op::Write, {24}, {8}, kBioFua);
  fua.fill('A');
  EXPECT_EQ(run(**file, fua), 0);
  TestBio flush(Op::Flush, {0}, {0});
  EXPECT_EQ(run(**file, flush), 0);
  TestBio read(Op::Read, {8}, {24});
  EXPECT_EQ(run(**file, read), 0);
  EXPECT_TRUE(read.holds('A', 8));
  TestBio discard(Op::Discard, {8}, {8});
  EXPECT_EQ(run(**file, discard), 0);
  TestBio zero(Op::WriteZeroes, {16}, {8}, kBioFua);
  EXPECT_EQ(run(**file, zero), 0);
  TestBio gone(Op::Read, {8}, {16});
  EXPECT_EQ(run(**file, gone), 0);
  EXPECT_TRUE(gone.holds_zeroes());
  EXPECT_EQ((*file)->size().n, 64u);
  TestBio past(Op::Read, {60}, {8});
  EXPECT_EQ(run(**file, past), EIO);
}

TEST_P(Files, ReadOnlyIsKept) {
  auto file = open(dir_.file("a", 8), true);
  ASSERT_TRUE(file);
  EXPECT_TRUE((*file)->read_only());
  TestBio write(Op::Write, {0}, {1});
  EXPECT_EQ(run(**file, write), EBADF);
}

TEST_P(Files, KnowsHoles) {
  auto file = open(dir_.file("a", 4096));
  ASSERT_TRUE(file);
  EXPECT_FALSE((*file)->extent_at({0}, {4096}).data);
  EXPECT_EQ((*file)->extent_at({0}, {4096}).length.n, 4096u);
  EXPECT_EQ((*file)->allocated({0}, {4096}).n, 0u);
  TestBio write(Op::Write, {1024}, {8});
  write.fill('A');
  ASSERT_EQ(run(**file, write), 0);
  Extent hole = (*file)->extent_at({0}, {4096});
  if (hole.data) GTEST_SKIP() << "this file system does not report holes";
  EXPECT_EQ(hole.length.n, 1024u);
  EXPECT_TRUE((*file)->extent_at({1024}, {8}).data);
  EXPECT_EQ((*file)->allocated({1024}, {64}).n, 8u);
}

TEST_P(Files, AShrunkFileIsNotMadeLongAgain) {
  std::string path = dir_.file("a", 64);
  auto file = open(path);
  ASSERT_TRUE(file);
  std::filesystem::resize_file(path, 32 * 512);
  TestBio write(Op::Write, {40}, {8});
  write.fill('A');
  EXPECT_EQ(run(**file, write), EIO);
  TestBio inside(Op::Write, {8}, {8});
  inside.fill('A');
  EXPECT_EQ(run(**file, inside), 0);
  TestBio read(Op::Read, {40}, {8});
  EXPECT_EQ(run(**file, read), EIO);
  EXPECT_NE((*file)->fault().find("has shrunk to 32 sectors, was 64"), std::string::npos)
      << (*file)->fault();
  EXPECT_EQ(std::filesystem::file_size(path), 32u * 512);
}

// Offsets, lengths and memory of every kind, many bios at a time, against a model.
TEST_P(Files, AnyAlignmentAndManyAtATime) {
  constexpr uint64_t kSectors = 515;  // the last block is not whole
  std::string path = dir_.file("a", kSectors);
  auto file = open(path);
  ASSERT_TRUE(file);
  std::mt19937_64 random(7);
  auto upto = [&](uint64_t n) { return random() % (n + 1); };
  std::vector<char> model(kSectors, 0);
  for (int round = 0; round < 60; ++round) {
    // Neighbours that share no sector, written side by side.
    std::vector<std::unique_ptr<TestBio>> bios;
    char tag = static_cast<char>('A' + round % 26);
    for (uint64_t at = upto(3); at < kSectors;) {
      uint64_t count = std::min(1 + upto(upto(1) ? 3 : 20), kSectors - at);
      bios.push_back(std::make_unique<TestBio>(Op::Write, Sectors{at}, Sectors{count},
                                               upto(15) == 0 ? kBioFua : 0));
      bios.back()->fill(tag);
      std::fill_n(model.begin() + static_cast<ptrdiff_t>(at), count, tag);
      at += count + upto(2);
    }
    for (auto& bio : bios) (*file)->submit(*bio);
    for (auto& bio : bios) {
      while (!bio->done()) std::this_thread::yield();
      ASSERT_EQ(bio->error(), 0);
    }
    for (int i = 0; i < 20; ++i) {
      uint64_t at = upto(kSectors - 1);
      uint64_t count = std::min(1 + upto(30), kSectors - at);
      TestBio whole(Op::Read, {at}, {count});
      ASSERT_EQ(run(**file, whole), 0);
      for (uint64_t s = 0; s < count; ++s) {
        TestBio one(Op::Read, {at + s}, {1});
        std::memcpy(one.memory().data(), whole.memory().data() + s * kSectorSize, kSectorSize);
        if (model[at + s] == 0) {
          ASSERT_TRUE(one.holds_zeroes()) << "sector " << at + s;
        } else {
          ASSERT_TRUE(one.holds(model[at + s], at + s)) << "sector " << at + s;
        }
      }
    }
  }
  EXPECT_EQ(std::filesystem::file_size(path), kSectors * 512);
}

TEST_P(Files, LargeAndScattered) {
  auto file = open(dir_.file("a", 8192));
  ASSERT_TRUE(file);
  std::vector<char> out(4 << 20), in(4 << 20);
  std::mt19937 random(3);
  for (char& c : out) c = static_cast<char>(random());
  // More segments than go into one system call.
  auto transfer = [&](Op op, char* memory) {
    std::vector<iovec> segments;
    for (size_t at = 0; at < out.size(); at += 2048) segments.push_back({memory + at, 2048});
    TestBio bio(op, {0}, {8192});
    bio.data = {segments.data(), static_cast<uint32_t>(segments.size()), 0};
    return run(**file, bio);
  };
  ASSERT_EQ(transfer(Op::Write, out.data()), 0);
  ASSERT_EQ(transfer(Op::Read, in.data()), 0);
  EXPECT_EQ(out, in);
}

TEST_P(Files, ManySubmittersThatEnd) {
  constexpr uint64_t kEach = 64;
  auto file = open(dir_.file("a", 8 * kEach));
  ASSERT_TRUE(file);
  std::vector<std::unique_ptr<TestBio>> bios;
  for (uint64_t i = 0; i < 8 * kEach; ++i) {
    bios.push_back(std::make_unique<TestBio>(Op::Write, Sectors{i}, Sectors{1}));
    bios.back()->fill('S');
  }
  std::vector<std::thread> submitters;
  for (uint64_t t = 0; t < 8; ++t) {
    submitters.emplace_back([&, t] {
      for (uint64_t i = 0; i < kEach; ++i) (*file)->submit(*bios[t * kEach + i]);
    });
  }
  // The threads are gone before their bios have ended.
  for (auto& thread : submitters) thread.join();
  for (auto& bio : bios) {
    while (!bio->done()) std::this_thread::yield();
    ASSERT_EQ(bio->error(), 0);
  }
  TestBio all(Op::Read, {0}, {8 * kEach});
  ASSERT_EQ(run(**file, all), 0);
  EXPECT_TRUE(all.holds('S', 0));
}
DM_FOR_EVERY_ENGINE(Files);

// Refuses what direct I/O would refuse.
class StrictFile : public HeldFile {
 public:
  static constexpr uint64_t kBlock = 4096;
  explicit StrictFile(Sectors size) : HeldFile("strict", size) { hold(false); }
  void submit(Bio& bio) override {
    uint64_t bits = bio.sector.bytes() | bio.count.bytes();
    for (uint32_t i = 0; i < bio.data.segment_count; ++i) {
      bits |= reinterpret_cast<uintptr_t>(bio.data.segments[i].iov_base) | bio.data.segments[i].iov_len;
    }
    if (op_has_data(bio.op) && (bits | bio.data.offset) % kBlock != 0) return bio.complete(EINVAL);
    HeldFile::submit(bio);
  }
};

TEST(AlignedBacking, ReadsModifiesAndWritesUnderALock) {
  auto owned = std::make_unique<StrictFile>(Sectors{80});
  StrictFile& direct = *owned;
  AlignedBacking file(std::move(owned), std::make_unique<MemoryFile>("buffered", Sectors{80}), 4096);
  // Two writes of one block: the second waits for the first, or would undo it.
  direct.hold(true);
  TestBio first(Op::Write, {8}, {1}), second(Op::Write, {9}, {1}), other(Op::Write, {17}, {2});
  first.fill('1');
  second.fill('2');
  other.fill('3');
  file.submit(first);
  file.submit(second);
  EXPECT_EQ(direct.held(), 1u);
  file.submit(other);  // another block: waits for nobody
  EXPECT_EQ(direct.held(), 2u);
  // A discard of the block waits too.
  TestBio discard(Op::Discard, {8}, {8});
  file.submit(discard);
  EXPECT_EQ(direct.held(), 2u);
  direct.complete_all();
  EXPECT_TRUE(first.done() && second.done() && other.done() && discard.done());
  EXPECT_EQ(first.error() | second.error() | other.error() | discard.error(), 0);
  direct.hold(false);
  TestBio read(Op::Read, {17}, {2});
  EXPECT_EQ(run(file, read), 0);
  EXPECT_TRUE(read.holds('3', 17));
}

TEST(AlignedBacking, AnErrorOfTheReadIsTheWritesError) {
  auto owned = std::make_unique<StrictFile>(Sectors{80});
  StrictFile& direct = *owned;
  AlignedBacking file(std::move(owned), std::make_unique<MemoryFile>("buffered", Sectors{80}), 4096);
  direct.fail_nth(1, ENODATA);
  TestBio write(Op::Write, {3}, {2});
  write.fill('W');
  EXPECT_EQ(run(file, write), ENODATA);
  ASSERT_EQ(direct.seen().size(), 1u);
  EXPECT_EQ(direct.seen()[0].op, Op::Read);
  // And the lock is free again.
  TestBio again(Op::Write, {4}, {1});
  again.fill('W');
  EXPECT_EQ(run(file, again), 0);
}

TEST(AlignedBacking, ALastBlockThatIsNotWholeGoesThroughThePageCache) {
  auto owned_direct = std::make_unique<StrictFile>(Sectors{20});
  auto owned_buffered = std::make_unique<MemoryFile>("buffered", Sectors{20});
  StrictFile& direct = *owned_direct;
  MemoryFile& buffered = *owned_buffered;
  AlignedBacking file(std::move(owned_direct), std::move(owned_buffered), 4096);
  TestBio write(Op::Write, {16}, {4}, kBioFua);
  write.fill('T');
  EXPECT_EQ(run(file, write), 0);
  EXPECT_TRUE(direct.seen().empty());
  EXPECT_EQ(buffered.seen(), (std::vector<SeenBio>{{Op::Write, kBioFua, 0, {16}, {4}}}));
}

}  // namespace
}  // namespace dmfs::test
