/*-------------------------------------------------------------------------
 *
 * socket_set.c
 *	  Sockets that come and go, waited for together with the process latch.
 *
 * On Linux the sockets live in an epoll set, and a WaitEventSet holds that one
 * descriptor beside the latch.  Elsewhere poll() waits in slices, between which
 * the latch is looked at.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <unistd.h>
#ifdef HAVE_SYS_EPOLL_H
#include <sys/epoll.h>
#else
#include <poll.h>
#endif

#include "miscadmin.h"
#include "pgstat.h"
#include "storage/fd.h"
#include "utils/memutils.h"

#include "base/compat.h"
#include "http/socket_set.h"

#ifdef HAVE_SYS_EPOLL_H

#define MAX_EVENTS 64

struct SocketSet
{
	int           epoll;
	WaitEventSet *wait_set;
};

SocketSet *
socket_set_create(void)
{
	SocketSet *set = palloc0(sizeof(SocketSet));
	int        save_errno;

	if (!AcquireExternalFD())
		ereport(ERROR, (errcode_for_file_access(), errmsg("could not create an epoll set: %m")));
	set->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (set->epoll < 0)
	{
		save_errno = errno;
		ReleaseExternalFD();
		errno = save_errno;
		ereport(ERROR, (errcode_for_file_access(), errmsg("could not create an epoll set: %m")));
	}
	PG_TRY();
	{
		set->wait_set = compat_create_wait_event_set(3);
		AddWaitEventToSet(set->wait_set, WL_LATCH_SET, PGINVALID_SOCKET, MyLatch, NULL);
		AddWaitEventToSet(set->wait_set, WL_EXIT_ON_PM_DEATH, PGINVALID_SOCKET, NULL, NULL);
		AddWaitEventToSet(set->wait_set, WL_SOCKET_READABLE, set->epoll, NULL, NULL);
	}
	PG_CATCH();
	{
		socket_set_free(set);
		PG_RE_THROW();
	}
	PG_END_TRY();
	return set;
}

void
socket_set_free(SocketSet *set)
{
	if (set->wait_set != NULL)
		FreeWaitEventSet(set->wait_set);
	close(set->epoll);
	ReleaseExternalFD();
	pfree(set);
}

bool
socket_set_watch(SocketSet *set, int fd, bool readable, bool writable)
{
	struct epoll_event event = {.data.fd = fd};

	if (!readable && !writable)
	{
		/* It may be closed already, which has removed it. */
		(void) epoll_ctl(set->epoll, EPOLL_CTL_DEL, fd, &event);
		return true;
	}
	if (readable)
		event.events |= EPOLLIN;
	if (writable)
		event.events |= EPOLLOUT;
	return epoll_ctl(set->epoll, EPOLL_CTL_MOD, fd, &event) == 0 ||
		   (errno == ENOENT && epoll_ctl(set->epoll, EPOLL_CTL_ADD, fd, &event) == 0);
}

void
socket_set_wait(SocketSet *set, long timeout, uint32 wait_event)
{
	WaitEvent events[2];
	int       n;

	n = WaitEventSetWait(set->wait_set, timeout, events, lengthof(events), wait_event);
	for (int i = 0; i < n; i++)
		if (events[i].events & WL_LATCH_SET)
			ResetLatch(MyLatch);
}

int
socket_set_ready(SocketSet *set, SocketEvent *events, int n)
{
	struct epoll_event ready[MAX_EVENTS];

	n = epoll_wait(set->epoll, ready, Min(n, MAX_EVENTS), 0);
	for (int i = 0; i < n; i++)
	{
		events[i].fd = ready[i].data.fd;
		events[i].readable = (ready[i].events & EPOLLIN) != 0;
		events[i].writable = (ready[i].events & EPOLLOUT) != 0;
		events[i].failed = (ready[i].events & (EPOLLERR | EPOLLHUP)) != 0;
	}
	return Max(n, 0);
}

#else /* !HAVE_SYS_EPOLL_H */

#define MAX_SOCKETS 256
#define POLL_SLICE 50 /* ms */

struct SocketSet
{
	int           n;
	struct pollfd sockets[MAX_SOCKETS];
};

SocketSet *
socket_set_create(void)
{
	return palloc0(sizeof(SocketSet));
}

void
socket_set_free(SocketSet *set)
{
	pfree(set);
}

bool
socket_set_watch(SocketSet *set, int fd, bool readable, bool writable)
{
	int i = 0;

	while (i < set->n && set->sockets[i].fd != fd)
		i++;
	if (!readable && !writable)
	{
		if (i < set->n)
			set->sockets[i] = set->sockets[--set->n];
		return true;
	}
	if (i == MAX_SOCKETS)
	{
		errno = EMFILE;
		return false;
	}
	set->n = Max(set->n, i + 1);
	set->sockets[i].fd = fd;
	set->sockets[i].events = (readable ? POLLIN : 0) | (writable ? POLLOUT : 0);
	return true;
}

void
socket_set_wait(SocketSet *set, long timeout, uint32 wait_event)
{
	int slice = timeout < 0 ? POLL_SLICE : (int) Min(timeout, POLL_SLICE);
	int latch;

	pgstat_report_wait_start(wait_event);
	(void) poll(set->sockets, set->n, slice);
	pgstat_report_wait_end();
	latch = WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, 0, wait_event);
	if (latch & WL_LATCH_SET)
		ResetLatch(MyLatch);
}

int
socket_set_ready(SocketSet *set, SocketEvent *events, int n)
{
	int ready = 0;

	(void) poll(set->sockets, set->n, 0);
	for (int i = 0; i < set->n && ready < n; i++)
	{
		int revents = set->sockets[i].revents;

		if (revents == 0)
			continue;
		events[ready].fd = set->sockets[i].fd;
		events[ready].readable = (revents & POLLIN) != 0;
		events[ready].writable = (revents & POLLOUT) != 0;
		events[ready].failed = (revents & (POLLERR | POLLHUP | POLLNVAL)) != 0;
		ready++;
	}
	return ready;
}

#endif /* HAVE_SYS_EPOLL_H */
