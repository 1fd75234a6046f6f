/*-------------------------------------------------------------------------
 *
 * socket_set.h
 *	  Sockets that come and go, waited for together with the process latch.
 *
 * A WaitEventSet cannot lose a member, and libcurl's sockets change from
 * moment to moment.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SOCKET_SET_H
#define SOCKET_SET_H

typedef struct SocketSet SocketSet;

typedef struct SocketEvent
{
	int  fd;
	bool readable;
	bool writable;
	bool failed; /* an error, or the peer is gone */
} SocketEvent;

/* In the current memory context; holds descriptors until it is freed. */
extern SocketSet *socket_set_create(void);
extern void       socket_set_free(SocketSet *set);

/*
 * Watches a socket for what is true, or forgets it.  Allocates nothing and
 * raises nothing, so libcurl may call it; false: failed, see errno.
 */
extern bool socket_set_watch(SocketSet *set, int fd, bool readable, bool writable);

/*
 * Waits at most "timeout" ms (-1: for ever) for a socket or the latch, which is
 * reset then.  May return early.  Ends the process if the postmaster died.
 */
extern void socket_set_wait(SocketSet *set, long timeout, uint32 wait_event);

/* Gets the sockets that are ready now, at most n of them; returns how many there are. */
extern int socket_set_ready(SocketSet *set, SocketEvent *events, int n);

#endif /* SOCKET_SET_H */
