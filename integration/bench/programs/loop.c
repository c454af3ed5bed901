// A plain loop of fork and exec: the least that keeps workers behind a port. It binds a socket once,
// hands it to workers by the LISTEN_FDS convention, says when all of them have sent READY=1, and
// starts one again whenever one has exited. What shepherd costs is measured against it.
//
//     loop WORKERS PORT PROGRAM [ARGUMENT]...
//
// Each worker leads a session of its own, as shepherd's do: the kernel schedules sessions as groups
// (sched_autogroup_enabled), so that workers of one session would be served differently.

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define WORKERS_MAX 4096
#define FIRST_FD 3 // SD_LISTEN_FDS_START

static pid_t pids[WORKERS_MAX];
static int workers, ready;
static int listener, messages; // Both above FIRST_FD and closed by exec.

static int listen_on(int port) {
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int)) ||
        bind(fd, (struct sockaddr *)&address, sizeof address) || listen(fd, 4096))
        err(1, "cannot listen on port %d", port);
    return fd;
}

// A socket for READY=1 with a name that the kernel chooses; NOTIFY_SOCKET says it to the workers.
static int listen_for_messages(void) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    socklen_t length = offsetof(struct sockaddr_un, sun_path);
    char name[sizeof address.sun_path + 1] = "@";
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, length)) err(1, "cannot bind");
    length = sizeof address;
    if (getsockname(fd, (struct sockaddr *)&address, &length)) err(1, "cannot read a name");
    // The name begins with a zero byte, for which the @ stands.
    memcpy(name + 1, address.sun_path + 1, length - offsetof(struct sockaddr_un, sun_path) - 1);
    setenv("NOTIFY_SOCKET", name, 1);
    return fd;
}

static pid_t start(char **command) {
    pid_t pid = fork();
    if (pid < 0) err(1, "cannot fork");
    if (pid) return pid;
    char own_pid[16];
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    setsid();
    snprintf(own_pid, sizeof own_pid, "%d", getpid());
    setenv("LISTEN_PID", own_pid, 1);
    if (dup2(listener, FIRST_FD) < 0) err(1, "cannot place the socket");
    execv(command[0], command);
    err(1, "cannot run %s", command[0]);
}

// A queue of messages that is full would make workers wait for us, so this is called often.
static void read_messages(void) {
    char message[256];
    ssize_t length;
    while ((length = recv(messages, message, sizeof message - 1, 0)) > 0) {
        message[length] = '\0';
        if (strncmp(message, "READY=1", 7) == 0 && ++ready == workers) {
            printf("%d worker%s ready\n", workers, workers == 1 ? "" : "s");
            fflush(stdout);
        }
    }
}

// Starts a worker again, except when `stopping`. Returns whether there is any.
static int reap(int stopping, char **command) {
    pid_t pid;
    while ((pid = waitpid(-1, NULL, WNOHANG)) > 0)
        for (int n = 0; !stopping && n < workers; n++)
            if (pids[n] == pid) pids[n] = start(command);
    return pid == 0;
}

int main(int count, char **arguments) {
    if (count < 4) errx(2, "usage: loop WORKERS PORT PROGRAM [ARGUMENT]...");
    workers = atoi(arguments[1]);
    if (workers < 1 || workers > WORKERS_MAX) errx(2, "from 1 to %d workers", WORKERS_MAX);
    char **command = arguments + 3;

    // Descriptor 3 is kept free for the workers' socket.
    int placeholder = dup(STDERR_FILENO);
    listener = listen_on(atoi(arguments[2]));
    messages = listen_for_messages();
    setenv("LISTEN_FDS", "1", 1);
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGCHLD);
    sigaddset(&signals, SIGTERM);
    sigprocmask(SIG_BLOCK, &signals, NULL);
    int signal_fd = signalfd(-1, &signals, SFD_CLOEXEC);
    close(placeholder);

    for (int n = 0; n < workers; n++) {
        pids[n] = start(command);
        read_messages();
    }
    struct pollfd watched[] = {{.fd = messages, .events = POLLIN}, {.fd = signal_fd, .events = POLLIN}};
    int stopping = 0;
    do {
        poll(watched, 2, -1);
        read_messages();
        struct signalfd_siginfo info;
        if (!watched[1].revents || read(signal_fd, &info, sizeof info) < 0) continue;
        if (info.ssi_signo == SIGTERM && !stopping) {
            stopping = 1;
            for (int n = 0; n < workers; n++) kill(pids[n], SIGTERM);
        }
    } while (reap(stopping, command));
}
