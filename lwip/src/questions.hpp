/* questions.hpp: what the reactor cannot answer itself (RESOLVE, DNS queries), on their way to whoever can, and back.
 *
 * A question comes by RPC, or as a datagram or a connection to a name server of the host, which we are for programs. It is put into
 * a table with the request's reply end or the asker's socket, and an eventfd becomes readable. Whoever answers (Python, on its own
 * thread) calls take() and later answer(), both on the reactor's thread as everything here. The reactor waits for nothing. How many
 * questions may be open is limited, in all and for each foreign user; that each is answered in the end is the answerer's duty. Of a
 * connection its stream is handed over: nothing stays open here.
 */
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "address.hpp"
#include "descriptor.hpp"
#include "rpc_server.hpp"

namespace netcon::server {

struct Question {
    uint64_t id = 0;
    uid_t uid = 0;
    uint64_t network = 0; // of the program, 0: any
    uint16_t family = 0;
    int32_t kind = 0; // enum netcon_resolve_question; `stream` for a connection
    int32_t flags = 0;
    uint32_t room = 0; // of MESSAGE: bytes that fit; 0: what the query itself says
    std::string data;
    Descriptor stream;
    static constexpr int32_t stream_kind = 0;
};

/* Who gets the answer to a datagram. */
struct Asker {
    uint64_t socket = 0; // its id
    uint64_t network = 0;
    Address server, client;
};

class Questions {
  public:
    explicit Questions(RpcServer &rpc) : rpc_(rpc) {}
    ~Questions();
    Questions(const Questions &) = delete;

    /* From now on questions are taken. Readable when there are some: an eventfd, which stays ours. -1: none to be had. */
    int open();
    /* Keeps the request's reply end. 0, or an errno to reply with. */
    int ask(Request &request);
    /* A DNS query by UDP; false: it is lost. `visible`: the network whose names are asked for, 0: of all. */
    bool ask(const Asker &asker, uid_t uid, uint64_t visible, const uint8_t *data, size_t length);
    /* The service's end of a connection by TCP: 0, or an errno. */
    int ask(Descriptor &stream, uid_t uid, uint64_t visible);
    bool are_taken() const { return bool(event_); }
    /* Where answers to datagrams go. */
    void on_datagram(std::function<void(const Asker &, const std::string &)> deliver) { deliver_ = std::move(deliver); }
    std::vector<Question> take();
    /* False: no such question is open. */
    bool answer(uint64_t id, int error, int value, const std::string &data);
    size_t pending() const { return open_.size(); }

  private:
    struct Open {
        uid_t uid;
        Descriptor reply_end; // none: a datagram's
        Asker asker;
    };
    bool may_ask(uid_t uid) const;
    void put(Question question, Open open);
    RpcServer &rpc_;
    Descriptor event_;
    uint64_t last_id_ = 0;
    std::vector<Question> fresh_;
    std::function<void(const Asker &, const std::string &)> deliver_;
    std::unordered_map<uint64_t, Open> open_;
    std::unordered_map<uid_t, unsigned> of_user_;
};

} // namespace netcon::server
