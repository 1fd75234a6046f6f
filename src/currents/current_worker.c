/*-------------------------------------------------------------------------
 *
 * current_worker.c
 *	  Deliveries, launches and copies of tables: the sessions' side, and the background worker.
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

#include "base/guc.h"
#include "base/message.h"
#include "currents/current_worker.h"
#include "ipc/pipe.h"
#include "tables/catalog.h"

#define REQUEST_DELIVER 'd'
#define REQUEST_LAUNCH 'l'
#define REQUEST_ADD_TABLE 'a'
#define REPLY_FINISHED 'f'

extern PGDLLEXPORT void s3export_current_main(Datum arg);

/* What a session asks for. */
typedef struct Request
{
	char  kind;
	int64 connector_id;
	bool  copy_existing; /* of a launch */
	Oid   relid;         /* of a table that is added */
	Oid   userid;        /* who adds it */
} Request;

/* The kind comes before the settings, and these after them. */
static const MessageMember request_members[] = {
	MESSAGE_MEMBER(Request, connector_id),
	MESSAGE_MEMBER(Request, copy_existing),
	MESSAGE_MEMBER(Request, relid),
	MESSAGE_MEMBER(Request, userid),
};

static const MessageMember outcome_members[] = {
	MESSAGE_MEMBER(DeliveryOutcome, state),          MESSAGE_MEMBER(DeliveryOutcome, events),
	MESSAGE_MEMBER(DeliveryOutcome, files),          MESSAGE_MEMBER(DeliveryOutcome, bytes),
	MESSAGE_MEMBER(DeliveryOutcome, events_dropped), MESSAGE_MEMBER(DeliveryOutcome, position),
	MESSAGE_MEMBER(DeliveryOutcome, batch),
};

/* ---- sessions ---- */

/*
 * Starts a worker for the request, and waits for its outcome.  The worker's errors are raised
 * here.
 */
static void
perform_in_worker(const Request *request, DeliveryOutcome *outcome)
{
	StringInfoData message;
	StringInfoData reply;
	Pipe          *pipe;

	initStringInfo(&message);
	appendStringInfoChar(&message, request->kind);
	guc_serialize(&message);
	message_put_struct(&message, request, request_members);
	pipe = pipe_open(PIPE_CURRENT, &message, 0);
	pfree(message.data);

	initStringInfo(&reply);
	if (pipe_wait_reply(pipe, &reply) != REPLY_FINISHED)
		elog(ERROR, "unexpected reply of the worker that delivers");
	message_get_struct(&reply, outcome, outcome_members);
	pfree(reply.data);
	pipe_close(pipe);
}

void
current_worker_deliver(int64 connector_id, DeliveryOutcome *outcome)
{
	perform_in_worker(&(Request){.kind = REQUEST_DELIVER, .connector_id = connector_id}, outcome);
}

void
current_worker_launch(int64 connector_id, bool copy_existing, DeliveryOutcome *outcome)
{
	perform_in_worker(&(Request){.kind = REQUEST_LAUNCH,
								 .connector_id = connector_id,
								 .copy_existing = copy_existing},
					  outcome);
}

void
current_worker_add_table(int64 connector_id, Oid relid, DeliveryOutcome *outcome)
{
	perform_in_worker(&(Request){.kind = REQUEST_ADD_TABLE,
								 .connector_id = connector_id,
								 .relid = relid,
								 .userid = GetUserId()},
					  outcome);
}

/* ---- the worker ---- */

/* Whatever the database has for a default, files are written alike. */
static void
settle_output(void)
{
	static const char *const settings[][2] = {
		{"datestyle", "ISO, YMD"},     {"intervalstyle", "postgres"},    {"timezone", "UTC"},
		{"bytea_output", "hex"},       {"extra_float_digits", "1"},      {"lc_monetary", "C"},
		{"search_path", "pg_catalog"}, {"quote_all_identifiers", "off"},
	};

	for (size_t i = 0; i < lengthof(settings); i++)
		SetConfigOption(settings[i][0], settings[i][1], PGC_SUSET, PGC_S_OVERRIDE);
}

/*
 * A standby that takes over must know which batch may have files, and which have: so these
 * commits wait for it where those of users do.
 */
static void
settle_commits(const char *synchronous)
{
	if (strcmp(synchronous, "off") != 0)
		SetConfigOption("synchronous_commit", synchronous, PGC_SUSET, PGC_S_OVERRIDE);
}

static void
reply_outcome(Pipe *pipe, const DeliveryOutcome *outcome)
{
	StringInfoData reply;

	initStringInfo(&reply);
	message_put_struct(&reply, outcome, outcome_members);
	pipe_reply(pipe, REPLY_FINISHED, &reply);
}

static void
read_request(Request *request, StringInfo message)
{
	request->kind = (char) pq_getmsgbyte(message);
	guc_restore(message);
	message_get_struct(message, request, request_members);
}

/*
 * A delivery that is ended goes on another time.  What else is ended, by the session that
 * waits for it or by a shutdown, is undone first.
 */
static void
serve_request(const Request *request, DeliveryOutcome *outcome)
{
	const char *what = "delivery of";

	if (request->kind != REQUEST_DELIVER)
		pqsignal(SIGTERM, StatementCancelHandler);
	if (request->kind == REQUEST_LAUNCH)
		what = "launch of";
	else if (request->kind == REQUEST_ADD_TABLE)
		what = "copy of a table for";
	pgstat_report_activity(STATE_RUNNING,
						   psprintf("%s connector " INT64_FORMAT, what, request->connector_id));
	if (request->kind == REQUEST_LAUNCH)
		delivery_launch(request->connector_id, request->copy_existing, outcome);
	else if (request->kind == REQUEST_ADD_TABLE)
		delivery_add_table(request->connector_id, request->relid, request->userid, outcome);
	else
		delivery_run(request->connector_id, outcome);
}

void
s3export_current_main(Datum arg)
{
	DeliveryOutcome outcome = {0};
	StringInfoData  message;
	Request         request;
	Pipe           *pipe;
	char           *synchronous;

	pqsignal(SIGTERM, die);
	pqsignal(SIGINT, StatementCancelHandler);
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	BackgroundWorkerUnblockSignals();

	MemoryContextSwitchTo(
		AllocSetContextCreate(TopMemoryContext, "s3export current", ALLOCSET_DEFAULT_SIZES));
	initStringInfo(&message);
	pipe = pipe_attach(arg, &message);
	synchronous = pstrdup(GetConfigOption("synchronous_commit", false, false));
	catalog_settle_session("s3export current");
	settle_commits(synchronous);
	settle_output();
	read_request(&request, &message);
	serve_request(&request, &outcome);
	reply_outcome(pipe, &outcome);
	pgstat_report_stat(true);
}
