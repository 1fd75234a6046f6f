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
#include "miscadmin.h"
#include "postmaster/interrupt.h"
#include "storage/latch.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "base/guc.h"
#include "base/message.h"
#include "base/object_path.h"
#include "tables/advisory_lock.h"
#include "tables/dispatcher.h"
#include "tables/job.h"
#include "tables/utf8.h"
#include "uploader/files.h"
#include "uploader/manifest.h"
#include "uploader/recovery.h"
#include "uploader/s3_client.h"
#include "uploader/stale.h"
#include "uploader/transfer.h"

/* How long cleaning up may take: after an error, and when the server stops. */
#define ABORT_TIMEOUT 5000
#define ABORT_TIMEOUT_SHUTDOWN 2000
#define ABORT_TIMEOUT_PER_FILE 20 /* more, after an error */

/*
 * How long an export waits for a path that another one writes to.  One that has
 * failed and is aborting its uploads is waited for until it has.  ms
 */
#define PATH_PATIENCE 2000
#define PATH_INTERVAL 50

/* How often an export looks whether its keys have been replaced; ms */
#define REFRESH_INTERVAL 1000

/* Is there an object of this key? */
typedef struct Look
{
	S3Call get;
	char  *key;
	bool   may_exist;
} Look;

typedef struct Transfer
{
	Pipe                  *pipe;
	Connector             *connector;
	const TransferRequest *request;
	int64                  job_id;
	bool                   leased;   /* the job's lease is held */
	bool                   claimed;  /* so is the path */
	bool                   marked;   /* as one that is released soon */
	bool                   recorded; /* the job has a row */
	bool                   again;    /* it was tried before */
	char                  *label;    /* what names call the job: its id, if it has one */
	char                  *key;      /* of the first file, or the folder of partitions; UTF-8 */
	char                  *uri;      /* of that */
	FilesOptions           options;  /* of the files */
	HttpClient            *http;
	Credentials           *credentials;
	TimestampTz            refreshed_at;
	S3Session             *s3;
	List                  *looks; /* of Look: sent, and not waited for yet */
	Files                 *files; /* NULL before the query runs */
	JobTotals              totals;
	Progress              *progress;
	bool                   wants_rows; /* and waits for nothing else */
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
		.label = transfer->label,
		.progress = transfer->progress,
		.connector = transfer->connector,
		.path = path,
		.started = time(NULL),
		.compression = request->compression,
		.overwrite = request->overwrite,
		.exporter = request->own_only ? request->owner : InvalidOid,
		.partitioned = request->partitioned,
		.named = request->named,
		.manifest_name = request->manifest_name,
		.max_open = request->max_open,
		.checksums = request->manifest,
		.header_once = request->header_once,
		.max_size = request->max_file_size,
		.max_rows = request->rows_per_file,
	};
}

static bool
wants_manifest(const Transfer *transfer)
{
	return transfer->request->manifest || transfer->request->manifest_name != NULL;
}

/* Files of an earlier export to the path are not to stay beside the new ones. */
static bool
replaces_whole(const Transfer *transfer)
{
	return transfer->request->overwrite && !transfer->options.named;
}

/* Objects, the manifest included, and those that are replaced. */
static bool
may_have_several(const Transfer *transfer)
{
	const FilesOptions *options = &transfer->options;

	return options->partitioned || options->max_size > 0 || options->max_rows > 0 ||
		   wants_manifest(transfer) || replaces_whole(transfer);
}

static char *
first_key(const Transfer *transfer)
{
	return files_key(&transfer->options, NULL, 1);
}

