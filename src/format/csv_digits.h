/*-------------------------------------------------------------------------
 *
 * csv_digits.h
 *	  Integers as decimal digits, four at a time; bytes as two that are not.
 *
 * Functions that say nothing else write a few bytes more than they return the
 * end of: there must be room for eight.
 *
 * How many digits a number has is as random as the number, so most is done with
 * no branch that depends on it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CSV_DIGITS_H
#define CSV_DIGITS_H

#include "port/pg_bitutils.h"

/* "0000" to "9999", and three bytes that may be read after the last */
extern char csv_quads[4 * 10000 + 4];

/* "00" to "ff" */
extern char csv_hex_pairs[2 * 256];

/* Fills the tables; cheap when they are full. */
extern void csv_digits_init(void);

/* Four digits of a number below 10,000. */
static inline char *
csv_put_quad(char *dst, uint32 value)
{
	memcpy(dst, csv_quads + 4 * value, 4);
	return dst + 4;
}

/* The last two digits of a number below 100. */
static inline char *
csv_put_pair(char *dst, uint32 value)
{
	memcpy(dst, csv_quads + 4 * value + 2, 2);
	return dst + 2;
}

/* A number below 10,000 without leading zeros. */
static inline char *
csv_put_head(char *dst, uint32 value)
{
	int digits = 1 + (value > 9) + (value > 99) + (value > 999);

	memcpy(dst, csv_quads + 4 * value + 4 - digits, 4);
	return dst + digits;
}

/* The eight digits of two numbers below 10,000 each, one after the other, without leading zeros. */
static inline char *
csv_put_quads_head(char *dst, uint32 first, uint32 second)
{
#ifdef WORDS_BIGENDIAN
	return first == 0 ? csv_put_head(dst, second) : csv_put_quad(csv_put_head(dst, first), second);
#else
	uint32 quads[2];
	uint64 digits;
	int    zeros; /* bits of them, but never of the last digit */

	memcpy(&quads[0], csv_quads + 4 * first, 4);
	memcpy(&quads[1], csv_quads + 4 * second, 4);
	digits = (uint64) quads[1] << 32 | quads[0];
	zeros =
		pg_rightmost_one_pos64((digits ^ UINT64CONST(0x3030303030303030)) | UINT64CONST(1) << 56) &
		~7;
	digits >>= zeros;
	memcpy(dst, &digits, 8);
	return dst + 8 - zeros / 8;
#endif
}

/* All of them. */
static inline char *
csv_put_eight(char *dst, uint32 value)
{
	return csv_put_quad(csv_put_quad(dst, value / 10000), value % 10000);
}

static inline char *
csv_put_uint32(char *dst, uint32 value)
{
	if (likely(value < 100000000))
		return csv_put_quads_head(dst, value / 10000, value % 10000);
	dst = csv_put_head(dst, value / 100000000);
	return csv_put_eight(dst, value % 100000000);
}

static inline char *
csv_put_uint64(char *dst, uint64 value)
{
	uint64 high;

	if (value <= PG_UINT32_MAX)
		return csv_put_uint32(dst, (uint32) value);
	high = value / 100000000;
	if (high <= PG_UINT32_MAX)
		dst = csv_put_uint32(dst, (uint32) high);
	else
	{
		dst = csv_put_uint32(dst, (uint32) (high / 100000000));
		dst = csv_put_eight(dst, (uint32) (high % 100000000));
	}
	return csv_put_eight(dst, (uint32) (value % 100000000));
}

static inline char *
csv_put_int32(char *dst, int32 value)
{
	uint32 positive = (uint32) value;

	*dst = '-';
	dst += value < 0;
	return csv_put_uint32(dst, value < 0 ? 0 - positive : positive);
}

static inline char *
csv_put_int64(char *dst, int64 value)
{
	uint64 positive = (uint64) value;

	if (value < 0)
	{
		*dst++ = '-';
		positive = 0 - positive;
	}
	return csv_put_uint64(dst, positive);
}

/* Bytes in hexadecimal, and nothing beyond. */
static inline char *
csv_put_hex(char *dst, const char *src, size_t len)
{
	for (size_t i = 0; i < len; i++)
		memcpy(dst + 2 * i, csv_hex_pairs + 2 * (unsigned char) src[i], 2);
	return dst + 2 * len;
}

#endif /* CSV_DIGITS_H */
