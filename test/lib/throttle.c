/*-------------------------------------------------------------------------
 *
 * throttle.c
 *	  A TCP proxy that makes a server on this machine as slow as one far away.
 *
 * usage: throttle ADDRESS:PORT BYTES-PER-SECOND MILLISECONDS
 *
 * Listens on a free port of 127.0.0.1, which it prints, and ends with its
 * standard input.  Each connection carries at most so many bytes per second
 * towards the server (0: no limit), and an answer of the server is held back
 * so many milliseconds if it is the first since the client last spoke.  So a
 * request costs one delay, whatever its length, and a TLS handshake costs its
 * own; the bytes are not looked at.
 *
 *-------------------------------------------------------------------------
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define PIPE_SIZE (256 * 1024)
/* The kernel must not take a part off the client's hands at once. */
#define RECEIVE_BUFFER (256 * 1024)
/* What a connection may send in one go, in milliseconds of its bandwidth. */
#define BURST_MS 2

typedef struct Link
{
	int client;
	int server;
	int pipe[2];
} Link;

static struct sockaddr_in upstream;
static double             bytes_per_ms;
static double             delay_ms;

static void
fail(const char *what)
{
	fprintf(stderr, "throttle: could not %s: %s\n", what, strerror(errno));
	exit(1);
}

static double
now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1e3 + now.tv_nsec / 1e6;
}

static double
least(double a, double b)
{
	return a < b ? a : b;
}

/* Moves what is there, at most "limit" bytes; returns how many, 0 at the end or on failure. */
static size_t
move(Link *link, int from, int to, size_t limit)
{
	ssize_t in = splice(from, NULL, link->pipe[1], NULL, limit, SPLICE_F_MOVE);

	for (ssize_t left = in; left > 0;)
	{
		ssize_t out = splice(link->pipe[0], NULL, to, NULL, left, SPLICE_F_MOVE);

		if (out <= 0)
			return 0;
		left -= out;
	}
	return in > 0 ? in : 0;
}

/* Waits until a time at the latest; a descriptor of -1 is not waited for. */
static void
wait_for(struct pollfd fds[2], double until)
{
	double          left = until - now_ms();
	struct timespec timeout = {.tv_sec = left / 1e3};

	if (left < 0)
		left = 0;
	timeout.tv_nsec = (left - timeout.tv_sec * 1e3) * 1e6;
	fds[0].revents = fds[1].revents = 0;
	if (ppoll(fds, 2, &timeout, NULL) < 0 && errno != EINTR)
		fail("wait");
}

static void
carry(Link *link)
{
	double        burst = bytes_per_ms * BURST_MS < 65536 ? 65536 : bytes_per_ms * BURST_MS;
	double        allowance = burst;
	double        last = now_ms();
	double        answer_at = 0;
	bool          asked = false; /* the client has spoken since the server did */
	struct pollfd fds[2] = {{.events = POLLIN}, {.events = POLLIN}};

	for (;;)
	{
		double now = now_ms();
		double until = now + 1e6;

		allowance = least(burst, allowance + (now - last) * bytes_per_ms);
		last = now;
		/* Not less than a page, lest the proxy moves single bytes. */
		fds[0].fd = bytes_per_ms == 0 || allowance >= 4096 ? link->client : -1;
		if (fds[0].fd < 0)
			until = now + (4096 - allowance) / bytes_per_ms;
		fds[1].fd = now >= answer_at ? link->server : -1;
		if (fds[1].fd < 0)
			until = least(until, answer_at);
		wait_for(fds, until);

		if (fds[0].revents != 0)
		{
			size_t moved = move(link, link->client, link->server,
								bytes_per_ms == 0 ? PIPE_SIZE : least(allowance, PIPE_SIZE));

			if (moved == 0)
				return;
			allowance -= moved;
			asked = true;
		}
		if (fds[1].revents != 0)
		{
			if (asked && delay_ms > 0)
			{
				answer_at = now_ms() + delay_ms;
				asked = false;
			}
			else if (move(link, link->server, link->client, PIPE_SIZE) == 0)
				return;
		}
	}
}

static void *
serve(void *arg)
{
	Link link = {.client = (int) (intptr_t) arg, .server = socket(AF_INET, SOCK_STREAM, 0)};
	int  on = 1;

	if (link.server < 0 || pipe2(link.pipe, O_CLOEXEC) < 0)
		fail("make a connection");
	fcntl(link.pipe[1], F_SETPIPE_SZ, PIPE_SIZE);
	setsockopt(link.client, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	setsockopt(link.server, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	if (connect(link.server, (struct sockaddr *) &upstream, sizeof(upstream)) == 0)
		carry(&link);
	close(link.client);
	close(link.server);
	close(link.pipe[0]);
	close(link.pipe[1]);
	return NULL;
}

static void *
end_with_input(void *arg)
{
	char byte;

	(void) arg;
	while (read(STDIN_FILENO, &byte, 1) > 0)
		;
	exit(0);
}

static void
start_thread(void *(*function)(void *), void *arg)
{
	pthread_t thread;

	if ((errno = pthread_create(&thread, NULL, function, arg)) != 0)
		fail("start a thread");
	pthread_detach(thread);
}

static int
listen_anywhere(void)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t          len = sizeof(address);
	int                size = RECEIVE_BUFFER;
	int                fd = socket(AF_INET, SOCK_STREAM, 0);

	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size)) < 0 ||
		bind(fd, (struct sockaddr *) &address, sizeof(address)) < 0 || listen(fd, 128) < 0 ||
		getsockname(fd, (struct sockaddr *) &address, &len) < 0)
		fail("listen");
	printf("%d\n", ntohs(address.sin_port));
	fflush(stdout);
	return fd;
}

static bool
parse(char **argv)
{
	char *colon = strchr(argv[1], ':');

	if (colon == NULL)
		return false;
	*colon = '\0';
	upstream.sin_family = AF_INET;
	upstream.sin_port = htons(atoi(colon + 1));
	bytes_per_ms = atof(argv[2]) / 1e3;
	delay_ms = atof(argv[3]);
	return inet_pton(AF_INET, argv[1], &upstream.sin_addr) == 1 && upstream.sin_port != 0 &&
		   bytes_per_ms >= 0 && delay_ms >= 0;
}

int
main(int argc, char **argv)
{
	int listener;

	if (argc != 4 || !parse(argv))
	{
		fprintf(stderr, "usage: throttle ADDRESS:PORT BYTES-PER-SECOND MILLISECONDS\n");
		return 2;
	}
	signal(SIGPIPE, SIG_IGN);
	listener = listen_anywhere();
	start_thread(end_with_input, NULL);
	for (;;)
	{
		int client = accept4(listener, NULL, NULL, SOCK_CLOEXEC);

		if (client >= 0)
			start_thread(serve, (void *) (intptr_t) client);
		else if (errno != EINTR && errno != ECONNABORTED)
			fail("accept");
	}
}
