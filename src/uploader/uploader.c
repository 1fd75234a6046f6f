/*-------------------------------------------------------------------------
 *
 * uploader.c
 *	  The uploader: the process that holds the secret and talks to S3.
 *
 * An uploader serves one request and ends.  SIGTERM and SIGINT raise ordinary
 * errors here, at the next turn of its transfers, instead of ending the process
 * or its transaction on the spot, so that an export can clean up behind itself
 * and record its end.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "libpq/pqformat.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "utils/guc.h"
#include "utils/memutils.h"

#include "base/guc.h"
#include "base/message.h"
#include "tables/catalog.h"
#include "tables/job.h"
#include "tables/utf8.h"
#include "uploader/permission_check.h"
#include "uploader/s3_client.h"
#include "uploader/uploader.h"

#define REQUEST_EXPORT 'e'
#define REQUEST_CHECK 'c'
#define REQUEST_IDENTITY 'i'
#define REQUEST_RECOVER 'r'
#define REQUEST_FIND 'f'

#define REPLY_BEGUN 'b'     /* the export has begun */
#define REPLY_CHECK 'c'     /* one check's result */
#define REPLY_RECOVERED 'r' /* what became of one file */
#define REPLY_FINISHED 'f'  /* totals, the region, or the identity */

extern PGDLLEXPORT void s3export_uploader_main(Datum arg);

/* ---- requests and replies ---- */

static const MessageMember totals_members[] = {
	MESSAGE_MEMBER(JobTotals, job_id), MESSAGE_MEMBER(JobTotals, uri),
	MESSAGE_MEMBER(JobTotals, rows),   MESSAGE_MEMBER(JobTotals, bytes),
	MESSAGE_MEMBER(JobTotals, files),  MESSAGE_MEMBER(JobTotals, manifest_uri),
};

static const MessageMember permission_members[] = {
	MESSAGE_MEMBER(PermissionResult, check),    MESSAGE_MEMBER(PermissionResult, ok),
	MESSAGE_MEMBER(PermissionResult, advisory), MESSAGE_MEMBER(PermissionResult, skipped),
	MESSAGE_MEMBER(PermissionResult, action),   MESSAGE_MEMBER(PermissionResult, sqlstate),
	MESSAGE_MEMBER(PermissionResult, code),     MESSAGE_MEMBER(PermissionResult, request_id),
	MESSAGE_MEMBER(PermissionResult, message),  MESSAGE_MEMBER(PermissionResult, hint),
};

static const MessageMember identity_members[] = {
	MESSAGE_MEMBER(UploaderIdentity, account),    MESSAGE_MEMBER(UploaderIdentity, arn),
	MESSAGE_MEMBER(UploaderIdentity, sqlerrcode), MESSAGE_MEMBER(UploaderIdentity, detail),
	MESSAGE_MEMBER(UploaderIdentity, hint),
};

static const MessageMember recovery_members[] = {
	MESSAGE_MEMBER(RecoveryRow, job_id),
	MESSAGE_MEMBER(RecoveryRow, uri),
	MESSAGE_MEMBER(RecoveryRow, action),
	MESSAGE_MEMBER(RecoveryRow, detail),
};

static void
begin_request(StringInfo request, char kind, const Connector *connector)
{
	initStringInfo(request);
	appendStringInfoChar(request, kind);
	guc_serialize(request);
	if (connector != NULL)
		connector_serialize(request, connector);
}

static Pipe *
send_request(StringInfo request, int workers)
{
	Pipe *pipe = pipe_open(PIPE_UPLOADER, request, workers);

	pfree(request->data);
	return pipe;
}

static void
expect_reply(Pipe *pipe, char expected, StringInfo reply)
{
	char kind = pipe_wait_reply(pipe, reply);

	if (kind != expected)
		elog(ERROR, "unexpected reply \"%c\" of the uploader", kind);
}

/* ---- the callers' side ---- */

/* The job that was refused an uploader when one was asked for last; 0: none was. */
static int64 refused_job = 0;

bool
uploader_was_refused(int64 job_id)
{
	return refused_job == job_id;
}

Pipe *
uploader_start_export(const Connector *connector, const ExportRequest *ordered, int workers,
					  Oid relid)
{
	MemoryContext  context = CurrentMemoryContext;
	StringInfoData request;
	StringInfoData reply;
	Pipe          *pipe;

	begin_request(&request, REQUEST_EXPORT, connector);
	export_request_serialize(&request, ordered);
	refused_job = ordered->job_id;
	pipe = send_request(&request, workers);
	refused_job = 0;
	/* Before the job has a row to look for; whoever delivers acts for this role. */
	pipe_progress(pipe)->owner = ordered->owner;
	pipe_begin_progress(pipe, relid);
	initStringInfo(&reply);
	PG_TRY();
	{
		expect_reply(pipe, REPLY_BEGUN, &reply);
	}
	PG_CATCH();
	{
		ErrorData *error;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		pipe_set_error(pipe, error);
		if (error->sqlerrcode == ERRCODE_CONFIGURATION_LIMIT_EXCEEDED)
			refused_job = ordered->job_id;
		PG_RE_THROW();
	}
	PG_END_TRY();
	pfree(reply.data);
	return pipe;
}

