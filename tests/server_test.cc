// SPDX-License-Identifier: Apache-2.0
// The control socket: a server among rude clients, and a client against a strange server.
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <filesystem>
#include <fstream>
#include <random>
#include <stdexcept>
#include <thread>

#include "core/base/mutex.h"
#include "core/control/client.h"
#include "core/control/protocol.h"
#include "core/control/server.h"

namespace dmfs {
namespace {

using nlohmann::json;
using std::chrono::milliseconds;

std::string request(const std::string& method, const json& params = json::object(), int id = 1) {
  return to_line({{"jsonrpc", "2.0"}, {"id", id}, {"method", method}, {"params", params}});
}

class TempDir {
 public:
  TempDir() {
    std::string pattern = std::filesystem::temp_directory_path() / "dmfs-control-XXXXXX";
    if (::mkdtemp(pattern.data()) == nullptr) std::abort();
    path_ = pattern;
  }
  ~TempDir() { std::filesystem::remove_all(path_); }
  std::string file(const std::string& name) const { return path_ + "/" + name; }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// A client that does what it wants. Waits are bounded, so that a failure is no hang.
class Raw {
 public:
  explicit Raw(const std::string& path) : fd_(*unix_socket()) {
    auto address = unix_address(path);
    connected_ = ::connect(fd_.get(), address->get(), sizeof(address->raw)) == 0;
    timeval limit{30, 0};
    ::setsockopt(fd_.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
  }
  bool connected() const { return connected_; }
  Status send(std::string_view bytes) { return send_all(fd_.get(), bytes, milliseconds(30000)); }
  void shut(int how) { ::shutdown(fd_.get(), how); }
  void close() { fd_.reset(); }
  // "" at the end of the stream or on an error.
  std::string line() {
    std::array<char, 65536> buffer;
    for (;;) {
      auto line = lines_.next();
      if (*line) return **line;
      auto got = receive(fd_.get(), buffer);
      if (!got || *got == 0) return {};
      lines_.feed({buffer.data(), *got});
    }
  }
  json reply() {
    auto message = parse_json(line());
    return message ? *message : json();
  }
  bool readable() {
    pollfd fd{fd_.get(), POLLIN, 0};
    return ::poll(&fd, 1, 30000) == 1;
  }
  // Waits, without reading, until the other end has closed.
  bool hung_up() {
    pollfd fd{fd_.get(), 0, 0};
    return ::poll(&fd, 1, 30000) == 1 && (fd.revents & POLLHUP) != 0;
  }

 private:
  Fd fd_;
  LineReader lines_{SIZE_MAX};
  bool connected_ = false;
};

// Commands that show what the server does to them.
class FakeCommands {
 public:
  json handle(const json& message, CancelToken& cancel, const Peer& peer) {
    auto request = decode_request(message);
    if (!request) return error_reply(reply_id(message), RpcCode::InvalidRequest, request.error());
    if (request->method == "echo") return result_reply(request->id, request->params);
    if (request->method == "peer") {
      return result_reply(request->id, {{"pid", peer.pid}, {"uid", peer.uid}});
    }
    if (request->method == "big") {
      return result_reply(request->id, std::string(request->params.value("size", 0), 'x'));
    }
    if (request->method == "length") {
      return result_reply(request->id, request->params["s"].get_ref<const std::string&>().size());
    }
    if (request->method == "throw") throw std::runtime_error("broken");
    if (request->method == "wait") return wait(request->id, cancel);
    return error_reply(request->id, RpcCode::NoSuchMethod, {EINVAL, "no such method"});
  }
  void await_waiting(int count) {
    MutexLock lock(mutex_);
    while (waiting_ < count) changed_.wait(mutex_);
  }
  void await_cancelled(int count) {
    MutexLock lock(mutex_);
    while (cancelled_ < count) changed_.wait(mutex_);
  }
  int cancelled() {
    MutexLock lock(mutex_);
    return cancelled_;
  }
  void release() {
    MutexLock lock(mutex_);
    released_ = true;
    changed_.notify_all();
  }

