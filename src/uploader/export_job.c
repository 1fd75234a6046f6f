/*-------------------------------------------------------------------------
 *
 * export_job.c
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
#include "uploader/export_job.h"

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

typedef struct ExportJob
{
	Pipe                *pipe;
	Connector           *connector;
	const ExportRequest *request;
	int64                job_id;
	bool                 has_job_lock;   /* the job's advisory lock is held */
	bool                 has_path_lock;  /* so is the path */
	bool                 path_is_marked; /* as one that is released soon */
	bool                 recorded;       /* the job has a row */
	bool                 again;          /* it was tried before */
	char                *label;          /* what names call the job: its id, if it has one */
	char                *key;            /* of the first file, or the folder of partitions; UTF-8 */
	char                *uri;            /* of that */
	FilesOptions         options;        /* of the files */
	HttpClient          *http;
	Credentials         *credentials;
	TimestampTz          refreshed_at;
	S3Session           *s3;
	List                *looks; /* of Look: sent, and not waited for yet */
	Files               *files; /* NULL before the query runs */
	JobTotals            totals;
	Progress            *progress;
	bool                 wants_rows; /* and waits for nothing else */
} ExportJob;

/* A path has its placeholders from the user, or is stem-20261122T170000Z-42.csv. */
static void
choose_files(ExportJob *job)
{
	const ExportRequest *request = job->request;
	FilesOptions        *options = &job->options;
	const char          *path = request->path;

	if (path == NULL)
		path = psprintf("%s-{yyyy}{mm}{dd}T{hh}{mi}{ss}Z-{job}%s", request->stem, request->suffix);
	*options = request->files;
	options->job_id = job->job_id;
	options->label = job->label;
	options->progress = job->progress;
	options->connector = job->connector;
	options->path = path;
	options->started = time(NULL);
	options->exporter = request->own_only ? request->owner : InvalidOid;
	options->checksums = request->manifest;
}

static bool
wants_manifest(const ExportJob *job)
{
	return job->request->manifest || job->request->files.manifest_name != NULL;
}

/* Files of an earlier export to the path are not to stay beside the new ones. */
static bool
replaces_whole(const ExportJob *job)
{
	return job->request->files.overwrite && !job->options.named;
}

/* Objects, the manifest included, and those that are replaced. */
static bool
may_have_several(const ExportJob *job)
{
	const FilesOptions *options = &job->options;

	return options->partitioned || options->max_file_size > 0 || options->max_rows_per_file > 0 ||
		   wants_manifest(job) || replaces_whole(job);
}

static char *
first_key(const ExportJob *job)
{
	return files_key(&job->options, NULL, 1);
}

/* It has begun, and has no row. */
static bool
is_unrecorded(const ExportJob *job)
{
	return job->job_id == JOB_UNRECORDED && job->uri != NULL;
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
claim_place(const ExportRequest *request)
{
	if (request->places == 0 || advisory_lock_try_place_of_role(request->owner, request->places))
		return;
	ereport(ERROR, (errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
					errmsg("too many exports of the role are running"),
					errdetail("The limit is %d, in all databases.", request->places),
					errhint("Wait until one has ended, queue the export with wait => false, or "
							"raise \"s3export.max_exports_per_role\".")));
}

/*
 * The job's advisory lock is taken before its row says that it runs: a row without a lock is one
 * that a crash has left.
 */
static void
begin_job(ExportJob *job)
{
	JobRequest request = {
		.job_id = job->request->job_id,
		.owner = job->request->owner,
		.connector_id = job->connector->connector_id,
		.connector = job->connector->name,
		.endpoint_url = job->connector->s3.endpoint_url,
		.source = job->request->source,
		.path = job->request->path,
		.leader_pid = pipe_leader_pid(job->pipe),
		.pipe = pipe_handle(job->pipe),
	};
	char *key;

	claim_place(job->request);
	job->job_id = request.job_id != 0 ? request.job_id : job_new_id();
	job->label = make_label(job->job_id);
	choose_files(job);
	key = first_key(job);
	if (job->options.partitioned)
		key = object_path_folder(key);
	request.first_key = first_key(job);
	job->key = utf8_from_database(key);
	job->uri = connector_uri(job->connector, key);
	if (job->job_id != JOB_UNRECORDED)
	{
		advisory_lock_join(job->job_id);
		job->has_job_lock = true;
	}
	pg_atomic_write_u64(&job->progress->job_id, (uint64) job->job_id);
	job->again = job_begin(job->job_id, &request, job->uri);
	job->recorded = job->job_id != JOB_UNRECORDED;
}

/* Two exports to one path at a time would overwrite each other, or fail at their ends. */
static void
claim_path(ExportJob *job)
{
	static uint32 wait_event = 0;

	int64       connector_id = job->connector->connector_id;
	TimestampTz since = GetCurrentTimestamp();

	while (!advisory_lock_try_path(connector_id, job->key))
	{
		if (TimestampDifferenceExceeds(since, GetCurrentTimestamp(), PATH_PATIENCE) &&
			!advisory_lock_path_is_marked(connector_id, job->key))
		{
			int64 other = job_writing_to(connector_id, job->uri, job->job_id);

			ereport(ERROR, (errcode(ERRCODE_OBJECT_IN_USE),
							errmsg("another export writes to \"%s\"", job->uri),
							other != 0 ? errdetail("It is job " INT64_FORMAT ".", other) : 0,
							errhint("Wait until it has ended, or choose another path.")));
		}
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, PATH_INTERVAL,
						 compat_wait_event(wait_event, "S3exportPath"));
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		s3_client_watch_leader(job->pipe);
	}
	job->has_path_lock = true;
}