void
uploader_finish_export(Pipe *pipe, JobTotals *totals)
{
	StringInfoData reply;

	initStringInfo(&reply);
	expect_reply(pipe, REPLY_FINISHED, &reply);
	message_get_struct(&reply, totals, totals_members);
	pfree(reply.data);
	pipe_close(pipe);
}

List *
uploader_check(const Connector *connector, int wait, char **region)
{
	List          *results = NIL;
	StringInfoData request;
	StringInfoData reply;
	Pipe          *pipe;
	char           kind;

	begin_request(&request, REQUEST_CHECK, connector);
	message_put_int64(&request, wait);
	pipe = send_request(&request, 0);
	initStringInfo(&reply);
	while ((kind = pipe_wait_reply(pipe, &reply)) == REPLY_CHECK)
	{
		PermissionResult *result = palloc(sizeof(PermissionResult));

		message_get_struct(&reply, result, permission_members);
		results = lappend(results, result);
	}
	if (kind != REPLY_FINISHED)
		elog(ERROR, "unexpected reply \"%c\" of the uploader", kind);
	*region = message_get_string(&reply);
	pfree(reply.data);
	pipe_close(pipe);
	return results;
}

UploaderIdentity *
uploader_identity(const Connector *connector)
{
	UploaderIdentity *identity = palloc0(sizeof(UploaderIdentity));
	StringInfoData    request;
	StringInfoData    reply;
	Pipe             *pipe;

	begin_request(&request, REQUEST_IDENTITY, connector);
	pipe = send_request(&request, 0);
	initStringInfo(&reply);
	expect_reply(pipe, REPLY_FINISHED, &reply);
	message_get_struct(&reply, identity, identity_members);
	pfree(reply.data);
	pipe_close(pipe);
	return identity;
}

char *
uploader_find_object(const Connector *connector)
{
	StringInfoData request;
	StringInfoData reply;
	Pipe          *pipe;
	char          *key;

	begin_request(&request, REQUEST_FIND, connector);
	pipe = send_request(&request, 0);
	initStringInfo(&reply);
	expect_reply(pipe, REPLY_FINISHED, &reply);
	key = message_get_string(&reply);
	pfree(reply.data);
	pipe_close(pipe);
	return key;
}

List *
uploader_recover(Oid role)
{
	List          *rows = NIL;
	StringInfoData request;
	StringInfoData reply;
	Pipe          *pipe;
	char           kind;

	begin_request(&request, REQUEST_RECOVER, NULL);
	message_put_int64(&request, role);
	pipe = send_request(&request, 0);
	initStringInfo(&reply);
	while ((kind = pipe_wait_reply(pipe, &reply)) == REPLY_RECOVERED)
	{
		RecoveryRow *row = palloc(sizeof(RecoveryRow));

		message_get_struct(&reply, row, recovery_members);
		rows = lappend(rows, row);
	}
	if (kind != REPLY_FINISHED)
		elog(ERROR, "unexpected reply \"%c\" of the uploader", kind);
	pfree(reply.data);
	pipe_close(pipe);
	return rows;
}

/* ---- the uploader's side: checks ---- */

static void
reply_check(void *arg, const PermissionResult *result)
{
	StringInfoData reply;

	initStringInfo(&reply);
	message_put_struct(&reply, result, permission_members);
	pipe_reply((Pipe *) arg, REPLY_CHECK, &reply);
	pfree(reply.data);
}

/* What the keys of objects in the connector's folder begin with, in UTF-8. */
static char *
folder_prefix(const Connector *connector)
{
	return connector->folder_path[0] ? utf8_from_database(psprintf("%s/", connector->folder_path))
									 : "";
}

static void
run_find(Pipe *pipe, StringInfo request)
{
	Connector     *connector = connector_deserialize(request);
	HttpClient    *http = s3_client_open_http(1, Min(guc_retry_timeout, STORE_CHECK_RETRY_TIMEOUT));
	S3Timeouts     limits = s3_client_timeouts();
	S3Call         list = {.verb = S3_LIST_OBJECTS, .prefix = folder_prefix(connector)};
	S3Session     *s3;
	StringInfoData reply;

	http_set_watch(http, s3_client_watch_leader, pipe);
	s3 = s3_open(http, &connector->s3, credentials_open(http, &connector->credentials, NULL, NULL),
				 &limits);
	(void) s3_perform(s3, &list);
	initStringInfo(&reply);
	message_put_string(&reply, list.found_key != NULL ? s3_uri(s3, list.found_key) : NULL);
	pipe_reply(pipe, REPLY_FINISHED, &reply);
}

