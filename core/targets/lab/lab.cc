// SPDX-License-Identifier: Apache-2.0
// lab: a path of a storage array that is not there, over a device that is. The array says who may
// use it (lab_array.h); what befalls the path itself, a message says.
#include <map>

#include <fmt/format.h>

#include "core/base/alarm.h"
#include "core/base/errno_names.h"
#include "core/base/mutex.h"
#include "core/targets/device_range.h"
#include "core/targets/lab/lab_array.h"
#include "core/targets/open_device.h"

namespace dmfs {
namespace {

using std::chrono::milliseconds;

constexpr uint64_t kMaxControllers = 16;
constexpr uint64_t kMaxPaths = 1024;
constexpr uint64_t kMaxMs = 86'400'000;
constexpr Sense kOutOfRange{5, 0x21, 0x00, true};  // of logical block addresses
constexpr BioCancel kAll{.origin = nullptr, .error = 0};

// What befalls a path.
struct Trouble {
  enum class Kind : uint8_t { Good, Slow, Hang, Flap, Fail } kind = Kind::Good;
  std::string word = "good";  // for the status
  milliseconds slow{0}, up{0}, down{0};
  Clock::Time since{};
  int error = EIO;
  Sense sense = {};
};

class Lab final : public Target {
 public:
  Lab(TargetContext& context, DeviceRange range, std::unique_ptr<LabPort> port)
      : context_(context),
        range_(range),
        data_(context.length() - Sectors{kLabMailbox}),
        port_(std::move(port)),
        held_(context.held_budget()),
        alarm_(context.clock(), [this] { due(); }) {}

  MapResult map(Bio& bio) override {
    range_.map(bio, bio.op == Op::Flush ? Sectors{0} : context_.offset(bio));
    Answer answer = befall(bio);
    if (answer.fate == Fate::Go) answer = ask_array(bio);
    switch (answer.fate) {
      case Fate::Go:
        return MapResult::Remapped;
      case Fate::Requeue:
        return MapResult::Requeue;
      case Fate::Kept:
        break;
      case Fate::End:
        bio.complete(answer.error, answer.sense);
        break;
    }
    return MapResult::Submitted;
  }

  size_t cancel(const BioCancel& cancel) override { return take(cancel).complete_all(cancel.error); }

  void list_held(HeldList& list) const override {
    MutexLock lock(mutex_);
    for (const Bio* bio = held_.front(); bio; bio = bio->next) add_held(list, *bio);
    for (const auto& [at, bio] : slow_) add_held(list, *bio);
  }
  std::string freed_by() const override { return "message 'good' or 'fail'"; }

  // What is slow goes now. A suspend that flushes waits for what hangs.
  void presuspend() override {
    BioList requeue, send;
    {
      MutexLock lock(mutex_);
      hurries_ = true;
      if (context_.noflush_suspending()) requeue = held_.take_all();
      send = take_slow(Clock::Time::max(), kAll);
    }
    (void)requeue.complete_all(kRequeue);
    go_on(send);
  }
  void presuspend_undo() override { resume(); }
  void resume() override {
    MutexLock lock(mutex_);
    hurries_ = false;
  }

  Result<std::string> message(std::span<const std::string> words) override {
    ArgReader args("lab", words);
    DM_TRY(auto word, args.word("No message"));
    if (word == "owner" || word == "access" || word == "transition" || word == "refuse" ||
        word == "accept") {
      DM_TRY_STATUS(change_array(word, args));
      context_.raise_event();
      return std::string();
    }
    DM_TRY(Trouble trouble, read_trouble(word, args));
    if (args.left() > 0) return args.fail("Too many arguments", args.peek());
    BioList again;
    {
      MutexLock lock(mutex_);
      trouble.since = context_.clock().now();
      trouble_ = std::move(trouble);
      again = held_.take_all();
      BioList slow = take_slow(Clock::Time::max(), kAll);
      while (Bio* bio = slow.pop_front()) again.push_back(*bio);
    }
    context_.raise_event();
    // They meet what befalls the path now.
    while (Bio* bio = again.pop_front()) route(*bio);
    return std::string();
  }

