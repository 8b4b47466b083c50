/*
 * Preloaded into wrk or h2load (generators.py compiles it), it does what they cannot:
 *
 * - With CONNECT_TARGET=HOST:PORT it leads them, who know no proxies, through one: a CONNECT goes before the first byte of every
 *   connection, and the answer is taken off before the first byte that comes back. After that it is not on the way any more, so it costs
 *   nothing per request, and it lies neither on a core of its own nor on the proxy's. The client's first bytes go out right behind the
 *   CONNECT, as the answer can only be "yes" or the end.
 * - With TLS_NAME=HOST they ask for that host's certificate; wrk, which connects to an address, would name the address.
 * - Every TLS handshake is a full one. When they open a connection anew, both offer the last one's session, because SSL_clear keeps it.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

enum { DESCRIPTORS = 65536, LONGEST_ANSWER = 1024 };

/* What a socket waits for. */
static enum { NOTHING, TO_ASK, ANSWER } waits_for[DESCRIPTORS];

static int is_ours(int fd) { return fd >= 0 && fd < DESCRIPTORS && waits_for[fd] != NOTHING; }

int connect(int fd, const struct sockaddr *address, socklen_t length) {
    static int (*next)(int, const struct sockaddr *, socklen_t);
    if (!next) next = dlsym(RTLD_NEXT, "connect");
    if (fd >= 0 && fd < DESCRIPTORS && address->sa_family == AF_INET && getenv("CONNECT_TARGET")) waits_for[fd] = TO_ASK;
    return next(fd, address, length);
}

int close(int fd) {
    static int (*next)(int);
    if (!next) next = dlsym(RTLD_NEXT, "close");
    if (is_ours(fd)) waits_for[fd] = NOTHING;
    return next(fd);
}

long SSL_ctrl(void *ssl, int command, long number, void *data) {
    enum { SET_HOSTNAME = 55 };
    static long (*next)(void *, int, long, void *);
    if (!next) next = dlsym(RTLD_NEXT, "SSL_ctrl");
    char *name = getenv("TLS_NAME");
    return next(ssl, command, number, command == SET_HOSTNAME && name ? name : data);
}

int SSL_clear(void *ssl) {
    static int (*next)(void *), (*set_session)(void *, void *);
    if (!next) next = dlsym(RTLD_NEXT, "SSL_clear");
    if (!set_session) set_session = dlsym(RTLD_NEXT, "SSL_set_session");
    return next(ssl) && set_session(ssl, NULL);
}

ssize_t write(int fd, const void *data, size_t size) {
    static ssize_t (*next)(int, const void *, size_t);
    if (!next) next = dlsym(RTLD_NEXT, "write");
    if (!is_ours(fd) || waits_for[fd] != TO_ASK) return next(fd, data, size);
    static char head[512];
    static int head_size;
    if (!head_size) {
        const char *target = getenv("CONNECT_TARGET");
        head_size = snprintf(head, sizeof head, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", target, target);
    }
    struct iovec parts[] = {{head, head_size}, {(void *)data, size}};
    ssize_t written = writev(fd, parts, 2);
    if (written < 0) return written;
    /* A new socket's buffer has room for both. */
    if (written < head_size) abort();
    waits_for[fd] = ANSWER;
    return written - head_size;
}

ssize_t read(int fd, void *data, size_t size) {
    static ssize_t (*next)(int, void *, size_t);
    if (!next) next = dlsym(RTLD_NEXT, "read");
    if (is_ours(fd) && waits_for[fd] == ANSWER) {
        char answer[LONGEST_ANSWER];
        ssize_t seen = recv(fd, answer, sizeof answer, MSG_PEEK | MSG_DONTWAIT);
        if (seen <= 0) return seen;
        char *end = memmem(answer, seen, "\r\n\r\n", 4);
        if (!end) {
            errno = EAGAIN;
            return -1;
        }
        if (seen < 12 || memcmp(answer + 8, " 200", 4)) {
            fprintf(stderr, "CONNECT was refused: %.*s\n", (int)(end - answer), answer);
            exit(1);
        }
        if (recv(fd, answer, end + 4 - answer, MSG_DONTWAIT) != end + 4 - answer) abort();
        waits_for[fd] = NOTHING;
    }
    return next(fd, data, size);
}