/* When the end has been recorded, and before anybody hears of it. */
static void
release_locks(const ExportJob *job)
{
	if (job->has_path_lock)
		advisory_lock_release_path(job->connector->connector_id, job->key);
	if (job->path_is_marked)
		advisory_lock_unmark_path(job->connector->connector_id, job->key);
	if (job->has_job_lock)
		advisory_lock_leave(job->job_id);
}

/* What the keys of all files, and of the manifest, begin with. */
static char *
common_prefix(const ExportJob *job)
{
	char *prefix = first_key(job);
	bool  manifest = wants_manifest(job) || replaces_whole(job);
	char *others[] = {files_key(&job->options, NULL, 2),
					  manifest ? files_manifest_key(&job->options) : prefix};

	if (job->options.partitioned)
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
refresh_keys(ExportJob *job)
{
	TimestampTz now = GetCurrentTimestamp();

	if (!TimestampDifferenceExceeds(job->refreshed_at, now, REFRESH_INTERVAL))
		return;
	job->refreshed_at = now;
	if (connector_refresh_keys(job->connector))
		credentials_replace(job->credentials, &job->connector->credentials);
}

static void
watch_query(void *arg)
{
	ExportJob *job = arg;

	s3_client_watch_leader(job->pipe);
	refresh_keys(job);
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
	ExportJob    *job = arg;
	Progress     *progress = job->progress;
	TimestampTz   retry_at = 0;

	if (wait->retry_in >= 0)
		retry_at = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), wait->retry_in);
	pg_atomic_write_u64(&progress->retry_at, (uint64) retry_at);
	pg_atomic_write_u32(&progress->retries, (uint32) wait->retries);
	pg_atomic_write_u32(&progress->wait, job->wants_rows ? PROGRESS_FOR_ROWS : PROGRESS_FOR_STORE);
	return job->wants_rows && retry_at == 0 ? compat_wait_event(wait_event, "S3exportRows") : 0;
}

static void
open_store(ExportJob *job)
{
	S3Timeouts limits = s3_client_timeouts();
	bool       is_prefix = may_have_several(job);
	char      *key = is_prefix ? common_prefix(job) : first_key(job);

	job->http = s3_client_open_http(guc_max_concurrent_parts + 2, guc_retry_timeout);
	job->credentials =
		s3_client_open_credentials(job->http, job->connector, job->label, utf8_from_database(key),
								   is_prefix, replaces_whole(job));
	/* A look takes half a millisecond: the first requests go with the keys that came. */
	job->refreshed_at = GetCurrentTimestamp();
	http_set_watch(job->http, watch_query, job);
	http_set_waits(job->http, report_wait, job);
	job->s3 = s3_open(job->http, &job->connector->s3, job->credentials, &limits);
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
judge_look(const ExportJob *job, const Look *look)
{
	const S3Error *error = &look->get.error;

	if (object_exists(&look->get))
	{
		if (look->may_exist)
			return;
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("object \"%s\" already exists", connector_uri(job->connector, look->key)),
				 errhint("Choose another path, or use if_exists => 'overwrite'.")));
	}
	if (s3_error_is(error, "NoSuchKey") || s3_error_is(error, "NotFound"))
		return;
	if (error->service == NULL && error->refusal == REFUSAL_PERMISSION)
		return;
	s3_report(ERROR, error, "could not look for object");
}