  std::string table_line() const override {
    const LabPort::Place& place = port_->place();
    return fmt::format("{} {} {} {} {} {}", quote_arg(place.array), lab_kind_word(place.kind),
                       place.number, place.controller, quote_arg(range_.device.name()),
                       range_.start.n);
  }
  // <state of the path> <access> <controller> <owner> <moves> <how many are kept>
  std::string status_line() const override {
    LabPort::State state = port_->state(context_.clock().now());
    MutexLock lock(mutex_);
    return fmt::format("{} {} {} {} {} {}", trouble_.word, state.access, port_->place().controller,
                       state.owner, state.moves, held_.size() + slow_.size());
  }

  IoLimits limits() const override {
    return {.num_flush_bios = 1, .num_discard_bios = 1, .num_write_zeroes_bios = 1};
  }
  bool supports_discard() const override { return range_.device.supports_discard(); }
  Extent extent_at(Sectors offset, Sectors length) const override {
    if (offset >= data_) return {true, length};
    return range_.extent_at(offset, std::min(length, data_ - offset));
  }
  Sectors allocated(Sectors length) const override {
    return range_.allocated(std::min(length, data_));
  }

 private:
  enum class Fate : uint8_t { Go, Kept, Requeue, End };
  struct Answer {
    Fate fate = Fate::Go;
    int error = 0;
    Sense sense = {};
  };

  void add_held(HeldList& list, const Bio& bio) const {
    list.add("lab", bio,
             bio.op == Op::Flush ? Sectors{0} : bio.sector - range_.start + context_.begin());
  }

  // What the path does to a bio, which is remapped already.
  Answer befall(Bio& bio) {
    Answer answer;
    bool tell = false;
    {
      MutexLock lock(mutex_);
      Clock::Time now = context_.clock().now();
      switch (trouble_.kind) {
        case Trouble::Kind::Good:
          return {};
        case Trouble::Kind::Slow:
          if (hurries_) return {};
          if (int error = bio.cancelled()) return {Fate::End, error, {}};
          stamp_held(bio);
          slow_.emplace(now + trouble_.slow, &bio);
          alarm_.set(slow_.begin()->first);
          return {Fate::Kept, 0, {}};
        case Trouble::Kind::Hang: {
          // presuspend() may have been here already.
          if (!bio.cancelled() && context_.noflush_suspending()) return {Fate::Requeue, 0, {}};
          int refused = held_.keep(bio, tell);
          answer = {refused ? Fate::End : Fate::Kept, refused, {}};
          break;
        }
        case Trouble::Kind::Flap:
          if ((now - trouble_.since) % (trouble_.up + trouble_.down) < trouble_.up) return {};
          return {Fate::End, EIO, {}};
        case Trouble::Kind::Fail:
          return {Fate::End, trouble_.error, trouble_.sense};
      }
    }
    if (tell) context_.raise_event();
    return answer;
  }

  // What the array does to a bio that has reached it.
  Answer ask_array(Bio& bio) {
    Clock::Time now = context_.clock().now();
    Sectors at = bio.op == Op::Flush ? Sectors{0} : bio.sector - range_.start;
    if (bio.op != Op::Flush && at + bio.count > data_) {
      bool whole = at >= data_ && bio.count.n == 1 && op_has_data(bio.op);
      if (!whole) return {Fate::End, EIO, kOutOfRange};
      LabBlock block;
      if (bio.op == Op::Write) copy_from_bio(bio.data, 0, block);
      Sense sense = port_->command(static_cast<unsigned>((at - data_).n), bio.op == Op::Write,
                                   block, now);
      if (sense.valid) return {Fate::End, EIO, sense};
      if (bio.op == Op::Read) copy_to_bio(bio.data, 0, block);
      return {Fate::End, 0, {}};
    }
    Sense sense = port_->check(now);
    return sense.valid ? Answer{Fate::End, EIO, sense} : Answer{};
  }

