/*-------------------------------------------------------------------------
 *
 * uploader.c
 *	  The uploader: the process that holds the secret and talks to S3.
 *
 * An uploader serves one request and ends.  It takes blocks when it has room
 * for them and drives its transfers otherwise, so it never waits for one while
 * the other could go on.
 *
 * However an export ends, its multipart upload is aborted or completed and its
 * row says which.  SIGTERM therefore raises an ordinary error here, at the
 * next turn of the transfers, instead of ending the process on the spot.
 * While the object is being put in place the leader's death is no reason to
 * stop: the outcome is found out and recorded.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "libpq/pqformat.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "pgtime.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

#include "compat.h"
#include "guc.h"
#include "job.h"
#include "policy.h"
#include "probe.h"
#include "upload.h"
#include "uploader.h"
#include "wire.h"

#define REQUEST_EXPORT 'e'
#define REQUEST_CHECK 'c'

#define REPLY_BEGUN 'b'    /* the export has begun */
#define REPLY_CHECK 'c'    /* one check's result */
#define REPLY_FINISHED 'f' /* totals, or the region */

/* How long cleaning up may take: after an error, and when the server stops. */
#define ABORT_TIMEOUT 5000
#define ABORT_TIMEOUT_SHUTDOWN 2000

/* A person waits for a check, and a mistyped host will not come to life. */
#define CHECK_RETRY_TIMEOUT 5000

typedef struct Export
{
	Pipe          *pipe;
	Connector     *connector;
	UploaderExport request;
	int64          job_id;
	bool           recorded; /* the job has a row */
	char          *key;      /* UTF-8, as S3 wants it */
	char          *uri;
	HttpClient    *http;
	S3Session     *s3;
	Upload        *upload; /* NULL before the first block */
	StringInfoData header;
	JobTotals      totals;
} Export;

extern PGDLLEXPORT void s3export_uploader_main(Datum arg);

/* ---- requests and replies ---- */

static void
put_export(StringInfo buf, const UploaderExport *export)
{
	wire_put_int64(buf, export->owner);
	wire_put_string(buf, export->source);
	wire_put_string(buf, export->path);
	wire_put_string(buf, export->stem);
	wire_put_string(buf, export->suffix);
	wire_put_string(buf, export->content_type);
	wire_put_int64(buf, export->overwrite);
	wire_put_int64(buf, export->on_empty);
}

static void
get_export(StringInfo buf, UploaderExport *export)
{
	export->owner = (Oid) wire_get_int64(buf);
	export->source = wire_get_string(buf);
	export->path = wire_get_string(buf);
	export->stem = wire_get_string(buf);
	export->suffix = wire_get_string(buf);
	export->content_type = wire_get_string(buf);
	export->overwrite = wire_get_int64(buf) != 0;
	export->on_empty = (UploaderOnEmpty) wire_get_int64(buf);
}

static Pipe *
start(char kind, const Connector *connector, const UploaderExport *export, int workers)
{
	StringInfoData request;
	Pipe          *pipe;

	initStringInfo(&request);
	appendStringInfoChar(&request, kind);
	guc_serialize(&request);
	connector_serialize(&request, connector);
	if (export != NULL)
		put_export(&request, export);
	pipe = pipe_open(&request, workers);
	pfree(request.data);
	return pipe;
}

static void
expect_reply(Pipe *pipe, char expected, StringInfo reply)
{
	char letter = pipe_wait_reply(pipe, reply);

	if (letter != expected)
		elog(ERROR, "unexpected reply \"%c\" of the uploader", letter);
}

/* ---- the callers' side ---- */

Pipe *
uploader_start_export(const Connector *connector, const UploaderExport *export, int workers)
{
	Pipe          *pipe = start(REQUEST_EXPORT, connector, export, workers);
	StringInfoData reply;

	initStringInfo(&reply);
	expect_reply(pipe, REPLY_BEGUN, &reply);
	pfree(reply.data);
	return pipe;
}

