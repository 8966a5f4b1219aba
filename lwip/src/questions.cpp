/* questions.cpp: see questions.hpp. */
#include "questions.hpp"

#include <sys/eventfd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <utility>

namespace netcon::server {

namespace {

constexpr size_t open_in_all = 192; // each holds a descriptor
constexpr unsigned open_per_foreign_user = 32;

} // namespace

Questions::~Questions() {
    while (!open_.empty())
        answer(open_.begin()->first, ENETDOWN, 0, {});
}

int Questions::open() {
    if (!event_) event_ = Descriptor(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    return event_.get();
}

int Questions::ask(Request &request) {
    const netcon_rpc_request &header = *request.header;
    if (!event_) return EOPNOTSUPP;
    if (!request.reply_end || header.data_length == 0) return EINVAL;
    uid_t uid = request.caller.uid;
    auto user = of_user_.find(uid);
    bool foreign = uid != geteuid() && uid != 0;
    if (open_.size() >= open_in_all || (foreign && user != of_user_.end() && user->second >= open_per_foreign_user)) return EAGAIN;
    std::string data(reinterpret_cast<const char *>(&header) + offsetof(netcon_rpc_request, data), header.data_length);
    fresh_.push_back({++last_id_, uid, request.network, header.family, header.args[0], header.args[1], std::move(data)});
    open_.emplace(last_id_, Open{uid, std::move(request.reply_end)});
    of_user_[uid]++;
    eventfd_write(event_.get(), 1);
    return 0;
}

std::vector<Question> Questions::take() {
    eventfd_t count;
    eventfd_read(event_.get(), &count);
    return std::exchange(fresh_, {});
}

bool Questions::answer(uint64_t id, int error, int value, const std::string &data) {
    auto found = open_.find(id);
    if (found == open_.end()) return false;
    Reply reply;
    reply.error = error;
    reply.value = value;
    reply.length = static_cast<uint32_t>(std::min(data.size(), sizeof reply.data));
    std::memcpy(reply.data, data.data(), reply.length);
    Open question = std::move(found->second);
    open_.erase(found);
    if (auto user = of_user_.find(question.uid); --user->second == 0) of_user_.erase(user);
    rpc_.answer(std::move(question.reply_end), NETCON_RPC_RESOLVE, reply);
    return true;
}

} // namespace netcon::server
