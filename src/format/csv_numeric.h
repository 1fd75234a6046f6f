/*-------------------------------------------------------------------------
 *
 * csv_numeric.h
 *	  Numerics as text, from their stored form.
 *
 * That is a word of flags, in most cases with scale and weight in it, and
 * groups of four decimal digits without those that are zero at either end.  It
 * has been the same since 9.1, and pg_upgrade relies on it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CSV_NUMERIC_H
#define CSV_NUMERIC_H

#include "format/csv_digits.h"

#define CSV_NUMERIC_KIND(header) ((header) &0xC000)
#define CSV_NUMERIC_KIND_NEGATIVE 0x4000
#define CSV_NUMERIC_KIND_SHORT 0x8000
#define CSV_NUMERIC_KIND_SPECIAL 0xC000
#define CSV_NUMERIC_SHORT_NEGATIVE 0x2000
#define CSV_NUMERIC_SHORT_SCALE(header) (((header) >> 7) & 0x3F)
#define CSV_NUMERIC_SHORT_WEIGHT(header) (((header) &0x3F) - ((header) &0x40))
#define CSV_NUMERIC_LONG_SCALE(header) ((header) &0x3FFF)

/* The longest text that csv_put_numeric writes, and what it touches beyond. */
#define CSV_NUMERIC_WIDTH 128

/*
 * The text of a numeric, as stored: "data" is what follows the length.  NULL
 * for NaN and infinities, if it takes more than CSV_NUMERIC_WIDTH bytes, and if a
 * damaged page has more than four digits in a group.
 */
extern char *csv_put_numeric(char *dst, const char *data, size_t len);

static inline uint16
csv_numeric_word(const char *src)
{
	uint16 word;

	memcpy(&word, src, 2);
	return word;
}

/* Is one of four groups more than 9999? */
static inline bool
csv_numeric_is_damaged(uint64 groups)
{
	uint64 low = (groups & UINT64CONST(0x7FFF7FFF7FFF7FFF)) + UINT64CONST(0x58F058F058F058F0);

	return ((low | groups) & UINT64CONST(0x8000800080008000)) != 0;
}

/*
 * Writes a numeric that is part of a larger datum: five bytes before "data" may
 * be read.  With at most eight digits before the point and four after it there
 * are three groups.  They are taken from the last eight bytes, wherever they
 * begin in them, and moved to where the weight says.
 */
static inline char *
csv_put_numeric_within(char *dst, const char *data, size_t len)
{
#ifndef WORDS_BIGENDIAN
	uint16 header = csv_numeric_word(data);
	uint32 scale = CSV_NUMERIC_SHORT_SCALE(header);
	uint32 before = (header + 1) & 0x7F; /* groups before the point, for weights from -1 */
	uint64 groups;

	if (likely(CSV_NUMERIC_KIND(header) == CSV_NUMERIC_KIND_SHORT && before <= 2 && scale <= 4 &&
			   len <= 8))
	{
		memcpy(&groups, data + len - 8, 8);
		groups = groups >> 1 >> (79 - 8 * len);
		groups <<= 16 * (2 - before);
		if (unlikely(csv_numeric_is_damaged(groups)))
			return NULL;
		*dst = '-';
		dst += (header & CSV_NUMERIC_SHORT_NEGATIVE) != 0;
		dst = csv_put_quads_head(dst, groups & 0xFFFF, groups >> 16 & 0xFFFF);
		*dst = '.';
		csv_put_quad(dst + 1, groups >> 32 & 0xFFFF);
		return dst + scale + (scale > 0);
	}
#endif
	return csv_put_numeric(dst, data, len);
}

#endif /* CSV_NUMERIC_H */