static void
run_check(Pipe *pipe, StringInfo request)
{
	Connector     *connector = connector_deserialize(request);
	HttpClient    *http = s3_client_open_http(2, Min(guc_retry_timeout, STORE_CHECK_RETRY_TIMEOUT));
	S3Timeouts     limits = s3_client_timeouts();
	int            wait = (int) message_get_int64(request);
	char          *region;
	StringInfoData reply;

	http_set_watch(http, s3_client_watch_leader, pipe);
	region = permission_check_all(http, &limits,
								  &(PermissionCheck){
									  .s3 = &connector->s3,
									  .credentials = &connector->credentials,
									  .key_prefix = folder_prefix(connector),
									  .need_delete = connector->kind == CONNECTOR_DATA_EXPORT,
									  .wait = wait,
									  .emit = reply_check,
									  .arg = pipe,
								  });

	initStringInfo(&reply);
	message_put_string(&reply, region);
	pipe_reply(pipe, REPLY_FINISHED, &reply);
}

/* A failure is an answer too: the caller reports it as a warning or an error. */
static void
run_identity(Pipe *pipe, StringInfo request)
{
	Connector   *connector = connector_deserialize(request);
	HttpClient  *http = s3_client_open_http(1, Min(guc_retry_timeout, STORE_CHECK_RETRY_TIMEOUT));
	Credentials *credentials;
	const CredentialFailure *failure;
	UploaderIdentity         identity = {0};
	StringInfoData           reply;

	http_set_watch(http, s3_client_watch_leader, pipe);
	credentials = credentials_open(http, &connector->credentials, NULL, NULL);
	if (!credentials_caller_identity(credentials, &identity.account, &identity.arn, &failure))
	{
		S3Error error;

		s3_error_set_credentials(&error, failure, "");
		identity = (UploaderIdentity){.sqlerrcode = s3_error_sqlstate(&error),
									  .detail = s3_error_detail(&error),
									  .hint = s3_error_hint(&error)};
	}
	initStringInfo(&reply);
	message_put_struct(&reply, &identity, identity_members);
	pipe_reply(pipe, REPLY_FINISHED, &reply);
}

/* ---- the uploader's side: recovery ---- */

static void
reply_nothing(Pipe *pipe, char kind)
{
	StringInfoData nothing;

	initStringInfo(&nothing);
	pipe_reply(pipe, kind, &nothing);
}

static void
reply_recovered(void *arg, const RecoveryRow *row)
{
	StringInfoData reply;

	initStringInfo(&reply);
	message_put_struct(&reply, row, recovery_members);
	pipe_reply((Pipe *) arg, REPLY_RECOVERED, &reply);
	pfree(reply.data);
}

static void
run_recovery(Pipe *pipe, StringInfo request)
{
	recovery_run((Oid) message_get_int64(request), reply_recovered, s3_client_watch_leader, pipe);
	reply_nothing(pipe, REPLY_FINISHED);
}

/* ---- the uploader's side: exports ---- */

static void
reply_begun(Pipe *pipe)
{
	reply_nothing(pipe, REPLY_BEGUN);
}

static void
run_export(Pipe *pipe, StringInfo request)
{
	Connector     *connector = connector_deserialize(request);
	ExportRequest  ordered;
	JobTotals      totals;
	StringInfoData reply;

	export_request_deserialize(request, &ordered);
	if (!export_job_run(pipe, connector, &ordered, reply_begun, &totals))
		return;
	initStringInfo(&reply);
	message_put_struct(&reply, &totals, totals_members);
	pipe_reply(pipe, REPLY_FINISHED, &reply);
	/* Nobody waits for this. */
	if (totals.job_id != JOB_UNRECORDED)
		recovery_forget();
}

/* ---- the uploader's side: its main function ---- */

void
s3export_uploader_main(Datum arg)
{
	Pipe          *pipe;
	StringInfoData request;
	char           kind;

	pqsignal(SIGTERM, SignalHandlerForShutdownRequest);
	pqsignal(SIGINT, s3_client_handle_cancel);
	BackgroundWorkerUnblockSignals();

	MemoryContextSwitchTo(
		AllocSetContextCreate(TopMemoryContext, "s3export uploader", ALLOCSET_DEFAULT_SIZES));
	initStringInfo(&request);
	pipe = pipe_attach(arg, &request);
	catalog_settle_session("s3export uploader");
	kind = (char) pq_getmsgbyte(&request);
	guc_restore(&request);
	if (kind == REQUEST_EXPORT)
		run_export(pipe, &request);
	else if (kind == REQUEST_CHECK)
		run_check(pipe, &request);
	else if (kind == REQUEST_RECOVER)
		run_recovery(pipe, &request);
	else if (kind == REQUEST_FIND)
		run_find(pipe, &request);
	else
		run_identity(pipe, &request);
}
