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

#include "pgtime.h"

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
	CsvZoneSpan spans[CSV_ZONE_SPANS];
} CsvTimeState;

extern void csv_time_init(void);

extern char *csv_write_date(char *dst, Datum value, void *state);
extern char *csv_write_timestamp(char *dst, Datum value, void *state);
extern char *csv_write_timestamptz(char *dst, Datum value, void *state);
extern char *csv_write_time(char *dst, Datum value, void *state);
extern char *csv_write_timetz(char *dst, Datum value, void *state);
extern char *csv_write_interval(char *dst, Datum value, void *state);

#endif /* CSV_TIME_H */
