// An HTTP/1.1 worker that can be replaced at any moment without a failed request. It takes the
// sockets it is given (LISTEN_FDS), says when it is ready (NOTIFY_SOCKET), and on SIGTERM stops as
// a lame duck: it accepts no more, answers what it accepted, and says goodbye to kept-alive
// clients in an answer instead of hanging up on them.
//
//     cc -O2 -pthread -o http http.c
//     shepherd run -n 4 -p 8000 -- ./http     four of them, sharing one socket
//     systemd-socket-activate -l 8000 ./http  one, started by the first connection
//     ./http [ADDRESS:PORT]                   one, with a socket of its own (127.0.0.1:8000)
//
// It reads the variables by the rules of sd_listen_fds(3) without libsystemd, and where they break
// one it says so and exits with 2: a server that opened a socket of its own instead would look well
// and get no connections.

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#define FIRST_FD 3                    // SD_LISTEN_FDS_START
#define SOCKETS_MAX 1024              // More than this are refused.
#define HEAD_BYTES_MAX (8 * 1024)     // A longer request head is answered with 400.
#define EXCHANGE_MS_MAX 10000         // To finish a head that was begun, or to take an answer.
#define IDLE_MS_MAX 60000             // How long a connection may be silent.
#define FIRST_REQUEST_MS_MAX 5000     // How long a stopping worker waits for a first request.
#define GOODBYE_MS_MAX 500            // To listen, after our last answer, for a client to close.
#define SLOW_MS_MAX 60000             // The longest that /slow takes.
#define PIDFS_MAGIC 0x50494446        // PID_FS_MAGIC of linux/magic.h, Linux 6.9
#define EXIT_BROKEN_RULE 2

static atomic_bool stopping;
static int stop_signal[2];    // Becomes readable at the first SIGTERM or SIGINT.
static int lame_duck_over[2]; // Its end of file reaches all connections at once.
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t all_gone;
static int connections; // Guarded by `lock`.

static _Noreturn void die(int code, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fputs("http: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    exit(code);
}

// ---- The sockets -------------------------------------------------------------------------------

// A decimal number as the protocol writes it: digits, nothing before or after them.
static bool parse_number(const char *text, uint64_t max, uint64_t *number) {
    *number = 0;
    if (!*text) return false;
    for (; *text; text++) {
        if (*text < '0' || *text > '9') return false;
        unsigned digit = *text - '0';
        if (*number > (max - digit) / 10) return false;
        *number = *number * 10 + digit;
    }
    return true;
}

// The inode number of a pidfd of this process, which no other process ever has; 0 where the kernel
// does not number them (before Linux 6.9).
static uint64_t own_pidfd_id(void) {
    uint64_t id = 0;
    struct statfs filesystem;
    struct stat file;
    int pidfd = syscall(SYS_pidfd_open, getpid(), 0);
    if (pidfd < 0) return 0;
    if (!fstatfs(pidfd, &filesystem) && filesystem.f_type == PIDFS_MAGIC && !fstat(pidfd, &file))
        id = file.st_ino;
    close(pidfd);
    return id;
}

// How many sockets were handed to this process, as descriptors from 3 on; 0 without any.
static int given_sockets(void) {
    const char *pid = getenv("LISTEN_PID"), *count = getenv("LISTEN_FDS");
    const char *names = getenv("LISTEN_FDNAMES"), *pidfd_id = getenv("LISTEN_PIDFDID");
    uint64_t number, own_id = own_pidfd_id();
    if (!pid && !count) return 0;
    if (!pid || !count) die(EXIT_BROKEN_RULE, "LISTEN_PID and LISTEN_FDS must both be set");

    // Both say for whom the sockets are. A pid can be used again; the other number never is.
    if (!parse_number(pid, INT_MAX, &number) || number != (uint64_t)getpid())
        die(EXIT_BROKEN_RULE, "LISTEN_PID is `%s`, but we are %d: a program between us and the "
            "supervisor keeps the sockets; end it with `exec`", pid, getpid());
    if (pidfd_id && own_id && (!parse_number(pidfd_id, UINT64_MAX, &number) || number != own_id))
        die(EXIT_BROKEN_RULE, "LISTEN_PIDFDID is `%s`, but ours is %ju: the sockets are for "
            "another process that had our pid", pidfd_id, (uintmax_t)own_id);

    if (!parse_number(count, SOCKETS_MAX, &number) || number == 0)
        die(EXIT_BROKEN_RULE, "LISTEN_FDS is `%s`, not a number from 1 to %d", count, SOCKETS_MAX);
    int sockets = number;
    if (names) {
        int names_count = 1;
        for (const char *rest = names; (rest = strchr(rest, ':')); rest++) names_count++;
        if (names_count != sockets)
            die(EXIT_BROKEN_RULE, "LISTEN_FDNAMES `%s` has %d name(s) for %d socket(s)", names,
                names_count, sockets);
    }
    for (int fd = FIRST_FD; fd < FIRST_FD + sockets; fd++) {
        int listens = 0;
        if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &(socklen_t){sizeof listens}) ||
            !listens)
            die(EXIT_BROKEN_RULE, "descriptor %d is not a listening socket", fd);
        // They come without it, and are not meant for programs that we may start.
        if (fcntl(fd, F_SETFD, FD_CLOEXEC)) die(1, "descriptor %d: %s", fd, strerror(errno));
    }
    fprintf(stderr, "http: was given %d socket(s), named %s\n", sockets, names ? names : "nothing");
    // Nor are these variables.
    unsetenv("LISTEN_PID");
    unsetenv("LISTEN_FDS");
    unsetenv("LISTEN_FDNAMES");
    unsetenv("LISTEN_PIDFDID");
    return sockets;
}

