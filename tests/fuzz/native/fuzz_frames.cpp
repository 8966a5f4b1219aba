/* fuzz_frames.cpp: Ethernet frames into a stack with a listener, a connection on its way out, and a UDP socket. lwIP's input and
 * our link.c, merge.c, neighbour.c, timers.c, datagram.c, and what the socket server makes of it.
 *
 * An input is a list of records: what to do, length, bytes. Checksums, our addresses and the acknowledgement of what the stack sent
 * last are put in where the record says so: chance finds none of them.
 */
#include "world.hpp"

using namespace fuzz;

namespace {

uint32_t sum(const uint8_t *data, size_t length, uint32_t start) {
    for (size_t i = 0; i + 1 < length; i += 2)
        start += static_cast<uint32_t>(data[i] << 8 | data[i + 1]);
    return start + (length % 2 ? static_cast<uint32_t>(data[length - 1] << 8) : 0);
}
void put_checksum(uint8_t *at, uint32_t total) {
    while (total >> 16)
        total = (total & 0xffff) + (total >> 16);
    at[0] = static_cast<uint8_t>(~total >> 8);
    at[1] = static_cast<uint8_t>(~total);
}

/* For frames that are whole enough. */
void repair(std::vector<uint8_t> &frame, unsigned how) {
    if (frame.size() < 14) return;
    std::memcpy(frame.data(), our_mac, 6);
    std::memcpy(frame.data() + 6, peer_mac, 6);
    bool six = frame[12] == 0x86 && frame[13] == 0xdd;
    size_t head = six ? 54 : 34, room = frame.size();
    if (room < head || (!six && (frame[12] != 8 || frame[13] != 0))) return;
    uint8_t *ip = frame.data() + 14;
    uint8_t next = six ? ip[6] : ip[9];
    if (six) {
        ip[4] = static_cast<uint8_t>((room - 54) >> 8), ip[5] = static_cast<uint8_t>(room - 54);
    } else {
        ip[2] = static_cast<uint8_t>((room - 14) >> 8), ip[3] = static_cast<uint8_t>(room - 14);
        if (how & 2) {
            std::memcpy(ip + 12, peer_ip4, 4);
            std::memcpy(ip + 16, our_ip4, 4);
        }
        ip[10] = ip[11] = 0;
        head = 14 + (ip[0] & 15) * 4u;
        if (head < 34 || head > room) return;
        put_checksum(ip + 10, sum(ip, head - 14, 0));
    }
    uint8_t *rest = frame.data() + head;
    size_t length = room - head;
    if (next == 6 && length >= 20 && how & 4) {
        uint32_t acknowledged = __builtin_bswap32(world().last_sequence);
        std::memcpy(rest + 8, &acknowledged, 4);
        if (how & 8) rest[2] = static_cast<uint8_t>(world().last_port >> 8), rest[3] = static_cast<uint8_t>(world().last_port);
    }
    size_t at = next == 6 ? 16 : next == 17 ? 6 : next == 1 || next == 58 ? 2 : length;
    if (at + 2 > length) return;
    rest[at] = rest[at + 1] = 0;
    uint32_t pseudo = next == 1 ? 0 : sum(ip + (six ? 8 : 12), six ? 32 : 8, static_cast<uint32_t>(next + length));
    put_checksum(rest + at, sum(rest, length, pseudo));
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    Program program;
    int32_t backlog[4] = {5, 0, 0, 0};
    auto listener = program.make(AF_INET, SOCK_STREAM, 0);
    netcon_address here = Program::place(80), there = Program::place(7, peer_ip4), names = Program::place(53);
    program.ask(NETCON_RPC_BIND, &listener, nullptr, &here, sizeof here, false);
    program.ask(NETCON_RPC_LISTEN, &listener, backlog, nullptr, 0, false);
    auto datagrams = program.make(AF_INET, SOCK_DGRAM, 0);
    program.ask(NETCON_RPC_BIND, &datagrams, nullptr, &names, sizeof names, false);
    auto outgoing = program.make(AF_INET, SOCK_STREAM, 0);
    program.ask(NETCON_RPC_CONNECT, &outgoing, nullptr, &there, sizeof there, false);
    for (Bytes input{data, data + size}; input;) {
        unsigned how = input.u8();
        auto frame = input.take(input.u16() & 0x0fff);
        if (how & 1) repair(frame, how);
        if (!frame.empty()) world().receive(frame);
        if (how & 16) world().turn(how & 32 ? 300'000 : 1'000);
        if (how & 64) (void)!write(outgoing.descriptor, "some bytes of ours", 18);
        if (how & 128) {
            char buffer[4096];
            (void)!recv(how & 32 ? datagrams.descriptor : outgoing.descriptor, buffer, sizeof buffer, MSG_DONTWAIT);
        }
    }
    world().turn();
    return 0;
}
