/* The physical limit: what the kernel alone costs. usage: floor PORT BODY-BYTES

   One process, one epoll. Of a request it looks at nothing but whether its head has ended; the answer is the same
   bytes each time. It has no limits, no deadlines, no files and no log: no server can do less with these calls. */

#define _GNU_SOURCE /* accept4 */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { ROUND = 512, HEAD_MAX = 16384, DESCRIPTORS = 65536 };

static struct {
    size_t left; /* bytes of the answer that the socket had no room for */
    int closes;  /* after it */
} clients[DESCRIPTORS];
static char *answers[2]; /* that keeps the connection, and that closes it */
static size_t lengths[2];
static int poll_set;

static void make_answer(int closes, size_t bytes) {
    char head[256];
    int n = snprintf(head, sizeof head,
                     "HTTP/1.1 200 OK\r\nServer: floor\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n"
                     "Content-Type: text/html\r\nContent-Length: %zu\r\n%s\r\n",
                     bytes, closes ? "Connection: close\r\n" : "");
    lengths[closes] = n + bytes;
    answers[closes] = malloc(lengths[closes]);
    memcpy(answers[closes], head, n);
    memset(answers[closes] + n, 'x', bytes);
}

static void watch(int fd, int how, unsigned events) {
    struct epoll_event event = {.events = events, .data.fd = fd};
    epoll_ctl(poll_set, how, fd, &event);
}

/* Send what is left; whether the client is still there. */
static int send_on(int fd) {
    int closes = clients[fd].closes;
    while (clients[fd].left > 0) {
        ssize_t n = send(fd, answers[closes] + lengths[closes] - clients[fd].left, clients[fd].left,
                         MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n <= 0)
            return 1; /* no room; a client that is gone shows in the next recv */
        clients[fd].left -= n;
    }
    if (closes) {
        close(fd);
        return 0;
    }
    return 1;
}

/* Read one head (they come whole on loopback), answer it; whether the client is still there. */
static int serve(int fd) {
    static char head[HEAD_MAX + 1];
    ssize_t n = recv(fd, head, HEAD_MAX, MSG_DONTWAIT);
    if (n <= 0) {
        if (n < 0)
            return 1; /* nothing yet */
        close(fd);
        return 0;
    }
    head[n] = 0;
    if (n < 4 || memcmp(head + n - 4, "\r\n\r\n", 4) != 0) {
        close(fd);
        return 0;
    }
    clients[fd].closes = strstr(head, "Connection: close") != NULL;
    clients[fd].left = lengths[clients[fd].closes];
    return send_on(fd);
}

int main(int argc, char **argv) {
    if (argc != 3)
        return 2;
    make_answer(0, strtoul(argv[2], NULL, 10));
    make_answer(1, strtoul(argv[2], NULL, 10));
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), on = 1;
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1])), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    setsockopt(listener, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on); /* what is accepted inherits it */
    if (bind(listener, (struct sockaddr *)&here, sizeof here) != 0 || listen(listener, 4096) != 0) {
        perror("floor");
        return 1;
    }
    poll_set = epoll_create1(0);
    watch(listener, EPOLL_CTL_ADD, EPOLLIN);
    for (;;) {
        struct epoll_event events[ROUND];
        int count = epoll_wait(poll_set, events, ROUND, -1);
        for (int i = 0; i < count; i++) {
            int fd = events[i].data.fd;
            if (fd == listener) {
                while ((fd = accept4(listener, NULL, NULL, 0)) >= 0) {
                    if (fd >= DESCRIPTORS) {
                        close(fd);
                        continue;
                    }
                    clients[fd].left = 0;
                    if (serve(fd)) /* it enters the poll set only when it has to wait */
                        watch(fd, EPOLL_CTL_ADD, EPOLLIN | (clients[fd].left ? EPOLLOUT : 0u));
                }
            } else if (events[i].events & EPOLLOUT) {
                if (send_on(fd) && clients[fd].left == 0)
                    watch(fd, EPOLL_CTL_MOD, EPOLLIN);
            } else if (serve(fd) && clients[fd].left > 0) {
                watch(fd, EPOLL_CTL_MOD, EPOLLOUT);
            }
        }
    }
}
