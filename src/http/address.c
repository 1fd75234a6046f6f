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

#include "http/address.h"

static const char *
refused_ipv4(uint32 address, AddressPolicy policy)
{
	if (address >> 24 == 0)
		return "an unspecified address";
	if (address >> 16 == 0xA9FE)
		return "a link-local address";
	if (address >> 24 == 127 && policy != ADDRESS_LOCAL)
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

/* An IPv4 address that is embedded in an IPv6 address is judged as itself. */
static const char *
refused_ipv6(const struct in6_addr *address, AddressPolicy policy)
{
	static const uint8 metadata[4] = {0xFD, 0x00, 0x0E, 0xC2};
	const uint8       *bytes = address->s6_addr;

	if (IN6_IS_ADDR_UNSPECIFIED(address))
		return "an unspecified address";
	if (IN6_IS_ADDR_LOOPBACK(address))
		return policy == ADDRESS_LOCAL ? NULL : "a loopback address";
	if (IN6_IS_ADDR_LINKLOCAL(address))
		return "a link-local address";
	if (memcmp(bytes, metadata, sizeof(metadata)) == 0)
		return "an address of AWS's instance metadata";
	if (embeds_ipv4(bytes))
	{
		uint32 ipv4;

		memcpy(&ipv4, bytes + 12, sizeof(ipv4));
		return refused_ipv4(ntohl(ipv4), policy);
	}
	return NULL;
}

static const char *
refused_elsewhere(const struct sockaddr *address, AddressPolicy policy)
{
	switch (address->sa_family)
	{
		case AF_INET:
			return refused_ipv4(ntohl(((const struct sockaddr_in *) address)->sin_addr.s_addr),
								policy);
		case AF_INET6:
			return refused_ipv6(&((const struct sockaddr_in6 *) address)->sin6_addr, policy);
		default:
			return "not an internet address";
	}
}

static bool
is_loopback(const struct sockaddr *address)
{
	if (address->sa_family == AF_INET)
		return ntohl(((const struct sockaddr_in *) address)->sin_addr.s_addr) >> 24 == 127;
	return address->sa_family == AF_INET6 &&
		   IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *) address)->sin6_addr);
}

/* Is it what the text says? */
static bool
is_address(const struct sockaddr *address, const char *text)
{
	struct in_addr  ipv4;
	struct in6_addr ipv6;

	if (address->sa_family == AF_INET)
		return inet_pton(AF_INET, text, &ipv4) == 1 &&
			   ipv4.s_addr == ((const struct sockaddr_in *) address)->sin_addr.s_addr;
	return address->sa_family == AF_INET6 && inet_pton(AF_INET6, text, &ipv6) == 1 &&
		   memcmp(&ipv6, &((const struct sockaddr_in6 *) address)->sin6_addr, sizeof(ipv6)) == 0;
}

/*
 * https://docs.aws.amazon.com/sdkref/latest/guide/feature-container-credentials.html
 * https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/configuring-instance-metadata-service.html
 */
const char *
address_refused(const struct sockaddr *address, AddressPolicy policy)
{
	static const char *const container[] = {"169.254.170.2", "169.254.170.23", "fd00:ec2::23"};
	static const char *const instance[] = {"169.254.169.254", "fd00:ec2::254"};

	switch (policy)
	{
		case ADDRESS_CONTAINER:
			for (size_t i = 0; i < lengthof(container); i++)
				if (is_address(address, container[i]))
					return NULL;
			return is_loopback(address) ? NULL : "not one of a container's credentials";
		case ADDRESS_INSTANCE:
			for (size_t i = 0; i < lengthof(instance); i++)
				if (is_address(address, instance[i]))
					return NULL;
			return is_loopback(address) ? NULL : "not one of EC2's instance metadata";
		default:
			return refused_elsewhere(address, policy);
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