/* It has begun, and has no row. */
static bool
is_unrecorded(const Transfer *transfer)
{
	return transfer->job_id == JOB_UNRECORDED && transfer->uri != NULL;
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

/* Others need workers, too. */
static void
claim_place(const TransferRequest *request)
{
	if (request->places == 0 || advisory_lock_try_place_of_role(request->owner, request->places))
		return;
	ereport(ERROR, (errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
					errmsg("too many exports of the role are running"),
					errdetail("The limit is %d, in all databases.", request->places),
					errhint("Wait until one has ended, queue the export with wait => false, or "
							"raise \"s3export.max_exports_per_role\".")));
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
	char *key;

	claim_place(transfer->request);
	transfer->job_id = request.job_id != 0 ? request.job_id : job_new_id();
	transfer->label = make_label(transfer->job_id);
	choose_files(transfer);
	key = first_key(transfer);
	if (transfer->options.partitioned)
		key = object_path_folder(key);
	request.first_key = first_key(transfer);
	transfer->key = utf8_from_database(key);
	transfer->uri = connector_uri(transfer->connector, key);
	if (transfer->job_id != JOB_UNRECORDED)
	{
		advisory_lock_join(transfer->job_id);
		transfer->leased = true;
	}
	pg_atomic_write_u64(&transfer->progress->job_id, (uint64) transfer->job_id);
	transfer->again = job_begin(transfer->job_id, &request, transfer->uri);
	transfer->recorded = transfer->job_id != JOB_UNRECORDED;
}

/* Two exports to one path at a time would overwrite each other, or fail at their ends. */
static void
claim_path(Transfer *transfer)
{
	static uint32 wait_event = 0;

	int64       connector_id = transfer->connector->connector_id;
	TimestampTz since = GetCurrentTimestamp();

	while (!advisory_lock_try_path(connector_id, transfer->key))
	{
		if (TimestampDifferenceExceeds(since, GetCurrentTimestamp(), PATH_PATIENCE) &&
			!advisory_lock_path_is_marked(connector_id, transfer->key))
		{
			int64 other = job_writing_to(connector_id, transfer->uri, transfer->job_id);

			ereport(ERROR, (errcode(ERRCODE_OBJECT_IN_USE),
							errmsg("another export writes to \"%s\"", transfer->uri),
							other != 0 ? errdetail("It is job " INT64_FORMAT ".", other) : 0,
							errhint("Wait until it has ended, or choose another path.")));
		}
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, PATH_INTERVAL,
						 compat_wait_event(wait_event, "S3exportPath"));
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		s3_client_watch_leader(transfer->pipe);
	}
	transfer->claimed = true;
}

/* When the end has been recorded, and before anybody hears of it. */
static void
release_locks(const Transfer *transfer)
{
	if (transfer->claimed)
		advisory_lock_release_path(transfer->connector->connector_id, transfer->key);
	if (transfer->marked)
		advisory_lock_unmark_path(transfer->connector->connector_id, transfer->key);
	if (transfer->leased)
		advisory_lock_leave(transfer->job_id);
}

/* What the keys of all files, and of the manifest, begin with. */
static char *
common_prefix(const Transfer *transfer)
{
	char *prefix = first_key(transfer);
	bool  manifest = wants_manifest(transfer) || replaces_whole(transfer);
	char *others[] = {files_key(&transfer->options, NULL, 2),
					  manifest ? files_manifest_key(&transfer->options) : prefix};

	if (transfer->options.partitioned)
		return object_path_folder(prefix);
	for (size_t i = 0; i < lengthof(others); i++)
	{
		size_t same = 0;

		while (prefix[same] != '\0' && prefix[same] == others[i][same])
			same++;
		prefix[same] = '\0';
	}
	return prefix;
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

	s3_client_watch_leader(transfer->pipe);
	refresh_keys(transfer);
}

