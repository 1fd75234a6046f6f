/*-------------------------------------------------------------------------
 *
 * csv_types.c
 *	  Common types as text, written without a call of their output functions.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <math.h>

#include "common/shortest_dec.h"
#include "utils/builtins.h"
#include "utils/float.h"
#include "utils/fmgrprotos.h"
#include "utils/uuid.h"

#include "base/compat.h"
#include "format/csv_digits.h"
#include "format/csv_numeric.h"
#include "format/csv_time.h"
#include "format/csv_types.h"

char csv_quads[4 * 10000 + 4];
char csv_hex_pairs[2 * 256];

/* The last entry is the last to be filled. */
void
csv_digits_init(void)
{
	static const char hex[] = "0123456789abcdef";

	if (csv_quads[4 * 9999] != '\0')
		return;
	for (int i = 0; i < 256; i++)
	{
		csv_hex_pairs[2 * i] = hex[i >> 4];
		csv_hex_pairs[2 * i + 1] = hex[i & 0xF];
	}
	for (int i = 0; i < 10000; i++)
	{
		char *quad = csv_quads + 4 * i;

		quad[3] = '0' + i % 10;
		quad[2] = '0' + i / 10 % 10;
		quad[1] = '0' + i / 100 % 10;
		quad[0] = '0' + i / 1000;
	}
}

static char *
write_bool(char *dst, Datum value, void *state pg_attribute_unused())
{
	*dst = DatumGetBool(value) ? 't' : 'f';
	return dst + 1;
}

static char *
write_int2(char *dst, Datum value, void *state pg_attribute_unused())
{
	return csv_put_int32(dst, DatumGetInt16(value));
}

static char *
write_int4(char *dst, Datum value, void *state pg_attribute_unused())
{
	return csv_put_int32(dst, DatumGetInt32(value));
}

static char *
write_int8(char *dst, Datum value, void *state pg_attribute_unused())
{
	return csv_put_int64(dst, DatumGetInt64(value));
}

static char *
write_oid(char *dst, Datum value, void *state pg_attribute_unused())
{
	return csv_put_uint32(dst, DatumGetObjectId(value));
}

static char *
write_uuid(char *dst, Datum value, void *state pg_attribute_unused())
{
	const char *data = (const char *) DatumGetUUIDP(value)->data;

	dst = csv_put_hex(dst, data, 4);
	*dst++ = '-';
	dst = csv_put_hex(dst, data + 4, 2);
	*dst++ = '-';
	dst = csv_put_hex(dst, data + 6, 2);
	*dst++ = '-';
	dst = csv_put_hex(dst, data + 8, 2);
	*dst++ = '-';
	return csv_put_hex(dst, data + 10, 6);
}

static char *
write_float4(char *dst, Datum value, void *state pg_attribute_unused())
{
	float4 number = DatumGetFloat4(value);

	if (extra_float_digits <= 0 || isnan(number) || isinf(number))
		return NULL;
	return dst + float_to_shortest_decimal_bufn(number, dst);
}

/* The binary exponents of numbers from 1/1024 to below 2^43 */
#define FIRST_EXPONENT (-10)
#define LAST_EXPONENT 42

/* The most places after the point that are tried */
#define PLACES 16

/* 10^0 to 10^PLACES */
static const int64 powers[PLACES + 1] = {INT64CONST(1),
										 INT64CONST(10),
										 INT64CONST(100),
										 INT64CONST(1000),
										 INT64CONST(10000),
										 INT64CONST(100000),
										 INT64CONST(1000000),
										 INT64CONST(10000000),
										 INT64CONST(100000000),
										 INT64CONST(1000000000),
										 INT64CONST(10000000000),
										 INT64CONST(100000000000),
										 INT64CONST(1000000000000),
										 INT64CONST(10000000000000),
										 INT64CONST(100000000000000),
										 INT64CONST(1000000000000000),
										 INT64CONST(10000000000000000)};

/* The places after the point with which a number of an exponent has at most 15 digits. */
static inline int
places_of(int exponent)
{
	/* log10(2), rounded up, for what is below 2^(exponent + 1) */
	int before = (exponent + 1) * 1234 >> 12;

	return Min(14 - before, PLACES);
}

/* How many of eight digits there are without the zeros at their end; one is not 0. */
static inline int
count_digits(const char *digits)
{
	int count = 8;

#ifdef WORDS_BIGENDIAN
	while (digits[count - 1] == '0')
		count--;
#else
	uint64 word;

	memcpy(&word, digits, 8);
	count = pg_leftmost_one_pos64(word ^ UINT64CONST(0x3030303030303030)) / 8 + 1;
#endif
	return count;
}

