/* names.c: asks by every function of the C library's that knows names, and prints what came. For tests; built for both C libraries.
 *
 *   names addresses NAME [SERVICE [FAMILY [FLAGS]]]   getaddrinfo: one line per entry
 *   names host NAME FAMILY                            gethostbyname2, gethostbyname2_r with a small and a large buffer
 *   names reverse ADDRESS                             gethostbyaddr, gethostbyaddr_r, getnameinfo
 *   names query NAME TYPE                             res_query: rcode and counts
 *   names search NAME TYPE                            res_search: the same
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <arpa/nameser.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <resolv.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

static int family_of(const char *text) { return text && *text == '6' ? AF_INET6 : text && *text == '4' ? AF_INET : AF_UNSPEC; }

static const char *error_name(int error) {
    switch (error) {
    case EAI_NONAME:
        return "NONAME";
    case EAI_AGAIN:
        return "AGAIN";
    case EAI_FAIL:
        return "FAIL";
    case EAI_SERVICE:
        return "SERVICE";
    case EAI_FAMILY:
        return "FAMILY";
    case EAI_SOCKTYPE:
        return "SOCKTYPE";
    case EAI_BADFLAGS:
        return "BADFLAGS";
    case EAI_SYSTEM:
        return "SYSTEM";
    case EAI_OVERFLOW:
        return "OVERFLOW";
    case -5:
        return "NODATA";
    default:
        return "OTHER";
    }
}

static int addresses(int count, char **words) {
    struct addrinfo hints = {0}, *list, *half;
    hints.ai_family = family_of(count > 2 ? words[2] : NULL);
    hints.ai_flags = count > 3 ? atoi(words[3]) : 0;
    int error = getaddrinfo(words[0], count > 1 && *words[1] ? words[1] : NULL, &hints, &list);
    if (error) {
        printf("%s\n", error_name(error));
        return 0;
    }
    for (struct addrinfo *each = list; each; each = each->ai_next) {
        char host[64], port[16];
        if (getnameinfo(each->ai_addr, each->ai_addrlen, host, sizeof host, port, sizeof port, NI_NUMERICHOST | NI_NUMERICSERV))
            return 1;
        printf("%d %s %s %s\n", each->ai_socktype, host, port, each->ai_canonname ? each->ai_canonname : "-");
    }
    /* A list may be freed in parts. */
    if ((half = list->ai_next)) {
        list->ai_next = NULL;
        freeaddrinfo(half);
    }
    freeaddrinfo(list);
    return 0;
}

static void print_host(const char *what, const struct hostent *host) {
    char text[64];
    printf("%s %s", what, host->h_name);
    for (char **each = host->h_addr_list; *each; each++)
        printf(" %s", inet_ntop(host->h_addrtype, *each, text, sizeof text));
    printf("\n");
}

static int host(char **words) {
    int family = family_of(words[1]), error = 0;
    struct hostent *found = gethostbyname2(words[0], family), space, *out = NULL;
    char large[4096], small[16];
    if (found)
        print_host("plain", found);
    else
        printf("plain h_errno %d\n", h_errno);
    int done = gethostbyname2_r(words[0], family, &space, large, sizeof large, &out, &error);
    if (done == 0 && out)
        print_host("reentrant", out);
    else
        printf("reentrant h_errno %d\n", error);
    if (found)
        printf("small %s\n",
               gethostbyname2_r(words[0], family, &space, small, sizeof small, &out, &error) == ERANGE ? "ERANGE" : "?");
    return 0;
}

static int reverse(char **words) {
    union {
        struct sockaddr any;
        struct sockaddr_in ipv4;
        struct sockaddr_in6 ipv6;
    } address = {0};
    int six = strchr(words[0], ':') != NULL, error = 0;
    void *ip = six ? (void *)&address.ipv6.sin6_addr : (void *)&address.ipv4.sin_addr;
    socklen_t width = six ? 16 : 4, length = six ? sizeof address.ipv6 : sizeof address.ipv4;
    address.any.sa_family = six ? AF_INET6 : AF_INET;
    inet_pton(address.any.sa_family, words[0], ip);
    struct hostent *found = gethostbyaddr(ip, width, address.any.sa_family), space, *out = NULL;
    char buffer[4096], name[NI_MAXHOST], port[NI_MAXSERV];
    if (found)
        print_host("plain", found);
    else
        printf("plain h_errno %d\n", h_errno);
    if (gethostbyaddr_r(ip, width, address.any.sa_family, &space, buffer, sizeof buffer, &out, &error) == 0 && out)
        print_host("reentrant", out);
    error = getnameinfo(&address.any, length, name, sizeof name, port, sizeof port, 0);
    printf("name %s\n", error ? error_name(error) : name);
    error = getnameinfo(&address.any, length, name, sizeof name, NULL, 0, NI_NAMEREQD);
    printf("required %s\n", error ? error_name(error) : name);
    error = getnameinfo(&address.any, length, name, 3, NULL, 0, 0);
    printf("narrow %s\n", error ? error_name(error) : name);
    return 0;
}

static int query(char **words, int ask(const char *, int, int, unsigned char *, int)) {
    unsigned char answer[4096];
    int length = ask(words[0], ns_c_in, atoi(words[1]), answer, sizeof answer);
    if (length < 0)
        printf("h_errno %d\n", h_errno);
    else
        printf("rcode %d answers %d\n", answer[3] & 15, answer[6] << 8 | answer[7]);
    return 0;
}

int main(int count, char **words) {
    if (count > 2 && !strcmp(words[1], "addresses")) return addresses(count - 2, words + 2);
    if (count > 3 && !strcmp(words[1], "host")) return host(words + 2);
    if (count > 2 && !strcmp(words[1], "reverse")) return reverse(words + 2);
    if (count > 3 && !strcmp(words[1], "query")) return query(words + 2, res_query);
    if (count > 3 && !strcmp(words[1], "search")) return query(words + 2, res_search);
    return 2;
}