void
uploader_finish_export(Pipe *pipe, UploaderTotals *totals)
{
	StringInfoData reply;

	initStringInfo(&reply);
	expect_reply(pipe, REPLY_FINISHED, &reply);
	totals->job_id = wire_get_int64(&reply);
	totals->uri = wire_get_string(&reply);
	totals->rows = (uint64) wire_get_int64(&reply);
	totals->bytes = (uint64) wire_get_int64(&reply);
	totals->files = (int) wire_get_int64(&reply);
	pfree(reply.data);
	pipe_close(pipe);
}

List *
uploader_check(const Connector *connector, char **region)
{
	Pipe          *pipe = start(REQUEST_CHECK, connector, NULL, 0);
	List          *results = NIL;
	StringInfoData reply;
	char           letter;

	initStringInfo(&reply);
	while ((letter = pipe_wait_reply(pipe, &reply)) == REPLY_CHECK)
	{
		ProbeResult *result = palloc(sizeof(ProbeResult));

		result->check = wire_get_string(&reply);
		result->ok = wire_get_int64(&reply) != 0;
		result->action = wire_get_string(&reply);
		result->code = wire_get_string(&reply);
		result->request_id = wire_get_string(&reply);
		result->message = wire_get_string(&reply);
		result->hint = wire_get_string(&reply);
		results = lappend(results, result);
	}
	if (letter != REPLY_FINISHED)
		elog(ERROR, "unexpected reply \"%c\" of the uploader", letter);
	*region = wire_get_string(&reply);
	pfree(reply.data);
	pipe_close(pipe);
	return results;
}

/* ---- the uploader's side: checks ---- */

static HttpClient *
open_http(int connections, int retry_timeout)
{
	HttpOptions options = {
		.connect_timeout = guc_connect_timeout,
		.retry_timeout = retry_timeout,
		.max_connections = connections,
		.ca_file = guc_ca_file[0] ? guc_ca_file : NULL,
		.proxy = guc_proxy[0] ? guc_proxy : NULL,
	};

	return http_open(&options);
}

/* Raises an error when the server is stopping, or somebody terminated us. */
static void
watch_shutdown(void *arg pg_attribute_unused())
{
	if (ShutdownRequestPending)
		ereport(ERROR, (errcode(ERRCODE_ADMIN_SHUTDOWN),
						errmsg("terminating the uploader due to administrator command")));
}

/* The same, and when nobody waits for the outcome any more. */
static void
watch_leader(void *arg)
{
	const ErrorData *error;

	watch_shutdown(NULL);
	if (!pipe_leader_gone((Pipe *) arg, &error))
		return;
	if (error == NULL)
		ereport(ERROR, (errcode(ERRCODE_QUERY_CANCELED),
						errmsg("the session that ran the export has ended")));
	ereport(ERROR, (errcode(error->sqlerrcode), errmsg_internal("%s", error->message),
					error->detail ? errdetail_internal("%s", error->detail) : 0,
					error->hint ? errhint("%s", error->hint) : 0));
}

static void
reply_check(void *arg, const ProbeResult *result)
{
	StringInfoData reply;

	initStringInfo(&reply);
	wire_put_string(&reply, result->check);
	wire_put_int64(&reply, result->ok);
	wire_put_string(&reply, result->action);
	wire_put_string(&reply, result->code);
	wire_put_string(&reply, result->request_id);
	wire_put_string(&reply, result->message);
	wire_put_string(&reply, result->hint);
	pipe_reply((Pipe *) arg, REPLY_CHECK, &reply);
	pfree(reply.data);
}

static S3Timeouts
timeouts(void)
{
	return (S3Timeouts){
		.request = guc_request_timeout,
		.stall = guc_stall_timeout,
		.complete = guc_complete_timeout,
	};
}

