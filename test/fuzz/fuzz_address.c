/*-------------------------------------------------------------------------
 *
 * fuzz_address.c
 *	  Addresses that requests must not go to (address.c), compared with a list of
 *	  networks.
 *
 *-------------------------------------------------------------------------
 */
#include "fuzz.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include "http/address.h"

typedef enum Kind
{
	ORDINARY,
	LOOPBACK,
	FORBIDDEN,
	EMBEDS /* an IPv4 address in its last four bytes */
} Kind;

/* The first that matches decides. */
static const struct
{
	const char *network;
	int         bits;
	Kind        kind;
} networks[] =
	{
		{"::ffff:0.0.0.0", 96, EMBEDS},
		{"64:ff9b::", 96, EMBEDS},
		{"::1", 128, LOOPBACK},
		{"::", 96, EMBEDS},
		{"fe80::", 10, FORBIDDEN},
		{"fd00:ec2::", 32, FORBIDDEN},
		{"::", 0, ORDINARY},
},
  networks4[] = {
	  {"0.0.0.0", 8, FORBIDDEN},
	  {"169.254.0.0", 16, FORBIDDEN},
	  {"127.0.0.0", 8, LOOPBACK},
	  {"0.0.0.0", 0, ORDINARY},
};

static bool
is_within(const uint8 *address, int family, const char *network, int bits)
{
	uint8 bytes[16];

	FUZZ_CHECK(inet_pton(family, network, bytes) == 1);
	for (int i = 0; i < bits; i++)
		if ((address[i / 8] ^ bytes[i / 8]) & (0x80 >> i % 8))
			return false;
	return true;
}

static Kind
kind_of(const uint8 *address, int family)
{
	if (family == AF_INET6)
		for (size_t i = 0; i < lengthof(networks); i++)
			if (is_within(address, family, networks[i].network, networks[i].bits))
				return networks[i].kind == EMBEDS ? kind_of(address + 12, AF_INET)
												  : networks[i].kind;
	for (size_t i = 0; i < lengthof(networks4); i++)
		if (is_within(address, AF_INET, networks4[i].network, networks4[i].bits))
			return networks4[i].kind;
	return FORBIDDEN;
}

static void
check_named(const char *text, const struct sockaddr *address, bool is_loopback)
{
	static const char *const container[] = {"169.254.170.2", "169.254.170.23", "fd00:ec2::23"};
	static const char *const instance[] = {"169.254.169.254", "fd00:ec2::254"};
	bool                     allowed = is_loopback;

	for (size_t i = 0; i < lengthof(container); i++)
		allowed |= strcmp(text, container[i]) == 0;
	FUZZ_CHECK((address_refused(address, ADDRESS_CONTAINER) == NULL) == allowed);
	allowed = is_loopback;
	for (size_t i = 0; i < lengthof(instance); i++)
		allowed |= strcmp(text, instance[i]) == 0;
	FUZZ_CHECK((address_refused(address, ADDRESS_INSTANCE) == NULL) == allowed);
}

/* Its bytes come one after the other, most significant first, as in memory. */
static void
check_address(int family, const uint8 *bytes)
{
	struct sockaddr_storage storage = {.ss_family = family};
	const struct sockaddr  *address = (struct sockaddr *) &storage;
	size_t                  len = family == AF_INET ? 4 : 16;
	Kind                    kind = kind_of(bytes, family);
	char                    text[ADDRESS_TEXT_LEN];
	uint8                   again[16];

	if (family == AF_INET)
		memcpy(&((struct sockaddr_in *) &storage)->sin_addr, bytes, len);
	else
		memcpy(&((struct sockaddr_in6 *) &storage)->sin6_addr, bytes, len);
	FUZZ_CHECK((address_refused(address, ADDRESS_REMOTE) == NULL) == (kind == ORDINARY));
	FUZZ_CHECK((address_refused(address, ADDRESS_LOCAL) == NULL) == (kind != FORBIDDEN));

	address_text(address, text);
	FUZZ_CHECK(inet_pton(family, text, again) == 1 && memcmp(again, bytes, len) == 0);
	check_named(text, address, strcmp(text, "::1") == 0 || (family == AF_INET && bytes[0] == 127));
}

void
fuzz_one(FuzzInput *input)
{
	static const char *const prefixes[] = {
		"::", "::ffff:0:0", "64:ff9b::", "fe80::", "fd00:ec2::", "2002::", "2600::"};
	uint8 prefix = fuzz_byte(input) % (lengthof(prefixes) + 1);
	uint8 bytes[16];

	if (prefix < lengthof(prefixes))
		FUZZ_CHECK(inet_pton(AF_INET6, prefixes[prefix], bytes) == 1);
	for (size_t i = prefix < lengthof(prefixes) ? 16 - Min(input->left, 16) : 0; i < 16; i++)
		bytes[i] = fuzz_byte(input);
	check_address(AF_INET6, bytes);
	check_address(AF_INET, bytes + 12);
}
