// SPDX-License-Identifier: Apache-2.0
// A bio of a target's own: for what it reads and writes for itself, one at a time.
#pragma once

#include <functional>
#include <span>
#include <utility>

#include "core/io/backing_file.h"

namespace dmfs {

// Usable again as soon as its `done` is called, also from there. Lives until that.
class OwnBio {
 public:
  using Done = std::function<void(int error)>;  // any thread, no lock held

  OwnBio() : bio_(this) {}

  // `memory` stays valid until `done`.
  void transfer(BackingFile& file, Op op, Sectors at, std::span<std::byte> memory, Done done) {
    segment_ = {memory.data(), memory.size()};
    bio_.data = {&segment_, 1, 0};
    submit(file, op, at, sectors_of_bytes(memory.size()), std::move(done));
  }
  void flush(BackingFile& file, Done done) {
    bio_.data = {};
    submit(file, Op::Flush, {}, {}, std::move(done));
  }

 private:
  struct Inner : Bio {
    explicit Inner(OwnBio* owner) : Bio(ended), owner(owner) {}
    static void ended(Bio& bio) {
      Done done = std::exchange(static_cast<Inner&>(bio).owner->done_, nullptr);
      done(bio.status);
    }
    OwnBio* owner;
  };

  void submit(BackingFile& file, Op op, Sectors at, Sectors count, Done done) {
    bio_.reset();
    bio_.op = op;
    bio_.sector = at;
    bio_.count = count;
    done_ = std::move(done);
    file.submit(bio_);
  }

  Inner bio_;
  iovec segment_{};
  Done done_;
};

}  // namespace dmfs
