/*
 * A load generator whose percentiles can be trusted at a rate below saturation. wrk has no rate, and h2load counts from when a
 * request was sent. Here requests fall due at random times (exponential gaps, the same for the same seed),
 * whether or not earlier ones are answered, and a latency counts from when a request was due. generators.py compiles it.
 *
 *     paced PORT REQUEST_FILE CONNECTIONS RATE SECONDS
 *
 * PORT on 127.0.0.1; RATE: requests a second, 0: each connection sends as soon as it is answered. Prints one JSON object; times in
 * microseconds. `late`: how long after a request was due the generator itself woke up, 99th percentile. HTTP/1.1 with Content-Length or
 * chunks; any status but 200 is an error.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <math.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { ANSWER = 64 << 10 };

struct connection {
    int fd;
    double due;
    size_t filled;
    char answer[ANSWER];
};

struct times {
    double *at;
    size_t count, room;
};

static char request[1 << 20];
static size_t request_size;
static struct times latencies, lateness, waiting;
static size_t first_waiting, errors, outstanding;

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1e6 + time.tv_nsec / 1e3;
}

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static void keep(struct times *times, double value) {
    if (times->count == times->room) {
        times->room = times->room ? 2 * times->room : 1 << 16;
        times->at = realloc(times->at, times->room * sizeof *times->at);
        if (!times->at) fail("realloc");
    }
    times->at[times->count++] = value;
}

static int ascending(const void *left, const void *right) {
    double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

static double percentile(struct times *times, double share) {
    if (!times->count) return NAN;
    size_t place = ceil(share * times->count);
    return times->at[place ? place - 1 : 0];
}

/* How long the gap to the next request is; xorshift64*, so that every run has the same gaps. */
static double gap(double rate) {
    static uint64_t state = 88172645463325252ULL;
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    double uniform = ((state * 2685821657736338717ULL >> 11) + 1) / 9007199254740993.0;
    return -log(uniform) / rate * 1e6;
}

static void open_connection(struct connection *it, int port) {
    it->fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (it->fd < 0 || connect(it->fd, (struct sockaddr *)&address, sizeof address)) fail("connect");
    int one = 1;
    setsockopt(it->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
}

static void ask(struct connection *it, double due) {
    it->due = due;
    it->filled = 0;
    outstanding++;
    if (send(it->fd, request, request_size, MSG_NOSIGNAL) != (ssize_t)request_size) fail("send");
}

/* Is the whole answer there? */
static int complete(struct connection *it) {
    char *end = memmem(it->answer, it->filled, "\r\n\r\n", 4);
    if (!end) return 0;
    end += 4;
    for (char *line = it->answer; line < end; line = (char *)memchr(line, '\n', end - line) + 1) {
        if (!strncasecmp(line, "content-length:", 15)) return it->filled >= end - it->answer + strtoul(line + 15, NULL, 10);
        if (!strncasecmp(line, "transfer-encoding:", 18)) return it->filled >= 5 && !memcmp(it->answer + it->filled - 5, "0\r\n\r\n", 5);
    }
    return 1;
}

/* Takes what came; returns whether the connection is free again. */
static int answered(struct connection *it) {
    ssize_t got = recv(it->fd, it->answer + it->filled, ANSWER - 1 - it->filled, MSG_DONTWAIT);
    if (got < 0 && errno == EAGAIN) return 0;
    if (got <= 0) {
        fprintf(stderr, "the connection ended\n");
        exit(1);
    }
    it->filled += got;
    it->answer[it->filled] = 0;
    if (!complete(it)) return 0;
    outstanding--;
    if (memcmp(it->answer + 8, " 200", 4)) errors++;
    keep(&latencies, now() - it->due);
    return 1;
}

int main(int count, char **arguments) {
    if (count != 6) {
        fprintf(stderr, "paced PORT REQUEST_FILE CONNECTIONS RATE SECONDS\n");
        return 64;
    }
    int port = atoi(arguments[1]), connections = atoi(arguments[3]);
    double rate = atof(arguments[4]), seconds = atof(arguments[5]);
    FILE *file = fopen(arguments[2], "rb");
    if (!file || !(request_size = fread(request, 1, sizeof request, file))) fail(arguments[2]);
    /* By default timers are up to 50 us late. */
    prctl(PR_SET_TIMERSLACK, 1);

    struct connection *all = calloc(connections, sizeof *all);
    int *free_ones = calloc(connections, sizeof *free_ones), free_count = 0;
    int poll = epoll_create1(0);
    if (!all || !free_ones || poll < 0) fail("start");
    for (int i = 0; i < connections; i++) {
        open_connection(&all[i], port);
        struct epoll_event event = {.events = EPOLLIN, .data.u32 = i};
        if (epoll_ctl(poll, EPOLL_CTL_ADD, all[i].fd, &event)) fail("epoll_ctl");
        free_ones[free_count++] = i;
    }

    double began = now(), end = began + seconds * 1e6, due = rate > 0 ? began + gap(rate) : INFINITY, last = end + 5e6;
    if (rate <= 0)
        while (free_count) ask(&all[free_ones[--free_count]], now());
    for (;;) {
        double time = now();
        for (; due <= time && due < end; due += gap(rate)) {
            keep(&lateness, time - due);
            if (free_count) ask(&all[free_ones[--free_count]], due);
            else keep(&waiting, due);
        }
        /* What was due before the end is waited for. */
        if (time >= end && ((!outstanding && first_waiting == waiting.count) || time > last)) break;
        double until = due < end ? due : time < end ? end : last, left = until > time ? until - time : 0;
        struct timespec patience = {.tv_sec = left / 1e6, .tv_nsec = fmod(left, 1e6) * 1e3};
        struct epoll_event events[64];
        int ready = epoll_pwait2(poll, events, 64, &patience, NULL);
        if (ready < 0 && errno != EINTR) fail("epoll_pwait2");
        for (int i = 0; i < ready; i++) {
            struct connection *it = &all[events[i].data.u32];
            if (!answered(it)) continue;
            if (rate <= 0 && now() < end) ask(it, now());
            else if (first_waiting < waiting.count) ask(it, waiting.at[first_waiting++]);
            else free_ones[free_count++] = events[i].data.u32;
        }
    }
    double took = (now() - began) / 1e6;
    qsort(latencies.at, latencies.count, sizeof *latencies.at, ascending);
    qsort(lateness.at, lateness.count, sizeof *lateness.at, ascending);
    printf("{\"requests\": %zu, \"seconds\": %.6f, \"errors\": %zu, \"unanswered\": %zu, \"p50\": %.2f, \"p90\": %.2f, \"p99\": %.2f, \"late\": %.2f}\n",
           latencies.count, took, errors, outstanding + waiting.count - first_waiting, percentile(&latencies, 0.5), percentile(&latencies, 0.9),
           percentile(&latencies, 0.99), lateness.count ? percentile(&lateness, 0.99) : 0.0);
    return 0;
}
