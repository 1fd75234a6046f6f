/*-------------------------------------------------------------------------
 *
 * upload_end.c
 *	  The end of uploads: objects appear, or nothing is left of them.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "postmaster/interrupt.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "s3/upload_internal.h"

/* How long to look for an object whose PutObject or Complete was not answered. */
#define SETTLE_TIMEOUT 30000 /* ms */

#define ABORTS_AT_ONCE 8

/* How often an upload is aborted whose parts may arrive yet, and how long they have; ms */
#define MAX_ABORTS 3
#define ABORT_INTERVAL 200

/* ---- making an object appear ---- */

/*
 * When an answer was lost, a repeated Complete may meet NoSuchUpload, and a
 * conditional request the object that it made itself.  libcurl repeats requests
 * as well, when a connection that was kept turns out to be dead, so that the
 * first answer we see may be to the second request.  Only the token tells that
 * the object is ours: one of the same size may have been there before.
 */
static bool
settle_outcome(Upload *upload)
{
	UploadPool *pool = upload->pool;
	S3Call     *last = upload->call;
	S3Call      head = {.verb = S3_HEAD_OBJECT, .key = upload->options.key};
	int         refusal = last->error.http_status;

	if (s3_error_is(&last->error, "NoSuchUpload"))
		last->in_doubt = true;
	if (!last->in_doubt && !s3_error_is_precondition(&last->error))
		return false;
	(void) s3_perform_until(pool->s3, &head, SETTLE_TIMEOUT);
	pool->attempts += head.attempts;
	if (head.ok && s3_object_is_of(&head.found, upload->token) &&
		head.found.size == (int64) upload->bytes_written)
	{
		last->in_doubt = false;
		last->etag = head.found.etag;
		return true;
	}

	/* S3 refuses, and what it has is not ours: nothing of ours took effect */
	if (refusal >= 400 && refusal < 500 && (head.ok || head.error.http_status == 404))
		last->in_doubt = false;
	return false;
}

static void
keep_etag(Upload *upload, const char *etag)
{
	if (etag != NULL && etag[0] != '\0')
		upload->etag = MemoryContextStrdup(upload->context, etag);
}

/* When PutObject or Complete has been answered. */
static void
upload_completed(Upload *upload)
{
	S3Call       *call = upload->call;
	bool          answered = call->ok;
	MemoryContext old;

	upload->pool->attempts += call->attempts;
	old = MemoryContextSwitchTo(upload->call_context);
	upload->state = answered || settle_outcome(upload) ? UPLOAD_FINISHED : UPLOAD_REFUSED;
	MemoryContextSwitchTo(old);
	if (upload->state == UPLOAD_REFUSED)
		return;

	keep_etag(upload, call->etag);
	if (upload->small != NULL)
	{
		upload->pool->bytes_sent += upload->bytes_written;
		upload->small->state = BUFFER_FREE;
	}
	upload_end_call(upload);

	/* Some versions of Ceph leave the ETag out of their answer to Complete. */
	if (answered && upload->etag == NULL)
	{
		(void) upload_new_call(upload, S3_HEAD_OBJECT);
		upload->state = UPLOAD_LOOKING;
		upload_submit_call(upload);
	}
}

/* Who may not look does without the ETag; what somebody else has put there has another. */
static void
upload_looked_at(Upload *upload)
{
	const S3Object *found = &upload->call->found;

	if (upload->call->ok && s3_object_is_of(found, upload->token))
		keep_etag(upload, found->etag);
	upload_end_call(upload);
	upload->state = UPLOAD_FINISHED;
}

bool
upload_is_over(Upload *upload)
{
	if (upload->state == UPLOAD_COMPLETING && upload->call->over)
		upload_completed(upload);
	else if (upload->state == UPLOAD_LOOKING && upload->call->over)
		upload_looked_at(upload);
	return upload->state != UPLOAD_COMPLETING && upload->state != UPLOAD_LOOKING;
}

void
upload_complete(Upload *upload)
{
	S3Call *call;

	s3_format_crc32c(upload->crc32c, upload->crc);
	if (upload->small != NULL)
	{
		call = upload_new_call(upload, S3_PUT_OBJECT);
		call->content_type = upload->options.content_type;
		call->token = upload->token;
		upload_body_of(upload->small, call);
	}
	else
	{
		call = upload_new_call(upload, S3_COMPLETE_UPLOAD);
		call->upload_id = upload->id;
		call->parts = upload->parts;
		call->nparts = upload->nparts;
		call->object_size = upload->bytes_written;
		call->crc32c = s3_sends_checksum(upload->pool->s3) ? upload->crc32c : NULL;
	}
	call->fail_if_exists = upload->options.fail_if_exists;
	upload->state = UPLOAD_COMPLETING;
	upload_submit_call(upload);
}

void
upload_raise(const Upload *upload)
{
	s3_report(ERROR, &upload->call->error,
			  upload->small != NULL ? "could not upload object"
									: "could not complete upload of object");
	pg_unreachable();
}

UploadOutcome
upload_outcome(const Upload *upload)
{
	if (upload->state == UPLOAD_FINISHED || upload->state == UPLOAD_LOOKING)
		return UPLOAD_IN_PLACE;
	if (upload->in_doubt)
		return UPLOAD_IN_DOUBT;
	return UPLOAD_NOT_THERE;
}

const char *
upload_id(const Upload *upload)
{
	return upload->id;
}

bool
upload_is_left(const Upload *upload)
{
	return upload->left;
}

void
upload_get_result(const Upload *upload, UploadResult *result)
{
	result->bytes = upload->bytes_written;
	result->parts = upload->nparts;
	result->etag = upload->etag;
	result->crc32c = upload->crc32c;
}