static void
begin_look(ExportJob *job, char *key, bool may_exist)
{
	Look *look = palloc0(sizeof(Look));

	look->get.verb = S3_GET_OBJECT;
	look->get.key = utf8_from_database(key);
	look->key = key;
	look->may_exist = may_exist;
	s3_submit(job->s3, &look->get);
	job->looks = lappend(job->looks, look);
}

/* Which partitions there will be is not known yet. */
static void
begin_looks(ExportJob *job)
{
	const FilesOptions *options = &job->options;
	char               *first = first_key(job);
	char               *manifest = wants_manifest(job) ? files_manifest_key(options) : NULL;

	if (job->request->proven)
		return;
	begin_look(job, first, options->partitioned || files_may_replace(options, first));
	if (manifest != NULL && !files_may_replace(options, manifest))
		begin_look(job, manifest, false);
	/* Connects; a store that is near has its request with the second. */
	http_drive(job->http, 0);
	http_drive(job->http, 0);
}

/* What others have left is looked for while the store answers. */
static void
end_looks(ExportJob *job)
{
	bool      due = !is_unrecorded(job) && recovery_is_due(job->connector, job->job_id);
	ListCell *cell;

	foreach (cell, job->looks)
	{
		while (!((Look *) lfirst(cell))->get.over)
			http_drive(job->http, -1);
	}
	if (due)
		recovery_in_passing(job->connector, job->job_id, s3_client_watch_leader, job->pipe);
	foreach (cell, job->looks)
		judge_look(job, lfirst(cell));
}

/*
 * An object in the way of an export that overwrites is not the exporter's: whether it was
 * found before the query ran, or S3 has refused to replace it.
 */
