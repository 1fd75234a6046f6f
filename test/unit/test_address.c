/*-------------------------------------------------------------------------
 *
 * test_address.c
 *	  Network addresses that requests must not go to.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres_fe.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/un.h>

#include "http/address.h"
#include "tap.h"

static void
parse(const char *text, struct sockaddr_storage *address)
{
	memset(address, 0, sizeof(*address));
	address->ss_family = strchr(text, ':') ? AF_INET6 : AF_INET;
	if (inet_pton(address->ss_family, text,
				  address->ss_family == AF_INET6
					  ? (void *) &((struct sockaddr_in6 *) address)->sin6_addr
					  : (void *) &((struct sockaddr_in *) address)->sin_addr) != 1)
		ok(false, "%s is an address", text);
}

static void
test_addresses(void)
{
	static const char *const loopback = "a loopback address";
	static const char *const link_local = "a link-local address";
	static const char *const unspecified = "an unspecified address";
	static const char *const metadata = "an address of AWS's instance metadata";
	static const struct
	{
		const char *address;
		const char *refused;
		const char *refused_locally;
	} cases[] = {
		{"52.216.1.1", NULL, NULL},
		{"10.0.0.1", NULL, NULL},
		{"172.16.0.1", NULL, NULL},
		{"192.168.1.1", NULL, NULL},
		{"126.255.255.255", NULL, NULL},
		{"128.0.0.1", NULL, NULL},
		{"169.253.255.255", NULL, NULL},
		{"169.255.0.0", NULL, NULL},
		{"127.0.0.1", loopback, NULL},
		{"127.255.255.254", loopback, NULL},
		{"169.254.0.1", link_local, link_local},
		{"169.254.169.254", link_local, link_local},
		{"169.254.170.2", link_local, link_local},
		{"0.0.0.0", unspecified, unspecified},
		{"0.1.2.3", unspecified, unspecified},
		{"2600:1f18::1", NULL, NULL},
		{"fd00:ec1::254", NULL, NULL},
		{"fd00:ec3::254", NULL, NULL},
		{"fe00::1", NULL, NULL},
		{"::1", loopback, NULL},
		{"::", unspecified, unspecified},
		{"fe80::1", link_local, link_local},
		{"febf:ffff::1", link_local, link_local},
		{"fd00:ec2::254", metadata, metadata},
		{"fd00:ec2::23", metadata, metadata},
		{"::ffff:52.216.1.1", NULL, NULL},
		{"::ffff:127.0.0.1", loopback, NULL},
		{"::ffff:169.254.169.254", link_local, link_local},
		{"::ffff:0.0.0.0", unspecified, unspecified},
		{"::169.254.169.254", link_local, link_local},
		{"::127.0.0.1", loopback, NULL},
		{"64:ff9b::169.254.169.254", link_local, link_local},
		{"64:ff9b::52.216.1.1", NULL, NULL},
	};

	for (size_t i = 0; i < lengthof(cases); i++)
	{
		struct sockaddr_storage address;

		parse(cases[i].address, &address);
		is(address_refused((struct sockaddr *) &address, ADDRESS_REMOTE), cases[i].refused, "%s",
		   cases[i].address);
		is(address_refused((struct sockaddr *) &address, ADDRESS_LOCAL), cases[i].refused_locally,
		   "%s where loopback is allowed", cases[i].address);
	}
}

static void
test_metadata(void)
{
	static const struct
	{
		const char *address;
		bool        container;
		bool        instance;
	} cases[] = {
		{"169.254.170.2", true, false},
		{"169.254.170.23", true, false},
		{"fd00:ec2::23", true, false},
		{"169.254.169.254", false, true},
		{"fd00:ec2::254", false, true},
		{"127.0.0.1", true, true},
		{"127.3.2.1", true, true},
		{"::1", true, true},
		{"169.254.170.3", false, false},
		{"169.254.1.1", false, false},
		{"fd00:ec2::1", false, false},
		{"fe80::1", false, false},
		{"::ffff:169.254.169.254", false, false},
		{"::ffff:169.254.170.2", false, false},
		{"10.0.0.1", false, false},
		{"52.216.1.1", false, false},
		{"2600:1f18::1", false, false},
		{"0.0.0.0", false, false},
		{"::", false, false},
	};

	for (size_t i = 0; i < lengthof(cases); i++)
	{
		struct sockaddr_storage address;

		parse(cases[i].address, &address);
		is(address_refused((struct sockaddr *) &address, ADDRESS_CONTAINER),
		   cases[i].container ? NULL : "not one of a container's credentials",
		   "%s for the credentials of a container", cases[i].address);
		is(address_refused((struct sockaddr *) &address, ADDRESS_INSTANCE),
		   cases[i].instance ? NULL : "not one of EC2's instance metadata",
		   "%s for the metadata of an instance", cases[i].address);
	}
}

static void
test_text(void)
{
	struct sockaddr_storage address;
	struct sockaddr_un      other = {.sun_family = AF_UNIX};
	char                    buf[ADDRESS_TEXT_LEN];

	parse("169.254.169.254", &address);
	address_text((struct sockaddr *) &address, buf);
	is(buf, "169.254.169.254", "an IPv4 address as text");
	parse("FD00:EC2::254", &address);
	address_text((struct sockaddr *) &address, buf);
	is(buf, "fd00:ec2::254", "an IPv6 address as text");

	is(address_refused((struct sockaddr *) &other, ADDRESS_LOCAL), "not an internet address",
	   "a Unix socket is refused");
	is(address_refused((struct sockaddr *) &other, ADDRESS_INSTANCE),
	   "not one of EC2's instance metadata", "a Unix socket has no metadata");
	address_text((struct sockaddr *) &other, buf);
	is(buf, "of another family", "a Unix socket has no text");
}

int
main(void)
{
	test_addresses();
	test_metadata();
	test_text();
	return done_testing();
}
