/*-------------------------------------------------------------------------
 *
 * upload.c
 *	  One object as a stream of bytes: begin, write, finish or abort.
 *
 * A part's buffer is the unit of retry: its bytes and their digest stay until
 * S3 has acknowledged them, so what S3 checks is what was written, even if the
 * memory is not sound.  Digests are computed while the bytes are copied, when
 * they are in the processor's cache.  The CRC of the object is that of its parts
 * put together.
 *
 * A full buffer is handed over only when more data come.  An object of exactly
 * one part needs no multipart upload that way, and none ends in an empty part.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "portability/instr_time.h"
#include "utils/memutils.h"

#include "crc32c.h"
#include "pace.h"
#include "upload.h"

/* Parts of one size, before they double. */
#define PARTS_PER_SIZE 1000

/* How long to look for an object whose PutObject or Complete was not answered. */
#define SETTLE_TIMEOUT 30000 /* ms */

typedef enum BufferState
{
	BUFFER_FREE,
	BUFFER_FILLING,
	BUFFER_FULL, /* waits to be sent */
	BUFFER_SENDING
} BufferState;

typedef struct PartBuffer
{
	Upload       *upload;
	BufferState   state;
	char         *data;
	size_t        size;
	size_t        len;
	int           number;
	uint32        crc;
	char          crc32c[S3_CRC32C_LEN + 1];
	char          sha256[SIGV4_SHA256_HEX_LEN + 1];
	MemoryContext context; /* of the call */
	S3Call        call;
} PartBuffer;

typedef enum UploadState
{
	UPLOAD_SMALL, /* nothing was sent */
	UPLOAD_CREATING,
	UPLOAD_OPEN, /* has its id */
	UPLOAD_FINISHED,
	UPLOAD_ABORTED
} UploadState;

struct Upload
{
	S3Session            *s3;
	UploadOptions         options;
	MemoryContext         context;
	MemoryContextCallback cleanup;
	UploadState           state;
	char                  token[S3_TOKEN_LEN + 1];
	char                 *uri;

	PartBuffer *buffers;
	int         nbuffers;
	PartBuffer *filling; /* NULL: none */
	int         sending;
	Pace        pace;
	size_t      allocated;  /* bytes in buffers */
	size_t      unattended; /* bytes written since the client was driven */

	S3Part *parts;
	int     parts_size;
	int     nparts; /* handed over */

	uint32     crc; /* of the parts that were filled */
	char       crc32c[S3_CRC32C_LEN + 1];
	SigV4Hash *hash; /* of the buffer being filled; NULL: not used */
	uint64     bytes_written;
	uint64     bytes_sent;
	int        attempts;

	S3Call   create;
	S3Call   last;       /* PutObject or Complete */
	S3Error *part_error; /* of the first part that failed; NULL: none */
	int      failed_part;
};


/* ----------
 * Parts and their buffers
 * ----------
 */

static size_t
part_size(const Upload *upload, int number)
{
	size_t limit = upload->options.memory / 2;
	size_t size = Min(upload->options.part_size, limit);

	for (int n = (number - 1) / PARTS_PER_SIZE; n > 0 && size < limit; n--)
		size *= 2;
	return Min(size, limit);
}

/* How many parts could be sent at the same time, and how many are. */
static int
most_sending(const Upload *upload)
{
	size_t fit = upload->options.memory / part_size(upload, upload->nparts + 1) - 1;

	return (int) Min((size_t) upload->options.max_concurrent_parts, Max(fit, 1));
}

static int
max_sending(const Upload *upload)
{
	return Min(upload->pace.parts, most_sending(upload));
}

static int64
now_us(void)
{
	instr_time now;

	INSTR_TIME_SET_CURRENT(now);
	return (int64) INSTR_TIME_GET_MICROSEC(now);
}

static void
release_buffer(PartBuffer *buffer)
{
	if (buffer->data == NULL)
		return;
	pfree(buffer->data);
	buffer->upload->allocated -= buffer->size;
	buffer->data = NULL;
	buffer->size = 0;
}