  // A bio that was kept goes on its way.
  void route(Bio& bio) {
    Answer answer = befall(bio);
    if (answer.fate == Fate::Kept) return;
    if (answer.fate == Fate::Requeue) return bio.complete(kRequeue);
    if (answer.fate == Fate::End) return bio.complete(answer.error, answer.sense);
    deliver(bio);
  }
  void deliver(Bio& bio) {
    Answer answer = ask_array(bio);
    if (answer.fate == Fate::Go) return bio.dev->submit(bio);
    bio.complete(answer.error, answer.sense);
  }
  void go_on(BioList& bios) {
    while (Bio* bio = bios.pop_front()) deliver(*bio);
  }

  void due() {
    BioList bios;
    {
      MutexLock lock(mutex_);
      bios = take_slow(context_.clock().now(), kAll);
      if (!slow_.empty()) alarm_.set(slow_.begin()->first);
    }
    go_on(bios);
  }

  BioList take(const BioCancel& cancel) {
    MutexLock lock(mutex_);
    BioList taken = held_.take(cancel);
    BioList slow = take_slow(Clock::Time::max(), cancel);
    while (Bio* bio = slow.pop_front()) taken.push_back(*bio);
    return taken;
  }
  // What is due at `until` and wanted, in order of time.
  BioList take_slow(Clock::Time until, const BioCancel& wanted) DM_REQUIRES(mutex_) {
    BioList taken;
    for (auto at = slow_.begin(); at != slow_.end() && at->first <= until;) {
      Bio* bio = at->second;
      if (!wanted.wants(*bio)) {
        ++at;
        continue;
      }
      at = slow_.erase(at);
      bio->held_since = 0;
      taken.push_back(*bio);
    }
    return taken;
  }

  // good
  // slow <ms>
  // hang
  // flap <up ms> <down ms>
  // fail [<errno> | <key>/<asc>/<ascq>]
  // gone
  static Result<Trouble> read_trouble(const std::string& word, ArgReader& args) {
    Trouble trouble;
    if (word == "good") return trouble;
    if (word == "hang") {
      trouble.kind = Trouble::Kind::Hang;
    } else if (word == "gone") {
      trouble.kind = Trouble::Kind::Fail;
      trouble.error = ENOLINK;  // as the block layer says of a transport that is not there
    } else if (word == "slow") {
      trouble.kind = Trouble::Kind::Slow;
      DM_TRY(uint64_t ms, args.number("Invalid delay", 1, kMaxMs));
      trouble.slow = milliseconds(ms);
      trouble.word = fmt::format("slow:{}", ms);
      return trouble;
    } else if (word == "flap") {
      trouble.kind = Trouble::Kind::Flap;
      DM_TRY(uint64_t up, args.number("Invalid up interval", 1, kMaxMs));
      DM_TRY(uint64_t down, args.number("Invalid down interval", 1, kMaxMs));
      trouble.up = milliseconds(up), trouble.down = milliseconds(down);
      trouble.word = fmt::format("flap:{}:{}", up, down);
      return trouble;
    } else if (word == "fail") {
      trouble.kind = Trouble::Kind::Fail;
      std::string what = "EIO";
      if (args.left() > 0) what = *args.word("Invalid errno");
      if (auto sense = parse_sense(what)) {
        trouble.sense = *sense;
        what = sense_text(*sense);
      } else if ((trouble.error = parse_errno(what)) == 0) {
        return args.fail("Invalid errno or sense", what);
      }
      trouble.word = "fail:" + what;
      return trouble;
    } else {
      return args.fail("Unrecognised message received", word);
    }
    trouble.word = word;
    return trouble;
  }