 private:
  json wait(const json& id, CancelToken& cancel) {
    CancelToken::Waker waker(cancel, [this] {
      MutexLock lock(mutex_);
      changed_.notify_all();
    });
    MutexLock lock(mutex_);
    ++waiting_;
    changed_.notify_all();
    while (!released_ && !cancel.cancelled()) changed_.wait(mutex_);
    --waiting_;
    if (released_) return result_reply(id, "released");
    ++cancelled_;
    changed_.notify_all();
    return error_reply(id, RpcCode::CommandFailed, {EINTR, "interrupted"});
  }

  Mutex mutex_;
  CondVar changed_;
  int waiting_ DM_GUARDED_BY(mutex_) = 0;
  int cancelled_ DM_GUARDED_BY(mutex_) = 0;
  bool released_ DM_GUARDED_BY(mutex_) = false;
};

class ControlServer : public testing::Test {
 protected:
  void start(ServerOptions options = {}) {
    options.socket_path = path_;
    auto server = Server::listen(options);
    ASSERT_TRUE(server) << server.error().message;
    server_ = *std::move(server);
    ASSERT_TRUE(server_->start([this](const json& message, CancelToken& cancel, const Peer& peer) {
      return commands_.handle(message, cancel, peer);
    }));
  }
  // Another client is served as if nothing had happened.
  void expect_alive() {
    auto client = Client::connect(path_);
    ASSERT_TRUE(client) << client.error().message;
    auto reply = client->call("echo", {{"a", 1}});
    ASSERT_TRUE(reply) << reply.error().message;
    EXPECT_EQ(*reply, json({{"a", 1}}));
  }