static int own_socket(const char *text) {
    char host[INET6_ADDRSTRLEN + 2] = "";
    const char *colon = strrchr(text, ':');
    uint64_t port;
    if (!colon || (size_t)(colon - text) >= sizeof host || !parse_number(colon + 1, 65535, &port))
        die(1, "`%s` is not ADDRESS:PORT", text);
    memcpy(host, text, colon - text);
    bool is_ipv6 = host[0] == '[';
    if (is_ipv6) host[strcspn(host, "]")] = '\0';

    struct sockaddr_in ipv4 = {.sin_family = AF_INET, .sin_port = htons(port)};
    struct sockaddr_in6 ipv6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
    if (inet_pton(is_ipv6 ? AF_INET6 : AF_INET, host + is_ipv6,
                  is_ipv6 ? (void *)&ipv6.sin6_addr : (void *)&ipv4.sin_addr) != 1)
        die(1, "`%s` is not ADDRESS:PORT", text);
    struct sockaddr *address = is_ipv6 ? (struct sockaddr *)&ipv6 : (struct sockaddr *)&ipv4;
    int fd = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int)) ||
        bind(fd, address, is_ipv6 ? sizeof ipv6 : sizeof ipv4) || listen(fd, 4096))
        die(1, "cannot listen on `%s`: %s", text, strerror(errno));
    return fd;
}

// Tells the service manager, if there is one. That it does not hear us must not stop us.
static void notify(const char *message) {
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (!path) return;
    size_t length = strlen(path);
    if (length >= sizeof address.sun_path) {
        fprintf(stderr, "http: cannot notify: `%s` is too long\n", path);
        return;
    }
    memcpy(address.sun_path, path, length);
    // A leading @ stands for the zero byte of an abstract address, which ends with its length.
    if (path[0] == '@') address.sun_path[0] = '\0';
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || sendto(fd, message, strlen(message), MSG_NOSIGNAL, (struct sockaddr *)&address,
                         offsetof(struct sockaddr_un, sun_path) + length) < 0)
        fprintf(stderr, "http: cannot notify: %s\n", strerror(errno));
    if (fd >= 0) close(fd);
}

// ---- Time and waiting --------------------------------------------------------------------------

static int64_t now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

// Waits until some of the descriptors can be read or have ended; false when the time is over. A
// negative time has no end. A signal interrupts the wait of whichever thread it hits.
static bool wait_for(struct pollfd *entries, int count, int64_t ms) {
    int64_t give_up = now_ms() + ms;
    for (int found = -1; found < 0;) {
        int64_t left = give_up - now_ms();
        found = poll(entries, count, ms < 0 ? -1 : left < 0 ? 0 : (int)left);
        if (found == 0) return false;
        if (found < 0 && errno != EINTR) die(1, "cannot poll: %s", strerror(errno));
    }
    return true;
}

static bool readable(int fd, int64_t ms) {
    return wait_for(&(struct pollfd){.fd = fd, .events = POLLIN}, 1, ms);
}

// ---- One connection ----------------------------------------------------------------------------

struct connection {
    int fd;
    size_t length; // How much of `received` there is; the rest is of the next request.
    char received[HEAD_BYTES_MAX + 1];
};

struct answer {
    const char *status;
    char body[512];
    bool closes;
};

// Appends what comes next; false at the end of the stream, at an error, and at `give_up`.
static bool read_more(struct connection *connection, int64_t give_up) {
    int64_t left = give_up - now_ms();
    if (!readable(connection->fd, left < 0 ? 0 : left)) return false;
    ssize_t got = recv(connection->fd, connection->received + connection->length,
                       HEAD_BYTES_MAX - connection->length, 0);
    if (got <= 0) return false;
    connection->length += got;
    return true;
}