  // owner <controller>
  // access <controller> <state>
  // transition <ms>
  // refuse <key>/<asc>/<ascq>
  // accept
  Status change_array(const std::string& word, ArgReader& args) {
    std::optional<uint64_t> controller, ms;
    std::optional<LabAccess> access;
    std::optional<Sense> refusal;
    if (word == "owner" || word == "access") {
      DM_TRY(controller, args.number("Invalid controller", 1, kMaxControllers));
    }
    if (word == "access") {
      DM_TRY(std::string state, args.word("Invalid access state"));
      access = parse_lab_access(state);
      if (!access) return args.fail("Invalid access state", state);
    }
    if (word == "transition") {
      DM_TRY(ms, args.number("Invalid time", 0, kMaxMs));
    }
    if (word == "refuse") {
      DM_TRY(std::string text, args.word("Invalid sense"));
      refusal = parse_sense(text);
      if (!refusal) return args.fail("Invalid sense", text);
    }
    if (args.left() > 0) return args.fail("Too many arguments", args.peek());
    if (access) return port_->set_access(static_cast<unsigned>(*controller), *access);
    if (controller) {
      return port_->set_owner(static_cast<unsigned>(*controller), context_.clock().now());
    }
    if (ms) {
      port_->set_transition(milliseconds(*ms));
    } else {
      port_->set_refusal(refusal);
    }
    return {};
  }

  // Constant after construction.
  TargetContext& context_;
  const DeviceRange range_;
  const Sectors data_;  // how much of the target is not the mailbox

  // Own synchronisation.
  const std::unique_ptr<LabPort> port_;

  // Guarded by mutex_, under which only the alarm, the clock and noflush_suspending() are called.
  mutable Mutex mutex_;
  Trouble trouble_ DM_GUARDED_BY(mutex_);
  KeptBios held_ DM_GUARDED_BY(mutex_);                   // all that is kept is remapped already
  std::multimap<Clock::Time, Bio*> slow_ DM_GUARDED_BY(mutex_);
  bool hurries_ DM_GUARDED_BY(mutex_) = false;

  // Own synchronisation.
  Alarm alarm_;  // last: its work uses all that stands above
};

// <array> <kind> <path> <controller> <device> <start sector>
Result<std::unique_ptr<Target>> create(TargetContext& context, std::span<const std::string> words) {
  constexpr std::string_view kCount = "Invalid argument count";
  ArgReader args("lab", words);
  if (args.size() < 6) return args.fail(kCount);
  if (args.size() > 6) return args.fail(kCount, words[6]);
  DM_TRY(std::string array, args.word(kCount));
  DM_TRY(std::string kind_word, args.word(kCount));
  auto kind = parse_lab_kind(kind_word);
  if (!kind) return args.fail("Unknown kind of array", kind_word);
  DM_TRY(uint64_t path, args.number("Invalid path number", 1, kMaxPaths));
  DM_TRY(uint64_t controller, args.number("Invalid controller", 1, kMaxControllers));
  DM_TRY(auto word, args.word(kCount));
  DM_TRY(Sectors start, args.sectors("Invalid device sector"));
  if (context.length() <= Sectors{kLabMailbox}) {
    return args.fail(fmt::format("needs more than {} sectors", kLabMailbox));
  }
  DM_TRY(BackingFile * device,
         open_device(context, args, "Device lookup failed", word, start,
                     context.length() - Sectors{kLabMailbox}));
  DM_TRY(auto port, LabPort::join({array, *kind, static_cast<unsigned>(path),
                                   static_cast<unsigned>(controller)}));
  return std::unique_ptr<Target>(
      std::make_unique<Lab>(context, DeviceRange{*device, start}, std::move(port)));
}

}  // namespace

extern const TargetType kLabTarget;
const TargetType kLabTarget{"lab", {1, 0, 0}, create};

}  // namespace dmfs
