/* questions.hpp: requests that the reactor cannot answer itself (RESOLVE), on their way to whoever can, and back.
 *
 * A question is put into a table with the request's reply end, and an eventfd becomes readable. Whoever answers (Python, on its own
 * thread) calls take() and later answer(), both on the reactor's thread as everything here. The reactor waits for nothing. How many
 * questions may be open is limited, in all and for each foreign user; that each is answered in the end is the answerer's duty.
 */
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include "descriptor.hpp"
#include "rpc_server.hpp"

namespace netcon::server {

struct Question {
    uint64_t id = 0;
    uid_t uid = 0;
    uint64_t network = 0; // of the program, 0: any
    uint16_t family = 0;
    int32_t kind = 0;
    int32_t flags = 0;
    std::string data;
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
    std::vector<Question> take();
    /* False: no such question is open. */
    bool answer(uint64_t id, int error, int value, const std::string &data);
    size_t pending() const { return open_.size(); }

  private:
    struct Open {
        uid_t uid;
        Descriptor reply_end;
    };
    RpcServer &rpc_;
    Descriptor event_;
    uint64_t last_id_ = 0;
    std::vector<Question> fresh_;
    std::unordered_map<uint64_t, Open> open_;
    std::unordered_map<uid_t, unsigned> of_user_;
};

} // namespace netcon::server
