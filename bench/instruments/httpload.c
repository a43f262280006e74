/* httpload: an open-loop HTTP/1.1 load, and a backend that takes its time. One thread, epoll, loopback.
 *
 *   httpload --port P --rate R --duration S --head FILE [--conns N] [--deadline-ms D] [--total N] [--warm N]
 *   httpload --serve P --delay-ms D
 *
 * Requests are due evenly, whatever became of those before. A due request takes a connection that is idle, or a new one, up to
 * --conns; where there is none it has failed ("starved"). One that is not answered within the deadline has failed, and its connection
 * is closed, as an impatient client does. --warm opens so many connections first, with a request on each that does not count. Times are counted from when each request was due. Prints one JSON object. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MOST 20000
#define NS 1000000000ull
typedef uint64_t u64;
typedef struct { int fd, busy, used, status; long want; size_t have; u64 due; char buf[8192]; } conn;

static conn *C;
static int ep, idle_top, *idle, nfree, *freed, port, nconns = 1000;
static char head[16384];
static size_t head_len;
static u64 sent, ok, late, refused, other, failed, starved, expired_n;
static uint32_t *took; static size_t ntook, cap;
static u64 deadline = NS;
static int warm;

static u64 now_ns(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return (u64)t.tv_sec * NS + (u64)t.tv_nsec; }
static void die(const char *why) { fprintf(stderr, "httpload: %s: %s\n", why, strerror(errno)); exit(2); }
static int compare(const void *a, const void *b) { uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b; return x < y ? -1 : x > y; }

static void drop(int k) {
    conn *c = &C[k];
    close(c->fd); c->fd = -1; c->busy = 0;
    for (int i = 0; i < idle_top; i++) if (idle[i] == k) { idle[i] = idle[--idle_top]; break; }
    freed[nfree++] = k;
}
static void give_up(int k, u64 *counter) { if (C[k].busy) (*counter)++; drop(k); }

static int open_conn(void) {
    if (!nfree) return -1;
    int k = freed[--nfree]; conn *c = &C[k];
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0) { freed[nfree++] = k; return -1; }
    int one = 1; setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    if (connect(c->fd, (struct sockaddr *)&a, sizeof a) && errno != EINPROGRESS) { drop(k); return -1; }
    c->used = 0; c->have = 0; c->busy = 0;
    struct epoll_event e = { .events = EPOLLIN | EPOLLOUT | EPOLLET, .data.u32 = (uint32_t)k };
    if (epoll_ctl(ep, EPOLL_CTL_ADD, c->fd, &e)) die("epoll_ctl");
    return k;
}
static void send_on(int k) {
    ssize_t n = send(C[k].fd, head, head_len, MSG_NOSIGNAL);
    if (n == (ssize_t)head_len) { C[k].used = 1; return; }
    if (n < 0 && (errno == EAGAIN || errno == ENOTCONN || errno == EINPROGRESS) && !C[k].used) return; /* when it is connected */
    give_up(k, &failed);
}
static void answered(int k, u64 t, int keep) {
    conn *c = &C[k]; u64 spent = t - c->due; c->busy = 0; c->have = 0;
    if (c->status >= 200 && c->status < 300) {
        if (spent <= deadline) ok++; else late++;
        if (ntook == cap) { cap = cap ? cap * 2 : 65536; took = realloc(took, cap * sizeof *took); if (!took) die("memory"); }
        took[ntook++] = (uint32_t)(spent / 1000);
    } else if (c->status == 503 || c->status == 429) refused++;
    else other++;
    if (keep) idle[idle_top++] = k; else drop(k);
}
static void readable(int k) {
    conn *c = &C[k];
    for (;;) {
        ssize_t n = recv(c->fd, c->buf + c->have, sizeof c->buf - 1 - c->have, 0);
        if (n < 0 && errno == EAGAIN) return;
        if (n <= 0) { give_up(k, &failed); return; }
        c->have += (size_t)n; c->buf[c->have] = 0;
        char *end = strstr(c->buf, "\r\n\r\n");
        if (!end) { if (c->have + 1 >= sizeof c->buf) { give_up(k, &failed); return; } continue; }
        char *length = strcasestr(c->buf, "content-length:");
        long body = length && length < end ? atol(length + 15) : 0;
        if ((long)(c->have - (size_t)(end + 4 - c->buf)) < body) continue;
        c->status = atoi(c->buf + 9);
        char *closes = strcasestr(c->buf, "connection: close");
        if (!c->busy) { drop(k); return; }
        answered(k, now_ns(), !(closes && closes < end));
        return;
    }
}
static u64 percentile(double p) { return ntook ? took[(size_t)((double)(ntook - 1) * p)] : 0; }

