/* core_library.hpp: one private copy of liblwip-core.so, loaded.
 *
 * Theory of operation. lwIP's state is its globals, so each stack has the shared object to itself: its bytes are copied into a
 * memfd and that is loaded with RTLD_LOCAL. The dynamic linker recognises what it has loaded by name first: the memfd therefore
 * stays open as long as the copy is loaded, so that no other copy gets the same /proc/self/fd/N. Where the kernel does not execute
 * a memfd (vm.memfd_noexec, no /proc), a private file serves, unlinked as soon as it is mapped. NETCON_LWIP_FILES=folder copies to
 * files there and leaves them: gdb, perf and sanitizers then find symbols.
 */
#pragma once

#include <stdexcept>
#include <string>

#include "lwip_core.h"

namespace netcon {

class CoreLibraryError : public std::runtime_error {
  public:
    using std::runtime_error::runtime_error;
};

class CoreLibrary {
  public:
    /* Loads a fresh copy of the library that lies beside this extension. CoreLibraryError if there is none, it cannot be loaded, or
     * it was built with other options than our C++. */
    CoreLibrary();
    ~CoreLibrary();
    CoreLibrary(const CoreLibrary &) = delete;
    CoreLibrary &operator=(const CoreLibrary &) = delete;

    lwip_core &table() const { return *table_; }

  private:
    bool load_from_memory(int source);
    bool load_from_file(int source, const std::string &folder, bool keep);
    void close_handles();

    void *handle_ = nullptr;
    int memfd_ = -1;
    lwip_core *table_ = nullptr;
    std::string reason_;
};

} // namespace netcon
