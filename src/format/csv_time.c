/*-------------------------------------------------------------------------
 *
 * csv_time.c
 *	  Dates, times and intervals in ISO style and PostgreSQL's own.
 *
 * DateStyle, IntervalStyle and TimeZone are looked at for each value: a query may change
 * them while it runs.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "datatype/timestamp.h"
#include "miscadmin.h"
#include "utils/date.h"
#include "utils/timestamp.h"

#include "format/csv_digits.h"
#include "format/csv_time.h"

/* from 1970-01-01 to 2000-01-01 */
#define EPOCH_SHIFT ((int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * SECS_PER_DAY)

/* Length of the time that one entry of the cache of a zone is for. */
#define SPAN_SECONDS (INT64CONST(1) << 22)

/* From here on, an interval's hours have three digits. */
#define MAX_CLOCK (100 * USECS_PER_HOUR)

char csv_month_days[366][8];

void
csv_time_init(void)
{
	static const int lengths[] = {31, 30, 31, 30, 31, 31, 30, 31, 30, 31, 31, 29};
	int              day = 0;

	if (csv_month_days[365][0] != '\0')
		return;
	for (int i = 0; i < 12; i++)
	{
		int month = (i + 2) % 12 + 1;

		for (int d = 1; d <= lengths[i]; d++)
		{
			char *text = csv_month_days[day++];

			text[1] = '0' + month / 10;
			text[2] = '0' + month % 10;
			text[3] = '-';
			text[4] = '0' + d / 10;
			text[5] = '0' + d % 10;
			text[0] = '-';
		}
	}
}

char *
csv_write_date(char *dst, Datum value, void *state pg_attribute_unused())
{
	return csv_put_date(dst, DatumGetDateADT(value));
}

/* "HH:MM:SS.ffffff" */
static inline char *
put_clock(char *dst, int64 micros)
{
	uint32 seconds = (uint32) (micros / USECS_PER_SEC);
	uint32 fraction = (uint32) (micros % USECS_PER_SEC);

	dst = csv_put_pair(dst, seconds / SECS_PER_HOUR);
	*dst++ = ':';
	dst = csv_put_pair(dst, seconds / SECS_PER_MINUTE % MINS_PER_HOUR);
	*dst++ = ':';
	dst = csv_put_pair(dst, seconds % SECS_PER_MINUTE);
	if (fraction == 0)
		return dst;

	*dst++ = '.';
	dst = csv_put_quad(dst, fraction / 100);
	dst = csv_put_pair(dst, fraction % 100);
	while (dst[-1] == '0')
		dst--;
	return dst;
}

/* A local time, from its day and the microseconds in it. */
static char *
put_time(char *dst, int32 day, int64 micros, CsvTimeState *state)
{
	if (day != state->day || state->day_text[0] == '\0')
	{
		csv_put_day(state->day_text, day);
		state->day_text[10] = ' ';
		state->day = day;
	}
	memcpy(dst, state->day_text, CSV_DATE_WIDTH);
	return put_clock(dst + 11, micros);
}

/* Splits microseconds into a day and the rest; false if left to the server. */
static inline bool
split_micros(int64 micros, int32 *day, int64 *rest)
{
	if (micros < CSV_FIRST_DAY * USECS_PER_DAY ||
		micros >= (CSV_LAST_DAY + INT64CONST(1)) * USECS_PER_DAY)
		return false;
	*day = (int32) (micros / USECS_PER_DAY);
	*rest = micros % USECS_PER_DAY;
	if (*rest < 0)
	{
		*rest += USECS_PER_DAY;
		--*day;
	}
	return true;
}

char *
csv_write_timestamp(char *dst, Datum value, void *state)
{
	int32 day;
	int64 rest;

	if (DateStyle != USE_ISO_DATES || !split_micros(DatumGetTimestamp(value), &day, &rest))
		return NULL;
	return put_time(dst, day, rest, state);
}

/* Seconds east of Greenwich, as "+HH:MM:SS" without what is zero. */
static char *
put_offset(char *dst, int32 offset)
{
	uint32 seconds = abs(offset);

	*dst++ = offset >= 0 ? '+' : '-';
	dst = csv_put_pair(dst, seconds / SECS_PER_HOUR);
	if (seconds % SECS_PER_HOUR != 0)
	{
		*dst++ = ':';
		dst = csv_put_pair(dst, seconds / SECS_PER_MINUTE % MINS_PER_HOUR);
	}
	if (seconds % SECS_PER_MINUTE != 0)
	{
		*dst++ = ':';
		dst = csv_put_pair(dst, seconds % SECS_PER_MINUTE);
	}
	return dst;
}

/*
 * Finds how long before and after a time, within its part of the cache, the
 * zone's offset is what it is then.  The offset itself is asked from the
 * function that the server uses, since the two differ before the first change
 * on record.
 */
