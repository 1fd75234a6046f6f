/*-------------------------------------------------------------------------
 *
 * test_crc32c.c
 *	  CRCs of long data, and of two pieces put together.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres_fe.h"

#include "port/pg_crc32c.h"

#include "base/crc32c.h"
#include "tap.h"

#define SIZE (300 * 1024)

static char data[SIZE];

/* What the server's own code makes of the same bytes. */
static uint32
expected(const char *bytes, size_t len)
{
	pg_crc32c crc;

	INIT_CRC32C(crc);
	COMP_CRC32C(crc, bytes, len);
	FIN_CRC32C(crc);
	return crc;
}

static void
fill(void)
{
	uint64 state = 42;

	for (int i = 0; i < SIZE; i++)
	{
		state = state * UINT64CONST(6364136223846793005) + UINT64CONST(1442695040888963407);
		data[i] = (char) (state >> 56);
	}
}

static void
test_lengths(void)
{
	static const size_t lengths[] = {0,         1,     7,          8,      1000,
									 48 * 1024, 49151, 49153,      65536,  98303,
									 98304,     98305, 200 * 1024, 262144, SIZE - 1};

	ok(crc32c_append(0, "123456789", 9) == 0xE3069283, "the check value of CRC-32C");
	for (size_t i = 0; i < lengthof(lengths); i++)
	{
		size_t len = lengths[i];

		ok(crc32c_append(0, data + 1, len) == expected(data + 1, len), "%zu bytes", len);
	}
}

static void
test_pieces(void)
{
	static const size_t cuts[] = {0, 1, 5, 4096, 50000, 100001, SIZE - 1, SIZE};
	uint32              all = expected(data, SIZE);

	for (size_t i = 0; i < lengthof(cuts); i++)
	{
		size_t cut = cuts[i];
		uint32 first = expected(data, cut);
		uint32 second = expected(data + cut, SIZE - cut);

		ok(crc32c_append(first, data + cut, SIZE - cut) == all, "appended after %zu bytes", cut);
		ok(crc32c_join(first, second, SIZE - cut) == all, "joined after %zu bytes", cut);
	}
}

/* As long as what S3 takes, of which the CRC of zeros can be had without them. */
static void
test_long(void)
{
	static const char zeros[65536];
	uint32            piece = expected(zeros, sizeof(zeros));
	uint32            doubled = piece;
	uint32            one_by_one = 0;
	uint64            len = sizeof(zeros);

	for (int i = 0; i < 16; i++, len *= 2)
		doubled = crc32c_join(doubled, doubled, len);
	for (int i = 0; i < 65536; i++)
		one_by_one = crc32c_join(one_by_one, piece, sizeof(zeros));
	ok(len == UINT64CONST(65536) * 65536 && doubled == one_by_one, "4 GiB, joined in two ways");
}

/* Bit by bit, as RFC 1952 has it. */
static uint32
gzip_crc(const char *bytes, size_t len)
{
	uint32 crc = 0xFFFFFFFF;

	for (size_t i = 0; i < len; i++)
	{
		crc ^= (unsigned char) bytes[i];
		for (int bit = 0; bit < 8; bit++)
			crc = (crc & 1) ? (crc >> 1) ^ 0xEDB88320 : crc >> 1;
	}
	return ~crc;
}

static void
test_gzip(void)
{
	static const size_t cuts[] = {0, 1, 5, 4096, 50000, SIZE - 1, SIZE};
	uint32              all = gzip_crc(data, SIZE);

	ok(gzip_crc("123456789", 9) == 0xCBF43926, "the check value of gzip's CRC");
	for (size_t i = 0; i < lengthof(cuts); i++)
	{
		size_t cut = cuts[i];

		ok(crc32_join(gzip_crc(data, cut), gzip_crc(data + cut, SIZE - cut), SIZE - cut) == all,
		   "gzip's joined after %zu bytes", cut);
	}
}

int
main(void)
{
	fill();
	test_gzip();
	test_lengths();
	test_pieces();
	test_long();
	return done_testing();
}