  TempDir dir_;
  std::string path_ = dir_.file("control.sock");
  FakeCommands commands_;
  std::unique_ptr<Server> server_;
};

TEST_F(ControlServer, AnswersInOrder) {
  start();
  Raw raw(path_);
  std::string many;
  for (int i = 0; i < 100; ++i) many += request("echo", {{"i", i}}, i);
  ASSERT_TRUE(raw.send(many));
  for (int i = 0; i < 100; ++i) {
    EXPECT_EQ(raw.reply(), json({{"jsonrpc", "2.0"}, {"id", i}, {"result", {{"i", i}}}}));
  }
}

TEST_F(ControlServer, KnowsThePeer) {
  start();
  auto client = Client::connect(path_);
  EXPECT_EQ(*client->call("peer"), json({{"pid", ::getpid()}, {"uid", ::geteuid()}}));
}

TEST_F(ControlServer, LargeMessagesBothWays) {
  start();
  auto client = Client::connect(path_);
  auto length = client->call("length", {{"s", std::string(kMaxMessage - 200, 'y')}});
  ASSERT_TRUE(length) << length.error().message;
  EXPECT_EQ(*length, kMaxMessage - 200);
  EXPECT_EQ(client->call("big", {{"size", 5000000}})->get<std::string>().size(), 5000000u);
}

TEST_F(ControlServer, ClientGetsErrnoAndSentence) {
  start();
  auto client = Client::connect(path_);
  auto reply = client->call("nonesuch");
  ASSERT_FALSE(reply);
  EXPECT_EQ(reply.error().code, EINVAL);
  EXPECT_EQ(reply.error().message, "no such method");
  EXPECT_EQ(client->call("echo", {{"name", "\xff"}}).error().code, EILSEQ);
  EXPECT_TRUE(client->call("echo"));
}

TEST_F(ControlServer, GarbageIsAnsweredAndSkipped) {
  start();
  Raw raw(path_);
  ASSERT_TRUE(raw.send("GET / HTTP/1.1\r\n\n\xff\xfe\n" + std::string(100000, '[') + "\n"));
  for (int i = 0; i < 4; ++i) {
    json reply = raw.reply();
    EXPECT_EQ(reply["error"]["code"], -32700);
    EXPECT_EQ(reply["error"]["data"]["errno"], EINVAL);
    EXPECT_EQ(reply["id"], nullptr);
  }
  ASSERT_TRUE(raw.send(request("echo")));
  EXPECT_EQ(raw.reply()["result"], json::object());
}

TEST_F(ControlServer, HalfAMessage) {
  start();
  Raw closes(path_);
  ASSERT_TRUE(closes.send(request("echo").substr(0, 20)));
  closes.close();
  Raw half_closes(path_);
  ASSERT_TRUE(half_closes.send(request("echo").substr(0, 20)));
  half_closes.shut(SHUT_WR);
  EXPECT_EQ(half_closes.reply()["error"]["message"], "the message ends without a newline");
  EXPECT_EQ(half_closes.line(), "");
  expect_alive();
}

TEST_F(ControlServer, EndlessLineTakesBoundedMemory) {
  start();
  Raw raw(path_);
  const std::string piece(size_t{1} << 20, 'x');
  size_t sent = 0;
  while (sent < (size_t{1} << 30) && raw.send(piece)) sent += piece.size();
  EXPECT_LE(sent, kMaxMessage + (size_t{2} << 20));
  json reply = raw.reply();
  EXPECT_EQ(reply["error"]["code"], -32600);
  EXPECT_EQ(reply["error"]["message"], "the message is longer than 67108864 bytes");
  EXPECT_EQ(raw.line(), "");
  expect_alive();
}

TEST_F(ControlServer, ClientReadsWhyItsLongMessageWasRefused) {
  start({.max_message = 1000});
  auto client = Client::connect(path_);
  auto reply = client->call("echo", {{"s", std::string(10'000'000, 'x')}});
  ASSERT_FALSE(reply);
  EXPECT_EQ(reply.error().message, "the message is longer than 1000 bytes");
  EXPECT_EQ(client->call("echo").error().code, ENOTCONN);
  expect_alive();
}

TEST_F(ControlServer, ClientThatReadsNothingIsDropped) {
  start({.send_timeout = milliseconds(50)});
  Raw raw(path_);
  ASSERT_TRUE(raw.send(request("big", {{"size", 8000000}})));
  expect_alive();
  EXPECT_TRUE(raw.hung_up());
  EXPECT_EQ(raw.line(), "");
  expect_alive();
}

TEST_F(ControlServer, HangUpCancelsWhatWaits) {
  start();
  Raw raw(path_);
  ASSERT_TRUE(raw.send(request("wait")));
  commands_.await_waiting(1);
  raw.close();
  commands_.await_cancelled(1);
  Raw shut(path_);
  ASSERT_TRUE(shut.send(request("wait")));
  commands_.await_waiting(1);
  shut.shut(SHUT_RDWR);
  commands_.await_cancelled(2);
  expect_alive();
}

TEST_F(ControlServer, HangUpOfOneClientLeavesTheOthers) {
  start();
  Raw stays(path_), goes(path_);
  ASSERT_TRUE(stays.send(request("wait")));
  ASSERT_TRUE(goes.send(request("wait")));
  commands_.await_waiting(2);
  goes.close();
  commands_.await_cancelled(1);
  expect_alive();
  commands_.release();
  EXPECT_EQ(stays.reply()["result"], "released");
  EXPECT_EQ(commands_.cancelled(), 1);
}

TEST_F(ControlServer, HalfCloseStillGetsItsReply) {
  start();
  Raw raw(path_);
  ASSERT_TRUE(raw.send(request("wait")));
  raw.shut(SHUT_WR);
  commands_.await_waiting(1);
  expect_alive();
  commands_.release();
  EXPECT_EQ(raw.reply()["result"], "released");
  EXPECT_EQ(raw.line(), "");
}

TEST_F(ControlServer, WaitingHoldsUpOnlyItsConnection) {
  start();
  std::vector<std::unique_ptr<Raw>> waiters;
  for (int i = 0; i < 50; ++i) {
    waiters.push_back(std::make_unique<Raw>(path_));
    ASSERT_TRUE(waiters.back()->send(request("wait") + request("echo", {{"i", i}}, 2)));
  }
  commands_.await_waiting(50);
  for (int i = 0; i < 20; ++i) expect_alive();
  commands_.release();
  for (int i = 0; i < 50; ++i) {
    EXPECT_EQ(waiters[i]->reply()["result"], "released");
    EXPECT_EQ(waiters[i]->reply()["result"]["i"], i);
  }
}

TEST_F(ControlServer, TooManyClientsAreRefusedWithAReason) {
  start({.max_clients = 3});
  std::vector<std::unique_ptr<Raw>> clients;
  for (int i = 0; i < 3; ++i) {
    clients.push_back(std::make_unique<Raw>(path_));
    ASSERT_TRUE(clients.back()->send(request("echo")));
    ASSERT_EQ(clients.back()->reply()["result"], json::object());
  }
  auto refused = Client::connect(path_);
  ASSERT_TRUE(refused);
  auto reply = refused->call("echo");
  ASSERT_FALSE(reply);
  EXPECT_EQ(reply.error().code, EAGAIN);
  EXPECT_EQ(reply.error().message, "too many clients (3)");
  clients.pop_back();
  // Its thread ends a moment later.
  auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  bool served = false;
  while (!served && std::chrono::steady_clock::now() < deadline) {
    served = bool(Client::connect(path_)->call("echo"));
  }
  EXPECT_TRUE(served);
}

TEST_F(ControlServer, HundredsOfClientsComeAndGo) {
  start();
  std::vector<std::thread> threads;
  std::atomic<int> good{0};
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 60; ++i) {
        auto client = Client::connect(path_);
        if (!client) continue;
        auto reply = client->call("echo", {{"t", t}, {"i", i}});
        if (reply && (*reply)["t"] == t && (*reply)["i"] == i) ++good;
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(good, 8 * 60);
}

TEST_F(ControlServer, OutOfDescriptorsIsSaidAndOvercome) {
  start();
  expect_alive();
  Raw before(path_);
  ASSERT_TRUE(before.send(request("echo")));
  before.reply();
  // Let the client have its descriptor, and nobody another.
  Fd client = *unix_socket();
  rlimit old{};
  ::getrlimit(RLIMIT_NOFILE, &old);
  std::vector<Fd> fill;
  rlimit low{256, old.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &low), 0);
  for (;;) {
    Fd fd(::dup(client.get()));
    if (!fd) break;
    fill.push_back(std::move(fd));
  }
  auto address = unix_address(path_);
  ASSERT_EQ(::connect(client.get(), address->get(), sizeof(address->raw)), 0);
  std::array<char, 1000> buffer;
  auto got = receive(client.get(), buffer);
  ::setrlimit(RLIMIT_NOFILE, &old);
  fill.clear();
  ASSERT_TRUE(got);
  auto reply = decode_reply(*parse_json({buffer.data(), *got}), 1);
  ASSERT_FALSE(reply);
  EXPECT_EQ(reply.error().code, EMFILE);
  ASSERT_TRUE(before.send(request("echo")));
  EXPECT_EQ(before.reply()["result"], json::object());
  expect_alive();
}

TEST_F(ControlServer, HandlerThatThrowsFailsItsClientOnly) {
  start();
  Raw raw(path_);
  ASSERT_TRUE(raw.send(request("throw")));
  EXPECT_EQ(raw.reply()["error"]["message"], "the daemon failed: broken");
  expect_alive();
}

TEST_F(ControlServer, OtherUsersAreRefused) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root to become another user";
  start({.mode = 0666});
  ASSERT_EQ(::chmod(dir_.path().c_str(), 0755), 0);
  std::array<int, 2> ends;
  ASSERT_EQ(::pipe(ends.data()), 0);
  auto address = unix_address(path_);
  pid_t child = ::fork();
  if (child == 0) {
    std::array<char, 4096> buffer;
    bool ok = ::setgid(65534) == 0 && ::setuid(65534) == 0;
    int fd = ::socket(AF_UNIX, SOCK_STREAM, 0);
    ok = ok && ::connect(fd, address->get(), sizeof(address->raw)) == 0;
    ssize_t got = ok ? ::read(fd, buffer.data(), buffer.size()) : 0;
    ssize_t end = ok ? ::read(fd, buffer.data() + got, 1) : 0;
    ok = ok && got > 0 && end == 0 && ::write(ends[1], buffer.data(), got) == got;
    ::_exit(ok ? 0 : 1);
  }
  int status = -1;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  std::array<char, 4096> buffer;
  ssize_t got = ::read(ends[0], buffer.data(), buffer.size());
  ::close(ends[0]);
  ::close(ends[1]);
  ASSERT_GT(got, 0);
  auto reply = decode_reply(*parse_json({buffer.data(), static_cast<size_t>(got)}), 1);
  EXPECT_EQ(reply.error().code, EACCES);
  EXPECT_EQ(reply.error().message, "uid 65534 may not use this daemon of uid 0");
  expect_alive();
}

TEST_F(ControlServer, MutatedRequestsNeverHarm) {
  start();
  std::mt19937 random(4711);
  const std::string valid = request(
      "echo",
      {{"name", "v\xc3\xb6l"}, {"targets", json::array({{{"start", 0}, {"p", "a \\ b"}}})}});
  auto raw = std::make_unique<Raw>(path_);
  for (int round = 0; round < 5000; ++round) {
    std::string line = valid.substr(0, valid.size() - 1);
    for (unsigned n = 1 + random() % 4; n > 0; --n) {
      size_t at = random() % line.size();
      switch (random() % 4) {
        case 0:
          line[at] = static_cast<char>(random());
          break;
        case 1:
          line.erase(at, random() % 10);
          break;
        case 2:
          line.insert(at, line.substr(random() % line.size(), random() % 20));
          break;
        case 3:
          line.insert(at, 1, "{}[]\",:\\0-"[random() % 10]);
          break;
      }
      if (line.empty()) line = "x";
    }
    std::erase(line, '\n');
    ASSERT_TRUE(raw->send(line + "\n")) << round;
    json reply = raw->reply();
    ASSERT_TRUE(reply.is_object() && reply.contains("result") != reply.contains("error"))
        << "round " << round << ": " << line;
  }
}

// ---- stop

TEST_F(ControlServer, StopAnswersWhatWaitsAndRemovesTheSocket) {
  start();
  std::vector<std::unique_ptr<Raw>> waiters;
  for (int i = 0; i < 5; ++i) {
    waiters.push_back(std::make_unique<Raw>(path_));
    ASSERT_TRUE(waiters.back()->send(request("wait")));
  }
  Raw idle(path_);
  commands_.await_waiting(5);
  server_->stop();
  for (auto& waiter : waiters) {
    EXPECT_EQ(waiter->reply()["error"]["data"]["name"], "EINTR");
    EXPECT_EQ(waiter->line(), "");
  }
  EXPECT_EQ(idle.line(), "");
  EXPECT_FALSE(std::filesystem::exists(path_));
  EXPECT_EQ(Client::connect(path_).error().code, ENOENT);
  server_->stop();
}

TEST_F(ControlServer, StopDoesNotWaitForAClientThatReadsNothing) {
  start({.send_timeout = kForever, .stop_grace = milliseconds(50)});
  Raw raw(path_);
  ASSERT_TRUE(raw.send(request("big", {{"size", 8000000}})));
  ASSERT_TRUE(raw.readable());
  server_->stop();
  EXPECT_TRUE(raw.hung_up());
  EXPECT_EQ(raw.line(), "");
}

TEST_F(ControlServer, StopWithoutStart) {
  auto server = Server::listen({.socket_path = path_});
  ASSERT_TRUE(server);
  EXPECT_TRUE(std::filesystem::exists(path_));
  server->reset();
  EXPECT_FALSE(std::filesystem::exists(path_));
}

// ---- the socket file

TEST_F(ControlServer, SocketFileIsPrivate) {
  mode_t mask = ::umask(0);
  start();
  ::umask(mask);
  struct stat file;
  ASSERT_EQ(::stat(path_.c_str(), &file), 0);
  EXPECT_TRUE(S_ISSOCK(file.st_mode));
  EXPECT_EQ(file.st_mode & 07777, 0600u);
}

TEST_F(ControlServer, SocketOfADeadDaemonIsTakenOver) {
  {
    Fd dead = *unix_socket();
    auto address = unix_address(path_);
    ASSERT_EQ(::bind(dead.get(), address->get(), sizeof(address->raw)), 0);
    ASSERT_EQ(::listen(dead.get(), 5), 0);
  }
  auto refused = Client::connect(path_);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ECONNREFUSED);
  EXPECT_EQ(refused.error().message, "no dmfs daemon at " + path_ + ": Connection refused");
  start();
  expect_alive();
}

TEST_F(ControlServer, SocketOfALiveDaemonIsNot) {
  start();
  auto second = Server::listen({.socket_path = path_});
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code, EADDRINUSE);
  EXPECT_EQ(second.error().message,
            "a daemon (pid " + std::to_string(::getpid()) + ") already listens on " + path_);
  expect_alive();
}

