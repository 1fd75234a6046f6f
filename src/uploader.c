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
#define REQUEST_IDENTITY 'i'

#define REPLY_BEGUN 'b'    /* the export has begun */
#define REPLY_CHECK 'c'    /* one check's result */
#define REPLY_FINISHED 'f' /* totals, the region, or the identity */

/* How long cleaning up may take: after an error, and when the server stops. */
#define ABORT_TIMEOUT 5000
#define ABORT_TIMEOUT_SHUTDOWN 2000

/* A person waits for a check, and a mistyped host will not come to life. */
#define CHECK_RETRY_TIMEOUT 5000

/* How often an export looks whether its keys have been replaced; ms */
#define REFRESH_INTERVAL 1000

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
	Credentials   *credentials;
	TimestampTz    refreshed_at;
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

static void
begin_request(StringInfo request, char kind, const Connector *connector)
{
	initStringInfo(request);
	appendStringInfoChar(request, kind);
	guc_serialize(request);
	connector_serialize(request, connector);
}

static Pipe *
send_request(StringInfo request, int workers)
{
	Pipe *pipe = pipe_open(request, workers);

	pfree(request->data);
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
	MemoryContext  context = CurrentMemoryContext;
	StringInfoData request;
	StringInfoData reply;
	Pipe          *pipe;

	begin_request(&request, REQUEST_EXPORT, connector);
	put_export(&request, export);
	pipe = send_request(&request, workers);
	initStringInfo(&reply);
	PG_TRY();
	{
		expect_reply(pipe, REPLY_BEGUN, &reply);
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		pipe_set_error(pipe, CopyErrorData());
		PG_RE_THROW();
	}
	PG_END_TRY();
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
uploader_check(const Connector *connector, int wait, char **region)
{
	List          *results = NIL;
	StringInfoData request;
	StringInfoData reply;
	Pipe          *pipe;
	char           letter;

	begin_request(&request, REQUEST_CHECK, connector);
	wire_put_int64(&request, wait);
	pipe = send_request(&request, 0);
	initStringInfo(&reply);
	while ((letter = pipe_wait_reply(pipe, &reply)) == REPLY_CHECK)
	{
		ProbeResult *result = palloc(sizeof(ProbeResult));

		result->check = wire_get_string(&reply);
		result->ok = wire_get_int64(&reply) != 0;
		result->advisory = wire_get_int64(&reply) != 0;
		result->skipped = wire_get_int64(&reply) != 0;
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
	identity->account = wire_get_string(&reply);
	identity->arn = wire_get_string(&reply);
	identity->sqlerrcode = (int) wire_get_int64(&reply);
	identity->detail = wire_get_string(&reply);
	identity->hint = wire_get_string(&reply);
	pfree(reply.data);
	pipe_close(pipe);
	return identity;
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
	wire_put_int64(&reply, result->advisory);
	wire_put_int64(&reply, result->skipped);
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
	int            wait = (int) wire_get_int64(request);
	char          *prefix = "";
	char          *region;
	StringInfoData reply;

	http_set_watch(http, watch_leader, pipe);
	if (connector->folder_path[0])
		prefix = pg_server_to_any(psprintf("%s/", connector->folder_path),
								  (int) strlen(connector->folder_path) + 1, PG_UTF8);
	probe_permissions(http, &connector->s3, &connector->credentials, &limits, wait, prefix,
					  strcmp(connector->kind, "data_export") == 0, reply_check, pipe, &region);

	initStringInfo(&reply);
	wire_put_string(&reply, region);
	pipe_reply(pipe, REPLY_FINISHED, &reply);
}

static void
run_identity(Pipe *pipe, StringInfo request)
{
	Connector               *connector = connector_deserialize(request);
	HttpClient              *http = open_http(1, Min(guc_retry_timeout, CHECK_RETRY_TIMEOUT));
	Credentials             *credentials;
	const CredentialFailure *failure;
	char                    *account;
	char                    *arn;
	StringInfoData           reply;

	http_set_watch(http, watch_leader, pipe);
	credentials = credentials_open(http, &connector->credentials, NULL, NULL);
	initStringInfo(&reply);
	if (credentials_caller_identity(credentials, &account, &arn, &failure))
	{
		wire_put_string(&reply, account);
		wire_put_string(&reply, arn);
		wire_put_int64(&reply, 0);
		wire_put_string(&reply, NULL);
		wire_put_string(&reply, NULL);
	}
	else
	{
		S3Error error;

		s3_error_set_credentials(&error, failure, "");
		wire_put_string(&reply, NULL);
		wire_put_string(&reply, NULL);
		wire_put_int64(&reply, s3_error_sqlstate(&error));
		wire_put_string(&reply, s3_error_detail(&error));
		wire_put_string(&reply, s3_error_hint(&error));
	}
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
	const S3Config *s3 = &export->connector->s3;
	const char     *partition = export->connector->credentials.role_arn + strlen("arn:");
	PolicyScope     scope = {
			.partition = pnstrdup(partition, strcspn(partition, ":")),
			.bucket = s3->bucket,
			.sets_acl = s3->acl != NULL,
			.sets_tags = s3->tags != NULL,
			.uses_kms = s3->server_side_encryption != NULL &&
						strcmp(s3->server_side_encryption, "aws:kms") == 0,
    };

	return policy_for_session(&scope, export->key);
}

/*
 * Keys that somebody replaces while we run serve the next request: the old ones
 * may be deleted as soon as the new ones are stored.
 */
static void
refresh_keys(Export *export)
{
	TimestampTz now = GetCurrentTimestamp();

	if (!TimestampDifferenceExceeds(export->refreshed_at, now, REFRESH_INTERVAL))
		return;
	export->refreshed_at = now;
	if (connector_refresh_keys(export->connector))
		credentials_replace(export->credentials, &export->connector->credentials);
}

static void
watch_export(void *arg)
{
	Export *export = arg;

	watch_leader(export->pipe);
	refresh_keys(export);
}

static void
watch_completion(void *arg)
{
	watch_shutdown(NULL);
	refresh_keys(arg);
}

static void
open_store(Export *export)
{
	CredentialConfig *config = &export->connector->credentials;
	S3Timeouts        limits = timeouts();

	export->http = open_http(guc_max_concurrent_parts + 2, guc_retry_timeout);
	export->credentials =
		credentials_open(export->http, config, psprintf("s3export-" INT64_FORMAT, export->job_id),
						 config->role_arn ? session_policy(export) : NULL);
	http_set_watch(export->http, watch_export, export);
	export->s3 = s3_open(export->http, &export->connector->s3, export->credentials, &limits);
}

/* Is there an object, be it one without a first byte, or one in an archive? */
static bool
object_exists(const S3Call *get)
{
	return get->ok || s3_error_is(&get->error, "InvalidRange") ||
		   s3_error_is(&get->error, "InvalidObjectState");
}

/*
 * Whether there is an object in the way is asked before the query runs, so
 * that an hour's work is not thrown away; so is whether S3 accepts these
 * credentials and knows the bucket, which is why it is not asked by HEAD: the
 * answers to that have no body to say what is wrong.  A store that does not
 * let us look will refuse to overwrite the object, if it can.
 */
static void
check_destination(Export *export)
{
	S3Call         get = {.verb = S3_GET_OBJECT, .key = export->key};
	const S3Error *error = &get.error;

	(void) s3_perform(export->s3, &get);
	if (object_exists(&get))
	{
		if (export->request.overwrite)
			return;
		ereport(ERROR, (errcode(ERRCODE_DUPLICATE_OBJECT),
						errmsg("object \"%s\" already exists", export->uri),
						errhint("Choose another path, or use if_exists => 'overwrite'.")));
	}
	if (s3_error_is(error, "NoSuchKey") || s3_error_is(error, "NotFound"))
		return;
	if (strncmp(error->action, "s3:", 3) == 0 &&
		(s3_error_is(error, "AccessDenied") || s3_error_is(error, "Forbidden")))
		return;
	s3_report(ERROR, error, "could not look for object");
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
	http_set_watch(export->http, watch_completion, export);
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
	check_destination(export);
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
	else if (kind == REQUEST_CHECK)
		run_check(pipe, &request);
	else
		run_identity(pipe, &request);
}
