/*-------------------------------------------------------------------------
 *
 * csv_time.h
 *	  Dates, times and intervals in ISO style and PostgreSQL's own.
 *
 * Writers as in csv_types.h.  Years but 1 to 9999, intervals of 100 hours and
 * more, infinities and other styles are left to the output functions.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CSV_TIME_H
#define CSV_TIME_H

#include "miscadmin.h"
#include "pgtime.h"

#include "format/csv_digits.h"

/* 0001-01-01 and 9999-12-31, as days from 2000-01-01 */
#define CSV_FIRST_DAY (-730119)
#define CSV_LAST_DAY 2921939

/* from 0000-03-01 to 2000-01-01 */
#define CSV_DAYS_FROM_MARCH_0 730425

/* "YYYY-MM-DD", and what is touched beyond */
#define CSV_DATE_WIDTH 16

/* "YYYY-MM-DD HH:MM:SS.ffffff+HH:MM:SS", and what is touched beyond */
#define CSV_TIMESTAMP_WIDTH 48

/* "HH:MM:SS.ffffff+HH:MM:SS", and what is touched beyond */
#define CSV_CLOCK_WIDTH 32

/* "-178956970 years -11 mons -2147483648 days -HH:MM:SS.ffffff", and beyond */
#define CSV_INTERVAL_WIDTH 72

#define CSV_ZONE_SPANS 64

/* A time in which a zone keeps its offset; seconds of 2000-01-01 00:00 UTC. */
typedef struct CsvZoneSpan
{
	int64 from;
	int64 until; /* 0 and "from" 0: not known */
	int32 offset;
	int32 len;
	char  text[12]; /* the offset as written */
} CsvZoneSpan;

typedef struct CsvTimeState
{
	int32       day;
	char        day_text[CSV_DATE_WIDTH]; /* of "day", if not empty */
	pg_tz      *zone;                     /* what the spans are of */
	int64       from;                     /* times of "day" with one offset, as stored: from here */
	int64       until;                    /* to before this */
	int64       midnight;                 /* when "day" began */
	int32       offset_len;
	char        offset[12]; /* as written */
	CsvZoneSpan spans[CSV_ZONE_SPANS];
} CsvTimeState;

/* "-MM-DD" of the days of a year that begins in March */
extern char csv_month_days[366][8];

extern void csv_time_init(void);

/*
 * The year and the day in it by multiplication, as in Neri and Schneider,
 * "Euclidean affine functions and their application to calendar algorithms"
 * (2022).  Years begin in March, so that the leap day is the last.
 */
static inline void
csv_put_day(char *dst, int32 day)
{
	uint32 quarters = 4 * (uint32) (day + CSV_DAYS_FROM_MARCH_0) + 3;
	uint32 century = quarters / 146097;
	uint32 in_century = (quarters % 146097) | 3;
	uint64 scaled = UINT64CONST(2939745) * in_century;
	uint32 year = 100 * century + (uint32) (scaled >> 32);
	uint32 in_year = (uint32) scaled / 2939745 / 4;

	year += in_year >= 306; /* January and February */
	csv_put_quad(dst, year);
	memcpy(dst + 4, csv_month_days[in_year], 8);
}

static inline char *
csv_put_date(char *dst, int32 day)
{
	if (DateStyle != USE_ISO_DATES || day < CSV_FIRST_DAY || day > CSV_LAST_DAY)
		return NULL;
	csv_put_day(dst, day);
	return dst + 10;
}

extern char *csv_write_date(char *dst, Datum value, void *state);
extern char *csv_write_timestamp(char *dst, Datum value, void *state);
extern char *csv_write_timestamptz(char *dst, Datum value, void *state);
extern char *csv_write_time(char *dst, Datum value, void *state);
extern char *csv_write_timetz(char *dst, Datum value, void *state);
extern char *csv_write_interval(char *dst, Datum value, void *state);

#endif /* CSV_TIME_H */
