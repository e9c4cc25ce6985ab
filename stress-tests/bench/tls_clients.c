/* Clients that open websockets over TLS, many at once, at the least cost that OpenSSL has.
 *
 *     tls_clients HOST PORT COUNT IN_FLIGHT new|resumed < request
 *
 * Writes "opened resumed seconds client_seconds". A client in Python would take more of the machine
 * than the server that is measured. Like browsers they prefer AES-128. The certificate is not
 * checked, but its signature is.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/ssl.h>
#include <openssl/err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define PATIENCE_MS 20000
#define EVENTS 256

struct client {
    int fd;
    SSL *tls;
    int has_asked;
};

static SSL_CTX *context;
static SSL_SESSION *session;
static struct sockaddr_in address;
static char request[16384];
static int request_size, poller, resumes, wanted, started, opened, resumed;

static void fail(const char *what) {
    perror(what);
    ERR_print_errors_fp(stderr);
    exit(1);
}

static double seconds_of(struct timeval t) { return t.tv_sec + t.tv_usec / 1e6; }

static double cpu(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return seconds_of(usage.ru_utime) + seconds_of(usage.ru_stime);
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static int take_session(SSL *tls, SSL_SESSION *given) {
    SSL_SESSION_free(session);
    session = given;
    return 1;
}

static void begin(void) {
    struct client *client = calloc(1, sizeof *client);
    int on = 1;
    started++;
    client->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    setsockopt(client->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (client->fd < 0 ||
        (connect(client->fd, (struct sockaddr *)&address, sizeof address) && errno != EINPROGRESS))
        fail("connect");
    client->tls = SSL_new(context);
    SSL_set_fd(client->tls, client->fd);
    SSL_set_connect_state(client->tls);
    if (resumes && session) {
        /* A copy: OpenSSL strikes out a session whose connection got another ticket. */
        SSL_SESSION *copy = SSL_SESSION_dup(session);
        SSL_set_session(client->tls, copy);
        SSL_SESSION_free(copy);
    }
    struct epoll_event event = {EPOLLIN | EPOLLOUT | EPOLLET, {.ptr = client}};
    epoll_ctl(poller, EPOLL_CTL_ADD, client->fd, &event);
}

static void end(struct client *client) {
    struct linger reset = {1, 0}; /* leaves no port in TIME_WAIT */
    opened++;
    resumed += SSL_session_reused(client->tls);
    SSL_set_shutdown(client->tls, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
    SSL_free(client->tls);
    setsockopt(client->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    close(client->fd);
    free(client);
}

static int must_wait(struct client *client, int result) {
    int error = SSL_get_error(client->tls, result);
    int is_unconnected = error == SSL_ERROR_SYSCALL && errno == ENOTCONN;
    if (error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE && !is_unconnected)
        fail("a client was not served");
    ERR_clear_error();
    return 1;
}

static void go_on(struct client *client) {
    char answer[4096];
    int result;
    if (!client->has_asked) {
        if ((result = SSL_connect(client->tls)) != 1 && must_wait(client, result)) return;
        if ((result = SSL_write(client->tls, request, request_size)) <= 0)
            fail("a request was not taken");
        client->has_asked = 1;
    }
    if ((result = SSL_read(client->tls, answer, sizeof answer)) <= 0 && must_wait(client, result))
        return;
    if (result < 12 || memcmp(answer, "HTTP/1.1 101", 12)) fail("a handshake was refused");
    end(client);
}

static void run(int count, int in_flight) {
    struct epoll_event events[EVENTS];
    wanted = count;
    started = opened = resumed = 0;
    while (opened < wanted) {
        while (started < wanted && started - opened < in_flight) begin();
        int ready = epoll_wait(poller, events, EVENTS, PATIENCE_MS);
        if (ready == 0) fail("nothing came");
        for (int i = 0; i < ready; i++) go_on(events[i].data.ptr);
    }
}

int main(int count, char **arguments) {
    if (count != 6) return 2;
    address.sin_family = AF_INET;
    inet_pton(AF_INET, arguments[1], &address.sin_addr);
    address.sin_port = htons(atoi(arguments[2]));
    request_size = fread(request, 1, sizeof request, stdin);
    poller = epoll_create1(0);
    context = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_ciphersuites(context, "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384");
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(context, take_session);
    run(20, 1);
    resumes = !strcmp(arguments[5], "resumed");
    double began = now(), used = cpu();
    run(atoi(arguments[3]), atoi(arguments[4]));
    printf("%d %d %.6f %.6f\n", opened, resumed, now() - began, cpu() - used);
    return 0;
}