TEST_F(ControlServer, OneOfManyStartersWinsAStaleSocket) {
  for (int round = 0; round < 20; ++round) {
    {
      Fd dead = *unix_socket();
      auto address = unix_address(path_);
      ASSERT_EQ(::bind(dead.get(), address->get(), sizeof(address->raw)), 0);
    }
    std::array<std::unique_ptr<Server>, 4> servers;
    std::vector<std::thread> threads;
    for (auto& slot : servers) {
      threads.emplace_back([&slot, this] {
        auto server = Server::listen({.socket_path = path_});
        if (server) slot = *std::move(server);
      });
    }
    for (auto& thread : threads) thread.join();
    EXPECT_EQ(std::count(servers.begin(), servers.end(), nullptr), 3);
  }
}

TEST_F(ControlServer, OtherFilesAreNeverRemoved) {
  std::ofstream(path_) << "precious";
  auto server = Server::listen({.socket_path = path_});
  ASSERT_FALSE(server);
  EXPECT_EQ(server.error().code, EEXIST);
  EXPECT_EQ(server.error().message, path_ + " exists and is not a socket");
  EXPECT_TRUE(std::filesystem::is_regular_file(path_));
}

TEST_F(ControlServer, SomebodyElsesSocketStaysAtStop) {
  start();
  std::filesystem::remove(path_);
  std::ofstream(path_) << "new owner";
  server_->stop();
  EXPECT_TRUE(std::filesystem::exists(path_));
}