static void
explain_denial(const ExportJob *job, ErrorData *error)
{
	const ExportRequest *request = job->request;

	if (error->sqlerrcode != ERRCODE_DUPLICATE_OBJECT || !request->files.overwrite ||
		!request->own_only)
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
take_blocks(ExportJob *job)
{
	PipeBlock block;

	for (;;)
	{
		bool ready = files_ready(job->files);

		if (!ready || !pipe_receive(job->pipe, &block))
		{
			job->wants_rows = ready;
			http_drive(job->http, -1);
			job->wants_rows = false;
		}
		else if (block.kind == PIPE_HEADER)
			files_add_header(job->files, block.data, block.len);
		else if (block.kind == PIPE_ROWS)
			files_put(job->files, &block);
		else if (block.kind == PIPE_MORE)
			files_put_more(job->files, &block);
		else if (block.kind == PIPE_FILE_END)
			files_end(job->files, block.folder);
		else if (block.kind == PIPE_OBJECT)
			files_add_object(job->files, &block);
		else if (block.kind == PIPE_DESCRIPTION)
			files_add_description(job->files, &block);
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
take_nothing(ExportJob *job)
{
	if (files_count(job->files) > 0)
		return;
	if (job->request->on_empty == ON_EMPTY_ERROR)
		refuse_empty();
	if (job->request->on_empty == ON_EMPTY_FILE && !job->options.partitioned)
		files_put_nothing(job->files);
}

static void
put_manifest(ExportJob *job)
{
	Files *files = job->files;
	char  *manifest = job->options.manifest_name != NULL
						  ? manifest_make_named(files)
						  : manifest_make(&job->options, job->request->description, files);

	files_put_manifest(files, manifest, strlen(manifest));
}

/*
 * All rows of files are committed before the first of them can appear.  A
 * manifest of no files is written too: whoever waits for it is told that there is
 * nothing.
 */
static void
finish_files(ExportJob *job)
{
	Files *files = job->files;
	bool   manifest = wants_manifest(job);

	take_nothing(job);
	files_seal(files);
	if (files_count(files) == 0 && job->request->on_empty == ON_EMPTY_SKIP &&
		job->options.manifest_name == NULL)
		manifest = false;
	if (manifest)
		files_announce_manifest(files);
	if (files_list(files) != NIL)
	{
		job_set_completing(job->job_id, files_list(files));
		http_set_watch(job->http, watch_completion, job);
		progress_complete(job->progress, files_count(files));
		files_complete(files);
		if (manifest)
			put_manifest(job);
		if (replaces_whole(job))
			stale_remove(job->http, job->s3, job->job_id, job->options.exporter);
	}
	files_get_totals(files, &job->totals);
	job_succeed(job->job_id, &job->totals, files_list(files));
}

static void
perform_job(ExportJob *job, void (*begun)(Pipe *pipe))
{
	begin_job(job);
	claim_path(job);
	if (job->again)
		recovery_of_attempt(job->job_id, s3_client_watch_leader, job->pipe);
	open_store(job);
	begin_looks(job);
	end_looks(job);
	job->files = files_open(&job->options, job->s3);
	pg_atomic_write_u32(&job->progress->phase, PROGRESS_READING);
	begun(job->pipe);
	take_blocks(job);
	pg_atomic_write_u32(&job->progress->phase, PROGRESS_SENDING);
	finish_files(job);
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
record_uploads(const ExportJob *job)
{
	MemoryContext context = CurrentMemoryContext;
	List         *files = files_unrecorded(job->files);

	if (files == NIL)
		return;
	PG_TRY();
	{
		job_files_begin(job->job_id, files);
	}
	PG_CATCH();
	{
		log_failed_write(context);
	}
	PG_END_TRY();
}

/* "error" is to name the uploads that are left, and that no row names. */
static void
name_uploads_left(const ExportJob *job, ErrorData *error)
{
	List     *left = job->files != NULL ? files_left(job->files) : NIL;
	ListCell *cell;

	foreach (cell, left)
	{
		const JobFile *file = lfirst(cell);

		if (job->recorded && (file->begun || file->upload_id == NULL))
			continue;
		error->detail =
			psprintf("%s%sUpload \"%s\" could not be aborted and is left in the bucket.",
					 error->detail ? error->detail : "", error->detail ? "  " : "",
					 file->upload_id ? file->upload_id : "(unknown)");
	}
}

/* Leaves nothing behind in the store but files that are in place; the error says which. */
static void
abort_files(ExportJob *job, ErrorData *error)
{
	Files *files = job->files;
	char  *more;

	if (files == NULL)
		return;
	files_stop(files, ABORT_TIMEOUT + list_length(files_list(files)) * ABORT_TIMEOUT_PER_FILE,
			   ABORT_TIMEOUT_SHUTDOWN);
	record_uploads(job);
	files_abort(files);
	if (job->recorded)
		name_uploads_left(job, error);
	files_get_totals(files, &job->totals);
	job->totals.bytes = files_bytes_sent(files);
	job->totals.files = files_count_in_place(files);
	more = files_describe(files);
	if (more != NULL)
		error->detail = error->detail != NULL ? psprintf("%s  %s", error->detail, more) : more;
}

/*
 * Is it a failure that may pass?  Not one of the query, nor what S3 refuses, which somebody has
 * to see.  For before anything is cleaned up.
 */
static bool
may_pass(const ExportJob *job, const ErrorData *error)
{
	const ErrorData *leader_error;

	if (pipe_leader_gone(job->pipe, &leader_error))
		return leader_error == NULL;
	if (error->sqlerrcode == ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION ||
		error->sqlerrcode == ERRCODE_DUPLICATE_OBJECT)
		return false;
	return job_error_passes(error->sqlerrcode) ||
		   (job->http != NULL && http_has_given_up(job->http));
}

/* Has somebody cancelled the export, perhaps while it was cleaning up? */
static bool
is_cancelled(const ExportJob *job)
{
	const ErrorData *leader_error;

	return s3_client_cancel_requested() ||
		   (pipe_leader_gone(job->pipe, &leader_error) && leader_error != NULL &&
			leader_error->sqlerrcode == ERRCODE_QUERY_CANCELED);
}

/*
 * Puts the reason into the job's row.  When that fails too (the row is locked,
 * the disk is full) it is logged: the error that brought us here is the one to
 * report.
 */
static void
record_failure(ExportJob *job, const ErrorData *error, bool passing)
{
	MemoryContext context = CurrentMemoryContext;
	bool          cancelled =
		error->sqlerrcode == ERRCODE_QUERY_CANCELED || error->sqlerrcode == ERRCODE_ADMIN_SHUTDOWN;

	if (!job->recorded)
		return;

	PG_TRY();
	{
		List *aborted = NIL;
		List *in_doubt = NIL;

		if (job->files != NULL)
		{
			aborted = files_aborted(job->files);
			in_doubt = files_in_doubt(job->files);
			if (files_in_place(job->files) != NIL)
				job_files_done(job->job_id, files_in_place(job->files));
		}
		if (job_fail(job->job_id, cancelled ? JOB_CANCELLED : JOB_FAILED, &job->totals, error,
					 aborted, in_doubt, passing && !is_cancelled(job)))
		{
			ereport(LOG, (errmsg("export job " INT64_FORMAT " is queued again after an error",
								 job->job_id)));
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
count_parts(const ExportJob *job)
{
	int   parts = 0;
	List *files = job->files != NULL ? files_list(job->files) : NIL;

	for (int i = 0; i < list_length(files); i++)
		parts += ((const JobFile *) list_nth(files, i))->parts;
	return parts;
}

/*
 * Of an export without a row: the log has to say what the row would.  "error" is
 * NULL when it has succeeded.
 */
static void
log_end(ExportJob *job, ErrorData *error)
{
	const JobTotals *totals = &job->totals;
	long             duration =
		TimestampDifferenceMilliseconds(job->progress->started_at, GetCurrentTimestamp());
	char *what = psprintf("export to \"%s\"", job->uri);
	char *sums = psprintf("%llu rows, %llu bytes, %d parts, %ld.%03ld s (connector \"%s\", PID %d)",
						  (unsigned long long) totals->rows, (unsigned long long) totals->bytes,
						  count_parts(job), duration / 1000, duration % 1000, job->connector->name,
						  pipe_leader_pid(job->pipe));

	if (error == NULL)
	{
		ereport(LOG,
				(totals->files > 0 ? errmsg("%s succeeded: %s", what, sums)
								   : errmsg("%s succeeded without an object: %s", what, sums)));
		return;
	}
	name_uploads_left(job, error);
	ereport(LOG, (errcode(error->sqlerrcode),
				  errmsg("%s failed after %s: %s", what, sums, error->message),
				  error->detail ? errdetail_internal("%s", error->detail) : 0,
				  error->hint ? errhint("%s", error->hint) : 0));
}

bool
export_job_run(Pipe *pipe, Connector *connector, const ExportRequest *request,
			   void (*begun)(Pipe *pipe), JobTotals *totals)
{
	ExportJob    *job = palloc0(sizeof(ExportJob));
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	volatile bool done = false;

	job->pipe = pipe;
	job->connector = connector;
	job->request = request;
	job->progress = pipe_progress(pipe);
	PG_TRY();
	{
		perform_job(job, begun);
		if (is_unrecorded(job))
			log_end(job, NULL);
		*totals = job->totals;
		totals->job_id = job->job_id;
		release_locks(job);
		done = true;
	}
	PG_CATCH();
	{
		ErrorData       *error;
		const ErrorData *leader_error;
		bool             passing;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		passing = may_pass(job, error);
		explain_denial(job, error);
		FlushErrorState();
		AbortOutOfAnyTransaction();
		MemoryContextSwitchTo(context);
		CurrentResourceOwner = owner;

		if (job->has_path_lock)
			job->path_is_marked = advisory_lock_mark_path(job->connector->connector_id, job->key);
		abort_files(job, error);
		record_failure(job, error, passing);
		if (is_unrecorded(job))
			log_end(job, error);
		release_locks(job);

		/* What ended the leader has been reported by the leader. */
		if (!pipe_leader_gone(pipe, &leader_error))
			ReThrowError(error);
	}
	PG_END_TRY();
	return done;
}