static int load(double rate, double seconds, u64 total) {
    C = calloc((size_t)nconns, sizeof *C); idle = calloc((size_t)nconns, sizeof *idle); freed = calloc((size_t)nconns, sizeof *freed);
    for (int k = nconns; k--;) { C[k].fd = -1; freed[nfree++] = k; }
    struct epoll_event events[256];
    for (int k; nconns - nfree < warm && (k = open_conn()) >= 0;) { C[k].busy = 1; C[k].due = now_ns(); send_on(k); }
    for (u64 until = now_ns() + 5 * NS; idle_top < warm && now_ns() < until;) {
        int n = epoll_wait(ep, events, 256, 50);
        for (int i = 0; i < n; i++) {
            int k = (int)events[i].data.u32;
            if (C[k].fd >= 0 && events[i].events & EPOLLOUT && C[k].busy && !C[k].used) send_on(k);
            if (C[k].fd >= 0 && events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) readable(k);
        }
    }
    ok = late = refused = other = failed = 0; ntook = 0;
    u64 start = now_ns(), interval = (u64)(NS / rate), end = start + (u64)(seconds * NS), scanned = start, due = 0;
    for (;;) {
        u64 t = now_ns();
        for (int burst = 0; burst < 256 && start + due * interval <= t && start + due * interval < end && (!total || due < total); burst++, due++) {
            int k = -1; sent++;
            if (idle_top) k = idle[--idle_top]; else k = open_conn();
            if (k < 0) { starved++; continue; }
            C[k].busy = 1; C[k].due = start + due * interval; send_on(k);
            t = now_ns();
        }
        if (t > scanned + NS / 100) {
            scanned = t;
            for (int k = 0; k < nconns; k++) if (C[k].fd >= 0 && C[k].busy && t - C[k].due > deadline) { expired_n++; drop(k); }
        }
        int more = start + due * interval < end && (!total || due < total);
        if (!more && (t > end + deadline || ok + late + refused + other + failed + starved + expired_n >= sent)) break;
        u64 next = more ? start + due * interval : t + NS / 200;
        int wait = next > t ? (int)((next - t) / 1000000) : 0;
        int n = epoll_wait(ep, events, 256, wait > 5 ? 5 : wait);
        for (int i = 0; i < n; i++) {
            int k = (int)events[i].data.u32;
            if (C[k].fd < 0) continue;
            if (events[i].events & EPOLLOUT && C[k].busy && !C[k].used) send_on(k);
            if (C[k].fd >= 0 && events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) readable(k);
        }
    }
    double lasted = (double)(end - start) / NS;
    if (total) lasted = (double)(now_ns() - start) / NS;
    qsort(took, ntook, sizeof *took, compare);
    printf("{\"sent\":%lu,\"seconds\":%.3f,\"ok\":%lu,\"ok_per_s\":%.1f,\"late\":%lu,\"refused\":%lu,\"other\":%lu,\"failed\":%lu,"
           "\"starved\":%lu,\"expired\":%lu,\"p50_us\":%lu,\"p99_us\":%lu,\"max_us\":%lu}\n",
           sent, lasted, ok, (double)ok / lasted, late, refused, other, failed, starved, expired_n, percentile(.5), percentile(.99), percentile(1));
    return 0;
}

