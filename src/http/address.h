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
 * Link-local addresses and AWS's fd00:ec2::/32 hand out the credentials of the
 * machine to whoever asks, whatever name led there.  Only who asks for these
 * credentials may go there, and then nowhere else.
 */
typedef enum AddressPolicy
{
	ADDRESS_REMOTE,    /* neither this machine nor those */
	ADDRESS_LOCAL,     /* loopback, too */
	ADDRESS_CONTAINER, /* the credentials of ECS and EKS, or loopback */
	ADDRESS_INSTANCE   /* EC2's instance metadata, or loopback */
} AddressPolicy;

/*
 * NULL if a socket may be opened to "address", else what kind of address it
 * is ("a loopback address").
 */
extern const char *address_refused(const struct sockaddr *address, AddressPolicy policy);

/* ADDRESS_TEXT_LEN bytes hold any address. */
#define ADDRESS_TEXT_LEN 64
extern void address_text(const struct sockaddr *address, char *buf);

#endif /* ADDRESS_H */