static bool
find_span(CsvZoneSpan *span, int64 second, pg_tz *zone)
{
	int64         start = second & ~(SPAN_SECONDS - 1);
	pg_time_t     moment = second + EPOCH_SHIFT;
	pg_time_t     from = start + EPOCH_SHIFT;
	pg_time_t     next;
	struct pg_tm *local = pg_localtime(&moment, zone);
	long int      before, after;
	int           before_dst, after_dst, result;

	/* POSIX rules may have offsets of three digits */
	if (local == NULL || labs(local->tm_gmtoff) >= 100 * SECS_PER_HOUR)
		return false;
	span->offset = (int32) local->tm_gmtoff;
	span->len = put_offset(span->text, span->offset) - span->text;
	while ((result = pg_next_dst_boundary(&from, &before, &before_dst, &next, &after, &after_dst,
										  zone)) == 1 &&
		   next <= moment)
		from = next;
	if (result < 0)
		return false;
	span->from = from - EPOCH_SHIFT;
	span->until = start + SPAN_SECONDS;
	if (result == 1)
		span->until = Min(span->until, next - EPOCH_SHIFT);
	return true;
}

char *
csv_write_timestamptz(char *dst, Datum value, void *state)
{
	CsvTimeState *cache = state;
	TimestampTz   micros = DatumGetTimestampTz(value);
	CsvZoneSpan  *span;
	int64         second;
	int64         rest;
	int32         day;

	if (likely(micros >= cache->from && micros < cache->until && cache->zone == session_timezone &&
			   DateStyle == USE_ISO_DATES))
	{
		memcpy(dst, cache->day_text, CSV_DATE_WIDTH);
		dst = put_clock(dst + 11, micros - cache->midnight);
		memcpy(dst, cache->offset, sizeof(cache->offset));
		return dst + cache->offset_len;
	}
	if (DateStyle != USE_ISO_DATES || !split_micros(micros, &day, &rest))
		return NULL;
	if (cache->zone != session_timezone)
	{
		memset(cache->spans, 0, sizeof(cache->spans));
		cache->zone = session_timezone;
	}
	cache->from = cache->until = 0;

	second = (int64) day * SECS_PER_DAY + rest / USECS_PER_SEC;
	span = &cache->spans[(uint64) second / SPAN_SECONDS % CSV_ZONE_SPANS];
	if ((second < span->from || second >= span->until) && !find_span(span, second, cache->zone))
	{
		span->from = span->until = 0;
		return NULL;
	}

	if (!split_micros(micros + span->offset * USECS_PER_SEC, &day, &rest))
		return NULL;
	dst = put_time(dst, day, rest, cache);
	memcpy(dst, span->text, sizeof(span->text));
	cache->midnight = micros - rest;
	cache->from = Max(cache->midnight, span->from * USECS_PER_SEC);
	cache->until = Min(cache->midnight + USECS_PER_DAY, span->until * USECS_PER_SEC);
	cache->offset_len = span->len;
	memcpy(cache->offset, span->text, sizeof(span->text));
	return dst + span->len;
}

/* Anything else is of a damaged page. */
static inline bool
is_time_of_day(int64 micros)
{
	return micros >= 0 && micros <= USECS_PER_DAY;
}

char *
csv_write_time(char *dst, Datum value, void *state pg_attribute_unused())
{
	TimeADT micros = DatumGetTimeADT(value);

	return likely(is_time_of_day(micros)) ? put_clock(dst, micros) : NULL;
}

char *
csv_write_timetz(char *dst, Datum value, void *state pg_attribute_unused())
{
	const TimeTzADT *time = DatumGetTimeTzADTP(value);

	if (unlikely(!is_time_of_day(time->time) || time->zone <= -100 * SECS_PER_HOUR ||
				 time->zone >= 100 * SECS_PER_HOUR))
		return NULL;
	return put_offset(put_clock(dst, time->time), -time->zone);
}

/*
 * A part of an interval, if there is any.  The first one begins the text, and
 * a positive one after a negative one has its sign.
 */
static char *
put_part(char *dst, int32 value, const char *unit, bool *first, bool *negative)
{
	size_t len = strlen(unit);

	if (value == 0)
		return dst;
	if (!*first)
		*dst++ = ' ';
	if (*negative && value > 0)
		*dst++ = '+';
	dst = csv_put_int64(dst, value);
	memcpy(dst, unit, len);
	dst += len;
	if (value != 1)
		*dst++ = 's';
	*first = false;
	*negative = value < 0;
	return dst;
}

/* Infinite ones, from 17 on, have all months that there are, or none. */
char *
csv_write_interval(char *dst, Datum value, void *state pg_attribute_unused())
{
	const Interval *interval = DatumGetIntervalP(value);
	int64           micros = interval->time;
	bool            first = true;
	bool            negative = false;

	if (IntervalStyle != INTSTYLE_POSTGRES || interval->month == PG_INT32_MAX ||
		interval->month == PG_INT32_MIN || micros <= -MAX_CLOCK || micros >= MAX_CLOCK)
		return NULL;
	dst = put_part(dst, interval->month / MONTHS_PER_YEAR, " year", &first, &negative);
	dst = put_part(dst, interval->month % MONTHS_PER_YEAR, " mon", &first, &negative);
	dst = put_part(dst, interval->day, " day", &first, &negative);
	if (micros == 0 && !first)
		return dst;

	if (!first)
		*dst++ = ' ';
	if (micros < 0)
		*dst++ = '-';
	else if (negative)
		*dst++ = '+';
	return put_clock(dst, micros < 0 ? -micros : micros);
}