/*
 * A buffer for the next part, or NULL when none is free: one is filled while the
 * others are sent.  Its memory is asked for in one piece, of which the kernel
 * gives only the pages that are written, so that a small object does not take a
 * whole part.
 */
static PartBuffer *
find_buffer(Upload *upload)
{
	size_t      size = part_size(upload, upload->nparts + 1);
	PartBuffer *found = NULL;
	int         taken = 0;

	for (int i = 0; i < upload->nbuffers; i++)
	{
		PartBuffer *buffer = &upload->buffers[i];

		if (buffer->state != BUFFER_FREE)
		{
			taken++;
			continue;
		}
		if (buffer->size != size)
			release_buffer(buffer); /* of the time when parts were smaller */
		if (found == NULL || found->data == NULL)
			found = buffer;
	}
	if (taken > max_sending(upload))
		return NULL;
	if (found == NULL || found->data != NULL)
		return found;
	if (upload->allocated + size > upload->options.memory)
		return NULL;
	found->data = MemoryContextAllocHuge(upload->context, size);
	found->size = size;
	upload->allocated += size;
	return found;
}

static void
check_hash(bool ok)
{
	if (!ok)
		ereport(ERROR, (errcode(ERRCODE_INTERNAL_ERROR),
						errmsg("could not compute the SHA-256 of a part")));
}

static bool
start_filling(Upload *upload)
{
	PartBuffer *buffer = find_buffer(upload);

	if (buffer == NULL)
		return false;
	if (upload->nparts >= S3_MAX_PARTS)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("object \"%s\" is too large", upload->uri),
				 errdetail("After %llu bytes its %d parts, the most that S3 takes, are used up.",
						   (unsigned long long) upload->bytes_written, S3_MAX_PARTS),
				 errhint("Increase s3export.part_size, or s3export.upload_memory, of which a part "
						 "may take half.")));
	buffer->state = BUFFER_FILLING;
	buffer->len = 0;
	buffer->crc = 0;
	if (upload->hash)
		check_hash(sigv4_hash_init(upload->hash));
	upload->filling = buffer;
	return true;
}

static size_t
fill(Upload *upload, const char *data, size_t len)
{
	PartBuffer *buffer = upload->filling;
	size_t      n = Min(Min(len, buffer->size - buffer->len), UPLOAD_BLOCK);

	memcpy(buffer->data + buffer->len, data, n);
	data = buffer->data + buffer->len;
	buffer->crc = crc32c_append(buffer->crc, data, n);
	if (upload->hash)
		check_hash(sigv4_hash_update(upload->hash, data, n));
	buffer->len += n;
	upload->bytes_written += n;
	upload->unattended += n;
	return n;
}

static void
end_filling(Upload *upload)
{
	PartBuffer *buffer = upload->filling;

	if (upload->hash)
		check_hash(sigv4_hash_final(upload->hash, buffer->sha256));
	s3_format_crc32c(buffer->crc32c, buffer->crc);
	upload->crc = crc32c_join(upload->crc, buffer->crc, buffer->len);
	upload->filling = NULL;
}

static void
body_of(const Upload *upload, PartBuffer *buffer, S3Call *call)
{
	call->body = buffer->data;
	call->body_len = buffer->len;
	if (upload->hash)
		call->sha256 = buffer->sha256;
	if (s3_sends_checksum(upload->s3))
		call->crc32c = buffer->crc32c;
}


/* ----------
 * The multipart upload
 * ----------
 */

static void
part_done(S3Call *call)
{
	PartBuffer *buffer = call->arg;
	Upload     *upload = buffer->upload;
	S3Part     *part = &upload->parts[buffer->number - 1];

	upload->sending--;
	upload->attempts += call->attempts;
	buffer->state = BUFFER_FREE;
	if (call->ok)
	{
		part->etag = MemoryContextStrdup(upload->context, call->etag);
		upload->bytes_sent += buffer->len;
		pace_part_done(&upload->pace, buffer->len, most_sending(upload), now_us());
		if (upload->options.part_sent)
			upload->options.part_sent(upload->options.arg, buffer->len);
	}
	else if (upload->part_error == NULL)
	{
		upload->part_error = MemoryContextAlloc(upload->context, sizeof(S3Error));
		*upload->part_error = call->error;
		upload->failed_part = buffer->number;
	}
}