TEST_F(ControlServer, BadPathsNameThePath) {
  EXPECT_EQ(Server::listen({.socket_path = ""}).error().code, EINVAL);
  std::string longest = dir_.file(std::string(200, 'x'));
  EXPECT_EQ(Server::listen({.socket_path = longest}).error().code, ENAMETOOLONG);
  EXPECT_EQ(Client::connect(longest).error().code, ENAMETOOLONG);
  auto nowhere = Server::listen({.socket_path = dir_.file("none/sock")});
  EXPECT_EQ(nowhere.error().code, ENOENT);
  EXPECT_NE(nowhere.error().message.find(dir_.file("none")), std::string::npos);
}

// ---- client against a daemon that misbehaves

TEST_F(ControlServer, NoDaemon) {
  auto client = Client::connect(path_);
  ASSERT_FALSE(client);
  EXPECT_EQ(client.error().code, ENOENT);
  EXPECT_EQ(client.error().message, "no dmfs daemon at " + path_ + ": No such file or directory");
}

// Accepts one connection, reads a line, answers with `reply`, closes.
Error call_strange_daemon(const std::string& path, const std::string& reply) {
  auto listener = Listener::open(path, 0600);
  std::thread daemon([&] {
    pollfd ready{listener->fd(), POLLIN, 0};
    ::poll(&ready, 1, 30000);
    Fd fd(::accept(listener->fd(), nullptr, nullptr));
    std::array<char, 1000> buffer;
    [[maybe_unused]] auto got = receive(fd.get(), buffer);
    [[maybe_unused]] auto sent = send_all(fd.get(), reply);
  });
  auto client = Client::connect(path);
  auto result = client->call("status");
  daemon.join();
  return result ? Error{0, "it believed it"} : result.error();
}

TEST_F(ControlServer, DaemonThatTalksNonsense) {
  EXPECT_EQ(call_strange_daemon(path_, "").code, ECONNRESET);
  EXPECT_EQ(call_strange_daemon(path_, "{\"jsonrpc\"").message,
            "status: the daemon closed the connection");
  EXPECT_EQ(call_strange_daemon(path_, "hello\n").code, EPROTO);
  EXPECT_EQ(call_strange_daemon(path_, "{}\n").code, EPROTO);
  EXPECT_EQ(call_strange_daemon(path_, std::string(100000, '[') + "\n").code, EPROTO);
  EXPECT_EQ(call_strange_daemon(path_, to_line(result_reply(99, 1))).code, EPROTO);
}

}  // namespace
}  // namespace dmfs
