/*-------------------------------------------------------------------------
 *
 * progress.c
 *	  How far an export is: counted in shared memory, told to those who ask.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <math.h>

#include "commands/progress.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "utils/backend_status.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"

#include "base/guc.h"
#include "ipc/progress.h"

#define NOTICE_INTERVAL 10000 /* ms */

/*
 * Marks the entry in pg_stat_progress_copy as that of one export: commands in
 * functions that its query calls, other exports too, or a command that it is part
 * of itself, use the same entry.  COPY leaves this parameter alone.
 */
#define MARK_PARAM (PGSTAT_NUM_PROGRESS_PARAM - 1)

void
progress_init(Progress *progress)
{
	memset(progress, 0, sizeof(Progress));
	progress->owner = GetUserId();
	progress->started_at = GetCurrentTimestamp();
	pg_atomic_init_u64(&progress->rows, 0);
	pg_atomic_init_u64(&progress->bytes_made, 0);
	pg_atomic_init_u64(&progress->first_rows_at, 0);
	pg_atomic_init_u64(&progress->expected_rows, 0);
	pg_atomic_init_u64(&progress->job_id, 0);
	pg_atomic_init_u64(&progress->bytes_sent, 0);
	pg_atomic_init_u64(&progress->retry_at, 0);
	pg_atomic_init_u32(&progress->parts, 0);
	pg_atomic_init_u32(&progress->files, 0);
	pg_atomic_init_u32(&progress->files_made, 0);
	pg_atomic_init_u64(&progress->completing_since, 0);
	pg_atomic_init_u32(&progress->retries, 0);
	pg_atomic_init_u32(&progress->phase, PROGRESS_STARTING);
	pg_atomic_init_u32(&progress->wait, PROGRESS_FOR_STORE);
}

void
progress_add_block(Progress *progress, uint64 rows, size_t bytes)
{
	uint64 none = 0;

	if (rows > 0)
	{
		if (pg_atomic_read_u64(&progress->first_rows_at) == 0)
			(void) pg_atomic_compare_exchange_u64(&progress->first_rows_at, &none,
												  (uint64) GetCurrentTimestamp());
		(void) pg_atomic_fetch_add_u64(&progress->rows, (int64) rows);
	}
	(void) pg_atomic_fetch_add_u64(&progress->bytes_made, (int64) bytes);
}

void
progress_complete(Progress *progress, int files)
{
	pg_atomic_write_u32(&progress->files_made, (uint32) files);
	pg_atomic_write_u64(&progress->completing_since, (uint64) GetCurrentTimestamp());
	pg_atomic_write_u32(&progress->phase, PROGRESS_COMPLETING);
}

/* ---- reports ---- */

static int64
seconds_until(TimestampTz at)
{
	return (TimestampDifferenceMilliseconds(GetCurrentTimestamp(), at) + 999) / 1000;
}

static void
describe_phase(Progress *progress, ProgressReport *report)
{
	static const char *const phases[] = {"starting", "reading rows", "sending", "completing"};
	TimestampTz              retry_at = (TimestampTz) pg_atomic_read_u64(&progress->retry_at);
	uint32                   phase = pg_atomic_read_u32(&progress->phase);
	uint32                   wait = pg_atomic_read_u32(&progress->wait);

	report->phase = retry_at != 0 ? "retrying" : phases[phase];
	if (retry_at != 0)
		report->waiting_for =
			psprintf("S3, to be asked again in " INT64_FORMAT " s", seconds_until(retry_at));
	else if (phase == PROGRESS_READING && wait == PROGRESS_FOR_ROWS)
		report->waiting_for = pstrdup("rows of the query");
	else
		report->waiting_for = pstrdup("S3");
}

static double
seconds_since(TimestampTz since)
{
	if (since == 0)
		return 0;
	return (double) TimestampDifferenceMilliseconds(since, GetCurrentTimestamp()) / 1000;
}

/* "done" of "all" have taken so long; -1: nothing is known from that. */
static int64
seconds_for_rest(double elapsed, double done, double all)
{
	if (done >= all)
		return 0;
	return elapsed > 0 && done > 0 ? (int64) ceil(elapsed * (all - done) / done) : -1;
}

/*
 * The planner's number of rows is a guess: nothing is made of it once there are
 * more.  A query that thinks for an hour before its first row is not slow at
 * making rows, so that the clock starts with the first.  What is made has to be
 * sent, too, and files to be put in place: the slowest of these decides.
 */
static void
estimate_rest(Progress *progress, ProgressReport *report)
{
	double elapsed = seconds_since((TimestampTz) pg_atomic_read_u64(&progress->first_rows_at));
	double completing =
		seconds_since((TimestampTz) pg_atomic_read_u64(&progress->completing_since));
	double expected = (double) pg_atomic_read_u64(&progress->expected_rows);
	double rows = (double) report->rows;
	int64  sending =
		seconds_for_rest(elapsed, (double) report->bytes_sent, (double) report->bytes_made);

	report->rate = -1;
	report->percent = -1;
	report->seconds_left = -1;
	if (elapsed > 0 && report->bytes_sent > 0)
		report->rate = (int64) ((double) report->bytes_sent / elapsed);

	if (report->files_made > 0)
	{
		int64 files = seconds_for_rest(completing, report->files, report->files_made);

		report->percent = 100;
		report->seconds_left = files >= 0 && sending >= 0 ? Max(files, sending) : -1;
	}
	else if (pg_atomic_read_u32(&progress->phase) >= PROGRESS_SENDING)
	{
		report->percent = 100;
		report->seconds_left = sending;
	}
	else if (rows <= expected && expected > 0)
	{
		int64 reading = seconds_for_rest(elapsed, rows, expected);

		report->percent = floor(rows / expected * 1000) / 10;
		report->seconds_left = reading > 0 ? reading : sending;
	}
}

