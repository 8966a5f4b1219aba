/* ports.cpp: see ports.hpp. */
#include "ports.hpp"

#include <cerrno>

namespace netcon::server {

namespace {

bool addresses_overlap(const Binding &a, const Binding &b) {
    if (a.local.is_v4() == b.local.is_v4()) return a.local.is_any() || b.local.is_any() || a.local.same_ip(b.local);
    const Binding &six = a.local.is_v4() ? b : a;
    return six.local.is_any() && !six.v6_only; // a dual-stack wildcard meets every IPv4 address
}

} // namespace

/* May `wanted` not have what `holder` has? Linux's inet_bind_conflict. */
bool PortTable::conflict(const Binding &wanted, const Binding &holder) const {
    if (&wanted == &holder || !sets_.meet(wanted.network, holder.network) || !addresses_overlap(wanted, holder)) return false;
    if (wanted.reuse_address && holder.reuse_address && !holder.listening) return false;
    return !(wanted.reuse_port && holder.reuse_port && wanted.uid == holder.uid);
}

void Binding::release() {
    if (table_ == nullptr) return;
    *link_ = next_;
    if (next_ != nullptr) next_->link_ = link_;
    if (auto head = table_->ports_.find(local.port); head != table_->ports_.end() && head->second == nullptr)
        table_->ports_.erase(head);
    table_ = nullptr;
    next_ = nullptr;
    link_ = nullptr;
    remote = Address();
}

void PortTable::insert(Binding &binding) {
    Binding *&head = ports_[binding.local.port]; // references into an unordered_map stay valid
    binding.table_ = this;
    binding.next_ = head;
    binding.link_ = &head;
    if (head != nullptr) head->link_ = &binding.next_;
    head = &binding;
}

int PortTable::check(const Binding &binding) const {
    auto found = ports_.find(binding.local.port);
    for (const Binding *holder = found == ports_.end() ? nullptr : found->second; holder != nullptr; holder = holder->next_)
        if (conflict(binding, *holder)) return EADDRINUSE;
    return 0;
}

uint16_t PortTable::next_port() {
    cursor_ = (cursor_ + 1) % range;
    return static_cast<uint16_t>(first + cursor_);
}

int PortTable::claim(Binding &binding) {
    if (binding.local.port != 0) {
        if (int error = check(binding)) return error;
        insert(binding);
        return 0;
    }
    for (unsigned i = 0; i < range; i++) {
        uint16_t port = next_port();
        if (ports_.contains(port)) continue;
        binding.local.port = port;
        insert(binding);
        return 0;
    }
    return EADDRINUSE;
}

int PortTable::claim_for_connect(Binding &binding) {
    for (bool share : {false, true})
        for (unsigned i = 0; i < range; i++) {
            uint16_t port = next_port();
            auto found = ports_.find(port);
            bool fits = found == ports_.end();
            if (!fits && share) {
                fits = true;
                for (const Binding *holder = found->second; holder != nullptr && fits; holder = holder->next_)
                    fits = holder->automatic && !(holder->remote == binding.remote);
            }
            if (!fits) continue;
            binding.local.port = port;
            binding.automatic = true;
            insert(binding);
            return 0;
        }
    return EADDRNOTAVAIL;
}

bool PortTable::is_connected(const Binding &binding, uint64_t network, const Address &local, const Address &remote) const {
    auto found = ports_.find(binding.local.port);
    for (const Binding *holder = found == ports_.end() ? nullptr : found->second; holder != nullptr; holder = holder->next_)
        if (holder != &binding && holder->remote == remote && sets_.covers(holder->network, network) &&
            (holder->local.is_any() || holder->local.same_ip(local)))
            return true;
    return false;
}

void PortTable::inherit(Binding &binding) { insert(binding); }

} // namespace netcon::server
