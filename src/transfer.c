/*-------------------------------------------------------------------------
 *
 * transfer.c
 *	  One export in the uploader: blocks in, objects and job rows out.
 *
 * It takes blocks when it has room for them and drives its transfers
 * otherwise, so it never waits for one while the other could go on.
 *
 * However an export ends, its multipart uploads are aborted or completed and its
 * rows say which.  While files are being put in place the leader's death is no
 * reason to stop: the outcome is found out and recorded.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <time.h>

#include "access/xact.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "postmaster/interrupt.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/timestamp.h"

#include "files.h"
#include "guc.h"
#include "job.h"
#include "manifest.h"
#include "path.h"
#include "policy.h"
#include "store.h"
#include "transfer.h"
#include "wire.h"

/* How long cleaning up may take: after an error, and when the server stops. */
#define ABORT_TIMEOUT 5000
#define ABORT_TIMEOUT_SHUTDOWN 2000
#define ABORT_TIMEOUT_PER_FILE 20 /* more, after an error */

/* How often an export looks whether its keys have been replaced; ms */
#define REFRESH_INTERVAL 1000

typedef struct Transfer
{
	Pipe                  *pipe;
	Connector             *connector;
	const TransferRequest *request;
	int64                  job_id;
	bool                   recorded; /* the job has a row */
	FilesOptions           options;  /* of the files */
	HttpClient            *http;
	Credentials           *credentials;
	TimestampTz            refreshed_at;
	S3Session             *s3;
	Files                 *files;   /* NULL before the query runs */
	PipeBlock              nothing; /* what a file without header and rows consists of */
	JobTotals              totals;
} Transfer;

/* A path has its placeholders from the user, or is stem-20261122T170000Z-42.csv. */
static void
choose_files(Transfer *transfer)
{
	const TransferRequest *request = transfer->request;
	const char            *path = request->path;

	if (path == NULL)
		path = psprintf("%s-{yyyy}{mm}{dd}T{hh}{mi}{ss}Z-{job}%s", request->stem, request->suffix);
	transfer->options = (FilesOptions){
		.job_id = transfer->job_id,
		.connector = transfer->connector,
		.path = path,
		.started = time(NULL),
		.content_type = request->content_type,
		.overwrite = request->overwrite,
		.partitioned = request->partitioned,
		.header_once = request->header_once,
		.max_size = request->max_file_size,
		.max_rows = request->rows_per_file,
	};
}

static char *
to_utf8(char *text)
{
	return pg_server_to_any(text, (int) strlen(text), PG_UTF8);
}

/* Objects, the manifest included. */
static bool
may_have_several(const Transfer *transfer)
{
	const FilesOptions *options = &transfer->options;

	return options->partitioned || options->max_size > 0 || options->max_rows > 0 ||
		   transfer->request->manifest;
}

static char *
first_key(const Transfer *transfer)
{
	return files_key(&transfer->options, NULL, 1);
}

static void
begin_job(Transfer *transfer)
{
	JobRequest request = {
		.job_id = transfer->request->job_id,
		.owner = transfer->request->owner,
		.connector_id = transfer->connector->connector_id,
		.connector = transfer->connector->name,
		.source = transfer->request->source,
		.path = transfer->request->path,
		.leader_pid = pipe_leader_pid(transfer->pipe),
		.pipe = pipe_handle(transfer->pipe),
	};
	char *key;

	transfer->job_id = request.job_id != 0 ? request.job_id : job_new_id();
	choose_files(transfer);
	key = first_key(transfer);
	if (transfer->options.partitioned)
		key = path_folder(key);
	job_begin(transfer->job_id, &request, connector_uri(transfer->connector, key));
	transfer->recorded = true;
}

/* What the keys of all files, and of the manifest, begin with. */
static char *
common_prefix(const Transfer *transfer)
{
	char *prefix = first_key(transfer);
	char *others[] = {files_key(&transfer->options, NULL, 2),
					  files_manifest_key(&transfer->options)};

	if (transfer->options.partitioned)
		return path_folder(prefix);
	for (size_t i = 0; i < lengthof(others); i++)
	{
		size_t same = 0;

		while (prefix[same] != '\0' && prefix[same] == others[i][same])
			same++;
		prefix[same] = '\0';
	}
	return prefix;
}

/* A session of a role may do no more than this export needs. */
static char *
session_policy(const Transfer *transfer)
{
	bool            is_prefix = may_have_several(transfer);
	char           *key = to_utf8(is_prefix ? common_prefix(transfer) : first_key(transfer));
	const S3Config *s3 = &transfer->connector->s3;
	const char     *partition = transfer->connector->credentials.role_arn + strlen("arn:");
	PolicyScope     scope = {
			.partition = pnstrdup(partition, strcspn(partition, ":")),
			.bucket = s3->bucket,
			.sets_acl = s3->acl != NULL,
			.sets_tags = s3->tags != NULL,
			.uses_kms = s3->server_side_encryption != NULL &&
						strcmp(s3->server_side_encryption, "aws:kms") == 0,
    };

	return policy_for_session(&scope, key, is_prefix);
}

