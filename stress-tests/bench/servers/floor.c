/* The floor: what one `send` per websocket and message costs at least, with nothing around it.
 *
 * A bare loop: epoll, Redis' messages, one send each. It answers the opening handshake and else
 * never looks at what a client sends. The path of a websocket's URL after the last slash is the
 * facility. Where there is no C compiler, floor_server.py does the same.
 *
 * Usage: floor PORT REDIS_PORT ACCEPT (the clients' key is constant, so is the answer to it)
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

enum { MAX_FDS = 65536, BUCKETS = 65536, BUFFER = 1 << 20 };

struct channel { char *name; int count, room, *members; struct channel *next; };

static struct channel *buckets[BUCKETS], *channel_of[MAX_FDS];
static struct { char *data; size_t size; } unsent[MAX_FDS];
static char input[BUFFER + 1], scratch[65536];
static size_t filled;
static int epoll, redis;
static const char *accept_value;

static int connected(int sock, int port, int (*use)(int, const struct sockaddr *, socklen_t)) {
    struct sockaddr_in address = {AF_INET, htons(port), {htonl(INADDR_LOOPBACK)}, {0}};
    int on = 1;
    setsockopt(sock, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (use(sock, (struct sockaddr *)&address, sizeof address)) perror("floor"), exit(1);
    return sock;
}

static void watch(int operation, int fd, unsigned events) {
    struct epoll_event event = {events, {.fd = fd}};
    epoll_ctl(epoll, operation, fd, &event);
}

static struct channel *find(const char *name, size_t size, int create) {
    unsigned hash = 5381;
    for (size_t i = 0; i < size; i++) hash = hash * 33 ^ (unsigned char)name[i];
    struct channel **place = &buckets[hash % BUCKETS];
    while (*place && (strncmp((*place)->name, name, size) || (*place)->name[size])) place = &(*place)->next;
    if (!*place && create) {
        *place = calloc(1, sizeof **place);
        (*place)->name = strndup(name, size);
        dprintf(redis, "*2\r\n$9\r\nSUBSCRIBE\r\n$%zu\r\n%.*s\r\n", size, (int)size, name);
    }
    return *place;
}

static void leave_over(int fd, const char *data, size_t size) {
    if (!unsent[fd].size) watch(EPOLL_CTL_MOD, fd, EPOLLIN | EPOLLOUT);
    unsent[fd].data = realloc(unsent[fd].data, unsent[fd].size + size);
    memcpy(unsent[fd].data + unsent[fd].size, data, size);
    unsent[fd].size += size;
}

static void fan_out(struct channel *channel, char *message, size_t size) {
    /* The head takes the place of what came before the message, which has been read. */
    int head = size < 126 ? 2 : 4;
    char *frame = message - head;
    frame[0] = '\x81', frame[1] = size < 126 ? size : 126;
    if (head == 4) frame[2] = size >> 8, frame[3] = size;
    for (int i = 0; i < channel->count; i++) {
        int fd = channel->members[i];
        ssize_t sent = unsent[fd].size ? 0 : send(fd, frame, size + head, MSG_NOSIGNAL);
        if (sent < 0) sent = errno == EAGAIN ? 0 : (ssize_t)size + head;
        if (sent < (ssize_t)size + head) leave_over(fd, frame + sent, size + head - sent);
    }
}

/* Return what follows a bulk string at `at`, or NULL as long as it is incomplete. */
static char *bulk(char *at, char **text, size_t *size) {
    char *line = memchr(at, '\n', input + filled - at);
    if (!line) return NULL;
    *text = line + 1, *size = atoi(at + 1);
    return line + 1 + *size + 2 <= input + filled ? line + 1 + *size + 2 : NULL;
}

static void receive_from_redis(void) {
    ssize_t got = recv(redis, input + filled, BUFFER - filled, 0);
    if (got <= 0) fprintf(stderr, "Redis is gone\n"), exit(1);
    input[filled += got] = 0;
    char *at = input, *kind, *name, *last, *end;
    size_t kind_size, name_size, size;
    for (; at + 4 < input + filled; at = end) { /* an array of three: `*3` */
        if (!(end = bulk(at + 4, &kind, &kind_size)) || !(end = bulk(end, &name, &name_size))) break;
        if (*kind == 's') { /* of `subscribe`; a number follows */
            if (!(end = memchr(end, '\n', input + filled - end))) break;
            end++;
        } else {
            if (!(end = bulk(end, &last, &size))) break;
            struct channel *channel = find(name, name_size, 0);
            if (channel) fan_out(channel, last, size);
        }
    }
    memmove(input, at, filled -= at - input);
}

static void forget(int fd) {
    struct channel *channel = channel_of[fd];
    for (int i = 0; channel && i < channel->count; i++)
        if (channel->members[i] == fd) channel->members[i--] = channel->members[--channel->count];
    free(unsent[fd].data), unsent[fd].data = NULL, unsent[fd].size = 0, channel_of[fd] = NULL;
    close(fd);
}

static void receive(int fd) {
    ssize_t got = recv(fd, scratch, sizeof scratch - 1, 0);
    if (got <= 0) {
        if (got == 0 || errno != EAGAIN) forget(fd);
        return;
    }
    scratch[got] = 0;
    if (strncmp(scratch, "GET ", 4)) return;
    size_t path = strcspn(scratch + 4, "? "); /* a request of a local client comes in one piece */
    scratch[4 + path] = 0;
    char name[512];
    int size = snprintf(name, sizeof name, "broadcast:%s", strrchr(scratch + 4, '/') + 1);
    struct channel *channel = channel_of[fd] = find(name, size, 1);
    if (channel->count == channel->room)
        channel->members = realloc(channel->members, (channel->room = channel->room * 2 + 4) * sizeof(int));
    channel->members[channel->count++] = fd;
    dprintf(fd, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Accept: %s\r\n\r\n", accept_value);
}

int main(int argc, char **argv) {
    if (argc != 4) return 2;
    int on = 1, fd, listener = connected(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), atoi(argv[1]), bind);
    accept_value = argv[3];
    redis = connected(socket(AF_INET, SOCK_STREAM, 0), atoi(argv[2]), connect);
    listen(listener, 1024);
    epoll = epoll_create1(0);
    watch(EPOLL_CTL_ADD, listener, EPOLLIN), watch(EPOLL_CTL_ADD, redis, EPOLLIN);
    for (struct epoll_event events[512];;) {
        int count = epoll_wait(epoll, events, 512, -1);
        for (int i = 0; i < count; i++) {
            if ((fd = events[i].data.fd) == redis) receive_from_redis();
            else if (fd == listener) {
                while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
                    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
                    watch(EPOLL_CTL_ADD, fd, EPOLLIN);
                }
            } else if (events[i].events & EPOLLOUT) {
                ssize_t sent = send(fd, unsent[fd].data, unsent[fd].size, MSG_NOSIGNAL);
                if (sent < 0) { if (errno != EAGAIN) forget(fd); continue; }
                memmove(unsent[fd].data, unsent[fd].data + sent, unsent[fd].size -= sent);
                if (!unsent[fd].size) watch(EPOLL_CTL_MOD, fd, EPOLLIN);
            } else receive(fd);
        }
    }
}
