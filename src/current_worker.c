/*-------------------------------------------------------------------------
 *
 * current_worker.c
 *	  Deliveries and launches: the sessions' side, and the background worker.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "libpq/pqformat.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"

#include "catalog.h"
#include "current_worker.h"
#include "guc.h"
#include "pipe.h"
#include "wire.h"

#define REQUEST_DELIVER 'd'
#define REQUEST_LAUNCH 'l'
#define REPLY_FINISHED 'f'

extern PGDLLEXPORT void s3export_current_main(Datum arg);

/* ---- sessions ---- */

static void
perform(char kind, int64 connector_id, bool copy_existing, DeliveryOutcome *outcome)
{
	StringInfoData request;
	StringInfoData reply;
	Pipe          *pipe;

	initStringInfo(&request);
	appendStringInfoChar(&request, kind);
	guc_serialize(&request);
	wire_put_int64(&request, connector_id);
	wire_put_int64(&request, copy_existing);
	pipe = pipe_open(PIPE_CURRENT, &request, 0);
	pfree(request.data);

	initStringInfo(&reply);
	if (pipe_wait_reply(pipe, &reply) != REPLY_FINISHED)
		elog(ERROR, "unexpected reply of the worker that delivers");
	outcome->state = wire_get_string(&reply);
	outcome->events = (uint64) wire_get_int64(&reply);
	outcome->files = (int) wire_get_int64(&reply);
	outcome->bytes = (uint64) wire_get_int64(&reply);
	outcome->events_dropped = (uint64) wire_get_int64(&reply);
	outcome->position = (XLogRecPtr) wire_get_int64(&reply);
	pfree(reply.data);
	pipe_close(pipe);
}

void
current_worker_deliver(int64 connector_id, DeliveryOutcome *outcome)
{
	perform(REQUEST_DELIVER, connector_id, false, outcome);
}

void
current_worker_launch(int64 connector_id, bool copy_existing, DeliveryOutcome *outcome)
{
	perform(REQUEST_LAUNCH, connector_id, copy_existing, outcome);
}

/* ---- the worker ---- */

/* Whatever the database has for a default, files are written alike. */
static void
settle_output(void)
{
	static const char *const settings[][2] = {
		{"datestyle", "ISO, YMD"},     {"intervalstyle", "postgres"},
		{"timezone", "UTC"},           {"bytea_output", "hex"},
		{"extra_float_digits", "1"},   {"lc_monetary", "C"},
		{"search_path", "pg_catalog"}, {"quote_all_identifiers", "off"},
		{"statement_timeout", "0"},    {"jit", "off"},
	};

	for (size_t i = 0; i < lengthof(settings); i++)
		SetConfigOption(settings[i][0], settings[i][1], PGC_SUSET, PGC_S_OVERRIDE);
}

static void
reply_outcome(Pipe *pipe, const DeliveryOutcome *outcome)
{
	StringInfoData reply;

	initStringInfo(&reply);
	wire_put_string(&reply, outcome->state);
	wire_put_int64(&reply, (int64) outcome->events);
	wire_put_int64(&reply, outcome->files);
	wire_put_int64(&reply, (int64) outcome->bytes);
	wire_put_int64(&reply, (int64) outcome->events_dropped);
	wire_put_int64(&reply, (int64) outcome->position);
	pipe_reply(pipe, REPLY_FINISHED, &reply);
}

void
s3export_current_main(Datum arg)
{
	DeliveryOutcome outcome = {0};
	StringInfoData  request;
	Pipe           *pipe;
	char            kind;
	int64           connector_id;
	bool            copy_existing;

	pqsignal(SIGTERM, die);
	pqsignal(SIGINT, StatementCancelHandler);
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	BackgroundWorkerUnblockSignals();

	MemoryContextSwitchTo(
		AllocSetContextCreate(TopMemoryContext, "s3export current", ALLOCSET_DEFAULT_SIZES));
	initStringInfo(&request);
	pipe = pipe_attach(arg, &request);
	catalog_settle_session("s3export current");
	settle_output();
	kind = (char) pq_getmsgbyte(&request);
	guc_restore(&request);
	connector_id = wire_get_int64(&request);
	copy_existing = wire_get_int64(&request) != 0;
	pgstat_report_activity(STATE_RUNNING,
						   psprintf("%s connector " INT64_FORMAT,
									kind == REQUEST_LAUNCH ? "launch of" : "delivery of",
									connector_id));
	if (kind == REQUEST_LAUNCH)
		delivery_launch(connector_id, copy_existing, &outcome);
	else
		delivery_run(connector_id, &outcome);
	reply_outcome(pipe, &outcome);
	pgstat_report_stat(true);
}