/*
 * Keys that somebody replaces while we run serve the next request: the old ones
 * may be deleted as soon as the new ones are stored.
 */
static void
refresh_keys(Transfer *transfer)
{
	TimestampTz now = GetCurrentTimestamp();

	if (!TimestampDifferenceExceeds(transfer->refreshed_at, now, REFRESH_INTERVAL))
		return;
	transfer->refreshed_at = now;
	if (connector_refresh_keys(transfer->connector))
		credentials_replace(transfer->credentials, &transfer->connector->credentials);
}

static void
watch_transfer(void *arg)
{
	Transfer *transfer = arg;

	store_watch_leader(transfer->pipe);
	refresh_keys(transfer);
}

static void
watch_completion(void *arg)
{
	store_watch_shutdown(NULL);
	refresh_keys(arg);
}

static void
open_store(Transfer *transfer)
{
	CredentialConfig *config = &transfer->connector->credentials;
	S3Timeouts        limits = store_timeouts();

	transfer->http = store_open_http(guc_max_concurrent_parts + 2, guc_retry_timeout);
	transfer->credentials = credentials_open(transfer->http, config,
											 psprintf("s3export-" INT64_FORMAT, transfer->job_id),
											 config->role_arn ? session_policy(transfer) : NULL);
	http_set_watch(transfer->http, watch_transfer, transfer);
	transfer->s3 =
		s3_open(transfer->http, &transfer->connector->s3, transfer->credentials, &limits);
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
check_destination(Transfer *transfer, char *key, bool may_exist)
{
	S3Call         get = {.verb = S3_GET_OBJECT, .key = to_utf8(key)};
	const S3Error *error = &get.error;

	(void) s3_perform(transfer->s3, &get);
	if (object_exists(&get))
	{
		if (may_exist)
			return;
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("object \"%s\" already exists", connector_uri(transfer->connector, key)),
				 errhint("Choose another path, or use if_exists => 'overwrite'.")));
	}
	if (s3_error_is(error, "NoSuchKey") || s3_error_is(error, "NotFound"))
		return;
	if (strncmp(error->action, "s3:", 3) == 0 &&
		(s3_error_is(error, "AccessDenied") || s3_error_is(error, "Forbidden")))
		return;
	s3_report(ERROR, error, "could not look for object");
}

/* Which partitions there will be is not known yet. */
static void
check_destinations(Transfer *transfer)
{
	bool overwrite = transfer->request->overwrite;

	check_destination(transfer, first_key(transfer), overwrite || transfer->options.partitioned);
	if (transfer->request->manifest && !overwrite)
		check_destination(transfer, files_manifest_key(&transfer->options), false);
}

/*
 * Takes blocks until there are no more.  The last has what an object consists of
 * that would be empty: not nothing, when it is compressed.
 */
static void
take_blocks(Transfer *transfer)
{
	PipeBlock block;

	for (;;)
	{
		if (!files_ready(transfer->files) || !pipe_receive(transfer->pipe, &block))
			http_drive(transfer->http, -1);
		else if (block.kind == PIPE_HEADER)
			files_add_header(transfer->files, block.data, block.len);
		else if (block.kind == PIPE_ROWS)
			files_put(transfer->files, &block);
		else
			break;
	}
	transfer->nothing = block;
}

static void
refuse_empty(void)
{
	ereport(ERROR, (errcode(ERRCODE_NO_DATA_FOUND), errmsg("the query returned no rows"),
					errdetail("No object was written, as on_empty is \"error\".")));
}

/* Without rows there is no partition that a file could be of. */
static void
take_nothing(Transfer *transfer)
{
	if (files_list(transfer->files) != NIL)
		return;
	if (transfer->request->on_empty == ON_EMPTY_ERROR)
		refuse_empty();
	if (transfer->request->on_empty == ON_EMPTY_FILE && !transfer->options.partitioned)
		files_put_nothing(transfer->files, transfer->nothing.data, transfer->nothing.len);
}

static void
put_manifest(Transfer *transfer)
{
	char *manifest =
		manifest_make(&transfer->options, transfer->request->description, transfer->files);

	files_put_manifest(transfer->files, manifest, strlen(manifest));
}

/*
 * All rows of files are committed before the first of them can appear.  A
 * manifest of no files is written too: whoever waits for it is told that there is
 * nothing.
 */
static void
finish_files(Transfer *transfer)
{
	Files *files = transfer->files;
	bool   manifest = transfer->request->manifest;

	take_nothing(transfer);
	files_seal(files);
	if (files_list(files) == NIL && transfer->request->on_empty == ON_EMPTY_SKIP)
		manifest = false;
	if (manifest)
		files_announce_manifest(files);
	if (files_list(files) != NIL)
	{
		job_set_completing(transfer->job_id, files_list(files));
		http_set_watch(transfer->http, watch_completion, transfer);
		files_complete(files);
		if (manifest)
			put_manifest(transfer);
	}
	files_get_totals(files, &transfer->totals);
	job_succeed(transfer->job_id, &transfer->totals, files_list(files));
}

