/*-------------------------------------------------------------------------
 *
 * csv_numeric.c
 *	  Numerics as text, from their stored form.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "format/csv_digits.h"
#include "format/csv_numeric.h"

typedef struct Groups
{
	const char *data;
	int         count;
	int         weight;  /* of the first, as a power of 10,000 */
	bool        damaged; /* one was more than four digits */
} Groups;

/* The group at an index from the first one, in which there may be no digits. */
static inline uint32
group_at(Groups *groups, int index)
{
	uint16 digits;

	if (index < 0 || index >= groups->count)
		return 0;
	memcpy(&digits, groups->data + 2 * index, 2);
	if (likely(digits <= 9999))
		return digits;
	groups->damaged = true;
	return 0;
}

char *
csv_put_numeric(char *dst, const char *data, size_t len)
{
	uint16 header = csv_numeric_word(data);
	Groups groups;
	int    scale;
	bool   negative;

	if (CSV_NUMERIC_KIND(header) == CSV_NUMERIC_KIND_SHORT)
	{
		negative = (header & CSV_NUMERIC_SHORT_NEGATIVE) != 0;
		scale = CSV_NUMERIC_SHORT_SCALE(header);
		groups = (Groups){data + 2, (int) (len - 2) / 2, CSV_NUMERIC_SHORT_WEIGHT(header), false};
	}
	else if (CSV_NUMERIC_KIND(header) == CSV_NUMERIC_KIND_SPECIAL)
		return NULL;
	else
	{
		negative = CSV_NUMERIC_KIND(header) == CSV_NUMERIC_KIND_NEGATIVE;
		scale = CSV_NUMERIC_LONG_SCALE(header);
		groups = (Groups){data + 4, (int) (len - 4) / 2, (int16) csv_numeric_word(data + 2), false};
	}
	if (4 * Max(groups.weight + 1, 1) + scale > CSV_NUMERIC_WIDTH - 8)
		return NULL;

	if (negative)
		*dst++ = '-';
	dst = csv_put_head(dst, groups.weight < 0 ? 0 : group_at(&groups, 0));
	for (int i = 1; i <= groups.weight; i++)
		dst = csv_put_quad(dst, group_at(&groups, i));
	if (scale > 0)
	{
		*dst++ = '.';
		for (int i = 0; i < scale; i += 4)
			csv_put_quad(dst + i, group_at(&groups, groups.weight + 1 + i / 4));
		dst += scale;
	}
	return groups.damaged ? NULL : dst;
}
