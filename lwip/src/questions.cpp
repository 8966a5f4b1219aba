/* questions.cpp: see questions.hpp. */
#include "questions.hpp"

#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
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

bool Questions::may_ask(uid_t uid) const {
    auto user = of_user_.find(uid);
    bool foreign = uid != geteuid() && uid != 0;
    return open_.size() < open_in_all && !(foreign && user != of_user_.end() && user->second >= open_per_foreign_user);
}

void Questions::put(Question question, Open open) {
    of_user_[open.uid]++;
    question.id = ++last_id_;
    open_.emplace(last_id_, std::move(open));
    fresh_.push_back(std::move(question));
    eventfd_write(event_.get(), 1);
}

int Questions::ask(Request &request) {
    const netcon_rpc_request &header = *request.header;
    if (!event_) return EOPNOTSUPP;
    if (!request.reply_end || header.data_length == 0 || header.args[0] == Question::stream_kind) return EINVAL;
    uid_t uid = request.caller.uid;
    if (!may_ask(uid)) return EAGAIN;
    std::string data(reinterpret_cast<const char *>(&header) + offsetof(netcon_rpc_request, data), header.data_length);
    int32_t room = header.args[2] > 0 ? std::min<int32_t>(header.args[2], NETCON_RESOLVE_MESSAGE_MAX) : NETCON_RPC_DATA_MAX;
    put({0, uid, request.network, header.family, header.args[0], header.args[1], static_cast<uint32_t>(room), std::move(data), {}},
        {uid, std::move(request.reply_end), {}});
    return 0;
}

bool Questions::ask(const Asker &asker, uid_t uid, uint64_t visible, const uint8_t *data, size_t length) {
    if (!event_ || length == 0 || !may_ask(uid)) return false;
    std::string text(reinterpret_cast<const char *>(data), length);
    put({0, uid, visible, 0, NETCON_RESOLVE_MESSAGE, 0, 0, std::move(text), {}}, {uid, {}, asker});
    return true;
}

int Questions::ask(Descriptor &stream, uid_t uid, uint64_t visible) {
    size_t waiting = std::count_if(fresh_.begin(), fresh_.end(), [](auto &question) { return bool(question.stream); });
    if (!event_ || waiting >= open_in_all) return ECONNREFUSED;
    fresh_.push_back({0, uid, visible, 0, Question::stream_kind, 0, NETCON_RESOLVE_MESSAGE_MAX, {}, std::move(stream)});
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
    Open question = std::move(found->second);
    open_.erase(found);
    if (auto user = of_user_.find(question.uid); --user->second == 0) of_user_.erase(user);
    if (question.reply_end) {
        Reply reply;
        reply.error = error;
        reply.value = value;
        rpc_.answer(std::move(question.reply_end), NETCON_RPC_RESOLVE, reply, &data);
    } else if (error == 0 && !data.empty() && deliver_) {
        deliver_(question.asker, data);
    }
    return true;
}

} // namespace netcon::server