/* The backend: each request is answered so long after it came, all alike, so they wait in one queue. */
static void __attribute__((noreturn)) serve(int at, double delay_ms) {
    static const char answer[] = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 15\r\n\r\n{\"answer\":true}";
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), one = 1;
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons((uint16_t)at), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&a, sizeof a) || listen(listener, 4096)) die("listen");
    struct epoll_event e = { .events = EPOLLIN, .data.fd = listener }, events[256];
    epoll_ctl(ep, EPOLL_CTL_ADD, listener, &e);
    static struct { u64 at; int fd; uint32_t life; } queue[65536];
    static uint32_t life[65536]; static char tail[65536][4];
    uint16_t from = 0, to = 0;
    for (;;) {
        u64 t = now_ns(); int wait = 1000;
        while (from != to && queue[from].at <= t) {
            if (life[queue[from].fd] == queue[from].life && send(queue[from].fd, answer, sizeof answer - 1, MSG_NOSIGNAL) < 0) { /* gone */ }
            from++;
        }
        if (from != to) wait = (int)((queue[from].at - t) / 1000000);
        int n = epoll_wait(ep, events, 256, wait);
        t = now_ns();
        for (int i = 0; i < n; i++) {
            int fd = events[i].data.fd;
            if (fd == listener) {
                while ((fd = accept4(listener, 0, 0, SOCK_NONBLOCK)) >= 0) {
                    if (fd >= 65536) { close(fd); continue; }
                    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one); life[fd]++; memset(tail[fd], 0, 4);
                    struct epoll_event m = { .events = EPOLLIN, .data.fd = fd }; epoll_ctl(ep, EPOLL_CTL_ADD, fd, &m);
                }
                continue;
            }
            char buf[16384]; ssize_t got = recv(fd, buf, sizeof buf, 0);
            if (got <= 0) { if (got < 0 && errno == EAGAIN) continue; life[fd]++; close(fd); continue; }
            for (ssize_t j = 0; j < got; j++) { /* requests without a body: each blank line ends one */
                memmove(tail[fd], tail[fd] + 1, 3); tail[fd][3] = buf[j];
                if (!memcmp(tail[fd], "\r\n\r\n", 4)) { queue[to].at = t + (u64)(delay_ms * 1e6); queue[to].fd = fd; queue[to++].life = life[fd]; }
            }
        }
    }
}

int main(int argc, char **argv) {
    double rate = 100, seconds = 5, delay_ms = 5; int at = 0; const char *file = 0; u64 total = 0;
    for (int i = 1; i + 1 < argc; i += 2) {
        const char *name = argv[i], *value = argv[i + 1];
        if (!strcmp(name, "--port")) port = atoi(value);
        else if (!strcmp(name, "--rate")) rate = atof(value);
        else if (!strcmp(name, "--duration")) seconds = atof(value);
        else if (!strcmp(name, "--conns")) nconns = atoi(value);
        else if (!strcmp(name, "--deadline-ms")) deadline = (u64)(atof(value) * 1e6);
        else if (!strcmp(name, "--head")) file = value;
        else if (!strcmp(name, "--total")) total = (u64)atoll(value);
        else if (!strcmp(name, "--warm")) warm = atoi(value);
        else if (!strcmp(name, "--serve")) at = atoi(value);
        else if (!strcmp(name, "--delay-ms")) delay_ms = atof(value);
        else { fprintf(stderr, "httpload: what is %s?\n", name); return 2; }
    }
    if ((ep = epoll_create1(0)) < 0) die("epoll");
    if (at) serve(at, delay_ms);
    if (!file || rate <= 0 || nconns < 1 || nconns > MOST) { fprintf(stderr, "httpload: --head, --rate, --conns\n"); return 2; }
    FILE *f = fopen(file, "rb"); if (!f) die(file);
    head_len = fread(head, 1, sizeof head, f); fclose(f);
    return load(rate, seconds, total);
}