static void
run_check(Pipe *pipe, StringInfo request)
{
	Connector     *connector = connector_deserialize(request);
	HttpClient    *http = open_http(2, Min(guc_retry_timeout, CHECK_RETRY_TIMEOUT));
	S3Timeouts     limits = timeouts();
	char          *region;
	StringInfoData reply;

	http_set_watch(http, watch_leader, pipe);
	probe_permissions(http, &connector->s3, &connector->credentials, &limits,
					  connector->folder_path[0] ? psprintf("%s/", connector->folder_path) : "",
					  strcmp(connector->kind, "data_export") == 0, reply_check, pipe, &region);

	initStringInfo(&reply);
	wire_put_string(&reply, region);
	pipe_reply(pipe, REPLY_FINISHED, &reply);
}

/* ---- the uploader's side: exports ---- */

/* folder/path, or folder/stem-20261122T170000Z-42.csv, in the database's encoding */
static char *
make_name(const Export *export)
{
	const char *folder = export->connector->folder_path;
	char       *name = export->request.path;

	if (name == NULL)
	{
		pg_time_t now = (pg_time_t) time(NULL);
		char      stamp[32];

		pg_strftime(stamp, sizeof(stamp), "%Y%m%dT%H%M%SZ", pg_gmtime(&now));
		name = psprintf("%s-%s-" INT64_FORMAT "%s", export->request.stem, stamp, export->job_id,
						export->request.suffix);
	}
	return folder[0] ? psprintf("%s/%s", folder, name) : name;
}

static void
begin_job(Export *export)
{
	JobRequest request = {
		.owner = export->request.owner,
		.connector_id = export->connector->connector_id,
		.connector = export->connector->name,
		.source = export->request.source,
		.bucket = export->connector->s3.bucket,
		.leader_pid = pipe_leader_pid(export->pipe),
	};
	char *name;

	export->job_id = job_new_id();
	name = make_name(export);
	export->key = pg_server_to_any(name, (int) strlen(name), PG_UTF8);
	export->uri = connector_uri(export->connector, name);
	job_begin(export->job_id, &request, name, export->uri);
	export->recorded = true;
}

/* A session of a role may do no more than this export needs. */
static char *
session_policy(const Export *export)
{
	const char *arn = export->connector->credentials.role_arn;
	const char *partition = arn + strlen("arn:");

	return policy_for_session(pnstrdup(partition, strcspn(partition, ":")),
							  export->connector->s3.bucket, export->key, false);
}

static void
open_store(Export *export)
{
	CredentialConfig *config = &export->connector->credentials;
	Credentials      *credentials;
	S3Timeouts        limits = timeouts();

	export->http = open_http(guc_max_concurrent_parts + 2, guc_retry_timeout);
	http_set_watch(export->http, watch_leader, export->pipe);
	credentials =
		credentials_open(export->http, config, psprintf("s3export-" INT64_FORMAT, export->job_id),
						 config->role_arn ? session_policy(export) : NULL);
	export->s3 = s3_open(export->http, &export->connector->s3, credentials, &limits);
}

/*
 * Whether there is an object in the way is asked before the query runs, so
 * that an hour's work is not thrown away; so is whether S3 can be reached with
 * these credentials at all.  A store that does not let us look (403) will
 * refuse to overwrite the object, if it can.
 */
static void
refuse_existing(Export *export)
{
	S3Call head = {.verb = S3_HEAD_OBJECT, .key = export->key};

	if (export->request.overwrite)
		return;
	if (s3_perform(export->s3, &head))
		ereport(ERROR, (errcode(ERRCODE_DUPLICATE_OBJECT),
						errmsg("object \"%s\" already exists", export->uri),
						errhint("Choose another path, or use if_exists => 'overwrite'.")));
	if (head.error.http_status == 404)
		return;
	if (head.error.http_status == 403 && strncmp(head.error.action, "s3:", 3) == 0)
		return;
	s3_report(ERROR, &head.error, "could not look for object");
}