static void
send_part(Upload *upload, PartBuffer *buffer)
{
	S3Call       *call = &buffer->call;
	MemoryContext old;

	MemoryContextReset(buffer->context);
	memset(call, 0, sizeof(*call));
	call->verb = S3_UPLOAD_PART;
	call->key = upload->options.key;
	call->upload_id = upload->create.answer_id;
	call->part_number = buffer->number;
	body_of(upload, buffer, call);
	call->done = part_done;
	call->arg = buffer;
	buffer->state = BUFFER_SENDING;
	upload->sending++;
	old = MemoryContextSwitchTo(buffer->context);
	s3_submit(upload->s3, call);
	MemoryContextSwitchTo(old);
}

static PartBuffer *
next_full(const Upload *upload)
{
	PartBuffer *next = NULL;

	for (int i = 0; i < upload->nbuffers; i++)
	{
		PartBuffer *buffer = &upload->buffers[i];

		if (buffer->state == BUFFER_FULL && (next == NULL || buffer->number < next->number))
			next = buffer;
	}
	return next;
}

static void
cancel_transfers(Upload *upload)
{
	for (int i = 0; i < upload->nbuffers; i++)
	{
		if (upload->buffers[i].state == BUFFER_SENDING)
			s3_cancel(&upload->buffers[i].call);
		upload->buffers[i].state = BUFFER_FREE;
	}
	upload->sending = 0;
	upload->filling = NULL;
	s3_cancel(&upload->create);
	s3_cancel(&upload->last);
}

static void
fail(Upload *upload, const S3Error *error, const char *what)
{
	cancel_transfers(upload);
	s3_report(ERROR, error, what);
}

/*
 * The request has no body, so what is wrong with the credentials, the region,
 * the clock or the permission is told before a whole part was sent in vain.
 */
static void
create_upload(Upload *upload)
{
	S3Call       *call = &upload->create;
	MemoryContext old;

	call->verb = S3_CREATE_UPLOAD;
	call->key = upload->options.key;
	call->content_type = upload->options.content_type;
	call->token = upload->token;
	upload->state = UPLOAD_CREATING;
	old = MemoryContextSwitchTo(upload->context);
	s3_submit(upload->s3, call);
	MemoryContextSwitchTo(old);
}

/* Does what answers that have come make possible; raises the errors among them. */
static void
advance(Upload *upload)
{
	PartBuffer *buffer;

	if (upload->part_error != NULL)
	{
		char what[64];

		snprintf(what, sizeof(what), "could not upload part %d of object", upload->failed_part);
		fail(upload, upload->part_error, what);
	}
	if (upload->state == UPLOAD_CREATING && upload->create.over)
	{
		upload->attempts += upload->create.attempts;
		if (!upload->create.ok)
			fail(upload, &upload->create.error, "could not start upload of object");
		upload->state = UPLOAD_OPEN;
		pace_begin(&upload->pace, now_us());
		if (upload->options.started)
			upload->options.started(upload->options.arg, upload->create.answer_id);
	}
	if (upload->state != UPLOAD_OPEN)
		return;
	while (upload->sending < max_sending(upload) && (buffer = next_full(upload)) != NULL)
		send_part(upload, buffer);
}

static void
drive(Upload *upload, long timeout)
{
	upload->unattended = 0;
	http_drive(s3_http(upload->s3), timeout);
	advance(upload);
}