static void
watch_completion(void *arg)
{
	s3_client_watch_shutdown(NULL);
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
	S3Timeouts limits = s3_client_timeouts();
	bool       is_prefix = may_have_several(transfer);
	char      *key = is_prefix ? common_prefix(transfer) : first_key(transfer);

	transfer->http = s3_client_open_http(guc_max_concurrent_parts + 2, guc_retry_timeout);
	transfer->credentials =
		s3_client_open_credentials(transfer->http, transfer->connector, transfer->label,
								   utf8_from_database(key), is_prefix, replaces_whole(transfer));
	/* A look takes half a millisecond: the first requests go with the keys that came. */
	transfer->refreshed_at = GetCurrentTimestamp();
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
judge_look(const Transfer *transfer, const Look *look)
{
	const S3Error *error = &look->get.error;

	if (object_exists(&look->get))
	{
		if (look->may_exist)
			return;
		ereport(ERROR, (errcode(ERRCODE_DUPLICATE_OBJECT),
						errmsg("object \"%s\" already exists",
							   connector_uri(transfer->connector, look->key)),
						errhint("Choose another path, or use if_exists => 'overwrite'.")));
	}
	if (s3_error_is(error, "NoSuchKey") || s3_error_is(error, "NotFound"))
		return;
	if (error->service == NULL && error->refusal == REFUSAL_PERMISSION)
		return;
	s3_report(ERROR, error, "could not look for object");
}

static void
begin_look(Transfer *transfer, char *key, bool may_exist)
{
	Look *look = palloc0(sizeof(Look));

	look->get.verb = S3_GET_OBJECT;
	look->get.key = utf8_from_database(key);
	look->key = key;
	look->may_exist = may_exist;
	s3_submit(transfer->s3, &look->get);
	transfer->looks = lappend(transfer->looks, look);
}

/* Which partitions there will be is not known yet. */
static void
begin_looks(Transfer *transfer)
{
	const FilesOptions *options = &transfer->options;
	char               *first = first_key(transfer);
	char               *manifest = wants_manifest(transfer) ? files_manifest_key(options) : NULL;

	if (transfer->request->proven)
		return;
	begin_look(transfer, first, options->partitioned || files_may_replace(options, first));
	if (manifest != NULL && !files_may_replace(options, manifest))
		begin_look(transfer, manifest, false);
	/* Connects; a store that is near has its request with the second. */
	http_drive(transfer->http, 0);
	http_drive(transfer->http, 0);
}

/* What others have left is looked for while the store answers. */
static void
end_looks(Transfer *transfer)
{
	bool due = !is_unrecorded(transfer) && recovery_is_due(transfer->connector, transfer->job_id);
	ListCell *cell;

	foreach (cell, transfer->looks)
	{
		while (!((Look *) lfirst(cell))->get.over)
			http_drive(transfer->http, -1);
	}
	if (due)
		recovery_in_passing(transfer->connector, transfer->job_id, s3_client_watch_leader,
							transfer->pipe);
	foreach (cell, transfer->looks)
		judge_look(transfer, lfirst(cell));
}

/*
 * An object in the way of an export that overwrites is not the exporter's: whether it was
 * found before the query ran, or S3 has refused to replace it.
 */
static void
explain_denial(const Transfer *transfer, ErrorData *error)
{
	const TransferRequest *request = transfer->request;

	if (error->sqlerrcode != ERRCODE_DUPLICATE_OBJECT || !request->overwrite || !request->own_only)
		return;
	error->sqlerrcode = ERRCODE_INSUFFICIENT_PRIVILEGE;
	error->message = psprintf("permission denied: %s", error->message);
	error->detail = psprintf("It is not known as one that role \"%s\" has exported, and the role "
							 "may replace no others.",
							 request->exporter);
	error->hint = "The owner of the connector can allow it with s3export.grant_usage(..., "
				  "overwrite => true).";
}

/* Until there are no more. */
static void
take_blocks(Transfer *transfer)
{
	PipeBlock block;

	for (;;)
	{
		bool ready = files_ready(transfer->files);

		if (!ready || !pipe_receive(transfer->pipe, &block))
		{
			transfer->wants_rows = ready;
			http_drive(transfer->http, -1);
			transfer->wants_rows = false;
		}
		else if (block.kind == PIPE_HEADER)
			files_add_header(transfer->files, block.data, block.len);
		else if (block.kind == PIPE_ROWS)
			files_put(transfer->files, &block);
		else if (block.kind == PIPE_MORE)
			files_put_more(transfer->files, &block);
		else if (block.kind == PIPE_FILE_END)
			files_end(transfer->files, block.folder);
		else if (block.kind == PIPE_OBJECT)
			files_add_object(transfer->files, &block);
		else if (block.kind == PIPE_DESCRIPTION)
			files_add_description(transfer->files, &block);
		else
			break;
	}
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
	if (files_count(transfer->files) > 0)
		return;
	if (transfer->request->on_empty == ON_EMPTY_ERROR)
		refuse_empty();
	if (transfer->request->on_empty == ON_EMPTY_FILE && !transfer->options.partitioned)
		files_put_nothing(transfer->files);
}

static void
put_manifest(Transfer *transfer)
{
	Files *files = transfer->files;
	char  *manifest = transfer->options.manifest_name != NULL
						  ? manifest_make_named(files)
						  : manifest_make(&transfer->options, transfer->request->description, files);

	files_put_manifest(files, manifest, strlen(manifest));
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
	bool   manifest = wants_manifest(transfer);

	take_nothing(transfer);
	files_seal(files);
	if (files_count(files) == 0 && transfer->request->on_empty == ON_EMPTY_SKIP &&
		transfer->options.manifest_name == NULL)
		manifest = false;
	if (manifest)
		files_announce_manifest(files);
	if (files_list(files) != NIL)
	{
		job_set_completing(transfer->job_id, files_list(files));
		http_set_watch(transfer->http, watch_completion, transfer);
		progress_complete(transfer->progress, files_count(files));
		files_complete(files);
		if (manifest)
			put_manifest(transfer);
		if (replaces_whole(transfer))
			stale_remove(transfer->http, transfer->s3, transfer->job_id,
						 transfer->options.exporter);
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
	totals->manifest_uri = transfer->totals.manifest_uri;
}

static void
perform_job(Transfer *transfer, void (*begun)(Pipe *pipe))
{
	begin_job(transfer);
	claim_path(transfer);
	if (transfer->again)
		recovery_of_attempt(transfer->job_id, s3_client_watch_leader, transfer->pipe);
	open_store(transfer);
	begin_looks(transfer);
	end_looks(transfer);
	transfer->files = files_open(&transfer->options, transfer->s3);
	pg_atomic_write_u32(&transfer->progress->phase, PROGRESS_READING);
	begun(transfer->pipe);
	take_blocks(transfer);
	pg_atomic_write_u32(&transfer->progress->phase, PROGRESS_SENDING);
	finish_files(transfer);
}

/* Ends an attempt to write rows that is not the error to be reported. */
static void
log_failed_write(MemoryContext context)
{
	MemoryContextSwitchTo(context);
	EmitErrorReport();
	FlushErrorState();
	AbortOutOfAnyTransaction();
}

/*
 * Their ids have come when nobody asked for them any more.  An upload that cannot
 * be aborted now is found by its row.
 */
static void
record_uploads(const Transfer *transfer)
{
	MemoryContext context = CurrentMemoryContext;
	List         *files = files_unrecorded(transfer->files);

	if (files == NIL)
		return;
	PG_TRY();
	{
		job_files_begin(transfer->job_id, files);
	}
	PG_CATCH();
	{
		log_failed_write(context);
	}
	PG_END_TRY();
}

/* "error" is to name the uploads that are left, and that no row names. */
static void
name_uploads_left(const Transfer *transfer, ErrorData *error)
{
	List     *left = transfer->files != NULL ? files_left(transfer->files) : NIL;
	ListCell *cell;

	foreach (cell, left)
	{
		const JobFile *file = lfirst(cell);

		if (transfer->recorded && (file->begun || file->upload_id == NULL))
			continue;
		error->detail =
			psprintf("%s%sUpload \"%s\" could not be aborted and is left in the bucket.",
					 error->detail ? error->detail : "", error->detail ? "  " : "",
					 file->upload_id ? file->upload_id : "(unknown)");
	}
}

/* Leaves nothing behind in the store but files that are in place; the error says which. */
static void
abort_files(Transfer *transfer, ErrorData *error)
{
	Files *files = transfer->files;
	char  *more;

	if (files == NULL)
		return;
	files_stop(files, ABORT_TIMEOUT + list_length(files_list(files)) * ABORT_TIMEOUT_PER_FILE,
			   ABORT_TIMEOUT_SHUTDOWN);
	record_uploads(transfer);
	files_abort(files);
	if (transfer->recorded)
		name_uploads_left(transfer, error);
	files_get_totals(files, &transfer->totals);
	transfer->totals.bytes = files_bytes_sent(files);
	transfer->totals.files = files_count_in_place(files);
	more = files_describe(files);
	if (more != NULL)
		error->detail = error->detail != NULL ? psprintf("%s  %s", error->detail, more) : more;
}

/*
 * Is it a failure that may pass?  Not one of the query, nor what S3 refuses, which somebody has
 * to see.  For before anything is cleaned up.
 */
static bool
may_pass(const Transfer *transfer, const ErrorData *error)
{
	const ErrorData *leader_error;

	if (pipe_leader_gone(transfer->pipe, &leader_error))
		return leader_error == NULL;
	if (error->sqlerrcode == ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION ||
		error->sqlerrcode == ERRCODE_DUPLICATE_OBJECT)
		return false;
	return job_error_passes(error->sqlerrcode) ||
		   (transfer->http != NULL && http_has_given_up(transfer->http));
}

/* Has somebody cancelled the export, perhaps while it was cleaning up? */
static bool
is_cancelled(const Transfer *transfer)
{
	const ErrorData *leader_error;

	return s3_client_cancel_requested() ||
		   (pipe_leader_gone(transfer->pipe, &leader_error) && leader_error != NULL &&
			leader_error->sqlerrcode == ERRCODE_QUERY_CANCELED);
}

/*
 * Puts the reason into the job's row.  When that fails too (the row is locked,
 * the disk is full) it is logged: the error that brought us here is the one to
 * report.
 */
static void
record_failure(Transfer *transfer, const ErrorData *error, bool passing)
{
	MemoryContext context = CurrentMemoryContext;
	bool          cancelled =
		error->sqlerrcode == ERRCODE_QUERY_CANCELED || error->sqlerrcode == ERRCODE_ADMIN_SHUTDOWN;

	if (!transfer->recorded)
		return;

	PG_TRY();
	{
		List *aborted = NIL;
		List *doubtful = NIL;

		if (transfer->files != NULL)
		{
			aborted = files_aborted(transfer->files);
			doubtful = files_in_doubt(transfer->files);
			if (files_in_place(transfer->files) != NIL)
				job_files_done(transfer->job_id, files_in_place(transfer->files));
		}
		if (job_fail(transfer->job_id, cancelled ? JOB_CANCELLED : JOB_FAILED, &transfer->totals,
					 error, aborted, doubtful, passing && !is_cancelled(transfer)))
		{
			ereport(LOG, (errmsg("export job " INT64_FORMAT " is queued again after an error",
								 transfer->job_id)));
			/* A leader that was terminated does not. */
			dispatcher_wake();
		}
	}
	PG_CATCH();
	{
		log_failed_write(context);
	}
	PG_END_TRY();
}

static int
count_parts(const Transfer *transfer)
{
	int   parts = 0;
	List *files = transfer->files != NULL ? files_list(transfer->files) : NIL;

	for (int i = 0; i < list_length(files); i++)
		parts += ((const JobFile *) list_nth(files, i))->parts;
	return parts;
}

/*
 * Of an export without a row: the log has to say what the row would.  "error" is
 * NULL when it has succeeded.
 */
static void
log_end(Transfer *transfer, ErrorData *error)
{
	const JobTotals *totals = &transfer->totals;
	long             duration =
		TimestampDifferenceMilliseconds(transfer->progress->started_at, GetCurrentTimestamp());
	char *what = psprintf("export to \"%s\"", transfer->uri);
	char *sums = psprintf("%llu rows, %llu bytes, %d parts, %ld.%03ld s (connector \"%s\", PID %d)",
						  (unsigned long long) totals->rows, (unsigned long long) totals->bytes,
						  count_parts(transfer), duration / 1000, duration % 1000,
						  transfer->connector->name, pipe_leader_pid(transfer->pipe));

	if (error == NULL)
	{
		ereport(LOG,
				(totals->files > 0 ? errmsg("%s succeeded: %s", what, sums)
								   : errmsg("%s succeeded without an object: %s", what, sums)));
		return;
	}
	name_uploads_left(transfer, error);
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
		perform_job(transfer, begun);
		if (is_unrecorded(transfer))
			log_end(transfer, NULL);
		get_totals(transfer, totals);
		release_locks(transfer);
		done = true;
	}
	PG_CATCH();
	{
		ErrorData       *error;
		const ErrorData *leader_error;
		bool             passing;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		passing = may_pass(transfer, error);
		explain_denial(transfer, error);
		FlushErrorState();
		AbortOutOfAnyTransaction();
		MemoryContextSwitchTo(context);
		CurrentResourceOwner = owner;

		if (transfer->claimed)
			transfer->marked =
				advisory_lock_mark_path(transfer->connector->connector_id, transfer->key);
		abort_files(transfer, error);
		record_failure(transfer, error, passing);
		if (is_unrecorded(transfer))
			log_end(transfer, error);
		release_locks(transfer);

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
	message_put_int64(buf, request->job_id);
	message_put_int64(buf, request->owner);
	message_put_string(buf, request->exporter);
	message_put_int64(buf, request->places);
	message_put_string(buf, request->source);
	message_put_string(buf, request->path);
	message_put_string(buf, request->stem);
	message_put_string(buf, request->suffix);
	message_put_int64(buf, request->compression);
	message_put_int64(buf, request->overwrite);
	message_put_int64(buf, request->own_only);
	message_put_int64(buf, request->on_empty);
	message_put_int64(buf, request->header_once);
	message_put_int64(buf, request->partitioned);
	message_put_int64(buf, request->named);
	message_put_int64(buf, request->proven);
	message_put_int64(buf, request->max_open);
	message_put_int64(buf, (int64) request->max_file_size);
	message_put_int64(buf, (int64) request->rows_per_file);
	message_put_int64(buf, request->manifest);
	message_put_string(buf, request->description);
	message_put_string(buf, request->manifest_name);
}

void
transfer_deserialize(StringInfo buf, TransferRequest *request)
{
	request->job_id = message_get_int64(buf);
	request->owner = (Oid) message_get_int64(buf);
	request->exporter = message_get_string(buf);
	request->places = (int) message_get_int64(buf);
	request->source = message_get_string(buf);
	request->path = message_get_string(buf);
	request->stem = message_get_string(buf);
	request->suffix = message_get_string(buf);
	request->compression = (CompressMethod) message_get_int64(buf);
	request->overwrite = message_get_int64(buf) != 0;
	request->own_only = message_get_int64(buf) != 0;
	request->on_empty = (TransferOnEmpty) message_get_int64(buf);
	request->header_once = message_get_int64(buf) != 0;
	request->partitioned = message_get_int64(buf) != 0;
	request->named = message_get_int64(buf) != 0;
	request->proven = message_get_int64(buf) != 0;
	request->max_open = (int) message_get_int64(buf);
	request->max_file_size = (uint64) message_get_int64(buf);
	request->rows_per_file = (uint64) message_get_int64(buf);
	request->manifest = message_get_int64(buf) != 0;
	request->description = message_get_string(buf);
	request->manifest_name = message_get_string(buf);
}