/* What was sent is read before what was made, of which it is never more. */
void
progress_report(Progress *progress, ProgressReport *report)
{
	report->job_id = (int64) pg_atomic_read_u64(&progress->job_id);
	report->owner = progress->owner;
	report->files = (int) pg_atomic_read_u32(&progress->files);
	report->files_made = (int) pg_atomic_read_u32(&progress->files_made);
	report->parts = (int) pg_atomic_read_u32(&progress->parts);
	report->retries = (int) pg_atomic_read_u32(&progress->retries);
	report->bytes_sent = (int64) pg_atomic_read_u64(&progress->bytes_sent);
	pg_read_barrier();
	report->bytes_made = (int64) pg_atomic_read_u64(&progress->bytes_made);
	report->rows = (int64) pg_atomic_read_u64(&progress->rows);
	describe_phase(progress, report);
	estimate_rest(progress, report);
}

/* ---- the leader ---- */

static bool
entry_is_ours(const ProgressDisplay *display)
{
	return MyBEEntry->st_progress_command == PROGRESS_COMMAND_COPY &&
		   MyBEEntry->st_progress_param[MARK_PARAM] == display->progress->started_at;
}

/* What ran within the query may have ended our entry: then it is made anew. */
static void
update_entry(const ProgressDisplay *display)
{
	static const int index[] = {
		PROGRESS_COPY_BYTES_PROCESSED,
		PROGRESS_COPY_TUPLES_PROCESSED,
		PROGRESS_COPY_COMMAND,
		PROGRESS_COPY_TYPE,
		MARK_PARAM,
	};
	int64 values[] = {
		(int64) pg_atomic_read_u64(&display->progress->bytes_made),
		(int64) pg_atomic_read_u64(&display->progress->rows),
		PROGRESS_COPY_COMMAND_TO,
		PROGRESS_COPY_TYPE_CALLBACK,
		display->progress->started_at,
	};

	if (MyBEEntry == NULL || !pgstat_track_activities)
		return;
	if (MyBEEntry->st_progress_command == PROGRESS_COMMAND_INVALID)
		pgstat_progress_start_command(PROGRESS_COMMAND_COPY, display->relid);
	else if (!entry_is_ours(display))
		return;
	pgstat_progress_update_multi_param(lengthof(index), index, values);
}

static const char *
pretty_size(int64 bytes)
{
	return text_to_cstring(
		DatumGetTextPP(DirectFunctionCall1(pg_size_pretty, Int64GetDatum(bytes))));
}

/* Its texts are in a context of their own: an export of a day gives thousands of notices. */
static void
give_notice(Progress *progress)
{
	MemoryContext context =
		AllocSetContextCreate(CurrentMemoryContext, "s3export notice", ALLOCSET_SMALL_SIZES);
	MemoryContext  old = MemoryContextSwitchTo(context);
	ProgressReport report;
	StringInfoData text;

	progress_report(progress, &report);
	initStringInfo(&text);
	appendStringInfo(&text, INT64_FORMAT " rows, %s made, %s sent", report.rows,
					 pretty_size(report.bytes_made), pretty_size(report.bytes_sent));
	if (report.rate >= 0)
		appendStringInfo(&text, ", %s/s", pretty_size(report.rate));
	if (report.percent >= 0)
		appendStringInfo(&text, ", %.1f %% of the rows", report.percent);
	if (report.files_made > 1)
		appendStringInfo(&text, ", %d of %d files in place", report.files, report.files_made);
	if (report.seconds_left >= 0)
		appendStringInfo(&text, ", about " INT64_FORMAT " s left", report.seconds_left);
	appendStringInfo(&text, "; waiting for %s", report.waiting_for);
	if (report.retries > 0)
		appendStringInfo(&text, "; %d %s sent again", report.retries,
						 report.retries == 1 ? "request" : "requests");
	ereport(NOTICE, (errmsg_internal("export: %s", text.data)));
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
}

static bool
wants_notices(void)
{
	if (guc_progress_notice == PROGRESS_NOTICE_AUTO)
		return MyProcPort != NULL && application_name != NULL &&
			   strcmp(application_name, "psql") == 0;
	return guc_progress_notice == PROGRESS_NOTICE_ON;
}

void
progress_begin(ProgressDisplay *display, Progress *progress, Oid relid)
{
	display->progress = progress;
	display->relid = relid;
	display->notices = wants_notices();
	display->next_notice = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), NOTICE_INTERVAL);
	update_entry(display);
}

long
progress_update(ProgressDisplay *display)
{
	TimestampTz now;

	update_entry(display);
	if (!display->notices)
		return -1;
	now = GetCurrentTimestamp();
	if (now >= display->next_notice)
	{
		give_notice(display->progress);
		now = GetCurrentTimestamp();
		display->next_notice = TimestampTzPlusMilliseconds(now, NOTICE_INTERVAL);
	}
	return TimestampDifferenceMilliseconds(now, display->next_notice);
}

void
progress_end(const ProgressDisplay *display)
{
	if (MyBEEntry != NULL && entry_is_ours(display))
		pgstat_progress_end_command();
}