// Waits for the first byte of a request; false if the connection is to be closed instead. Clients
// do not retry a first request, so a connection that we accepted is not closed before it had its
// chance.
static bool request_begins(int fd, bool is_first) {
    struct pollfd entries[] = {{.fd = fd, .events = POLLIN},
                               {.fd = lame_duck_over[0], .events = POLLIN}};
    if (!wait_for(entries, 2, IDLE_MS_MAX)) return false;
    return entries[0].revents || (is_first && readable(fd, FIRST_REQUEST_MS_MAX));
}

static const char *variable(const char *name, const char *otherwise) {
    const char *value = getenv(name);
    return value ? value : otherwise;
}

// Whether one of the options in a comma-separated list is `close`.
static bool says_close(char *options) {
    char *rest;
    for (char *option = strtok_r(options, ", \t", &rest); option;
         option = strtok_r(NULL, ", \t", &rest))
        if (!strcasecmp(option, "close")) return true;
    return false;
}

// Reads a head, without its empty line, and answers it.
static struct answer answer_to(char *head) {
    const struct answer bad_request = {.status = "400 Bad Request", .closes = true};
    struct answer answer = {.status = "200 OK"};
    char *lines = head, *line = strsep(&lines, "\n");
    char method[16], target[1024], version[16];
    int end = 0;
    line[strcspn(line, "\r")] = '\0';
    if (sscanf(line, "%15[^ ] %1023[^ ] %15[^ ]%n", method, target, version, &end) != 3 ||
        line[end] || (strcmp(version, "HTTP/1.1") && strcmp(version, "HTTP/1.0")))
        return bad_request;
    answer.closes = !strcmp(version, "HTTP/1.0");
    while ((line = strsep(&lines, "\n"))) {
        line[strcspn(line, "\r")] = '\0';
        char *value = strchr(line, ':');
        if (!value) return bad_request;
        *value++ = '\0';
        value += strspn(value, " \t");
        if (!strcasecmp(line, "connection")) answer.closes |= says_close(value);
        // Bodies are not read, so what follows one could not be told from it.
        if (!strcasecmp(line, "content-length")) answer.closes |= strcmp(value, "0") != 0;
        if (!strcasecmp(line, "transfer-encoding")) answer.closes = true;
    }

    char *query = strchr(target, '?');
    if (query) *query++ = '\0';
    bool slow = !strcmp(target, "/slow");
    if (strcmp(method, "GET") || (!slow && strcmp(target, "/"))) {
        answer.status = "404 Not Found";
        return answer;
    }
    if (slow) {
        uint64_t ms;
        if (!query || strncmp(query, "ms=", 3) || !parse_number(query + 3, 999999999, &ms))
            return bad_request;
        if (ms > SLOW_MS_MAX) ms = SLOW_MS_MAX;
        struct timespec left = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
        while (nanosleep(&left, &left) && errno == EINTR) {}
    }
    snprintf(answer.body, sizeof answer.body, "%.200s %d %.100s %.100s\n",
             variable("VERSION", "dev"), getpid(), variable("SHEPHERD_SLOT", "-"),
             variable("SHEPHERD_GENERATION", "-"));
    return answer;
}

// Reads a request and answers it; false if the connection ends with it.
static bool serve_one(struct connection *connection) {
    int64_t give_up = now_ms() + EXCHANGE_MS_MAX;
    struct answer answer = {.status = "400 Bad Request", .closes = true};
    char *end;
    for (;;) {
        end = memmem(connection->received, connection->length, "\r\n\r\n", 4);
        if (end || connection->length == HEAD_BYTES_MAX) break;
        if (!read_more(connection, give_up)) return false;
    }
    if (end) {
        *end = '\0';
        // A zero byte would hide what follows it.
        if (strlen(connection->received) == (size_t)(end - connection->received))
            answer = answer_to(connection->received);
        connection->length -= end + 4 - connection->received;
        memmove(connection->received, end + 4, connection->length);
    }

    char text[1024];
    bool closes = answer.closes || stopping;
    int length = snprintf(text, sizeof text,
                          "HTTP/1.1 %s\r\nContent-Type: text/plain\r\nContent-Length: %zu\r\n"
                          "Connection: %s\r\n\r\n%s",
                          answer.status, strlen(answer.body), closes ? "close" : "keep-alive",
                          answer.body);
    // The write timeout bounds each call; so short a text goes out in one.
    return send(connection->fd, text, length, MSG_NOSIGNAL) == length && !closes;
}