static void
upload_has_id(void *arg, const char *upload_id)
{
	job_set_upload_id(((Export *) arg)->job_id, upload_id);
}

static void
upload_completes(void *arg)
{
	Export *export = arg;

	job_set_completing(export->job_id);
	http_set_watch(export->http, watch_shutdown, NULL);
}

static void
begin_upload(Export *export)
{
	UploadOptions options = {
		.key = export->key,
		.fail_if_exists = !export->request.overwrite,
		.memory = (size_t) guc_upload_memory * 1024,
		.part_size = (size_t) guc_part_size * 1024,
		.max_concurrent_parts = guc_max_concurrent_parts,
		.content_type = export->request.content_type,
		.started = upload_has_id,
		.completing = upload_completes,
		.arg = export,
	};

	export->upload = upload_begin(export->s3, &options);
	upload_write(export->upload, export->header.data, export->header.len);
}

static void
take_block(Export *export, const PipeBlock *block)
{
	if (block->kind == PIPE_HEADER)
	{
		appendBinaryStringInfo(&export->header, block->data, (int) block->len);
		return;
	}
	if (export->upload == NULL)
		begin_upload(export);
	upload_write(export->upload, block->data, block->len);
	export->totals.rows += block->rows;
}

/* What an object holds that would be empty: not nothing, when it is compressed. */
static void
take_end(Export *export, const PipeBlock *block)
{
	if (export->upload == NULL && export->header.len == 0)
		appendBinaryStringInfo(&export->header, block->data, (int) block->len);
}

/* Takes blocks until there are no more. */
static void
take_blocks(Export *export)
{
	for (;;)
	{
		PipeBlock block;

		if ((export->upload == NULL || upload_ready(export->upload)) &&
			pipe_receive(export->pipe, &block))
		{
			if (block.kind == PIPE_END)
			{
				take_end(export, &block);
				return;
			}
			take_block(export, &block);
		}
		else
			http_drive(export->http, -1);
	}
}

static void
refuse_empty(void)
{
	ereport(ERROR, (errcode(ERRCODE_NO_DATA_FOUND), errmsg("the query returned no rows"),
					errdetail("No object was written, as on_empty is \"error\".")));
}

static void
finish_object(Export *export)
{
	UploadResult result;
	JobFile      file;

	if (export->upload == NULL)
	{
		if (export->request.on_empty == ON_EMPTY_ERROR)
			refuse_empty();
		if (export->request.on_empty == ON_EMPTY_SKIP)
		{
			job_succeed(export->job_id, &export->totals, NULL);
			return;
		}
		begin_upload(export);
	}
	upload_finish(export->upload, &result);

	export->totals.bytes = result.bytes;
	export->totals.attempts = result.attempts;
	export->totals.files = 1;
	file = (JobFile){
		.uri = export->uri,
		.rows = export->totals.rows,
		.bytes = result.bytes,
		.parts = result.parts,
		.etag = result.etag,
		.crc32c = result.crc32c,
	};
	job_succeed(export->job_id, &export->totals, &file);
}

static void
reply_totals(Export *export)
{
	StringInfoData reply;

	initStringInfo(&reply);
	wire_put_int64(&reply, export->job_id);
	wire_put_string(&reply, export->totals.files > 0 ? export->uri : NULL);
	wire_put_int64(&reply, (int64) export->totals.rows);
	wire_put_int64(&reply, (int64) export->totals.bytes);
	wire_put_int64(&reply, export->totals.files);
	pipe_reply(export->pipe, REPLY_FINISHED, &reply);
}

static void
perform(Export *export, StringInfo request)
{
	StringInfoData nothing;

	export->connector = connector_deserialize(request);
	get_export(request, &export->request);
	initStringInfo(&export->header);
	initStringInfo(&nothing);

	begin_job(export);
	open_store(export);
	refuse_existing(export);
	pipe_reply(export->pipe, REPLY_BEGUN, &nothing);
	take_blocks(export);
	finish_object(export);
	reply_totals(export);
}