/* PLACES digits after the point, but for zeros at their end; one is not 0. */
static inline char *
put_places(char *dst, uint64 fraction)
{
	uint32 second = (uint32) (fraction % 100000000);

	csv_put_eight(dst, (uint32) (fraction / 100000000));
	if (second == 0)
		return dst + count_digits(dst);
	csv_put_eight(dst + 8, second);
	return dst + 8 + count_digits(dst + 8);
}

/*
 * Most numbers that people write down have a text of at most 15 digits, and it
 * can be had without a search for the shortest one.  With that many digits no
 * two decimals are the same double; so if one with as many places as they leave
 * is this double, it is the shortest, but for zeros at its end.
 */
static inline char *
put_decimal(char *dst, float8 number)
{
	float8 positive = fabs(number);
	int    exponent;
	int    places;
	int64  scaled;
	int64  whole;
	int64  fraction;
	uint64 bits;

	memcpy(&bits, &positive, sizeof(bits));
	exponent = (int) (bits >> 52) - 1023;
	if (exponent < FIRST_EXPONENT || exponent > LAST_EXPONENT)
		return NULL;
	places = places_of(exponent);
	scaled = (int64) (positive * (float8) powers[places] + 0.5);
	if ((float8) scaled / (float8) powers[places] != positive)
		return NULL;

	whole = (int64) positive;
	fraction = scaled - whole * powers[places];
	if (number < 0)
		*dst++ = '-';
	dst = csv_put_uint64(dst, (uint64) whole);
	if (fraction == 0)
		return dst;
	*dst++ = '.';
	return put_places(dst, (uint64) (fraction * powers[PLACES - places]));
}

static char *
write_float8(char *dst, Datum value, void *state pg_attribute_unused())
{
	float8 number = DatumGetFloat8(value);
	char  *end;

	if (extra_float_digits <= 0)
		return NULL;
	end = put_decimal(dst, number);
	if (end != NULL)
		return end;
	if (isnan(number) || isinf(number))
		return NULL;
	return dst + double_to_shortest_decimal_bufn(number, dst);
}

static char *
write_numeric(char *dst, Datum value, void *state pg_attribute_unused())
{
	struct varlena *stored = (struct varlena *) DatumGetPointer(value);

	if (VARATT_IS_COMPRESSED(stored) || VARATT_IS_EXTERNAL(stored))
		return NULL;
	return csv_put_numeric(dst, VARDATA_ANY(stored), VARSIZE_ANY_EXHDR(stored));
}

#define DIGITS "0123456789"

static const CsvType types[] = {
	{int4out, write_int4, 16, 0, DIGITS "-"},
	{int8out, write_int8, 24, 0, DIGITS "-"},
	{int2out, write_int2, 12, 0, DIGITS "-"},
	{oidout, write_oid, 16, 0, DIGITS},
	{boolout, write_bool, 1, 0, "tf"},
	{numeric_out, write_numeric, CSV_NUMERIC_WIDTH, 0, DIGITS "-."},
	{float8out, write_float8, DOUBLE_SHORTEST_DECIMAL_LEN + PLACES, 0, DIGITS "-+.e"},
	{float4out, write_float4, FLOAT_SHORTEST_DECIMAL_LEN, 0, DIGITS "-+.e"},
	{uuid_out, write_uuid, 36, 0, DIGITS "abcdef-"},
	{date_out, csv_write_date, CSV_DATE_WIDTH, 0, DIGITS "-"},
	{timestamp_out, csv_write_timestamp, CSV_TIMESTAMP_WIDTH, sizeof(CsvTimeState), DIGITS "-: ."},
	{timestamptz_out, csv_write_timestamptz, CSV_TIMESTAMP_WIDTH, sizeof(CsvTimeState),
	 DIGITS "-: .+"},
	{time_out, csv_write_time, CSV_CLOCK_WIDTH, 0, DIGITS ":."},
	{timetz_out, csv_write_timetz, CSV_CLOCK_WIDTH, 0, DIGITS ":.+-"},
	{interval_out, csv_write_interval, CSV_INTERVAL_WIDTH, 0, DIGITS ":.+- yearsmond"},
};

const CsvType *
csv_type_find(PGFunction output)
{
	csv_digits_init();
	csv_time_init();
	for (int i = 0; i < (int) lengthof(types); i++)
	{
		if (types[i].output == output)
			return &types[i];
	}
	return NULL;
}
