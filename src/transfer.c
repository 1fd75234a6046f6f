/*-------------------------------------------------------------------------
 *
 * transfer.c
 *	  One export in the uploader: blocks in, objects and job rows out.
 *
 * It takes blocks when it has room for them and drives its transfers
 * otherwise, so it never waits for one while the other could go on.
 *
 * However an export ends, its multipart upload is aborted or completed and its
 * row says which.  While the object is being put in place the leader's death is
 * no reason to stop: the outcome is found out and recorded.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <time.h>

#include "access/xact.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "pgtime.h"
#include "postmaster/interrupt.h"
#include "storage/latch.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "guc.h"
#include "job.h"
#include "lease.h"
#include "recovery.h"
#include "store.h"
#include "transfer.h"
#include "upload.h"
#include "wire.h"

/* How long cleaning up may take: after an error, and when the server stops. */
#define ABORT_TIMEOUT 5000
#define ABORT_TIMEOUT_SHUTDOWN 2000

/*
 * How long an export waits for its path: one that was cancelled a moment ago is
 * aborting its upload.  ms
 */
#define PATH_PATIENCE 2000
#define PATH_INTERVAL 50

/* How often an export looks whether its keys have been replaced; ms */
#define REFRESH_INTERVAL 1000

typedef struct Transfer
{
	Pipe                  *pipe;
	Connector             *connector;
	const TransferRequest *request;
	int64                  job_id;
	bool                   leased;   /* the job's lease is held */
	bool                   claimed;  /* so is the path */
	bool                   recorded; /* the job has a row */
	char                  *label;    /* what names call the job: its id, if it has one */
	char                  *key;      /* UTF-8, as S3 wants it */
	JobFile                file;
	HttpClient            *http;
	Credentials           *credentials;
	TimestampTz            refreshed_at;
	S3Session             *s3;
	Upload                *upload; /* NULL before the first block */
	StringInfoData         header;
	JobTotals              totals;
	Progress              *progress;
	bool                   wants_rows; /* and waits for nothing else */
} Transfer;

/* folder/path, or folder/stem-20261122T170000Z-42.csv, in the database's encoding */
static char *
make_name(const Transfer *transfer)
{
	const char *folder = transfer->connector->folder_path;
	char       *name = transfer->request->path;

	if (name == NULL)
	{
		pg_time_t now = (pg_time_t) time(NULL);
		char      stamp[32];

		pg_strftime(stamp, sizeof(stamp), "%Y%m%dT%H%M%SZ", pg_gmtime(&now));
		name = psprintf("%s-%s-%s%s", transfer->request->stem, stamp, transfer->label,
						transfer->request->suffix);
	}
	return folder[0] ? psprintf("%s/%s", folder, name) : name;
}

/* It has begun, and has no row. */
static bool
is_unrecorded(const Transfer *transfer)
{
	return transfer->job_id == JOB_UNRECORDED && transfer->file.uri != NULL;
}

/* Jobs without an id must not have one name: those of several standbys neither. */
static char *
make_label(int64 job_id)
{
	uint64 random;

	if (job_id != JOB_UNRECORDED)
		return psprintf(INT64_FORMAT, job_id);
	if (!pg_strong_random(&random, sizeof(random)))
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR), errmsg("could not generate a random name")));
	return psprintf("%016llx", (unsigned long long) random);
}

static void
begin_job(Transfer *transfer)
{
	JobRequest request = {
		.job_id = transfer->request->job_id,
		.owner = transfer->request->owner,
		.connector_id = transfer->connector->connector_id,
		.connector = transfer->connector->name,
		.endpoint_url = transfer->connector->s3.endpoint_url,
		.source = transfer->request->source,
		.path = transfer->request->path,
		.leader_pid = pipe_leader_pid(transfer->pipe),
		.pipe = pipe_handle(transfer->pipe),
	};
	char *name;

	transfer->job_id = request.job_id != 0 ? request.job_id : job_new_id();
	transfer->label = make_label(transfer->job_id);
	name = make_name(transfer);
	transfer->key = pg_server_to_any(name, (int) strlen(name), PG_UTF8);
	transfer->file = (JobFile){
		.number = 1,
		.key = name,
		.uri = connector_uri(transfer->connector, name),
	};
	if (transfer->job_id != JOB_UNRECORDED)
	{
		lease_join(transfer->job_id);
		transfer->leased = true;
	}
	pg_atomic_write_u64(&transfer->progress->job_id, (uint64) transfer->job_id);
	job_begin(transfer->job_id, &request, transfer->file.uri);
	transfer->recorded = transfer->job_id != JOB_UNRECORDED;
}

