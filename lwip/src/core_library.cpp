#include "core_library.hpp"

#include <dlfcn.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <cstring>

#ifndef MFD_EXEC
#define MFD_EXEC 0x0010U
#endif

namespace netcon {

namespace {

/* The folder of this extension module, where the library is installed too. */
std::string library_path() {
    Dl_info info;
    if (dladdr(reinterpret_cast<const void *>(&library_path), &info) == 0 || info.dli_fname == nullptr)
        throw CoreLibraryError("the lwip extension's own path is unknown");
    std::string path = info.dli_fname;
    auto slash = path.rfind('/');
    return (slash == std::string::npos ? std::string(".") : path.substr(0, slash)) + "/liblwip-core.so";
}

bool copy_all(int source, int target) {
    char buffer[1 << 16];
    for (off_t offset = 0;;) {
        ssize_t got = pread(source, buffer, sizeof buffer, offset);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) return got == 0;
        offset += got;
        for (ssize_t put = 0; put < got;) {
            ssize_t n = write(target, buffer + put, static_cast<size_t>(got - put));
            if (n < 0 && errno == EINTR) continue;
            if (n < 0) return false;
            put += n;
        }
    }
}

std::string unique_name() {
    static std::atomic<unsigned long> serial{0};
    return "netcon-lwip-" + std::to_string(getpid()) + "-" + std::to_string(++serial);
}

} // namespace

/* System calls: memfd_create, pread64, write, and the dynamic linker's. */
bool CoreLibrary::load_from_memory(int source) {
    memfd_ = memfd_create(unique_name().c_str(), MFD_CLOEXEC | MFD_EXEC);
    if (memfd_ < 0 && errno == EINVAL) // a kernel before 6.3
        memfd_ = memfd_create(unique_name().c_str(), MFD_CLOEXEC);
    if (memfd_ < 0) {
        reason_ = std::string("memfd_create: ") + std::strerror(errno);
        return false;
    }
    if (!copy_all(source, memfd_)) {
        reason_ = std::string("copying: ") + std::strerror(errno);
    } else {
        handle_ = dlopen(("/proc/self/fd/" + std::to_string(memfd_)).c_str(), RTLD_NOW | RTLD_LOCAL);
        if (handle_ != nullptr) return true;
        reason_ = dlerror();
    }
    close(memfd_);
    memfd_ = -1;
    return false;
}

bool CoreLibrary::load_from_file(int source, const std::string &folder, bool keep) {
    std::string path = folder + "/" + unique_name() + ".so";
    int file = open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0700);
    if (file < 0) {
        reason_ += "; " + path + ": " + std::strerror(errno);
        return false;
    }
    bool copied = copy_all(source, file);
    close(file);
    if (copied) handle_ = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (handle_ == nullptr) reason_ += "; " + (copied ? std::string(dlerror()) : path + ": " + std::strerror(errno));
    if (!keep || handle_ == nullptr) unlink(path.c_str());
    return handle_ != nullptr;
}

CoreLibrary::CoreLibrary() {
    std::string path = library_path();
    int source = open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (source < 0) throw CoreLibraryError(path + ": " + std::strerror(errno) + " (build it: python setup.py build_ext --inplace)");
    bool loaded = false;
    if (const char *folder = std::getenv("NETCON_LWIP_FILES")) {
        loaded = load_from_file(source, folder, true);
    } else {
        loaded = load_from_memory(source);
        for (const char *variable : {"XDG_RUNTIME_DIR", "TMPDIR"})
            if (const char *candidate = std::getenv(variable); !loaded && candidate != nullptr)
                loaded = load_from_file(source, candidate, false);
        loaded = loaded || load_from_file(source, "/tmp", false);
    }
    close(source);
    if (!loaded) throw CoreLibraryError(path + " cannot be loaded: " + reason_);
    auto get = reinterpret_cast<lwip_core_table_fn>(dlsym(handle_, LWIP_CORE_SYMBOL));
    table_ = get != nullptr ? get() : nullptr;
    constexpr uint64_t ours[] = LWIP_CORE_FINGERPRINT;
    static_assert(sizeof ours == sizeof lwip_core::fingerprint);
    if (table_ == nullptr || std::memcmp(ours, table_->fingerprint, sizeof ours) != 0) {
        close_handles();
        throw CoreLibraryError(path +
                               " was built with other lwIP headers or options than the extension beside it: build both again");
    }
}

CoreLibrary::~CoreLibrary() { close_handles(); }

void CoreLibrary::close_handles() {
    if (handle_ != nullptr) dlclose(handle_);
    if (memfd_ >= 0) close(memfd_);
}

} // namespace netcon