// Answers the requests of one connection, one after the other, and closes it.
static void *serve(void *argument) {
    struct connection *connection = argument;
    bool is_first = true;
    while ((connection->length || request_begins(connection->fd, is_first)) &&
           serve_one(connection))
        is_first = false;
    // Send our end of file first and let the client close: a bare close() with unread bytes would
    // reset the connection, and the client could lose an answer it has not read yet.
    shutdown(connection->fd, SHUT_WR);
    int64_t give_up = now_ms() + GOODBYE_MS_MAX;
    do connection->length = 0;
    while (read_more(connection, give_up));
    close(connection->fd);
    free(connection);

    pthread_mutex_lock(&lock);
    if (--connections == 0) pthread_cond_signal(&all_gone);
    pthread_mutex_unlock(&lock);
    return NULL;
}

// ---- The worker --------------------------------------------------------------------------------

// Takes the next connection, unless another worker was faster.
static void accept_on(int listener) {
    // Being non-blocking is a property of the socket, not of our copy of it, so any worker can
    // change it for all. Hence it is set each time.
    fcntl(listener, F_SETFL, fcntl(listener, F_GETFL) | O_NONBLOCK);
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0) {
        if (errno == EAGAIN || errno == EINTR || errno == ECONNABORTED) return;
        // Out of descriptors, perhaps: the connection stays in the queue, so do not spin.
        fprintf(stderr, "http: cannot accept: %s\n", strerror(errno));
        poll(NULL, 0, 50);
        return;
    }
    struct timeval time_max = {.tv_sec = EXCHANGE_MS_MAX / 1000};
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &time_max, sizeof time_max);

    struct connection *connection = calloc(1, sizeof *connection);
    pthread_t thread;
    int error = connection ? 0 : ENOMEM;
    if (connection) {
        connection->fd = fd;
        pthread_mutex_lock(&lock);
        connections++;
        pthread_mutex_unlock(&lock);
        error = pthread_create(&thread, NULL, serve, connection);
        if (!error) {
            pthread_detach(thread);
            return;
        }
        pthread_mutex_lock(&lock);
        connections--;
        pthread_mutex_unlock(&lock);
    }
    fprintf(stderr, "http: cannot start a thread: %s\n", strerror(error));
    free(connection);
    close(fd);
}

static void on_stop_signal(int signal) {
    (void)signal;
    if (atomic_exchange(&stopping, true)) _exit(1);
    // Not even a full pipe could make this fail: it is the only byte that is ever written.
    if (write(stop_signal[1], "!", 1) != 1) _exit(1);
}

// Waits until no connection is left; false when the time is over. A negative time has no end.
static bool wait_all_gone(int64_t ms) {
    struct timespec give_up;
    clock_gettime(CLOCK_MONOTONIC, &give_up);
    give_up.tv_sec += ms / 1000;
    give_up.tv_nsec += ms % 1000 * 1000000;
    if (give_up.tv_nsec >= 1000000000) {
        give_up.tv_sec++;
        give_up.tv_nsec -= 1000000000;
    }
    pthread_mutex_lock(&lock);
    int outcome = 0;
    while (connections && outcome != ETIMEDOUT)
        outcome = ms < 0 ? pthread_cond_wait(&all_gone, &lock)
                         : pthread_cond_timedwait(&all_gone, &lock, &give_up);
    bool gone = connections == 0;
    pthread_mutex_unlock(&lock);
    return gone;
}

int main(int argc, char **argv) {
    if (pipe2(stop_signal, O_CLOEXEC) || pipe2(lame_duck_over, O_CLOEXEC))
        die(1, "cannot make a pipe: %s", strerror(errno));
    struct sigaction action = {.sa_handler = on_stop_signal, .sa_flags = SA_RESTART};
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&all_gone, &monotonic);

    int first = FIRST_FD, count = given_sockets();
    if (!count) {
        first = own_socket(argc > 1 ? argv[1] : "127.0.0.1:8000");
        count = 1;
    }
    struct pollfd entries[1 + SOCKETS_MAX] = {{.fd = stop_signal[0], .events = POLLIN}};
    for (int n = 0; n < count; n++)
        entries[1 + n] = (struct pollfd){.fd = first + n, .events = POLLIN};
    char message[64];
    snprintf(message, sizeof message, "READY=1\nSTATUS=serving on %d socket(s)", count);
    notify(message);
    while (wait_for(entries, 1 + count, -1) && !entries[0].revents)
        for (int n = 0; n < count; n++)
            if (entries[1 + n].revents) accept_on(entries[1 + n].fd);

    notify("STOPPING=1\nSTATUS=finishing what was accepted");
    // This closes our copies only: other workers go on accepting from the same sockets. A
    // shutdown() would take the sockets from them as well.
    for (int n = 0; n < count; n++) close(entries[1 + n].fd);
    uint64_t lame_duck_ms;
    if (!parse_number(variable("LAME_DUCK_MS", "1000"), INT_MAX, &lame_duck_ms))
        lame_duck_ms = 1000;
    if (!wait_all_gone(lame_duck_ms)) {
        close(lame_duck_over[1]);
        wait_all_gone(-1);
    }
    return 0;
}
