// SPDX-License-Identifier: Apache-2.0
#include "core/io/bio.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace dmfs {
namespace {

// Calls fn(char* start, size_t length) for each piece of memory that covers [at, at + bytes).
template <typename Fn>
void for_each_piece(const BioData& data, size_t at, size_t bytes, Fn fn) {
  size_t skip = data.offset + at;
  for (uint32_t i = 0; i < data.segment_count && bytes > 0; ++i) {
    const iovec& segment = data.segments[i];
    if (skip >= segment.iov_len) {
      skip -= segment.iov_len;
      continue;
    }
    size_t length = std::min(segment.iov_len - skip, bytes);
    fn(static_cast<char*>(segment.iov_base) + skip, length);
    bytes -= length;
    skip = 0;
  }
  assert(bytes == 0 && "a range within the bio");
}

}  // namespace

const char* op_name(Op op) {
  switch (op) {
    case Op::Read: return "read";
    case Op::Write: return "write";
    case Op::Flush: return "flush";
    case Op::Discard: return "discard";
    case Op::WriteZeroes: return "write-zeroes";
  }
  return "?";
}

size_t BioData::slice(size_t bytes, std::span<iovec> out, size_t& covered) const {
  size_t used = 0;
  size_t skip = offset;
  covered = 0;
  for (uint32_t i = 0; i < segment_count && covered < bytes && used < out.size(); ++i) {
    if (skip >= segments[i].iov_len) {
      skip -= segments[i].iov_len;
      continue;
    }
    size_t length = std::min(segments[i].iov_len - skip, bytes - covered);
    out[used++] = {static_cast<char*>(segments[i].iov_base) + skip, length};
    covered += length;
    skip = 0;
  }
  return used;
}

void copy_from_bio(const BioData& data, size_t at, std::span<std::byte> to) {
  std::byte* out = to.data();
  for_each_piece(data, at, to.size(), [&](char* piece, size_t length) {
    std::memcpy(out, piece, length);
    out += length;
  });
}

void copy_to_bio(const BioData& data, size_t at, std::span<const std::byte> from) {
  const std::byte* in = from.data();
  for_each_piece(data, at, from.size(), [&](char* piece, size_t length) {
    std::memcpy(piece, in, length);
    in += length;
  });
}

void zero_bio(const BioData& data, size_t at, size_t bytes) {
  for_each_piece(data, at, bytes, [](char* piece, size_t length) { std::memset(piece, 0, length); });
}

void BioList::push_back(Bio& bio) {
  bio.next = nullptr;
  (tail_ ? tail_->next : head_) = &bio;
  tail_ = &bio;
  ++size_;
  if (bio.flags & kBioBarrier) ++barriers_;
}

void BioList::splice_front(BioList& other) {
  if (other.empty()) return;
  other.tail_->next = head_;
  if (!tail_) tail_ = other.tail_;
  head_ = other.head_;
  size_ += other.size_;
  barriers_ += other.barriers_;
  other = BioList();
}

Bio* BioList::pop_front() {
  Bio* bio = head_;
  if (!bio) return nullptr;
  head_ = bio->next;
  if (!head_) tail_ = nullptr;
  bio->next = nullptr;
  --size_;
  if (bio->flags & kBioBarrier) --barriers_;
  return bio;
}

BioList BioList::take_before_barrier() {
  if (barriers_ == 0) return std::exchange(*this, {});
  BioList taken;
  while (!(head_->flags & kBioBarrier)) taken.push_back(*pop_front());
  return taken;
}

BioList BioList::take(const BioCancel& cancel) {
  BioList all = std::exchange(*this, {});
  BioList taken;
  while (Bio* bio = all.pop_front()) (cancel.wants(*bio) ? taken : *this).push_back(*bio);
  return taken;
}

size_t BioList::complete_all(int error) {
  size_t count = size_;
  // The last one may be all that keeps the owner of this list alive.
  BioList all = std::exchange(*this, {});
  while (Bio* bio = all.pop_front()) bio->complete(error);
  return count;
}

}  // namespace dmfs