static void
hand_over(Upload *upload)
{
	PartBuffer *buffer = upload->filling;

	if (upload->nparts == upload->parts_size)
	{
		upload->parts_size *= 2;
		upload->parts = repalloc(upload->parts, upload->parts_size * sizeof(S3Part));
	}
	end_filling(upload);
	buffer->number = ++upload->nparts;
	buffer->state = BUFFER_FULL;
	upload->parts[buffer->number - 1].number = buffer->number;
	upload->parts[buffer->number - 1].etag = NULL;
	strlcpy(upload->parts[buffer->number - 1].crc32c,
			s3_sends_checksum(upload->s3) ? buffer->crc32c : "", S3_CRC32C_LEN + 1);
	if (upload->state == UPLOAD_SMALL)
		create_upload(upload);
	advance(upload);
}


/* ----------
 * The end
 * ----------
 */

/*
 * When an answer was lost, a repeated Complete may meet NoSuchUpload, and a
 * conditional request the object that it made itself.  libcurl repeats requests
 * as well, when a connection that was kept turns out to be dead, so that the
 * first answer we see may be to the second request.  Only the token tells that
 * the object is ours: one of the same size may have been there before.
 */
static bool
settle(Upload *upload)
{
	S3Call *last = &upload->last;
	S3Call  head = {.verb = S3_HEAD_OBJECT, .key = upload->options.key};
	int     refusal = last->error.http_status;

	if (s3_error_is(&last->error, "NoSuchUpload"))
		last->in_doubt = true;
	if (!last->in_doubt && refusal != 412)
		return false;
	(void) s3_perform_until(upload->s3, &head, SETTLE_TIMEOUT);
	upload->attempts += head.attempts;
	if (head.ok && head.found.token != NULL && strcmp(head.found.token, upload->token) == 0 &&
		head.found.size == (int64) upload->bytes_written)
	{
		last->ok = true;
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
perform_last(Upload *upload, const char *what)
{
	S3Call       *call = &upload->last;
	MemoryContext old = MemoryContextSwitchTo(upload->context);

	if (upload->options.completing)
		upload->options.completing(upload->options.arg);
	call->key = upload->options.key;
	call->fail_if_exists = upload->options.fail_if_exists;
	(void) s3_perform(upload->s3, call);
	upload->attempts += call->attempts;
	if (!call->ok && !settle(upload))
		fail(upload, &call->error, what);
	MemoryContextSwitchTo(old);
}

static void
put_object(Upload *upload)
{
	S3Call     *call = &upload->last;
	PartBuffer *buffer;

	if (upload->filling == NULL && !start_filling(upload))
		elog(ERROR, "no buffer is free for an empty object");
	buffer = upload->filling;
	end_filling(upload);
	call->verb = S3_PUT_OBJECT;
	call->content_type = upload->options.content_type;
	call->token = upload->token;
	body_of(upload, buffer, call);
	perform_last(upload, "could not upload object");
}

static void
complete_upload(Upload *upload)
{
	S3Call *call = &upload->last;

	while (upload->sending > 0 || next_full(upload) != NULL)
		drive(upload, -1);
	call->verb = S3_COMPLETE_UPLOAD;
	call->upload_id = upload->create.answer_id;
	call->parts = upload->parts;
	call->nparts = upload->nparts;
	call->object_size = upload->bytes_written;
	s3_format_crc32c(upload->crc32c, upload->crc);
	if (s3_sends_checksum(upload->s3))
		call->crc32c = upload->crc32c;
	perform_last(upload, "could not complete upload of object");
}


/* ----------
 * The interface
 * ----------
 */

static void
free_hash(void *arg)
{
	Upload *upload = arg;

	sigv4_hash_free(upload->hash);
}

static void
open_hash(Upload *upload)
{
	upload->hash = sigv4_hash_create();
	if (upload->hash == NULL)
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	upload->cleanup.func = free_hash;
	upload->cleanup.arg = upload;
	MemoryContextRegisterResetCallback(upload->context, &upload->cleanup);
}

Upload *
upload_begin(S3Session *s3, const UploadOptions *options)
{
	MemoryContext context =
		AllocSetContextCreate(CurrentMemoryContext, "s3export upload", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	Upload       *upload = palloc0(sizeof(Upload));

	Assert(options->part_size > 0 && options->memory / 2 > 0);
	upload->s3 = s3;
	upload->options = *options;
	upload->context = context;
	upload->uri = s3_uri(s3, options->key);
	upload->parts_size = 64;
	upload->parts = palloc(upload->parts_size * sizeof(S3Part));
	upload->nbuffers = options->max_concurrent_parts + 1;
	upload->buffers = palloc0(upload->nbuffers * sizeof(PartBuffer));
	for (int i = 0; i < upload->nbuffers; i++)
	{
		upload->buffers[i].upload = upload;
		upload->buffers[i].context =
			AllocSetContextCreate(context, "s3export part", ALLOCSET_SMALL_SIZES);
	}
	pace_begin(&upload->pace, now_us());
	s3_make_token(upload->token);
	if (s3_signs_payload(s3))
		open_hash(upload);
	MemoryContextSwitchTo(old);
	return upload;
}

void
upload_write(Upload *upload, const char *data, size_t len)
{
	while (len > 0)
	{
		size_t n;

		if (upload->filling != NULL && upload->filling->len == upload->filling->size)
			hand_over(upload);
		while (upload->filling == NULL && !start_filling(upload))
		{
			pace_waited(&upload->pace);
			drive(upload, -1);
		}
		n = fill(upload, data, len);
		data += n;
		len -= n;

		/* S3 closes connections on which nothing moves. */
		if (upload->unattended >= UPLOAD_BLOCK && upload->state != UPLOAD_SMALL)
			drive(upload, 0);
	}
}

bool
upload_ready(Upload *upload)
{
	advance(upload);
	if (upload->filling != NULL && upload->filling->size - upload->filling->len >= UPLOAD_BLOCK)
		return true;
	if (find_buffer(upload) != NULL)
		return true;
	pace_waited(&upload->pace);
	return false;
}

void
upload_finish(Upload *upload, UploadResult *result)
{
	if (upload->state == UPLOAD_SMALL && upload->nparts == 0)
		put_object(upload);
	else
	{
		hand_over(upload);
		complete_upload(upload);
	}
	upload->state = UPLOAD_FINISHED;
	upload->bytes_sent = upload->bytes_written;

	result->bytes = upload->bytes_written;
	result->parts = upload->nparts;
	result->attempts = upload->attempts;
	result->etag = upload->last.etag != NULL && upload->last.etag[0] != '\0'
					   ? pstrdup(upload->last.etag)
					   : NULL;
	result->crc32c = palloc(S3_CRC32C_LEN + 1);
	s3_format_crc32c(result->crc32c, upload->crc);
}

uint64
upload_bytes_sent(Upload *upload)
{
	return upload->bytes_sent;
}

uint64
upload_bytes_written(Upload *upload)
{
	return upload->bytes_written;
}

const char *
upload_token(const Upload *upload)
{
	return upload->token;
}

bool
upload_abort(Upload *upload, int timeout, bool *in_doubt)
{
	MemoryContext old;
	S3Error       error;
	bool          clean;

	*in_doubt = false;
	if (upload->state == UPLOAD_FINISHED || upload->state == UPLOAD_ABORTED)
		return true;

	http_set_watch(s3_http(upload->s3), NULL, NULL);
	HOLD_INTERRUPTS();
	old = MemoryContextSwitchTo(upload->context); /* not that of the error */

	/* Cancelled now, an upload would be made that nobody knows the id of. */
	if (upload->state == UPLOAD_CREATING && !upload->create.over)
		(void) s3_wait_until(upload->s3, &upload->create, timeout);
	cancel_transfers(upload);
	upload->state = UPLOAD_ABORTED;
	*in_doubt = upload->last.in_doubt;
	if (upload->create.answer_id != NULL)
		clean = s3_abort_upload(upload->s3, upload->options.key, upload->create.answer_id, timeout,
								&error);
	else
		clean = !upload->create.in_doubt;
	MemoryContextSwitchTo(old);
	RESUME_INTERRUPTS();
	return clean;
}
