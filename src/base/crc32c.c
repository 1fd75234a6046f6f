/*-------------------------------------------------------------------------
 *
 * crc32c.c
 *	  CRCs of long data, and of two pieces put together.
 *
 * A CRC is the remainder of a polynomial over GF(2).  To put bytes after some
 * others multiplies these by a power of x, so the remainder of both together is
 * that of the first times the power, plus that of the second.  What a CRC
 * begins and ends with, all bits set, cancels out.
 *
 * The instruction of x86-64 takes eight bytes a cycle and has its result two
 * cycles later.  So three stretches side by side take a third of the time of
 * one, and are put together after.
 *
 *-------------------------------------------------------------------------
 */
#ifndef FRONTEND
#include "postgres.h"
#else
#include "postgres_fe.h"
#endif

#include "port/pg_crc32c.h"

#include "base/crc32c.h"

/* Polynomials without x^32.  The highest bit is the coefficient of 1. */
#define CASTAGNOLI 0x82F63B78
#define GZIP 0xEDB88320
#define X_TO_8 0x00800000

static inline uint32
multiply_polynomials(uint32 a, uint32 b, uint32 polynomial)
{
	uint32 product = 0;

	for (; a != 0; a <<= 1)
	{
		if (a & 0x80000000)
			product ^= b;
		b = (b & 1) ? (b >> 1) ^ polynomial : b >> 1;
	}
	return product;
}

/* "crc" times x to the power of eight times "len". */
static inline uint32
shift_crc(uint32 crc, uint64 len, uint32 polynomial)
{
	/* x to the power of 8, 16, 32, ...: of each bit of len */
	for (uint32 power = X_TO_8; len != 0;
		 len >>= 1, power = multiply_polynomials(power, power, polynomial))
	{
		if (len & 1)
			crc = multiply_polynomials(crc, power, polynomial);
	}
	return crc;
}

uint32
crc32c_join(uint32 first, uint32 second, uint64 len)
{
	return shift_crc(first, len, CASTAGNOLI) ^ second;
}

uint32
crc32_join(uint32 first, uint32 second, uint64 len)
{
	return shift_crc(first, len, GZIP) ^ second;
}

#if defined(__x86_64__) && defined(__GNUC__)

#include <nmmintrin.h>

/* Bytes of each of the three; long enough for what putting them together takes. */
#define STRETCH (16 * 1024)

/*
 * The instruction takes three cycles, and one can begin in each: three stretches side by side
 * take the time of one.
 */
__attribute__((target("sse4.2"))) static void
three_stretches(uint64 *crcs, const char *data)
{
	uint64 a = crcs[0];
	uint64 b = crcs[1];
	uint64 c = crcs[2];

	for (const char *end = data + STRETCH; data < end; data += sizeof(uint64))
	{
		uint64 words[3];

		memcpy(&words[0], data, sizeof(uint64));
		memcpy(&words[1], data + STRETCH, sizeof(uint64));
		memcpy(&words[2], data + 2 * STRETCH, sizeof(uint64));
		a = _mm_crc32_u64(a, words[0]);
		b = _mm_crc32_u64(b, words[1]);
		c = _mm_crc32_u64(c, words[2]);
	}
	crcs[0] = a;
	crcs[1] = b;
	crcs[2] = c;
}

/* Takes as much from the beginning of the data as it can; "crc" is not finished. */
static pg_crc32c
append_long(pg_crc32c crc, const char **data, size_t *len)
{
	static uint32 power = 0; /* of x, for one stretch */

	if (*len < 3 * STRETCH || !__builtin_cpu_supports("sse4.2"))
		return crc;
	if (power == 0)
		power = shift_crc(0x80000000, STRETCH, CASTAGNOLI);
	for (; *len >= 3 * STRETCH; *data += 3 * STRETCH, *len -= 3 * STRETCH)
	{
		uint64 crcs[3] = {crc, 0, 0};

		three_stretches(crcs, *data);
		crc = multiply_polynomials(crcs[0], power, CASTAGNOLI) ^ (uint32) crcs[1];
		crc = multiply_polynomials(crc, power, CASTAGNOLI) ^ (uint32) crcs[2];
	}
	return crc;
}

#else

static pg_crc32c
append_long(pg_crc32c crc, const char **data pg_attribute_unused(),
			size_t *len pg_attribute_unused())
{
	return crc;
}

#endif

uint32
crc32c_append(uint32 crc, const void *data, size_t len)
{
	const char *rest = data;
	pg_crc32c   unfinished = crc;

	FIN_CRC32C(unfinished); /* is its own inverse */
	unfinished = append_long(unfinished, &rest, &len);
	COMP_CRC32C(unfinished, rest, len);
	FIN_CRC32C(unfinished);
	return unfinished;
}
