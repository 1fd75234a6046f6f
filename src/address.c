/*-------------------------------------------------------------------------
 *
 * address.c
 *	  Network addresses that requests must not go to.
 *
 * A name that is harmless when an endpoint is checked may resolve to anything
 * later, so the address is judged anew whenever a socket is opened.
 *
 *-------------------------------------------------------------------------
 */
#ifndef FRONTEND
#include "postgres.h"
#else
#include "postgres_fe.h"
#endif

#include <arpa/inet.h>
#include <netinet/in.h>

#include "address.h"

static const char *
refused_ipv4(uint32 address, bool local_allowed)
{
	if (address >> 24 == 0)
		return "an unspecified address";
	if (address >> 16 == 0xA9FE)
		return "a link-local address";
	if (address >> 24 == 127 && !local_allowed)
		return "a loopback address";
	return NULL;
}

/*
 * IPv4 within IPv6: mapped (::ffff:0:0/96) and compatible (::/96), which the
 * kernel takes for the IPv4 address, and NAT64 (64:ff9b::/96), which a gateway
 * does.
 */
static bool
embeds_ipv4(const uint8 *bytes)
{
	static const uint8 mapped[12] = {[10] = 0xFF, [11] = 0xFF};
	static const uint8 compatible[12] = {0};
	static const uint8 nat64[12] = {0x00, 0x64, 0xFF, 0x9B};

	return memcmp(bytes, mapped, 12) == 0 || memcmp(bytes, compatible, 12) == 0 ||
		   memcmp(bytes, nat64, 12) == 0;
}

static const char *
refused_ipv6(const struct in6_addr *address, bool local_allowed)
{
	static const uint8 metadata[4] = {0xFD, 0x00, 0x0E, 0xC2};
	const uint8       *bytes = address->s6_addr;

	if (IN6_IS_ADDR_UNSPECIFIED(address))
		return "an unspecified address";
	if (IN6_IS_ADDR_LOOPBACK(address))
		return local_allowed ? NULL : "a loopback address";
	if (IN6_IS_ADDR_LINKLOCAL(address))
		return "a link-local address";
	if (memcmp(bytes, metadata, sizeof(metadata)) == 0)
		return "an address of AWS's instance metadata";
	if (embeds_ipv4(bytes))
	{
		uint32 ipv4;

		memcpy(&ipv4, bytes + 12, sizeof(ipv4));
		return refused_ipv4(ntohl(ipv4), local_allowed);
	}
	return NULL;
}

const char *
address_refused(const struct sockaddr *address, bool local_allowed)
{
	switch (address->sa_family)
	{
		case AF_INET:
			return refused_ipv4(ntohl(((const struct sockaddr_in *) address)->sin_addr.s_addr),
								local_allowed);
		case AF_INET6:
			return refused_ipv6(&((const struct sockaddr_in6 *) address)->sin6_addr, local_allowed);
		default:
			return "not an internet address";
	}
}

void
address_text(const struct sockaddr *address, char *buf)
{
	const void *ip = address->sa_family == AF_INET6
						 ? (const void *) &((const struct sockaddr_in6 *) address)->sin6_addr
						 : (const void *) &((const struct sockaddr_in *) address)->sin_addr;

	if (inet_ntop(address->sa_family, ip, buf, ADDRESS_TEXT_LEN) == NULL)
		strlcpy(buf, "of another family", ADDRESS_TEXT_LEN);
}
