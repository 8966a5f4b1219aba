/* fuzz_rpc.cpp: a hostile program. Requests of any form and contents, with subjects that are sockets in every state, ends of pairs
 * of another kind, pipes and files; writes to the pairs, and time between them.
 *
 * An input is a list of records: what to do, which descriptors, length, bytes. The bytes overlay a header that is right.
 */
#include <sys/types.h>

#include "world.hpp"

using namespace fuzz;

namespace {

void request(Program &program, Bytes &input) {
    unsigned form = input.u8(), which = input.u8();
    netcon_rpc_request header{};
    header.magic = NETCON_RPC_MAGIC;
    header.version = NETCON_RPC_VERSION;
    header.operation = form & 31;
    header.flags = form & 32 ? NETCON_RPC_POSTED : 0;
    Program::Socket *about = program.sockets.empty() ? nullptr : &program.sockets[which % program.sockets.size()];
    if (about)
        header.socket = about->id, header.family = about->family, header.type = about->type, header.protocol = about->protocol;
    for (int32_t &arg : header.args)
        arg = static_cast<int16_t>(input.u16());
    auto data = input.take(input.u16() & 0x03ff);
    header.data_length = static_cast<uint32_t>(data.size());
    if (form & 64) { /* one thing in the header is another */
        size_t at = input.u8() % sizeof header;
        reinterpret_cast<uint8_t *>(&header)[at] = input.u8();
    }
    std::vector<uint8_t> message(sizeof header + data.size());
    std::memcpy(message.data(), &header, sizeof header);
    if (!data.empty()) std::memcpy(message.data() + sizeof header, data.data(), data.size());
    if (form & 128) message.resize(input.u16() % (message.size() + 1));
    int pair[2], odd[2], fds[8];
    must(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) == 0);
    must(pipe2(odd, O_CLOEXEC | O_NONBLOCK) == 0);
    size_t count = 0;
    bool about_nothing =
        header.operation == NETCON_RPC_HELLO || header.operation == NETCON_RPC_INTERFACES || header.operation == 16;
    switch (which >> 5) {
    case 0:
        fds[count++] = odd[0];
        break;
    case 1:
        fds[count++] = program.rpc;
        break;
    case 2:
        fds[count++] = pair[0];
        break;
    case 3:
        break;
    default:
        if (about && !about_nothing) fds[count++] = about->descriptor;
    }
    if (!(header.flags & NETCON_RPC_POSTED)) fds[count++] = pair[1];
    program.send(message.data(), message.size(), fds, count);
    close(odd[0]);
    close(odd[1]);
    Program::finish(pair);
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    Program program;
    unsigned steps = 0;
    for (Bytes input{data, data + size}; input && steps < 64; steps++) {
        unsigned what = input.u8();
        Program::Socket *about = program.sockets.empty() ? nullptr : &program.sockets[what / 8 % program.sockets.size()];
        switch (what & 7) {
        case 0: {
            static constexpr uint16_t types[] = {SOCK_STREAM, SOCK_DGRAM, SOCK_STREAM, SOCK_RAW};
            static constexpr uint16_t protocols[] = {0, 0, IPPROTO_ICMP, IPPROTO_ICMPV6};
            uint16_t type = types[what >> 3 & 3];
            if (program.sockets.size() < 12)
                program.make(what & 32 ? AF_INET6 : AF_INET, type, type == SOCK_STREAM ? 0 : protocols[what >> 6 & 3], what & 16);
            break;
        }
        case 1: { /* what the program writes */
            auto bytes = input.take(input.u16() & 0x0fff);
            if (about) (void)!::send(about->descriptor, bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
            program.w.turn();
            break;
        }
        case 2:
            if (about) {
                close(about->descriptor);
                program.sockets.erase(program.sockets.begin() + (about - program.sockets.data()));
            }
            program.w.turn();
            break;
        case 3:
            program.w.turn(uint64_t{1000} << (what >> 4));
            break;
        case 4: {
            if (about) shutdown(about->descriptor, what >> 6 & 1);
            program.w.turn();
            break;
        }
        default:
            request(program, input);
        }
    }
    return 0;
}