/* ---- undoing ---- */

static int
time_left(const UploadPool *pool)
{
	return (int) TimestampDifferenceMilliseconds(GetCurrentTimestamp(), pool->deadline);
}

/* A server that is to stop waits for us. */
static void
watch_shutdown(void *arg)
{
	UploadPool *pool = arg;
	TimestampTz latest;

	if (!ShutdownRequestPending || pool->hurried)
		return;
	pool->hurried = true;
	latest = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), pool->shutdown_timeout);
	pool->deadline = Min(pool->deadline, latest);
}

/* Cancelled now, an upload would be made that nobody knows the id of. */
static void
wait_for_ids(UploadPool *pool)
{
	dlist_iter iter;

	dlist_foreach (iter, &pool->creating)
	{
		Upload *upload = dlist_container(Upload, creating, iter.cur);
		S3Call *call = upload->call;

		while (!call->over && time_left(pool) > 0)
			http_drive(s3_http(pool->s3), time_left(pool));
		s3_cancel(call);
		if (call->answer_id != NULL)
			upload->id = MemoryContextStrdup(upload->context, call->answer_id);
		else
			upload->left = call->in_doubt;
	}
}

void
upload_pool_stop(UploadPool *pool, int timeout, int shutdown_timeout)
{
	MemoryContext old;

	pool->deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), timeout);
	pool->shutdown_timeout = shutdown_timeout;
	http_set_watch(s3_http(pool->s3), watch_shutdown, pool);
	watch_shutdown(pool);
	HOLD_INTERRUPTS();
	old = MemoryContextSwitchTo(pool->context); /* not that of the error */
	wait_for_ids(pool);
	upload_cancel_transfers(pool);
	MemoryContextSwitchTo(old);
	RESUME_INTERRUPTS();
}

typedef struct Abort
{
	Upload     *upload;   /* NULL: none */
	int         requests; /* that S3 has said yes to */
	TimestampTz again_at; /* 0: a request is under way */
	S3Call      call;
} Abort;

static void
send_abort(UploadPool *pool, Abort *slot)
{
	memset(&slot->call, 0, sizeof(slot->call));
	slot->again_at = 0;
	slot->call.verb = S3_ABORT_UPLOAD;
	slot->call.key = slot->upload->options.key;
	slot->call.upload_id = slot->upload->id;
	s3_submit(pool->s3, &slot->call);
}

/*
 * False: it goes on.  Parts that were under way a moment ago may arrive after the
 * abort, and stay: it is repeated until S3 knows no such upload.
 * https://docs.aws.amazon.com/AmazonS3/latest/API/API_AbortMultipartUpload.html
 */
static bool
abort_is_over(UploadPool *pool, Abort *slot)
{
	Upload *upload = slot->upload;

	if (upload == NULL)
		return true;
	if (slot->again_at != 0)
	{
		if (slot->again_at <= GetCurrentTimestamp())
			send_abort(pool, slot);
		return false;
	}
	if (!slot->call.over)
		return false;
	if (slot->call.ok && upload->parts_in_flight && ++slot->requests < MAX_ABORTS)
	{
		slot->again_at = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), ABORT_INTERVAL);
		return false;
	}
	if (slot->call.ok || s3_error_is(&slot->call.error, "NoSuchUpload"))
		upload->left = false;
	slot->upload = NULL;
	return true;
}

/*
 * Several aborts at a time, until the pool's time is over: what is left then is named in the
 * error and in the rows.
 */
static void
abort_uploads(UploadPool *pool, List *uploads)
{
	Abort *slots = palloc0(ABORTS_AT_ONCE * sizeof(Abort));
	int    begun = 0;

	for (;;)
	{
		int running = 0;

		for (int i = 0; i < ABORTS_AT_ONCE; i++)
		{
			Abort *slot = &slots[i];

			if (abort_is_over(pool, slot) && begun < list_length(uploads))
			{
				slot->upload = list_nth(uploads, begun++);
				slot->requests = 0;
				send_abort(pool, slot);
			}
			running += slot->upload != NULL;
		}
		if (running == 0 || time_left(pool) == 0)
			break;
		http_drive(s3_http(pool->s3), Min(time_left(pool), ABORT_INTERVAL));
	}
	for (int i = 0; i < ABORTS_AT_ONCE; i++)
		if (slots[i].upload != NULL)
			s3_cancel(&slots[i].call);
}

void
upload_pool_abort(UploadPool *pool)
{
	List         *uploads = NIL;
	MemoryContext old;
	dlist_iter    iter;

	HOLD_INTERRUPTS();
	old = MemoryContextSwitchTo(pool->context);
	dlist_foreach (iter, &pool->uploads)
	{
		Upload *upload = dlist_container(Upload, node, iter.cur);

		/* It may have been answered while another one was waited for. */
		if (upload->state == UPLOAD_COMPLETING && upload->call->ok)
		{
			keep_etag(upload, upload->call->etag);
			upload->state = UPLOAD_FINISHED;
		}
		if (upload_outcome(upload) == UPLOAD_IN_PLACE || upload->state == UPLOAD_ABORTED)
			continue;
		if (upload->state == UPLOAD_COMPLETING || upload->state == UPLOAD_REFUSED)
			upload->in_doubt = upload->call->in_doubt;
		upload->state = UPLOAD_ABORTED;
		if (upload->id == NULL)
			continue;
		upload->left = true;
		uploads = lappend(uploads, upload);
	}
	abort_uploads(pool, uploads);
	http_set_watch(s3_http(pool->s3), NULL, NULL);
	MemoryContextSwitchTo(old);
	RESUME_INTERRUPTS();
}