static void
get_totals(const Transfer *transfer, TransferTotals *totals)
{
	totals->job_id = transfer->job_id;
	totals->uri = transfer->totals.uri;
	totals->rows = transfer->totals.rows;
	totals->bytes = transfer->totals.bytes;
	totals->files = transfer->totals.files;
}

static void
perform(Transfer *transfer, void (*begun)(Pipe *pipe))
{
	begin_job(transfer);
	open_store(transfer);
	check_destinations(transfer);
	transfer->files = files_open(&transfer->options, transfer->s3);
	begun(transfer->pipe);
	take_blocks(transfer);
	finish_files(transfer);
}

/* Leaves nothing behind in the store but files that are in place; the error says which. */
static void
abort_files(Transfer *transfer, ErrorData *error)
{
	Files *files = transfer->files;
	int    timeout = ABORT_TIMEOUT_SHUTDOWN;
	char  *more;

	if (files == NULL)
		return;
	if (!ShutdownRequestPending)
		timeout = ABORT_TIMEOUT + list_length(files_list(files)) * ABORT_TIMEOUT_PER_FILE;
	files_abort(files, timeout);
	files_get_totals(files, &transfer->totals);
	transfer->totals.bytes = files_bytes_sent(files);
	transfer->totals.files = list_length(files_in_place(files));
	more = files_describe(files);
	if (more != NULL)
		error->detail = error->detail != NULL ? psprintf("%s  %s", error->detail, more) : more;
}

/*
 * Puts the reason into the job's row.  When that fails too (the row is locked,
 * the disk is full) it is logged: the error that brought us here is the one to
 * report.
 */
static void
record_failure(Transfer *transfer, const ErrorData *error)
{
	MemoryContext context = CurrentMemoryContext;
	bool          cancelled =
		error->sqlerrcode == ERRCODE_QUERY_CANCELED || error->sqlerrcode == ERRCODE_ADMIN_SHUTDOWN;

	if (!transfer->recorded)
		return;

	PG_TRY();
	{
		List *aborted = NIL;

		if (transfer->files != NULL)
		{
			aborted = files_aborted(transfer->files);
			if (files_in_place(transfer->files) != NIL)
				job_files_done(transfer->job_id, files_in_place(transfer->files));
		}
		job_fail(transfer->job_id, cancelled ? JOB_CANCELLED : JOB_FAILED, &transfer->totals, error,
				 aborted);
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

bool
transfer_run(Pipe *pipe, Connector *connector, const TransferRequest *request,
			 void (*begun)(Pipe *pipe), TransferTotals *totals)
{
	Transfer     *transfer = palloc0(sizeof(Transfer));
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	volatile bool done = false;

	transfer->pipe = pipe;
	transfer->connector = connector;
	transfer->request = request;
	PG_TRY();
	{
		perform(transfer, begun);
		get_totals(transfer, totals);
		done = true;
	}
	PG_CATCH();
	{
		ErrorData       *error;
		const ErrorData *leader_error;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		AbortOutOfAnyTransaction();
		MemoryContextSwitchTo(context);
		CurrentResourceOwner = owner;

		abort_files(transfer, error);
		record_failure(transfer, error);

		/* What ended the leader has been reported by the leader. */
		if (!pipe_leader_gone(pipe, &leader_error))
			ReThrowError(error);
	}
	PG_END_TRY();
	return done;
}

/* ---- how requests travel ---- */

void
transfer_serialize(StringInfo buf, const TransferRequest *request)
{
	wire_put_int64(buf, request->job_id);
	wire_put_int64(buf, request->owner);
	wire_put_string(buf, request->source);
	wire_put_string(buf, request->path);
	wire_put_string(buf, request->stem);
	wire_put_string(buf, request->suffix);
	wire_put_string(buf, request->content_type);
	wire_put_int64(buf, request->overwrite);
	wire_put_int64(buf, request->on_empty);
	wire_put_int64(buf, request->header_once);
	wire_put_int64(buf, request->partitioned);
	wire_put_int64(buf, (int64) request->max_file_size);
	wire_put_int64(buf, (int64) request->rows_per_file);
	wire_put_int64(buf, request->manifest);
	wire_put_string(buf, request->description);
}

void
transfer_deserialize(StringInfo buf, TransferRequest *request)
{
	request->job_id = wire_get_int64(buf);
	request->owner = (Oid) wire_get_int64(buf);
	request->source = wire_get_string(buf);
	request->path = wire_get_string(buf);
	request->stem = wire_get_string(buf);
	request->suffix = wire_get_string(buf);
	request->content_type = wire_get_string(buf);
	request->overwrite = wire_get_int64(buf) != 0;
	request->on_empty = (TransferOnEmpty) wire_get_int64(buf);
	request->header_once = wire_get_int64(buf) != 0;
	request->partitioned = wire_get_int64(buf) != 0;
	request->max_file_size = (uint64) wire_get_int64(buf);
	request->rows_per_file = (uint64) wire_get_int64(buf);
	request->manifest = wire_get_int64(buf) != 0;
	request->description = wire_get_string(buf);
}
