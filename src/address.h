/*-------------------------------------------------------------------------
 *
 * address.h
 *	  Network addresses that requests must not go to.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ADDRESS_H
#define ADDRESS_H

#include <sys/socket.h>

/*
 * NULL if a socket may be opened to "address", else what kind of address it
 * is ("a loopback address").  Loopback is all that "local_allowed" permits:
 * link-local addresses and AWS's fd00:ec2::/32 hand out the credentials of the
 * machine to whoever asks, whatever name led there.
 */
extern const char *address_refused(const struct sockaddr *address, bool local_allowed);

/* ADDRESS_TEXT_LEN bytes hold any address. */
#define ADDRESS_TEXT_LEN 64
extern void address_text(const struct sockaddr *address, char *buf);

#endif /* ADDRESS_H */