/* Two exports to one path at a time would overwrite each other, or fail at their ends. */
static void
claim_path(Transfer *transfer)
{
	static uint32 wait_event = 0;

	int64       connector_id = transfer->connector->connector_id;
	TimestampTz since = GetCurrentTimestamp();

	while (!lease_try_path(connector_id, transfer->key))
	{
		if (TimestampDifferenceExceeds(since, GetCurrentTimestamp(), PATH_PATIENCE))
		{
			int64 other = job_writing_to(connector_id, transfer->file.uri, transfer->job_id);

			ereport(ERROR, (errcode(ERRCODE_OBJECT_IN_USE),
							errmsg("another export writes to \"%s\"", transfer->file.uri),
							other != 0 ? errdetail("It is job " INT64_FORMAT ".", other) : 0,
							errhint("Wait until it has ended, or choose another path.")));
		}
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, PATH_INTERVAL,
						 compat_wait_event(wait_event, "S3exportPath"));
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		store_watch_leader(transfer->pipe);
	}
	transfer->claimed = true;
}

/* When the end has been recorded, and before anybody hears of it. */
static void
release(const Transfer *transfer)
{
	if (transfer->claimed)
		lease_release_path(transfer->connector->connector_id, transfer->key);
	if (transfer->leased)
		lease_leave(transfer->job_id);
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

/* Before each wait: what it is for is told to those who look at the export's progress. */
static uint32
report_wait(void *arg, const HttpWait *wait)
{
	static uint32 wait_event = 0;
	Transfer     *transfer = arg;
	Progress     *progress = transfer->progress;
	TimestampTz   retry_at = 0;

	if (wait->retry_in >= 0)
		retry_at = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), wait->retry_in);
	pg_atomic_write_u64(&progress->retry_at, (uint64) retry_at);
	pg_atomic_write_u32(&progress->retries, (uint32) wait->retries);
	pg_atomic_write_u32(&progress->wait,
						transfer->wants_rows ? PROGRESS_FOR_ROWS : PROGRESS_FOR_STORE);
	return transfer->wants_rows && retry_at == 0 ? compat_wait_event(wait_event, "S3exportRows")
												 : 0;
}