/* Leaves nothing behind in the store; returns false when that could not be done. */
static bool
abort_upload(Export *export, ErrorData *error)
{
	bool in_doubt;
	bool clean;

	if (export->upload == NULL)
		return true;
	export->totals.bytes = upload_bytes_sent(export->upload);
	clean = upload_abort(
		export->upload, ShutdownRequestPending ? ABORT_TIMEOUT_SHUTDOWN : ABORT_TIMEOUT, &in_doubt);
	if (in_doubt)
		error->detail =
			psprintf("%s%sThe object had been sent when this happened: it may or may "
					 "not appear as \"%s\".",
					 error->detail ? error->detail : "", error->detail ? "  " : "", export->uri);
	return clean;
}

/*
 * Puts the reason into the job's row.  When that fails too (the row is locked,
 * the disk is full) it is logged: the error that brought us here is the one to
 * report.
 */
static void
record_failure(Export *export, const ErrorData *error, bool upload_left)
{
	MemoryContext context = CurrentMemoryContext;
	bool          cancelled =
		error->sqlerrcode == ERRCODE_QUERY_CANCELED || error->sqlerrcode == ERRCODE_ADMIN_SHUTDOWN;

	if (!export->recorded)
		return;

	PG_TRY();
	{
		job_fail(export->job_id, cancelled ? JOB_CANCELLED : JOB_FAILED, &export->totals, error,
				 upload_left);
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		EmitErrorReport();
		FlushErrorState();
		AbortOutOfAnyTransaction();
	}
	PG_END_TRY();
}

static void
run_export(Pipe *pipe, StringInfo request)
{
	Export *export = palloc0(sizeof(Export));
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;

	export->pipe = pipe;
	PG_TRY();
	{
		perform(export, request);
	}
	PG_CATCH();
	{
		ErrorData       *error;
		const ErrorData *leader_error;
		bool             upload_left;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		AbortOutOfAnyTransaction();
		MemoryContextSwitchTo(context);
		CurrentResourceOwner = owner;

		upload_left = !abort_upload(export, error);
		record_failure(export, error, upload_left);

		/* What ended the leader has been reported by the leader. */
		if (!pipe_leader_gone(pipe, &leader_error))
			ReThrowError(error);
	}
	PG_END_TRY();
}

/*
 * Our transactions touch the extension's own tables alone: they must not wait
 * for ever for a lock that the waiting leader may hold, nor depend on what the
 * database sets for its users.
 */
static void
settle_session(void)
{
	static const char *const settings[][2] = {
		{"lock_timeout", "10s"},
		{"synchronous_commit", "local"},
		{"default_transaction_read_only", "off"},
		{"default_transaction_isolation", "read committed"},
		{"default_transaction_deferrable", "off"},
		{"idle_in_transaction_session_timeout", "0"},
	};

	for (int i = 0; i < (int) lengthof(settings); i++)
		SetConfigOption(settings[i][0], settings[i][1], PGC_SUSET, PGC_S_OVERRIDE);
	pgstat_report_appname("s3export uploader");
}

void
s3export_uploader_main(Datum arg)
{
	Pipe          *pipe;
	StringInfoData request;
	char           kind;

	pqsignal(SIGTERM, SignalHandlerForShutdownRequest);
	BackgroundWorkerUnblockSignals();

	MemoryContextSwitchTo(
		AllocSetContextCreate(TopMemoryContext, "s3export uploader", ALLOCSET_DEFAULT_SIZES));
	initStringInfo(&request);
	pipe = pipe_attach(arg, &request);
	settle_session();
	kind = (char) pq_getmsgbyte(&request);
	guc_restore(&request);
	if (kind == REQUEST_EXPORT)
		run_export(pipe, &request);
	else
		run_check(pipe, &request);
}