static void
open_store(Transfer *transfer)
{
	S3Timeouts limits = store_timeouts();

	transfer->http = store_open_http(guc_max_concurrent_parts + 2, guc_retry_timeout);
	transfer->credentials =
		store_open_credentials(transfer->http, transfer->connector, transfer->label, transfer->key);
	http_set_watch(transfer->http, watch_transfer, transfer);
	http_set_waits(transfer->http, report_wait, transfer);
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
check_destination(Transfer *transfer)
{
	S3Call         get = {.verb = S3_GET_OBJECT, .key = transfer->key};
	const S3Error *error = &get.error;

	(void) s3_perform(transfer->s3, &get);
	if (object_exists(&get))
	{
		if (transfer->request->overwrite)
			return;
		ereport(ERROR, (errcode(ERRCODE_DUPLICATE_OBJECT),
						errmsg("object \"%s\" already exists", transfer->file.uri),
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
	Transfer *transfer = arg;

	transfer->file.upload_id = upload_id;
	job_file_begin(transfer->job_id, &transfer->file);
}

static void
upload_completes(void *arg)
{
	Transfer *transfer = arg;

	transfer->file.rows = transfer->totals.rows;
	transfer->file.bytes = upload_bytes_written(transfer->upload);
	job_set_completing(transfer->job_id, list_make1(&transfer->file));
	http_set_watch(transfer->http, watch_completion, transfer);
	pg_atomic_write_u32(&transfer->progress->phase, PROGRESS_COMPLETING);
}

static void
part_is_sent(void *arg, size_t bytes)
{
	Transfer *transfer = arg;

	(void) pg_atomic_fetch_add_u64(&transfer->progress->bytes_sent, (int64) bytes);
	(void) pg_atomic_fetch_add_u32(&transfer->progress->parts, 1);
}

static void
begin_upload(Transfer *transfer)
{
	UploadOptions options = {
		.key = transfer->key,
		.fail_if_exists = !transfer->request->overwrite,
		.memory = (size_t) guc_upload_memory * 1024,
		.part_size = (size_t) guc_part_size * 1024,
		.max_concurrent_parts = guc_max_concurrent_parts,
		.content_type = transfer->request->content_type,
		.started = upload_has_id,
		.completing = upload_completes,
		.part_sent = part_is_sent,
		.arg = transfer,
	};

	transfer->upload = upload_begin(transfer->s3, &options);
	transfer->file.token = upload_token(transfer->upload);
	upload_write(transfer->upload, transfer->header.data, transfer->header.len);
}

static void
take_block(Transfer *transfer, const PipeBlock *block)
{
	if (block->kind == PIPE_HEADER)
	{
		appendBinaryStringInfo(&transfer->header, block->data, (int) block->len);
		return;
	}
	if (transfer->upload == NULL)
		begin_upload(transfer);
	upload_write(transfer->upload, block->data, block->len);
	transfer->totals.rows += block->rows;
}

/* What an object holds that would be empty: not nothing, when it is compressed. */
static void
take_end(Transfer *transfer, const PipeBlock *block)
{
	if (transfer->upload == NULL && transfer->header.len == 0)
		appendBinaryStringInfo(&transfer->header, block->data, (int) block->len);
}

/* Takes blocks until there are no more. */
static void
take_blocks(Transfer *transfer)
{
	for (;;)
	{
		PipeBlock block;
		bool      ready = transfer->upload == NULL || upload_ready(transfer->upload);

		if (ready && pipe_receive(transfer->pipe, &block))
		{
			if (block.kind == PIPE_END)
			{
				take_end(transfer, &block);
				return;
			}
			take_block(transfer, &block);
		}
		else
		{
			transfer->wants_rows = ready;
			http_drive(transfer->http, -1);
			transfer->wants_rows = false;
		}
	}
}

static void
refuse_empty(void)
{
	ereport(ERROR, (errcode(ERRCODE_NO_DATA_FOUND), errmsg("the query returned no rows"),
					errdetail("No object was written, as on_empty is \"error\".")));
}

static void
finish_object(Transfer *transfer)
{
	UploadResult result;
	JobFile     *file = &transfer->file;

	if (transfer->upload == NULL)
	{
		if (transfer->request->on_empty == ON_EMPTY_ERROR)
			refuse_empty();
		if (transfer->request->on_empty == ON_EMPTY_SKIP)
		{
			job_succeed(transfer->job_id, &transfer->totals, NIL);
			return;
		}
		begin_upload(transfer);
	}
	upload_finish(transfer->upload, &result);
	pg_atomic_write_u64(&transfer->progress->bytes_sent, result.bytes);
	pg_atomic_write_u32(&transfer->progress->files, 1);

	transfer->totals.bytes = result.bytes;
	transfer->totals.attempts = result.attempts;
	transfer->totals.files = 1;
	file->parts = result.parts;
	file->etag = result.etag;
	file->crc32c = result.crc32c;
	job_succeed(transfer->job_id, &transfer->totals, list_make1(file));
}

static void
get_totals(const Transfer *transfer, TransferTotals *totals)
{
	totals->job_id = transfer->job_id;
	totals->uri = transfer->totals.files > 0 ? pstrdup(transfer->file.uri) : NULL;
	totals->rows = transfer->totals.rows;
	totals->bytes = transfer->totals.bytes;
	totals->files = transfer->totals.files;
}

static void
perform(Transfer *transfer, void (*begun)(Pipe *pipe))
{
	initStringInfo(&transfer->header);
	begin_job(transfer);
	claim_path(transfer);
	if (!is_unrecorded(transfer))
		recovery_in_passing(transfer->connector, transfer->job_id, store_watch_leader,
							transfer->pipe);
	open_store(transfer);
	check_destination(transfer);
	pg_atomic_write_u32(&transfer->progress->phase, PROGRESS_READING);
	begun(transfer->pipe);
	take_blocks(transfer);
	pg_atomic_write_u32(&transfer->progress->phase, PROGRESS_SENDING);
	finish_object(transfer);
}

/* Leaves nothing behind in the store; returns false when that could not be done. */
static bool
abort_upload(Transfer *transfer, ErrorData *error, bool *in_doubt)
{
	bool clean;

	*in_doubt = false;
	if (transfer->upload == NULL)
		return true;
	transfer->totals.bytes = upload_bytes_sent(transfer->upload);
	clean = upload_abort(transfer->upload,
						 ShutdownRequestPending ? ABORT_TIMEOUT_SHUTDOWN : ABORT_TIMEOUT, in_doubt);
	if (*in_doubt)
		error->detail = psprintf("%s%sThe object had been sent when this happened: it may or may "
								 "not appear as \"%s\".",
								 error->detail ? error->detail : "", error->detail ? "  " : "",
								 transfer->file.uri);
	return clean;
}

/*
 * Puts the reason into the job's row.  When that fails too (the row is locked,
 * the disk is full) it is logged: the error that brought us here is the one to
 * report.
 */
static void
record_failure(Transfer *transfer, const ErrorData *error, bool clean, bool in_doubt)
{
	MemoryContext context = CurrentMemoryContext;
	bool          cancelled =
		error->sqlerrcode == ERRCODE_QUERY_CANCELED || error->sqlerrcode == ERRCODE_ADMIN_SHUTDOWN;
	List *files = clean && transfer->file.begun ? list_make1_int(transfer->file.number) : NIL;

	if (!transfer->recorded)
		return;

	PG_TRY();
	{
		job_fail(transfer->job_id, cancelled ? JOB_CANCELLED : JOB_FAILED, &transfer->totals, error,
				 in_doubt ? NIL : files, in_doubt ? files : NIL);
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

/*
 * Of an export without a row: the log has to say what the row would.  "error" is
 * NULL when it has succeeded.
 */
static void
log_end(Transfer *transfer, ErrorData *error, bool clean)
{
	const JobTotals *totals = &transfer->totals;
	long             duration =
		TimestampDifferenceMilliseconds(transfer->progress->started_at, GetCurrentTimestamp());
	char *what = psprintf("export to \"%s\"", transfer->file.uri);
	char *sums = psprintf("%llu rows, %llu bytes, %d parts, %ld.%03ld s (connector \"%s\", PID %d)",
						  (unsigned long long) totals->rows, (unsigned long long) totals->bytes,
						  transfer->file.parts, duration / 1000, duration % 1000,
						  transfer->connector->name, pipe_leader_pid(transfer->pipe));

	if (error == NULL)
	{
		ereport(LOG,
				(totals->files > 0 ? errmsg("%s succeeded: %s", what, sums)
								   : errmsg("%s succeeded without an object: %s", what, sums)));
		return;
	}
	if (!clean && transfer->file.upload_id != NULL)
		error->detail =
			psprintf("%s%sUpload \"%s\" could not be aborted and is left in the bucket.",
					 error->detail ? error->detail : "", error->detail ? "  " : "",
					 transfer->file.upload_id);
	ereport(LOG, (errcode(error->sqlerrcode),
				  errmsg("%s failed after %s: %s", what, sums, error->message),
				  error->detail ? errdetail_internal("%s", error->detail) : 0,
				  error->hint ? errhint("%s", error->hint) : 0));
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
	transfer->progress = pipe_progress(pipe);
	PG_TRY();
	{
		perform(transfer, begun);
		if (is_unrecorded(transfer))
			log_end(transfer, NULL, true);
		get_totals(transfer, totals);
		release(transfer);
		done = true;
	}
	PG_CATCH();
	{
		ErrorData       *error;
		const ErrorData *leader_error;
		bool             in_doubt;
		bool             clean;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		AbortOutOfAnyTransaction();
		MemoryContextSwitchTo(context);
		CurrentResourceOwner = owner;

		clean = abort_upload(transfer, error, &in_doubt);
		record_failure(transfer, error, clean, in_doubt);
		if (is_unrecorded(transfer))
			log_end(transfer, error, clean);
		release(transfer);

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
}
