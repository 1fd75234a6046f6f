/*-------------------------------------------------------------------------
 *
 * upload.c
 *	  Objects as streams of bytes: begin, write, seal, complete or abort.
 *
 * A part's buffer is the unit of retry: its bytes and their digest stay until
 * S3 has acknowledged them, so what S3 checks is what was written, even if the
 * memory is not sound.  Digests are computed while the bytes are copied, when
 * they are in the processor's cache.  The CRC of an object is that of its parts
 * put together.
 *
 * A full buffer is handed over only when more data come.  An object of exactly
 * one part needs no multipart upload that way, and none ends in an empty part.
 *
 * Waiting for a buffer always ends.  Buffers being filled take at most half of
 * the memory, as an object may have one and their number is limited; so there
 * is room for another, or one is in flight and comes back.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <sys/mman.h>

#include "portability/instr_time.h"
#include "utils/memutils.h"

#include "base/crc32c.h"
#include "s3/upload_internal.h"

/* Parts of one size, before they double. */
#define PARTS_PER_SIZE 1000

/* Of x86-64, and of other processors with pages of 4 kB. */
#define HUGE_PAGE_SIZE (2 * 1024 * 1024)

/* ----------
 * Parts and their buffers
 * ----------
 */

static size_t
part_size(const UploadPool *pool, int number)
{
	size_t limit = pool->limits.memory / 2 / pool->limits.max_open;
	size_t size = Min(pool->limits.part_size, limit);

	for (int n = (number - 1) / PARTS_PER_SIZE; n > 0 && size < limit; n--)
		size *= 2;
	return Min(size, limit);
}

static size_t
next_part_size(const UploadPool *pool, const Upload *upload)
{
	return part_size(pool, upload != NULL ? upload->nparts + 1 : 1);
}

/* How many parts could be sent at the same time, while others are filled, and how many are. */
static int
most_sending(const UploadPool *pool)
{
	size_t buffers = pool->limits.memory / next_part_size(pool, pool->current);
	size_t fit = buffers > (size_t) pool->limits.max_open ? buffers - pool->limits.max_open : 1;

	return (int) Min((size_t) pool->limits.max_concurrent_parts, fit);
}

static int
max_sending(const UploadPool *pool)
{
	return Min(pool->concurrency.parts, most_sending(pool));
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
	buffer->pool->allocated -= buffer->size;
	buffer->data = NULL;
	buffer->size = 0;
}

/*
 * Memory is asked for in one piece, of which the kernel gives only the pages that
 * are written, so that a small object does not take a whole part.  Huge pages,
 * where it has them, spare a fault for every 4 kB of the first parts, which is
 * much of the time of an export of few parts.
 */
static void
allocate_buffer(UploadPool *pool, PartBuffer *buffer, size_t size)
{
	buffer->data = MemoryContextAllocHuge(pool->context, size);
	buffer->size = size;
	pool->allocated += size;
#ifdef MADV_HUGEPAGE
	{
		char *first = (char *) TYPEALIGN(HUGE_PAGE_SIZE, buffer->data);
		char *end = (char *) TYPEALIGN_DOWN(HUGE_PAGE_SIZE, buffer->data + size);

		/* Advice; a kernel that does not take it has its reasons. */
		if (first < end)
			(void) madvise(first, end - first, MADV_HUGEPAGE);
	}
#endif
}

/*
 * A buffer for a part, or NULL when none is free: as many are filled as objects
 * may be open, while the others are sent.
 */
static PartBuffer *
find_buffer(UploadPool *pool, size_t size)
{
	PartBuffer *found = NULL;
	int         taken = 0;

	for (int i = 0; i < pool->nbuffers; i++)
	{
		PartBuffer *buffer = &pool->buffers[i];

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
	if (taken >= max_sending(pool) + pool->limits.max_open)
		return NULL;
	if (found == NULL || found->data != NULL)
		return found;
	if (pool->allocated + size > pool->limits.memory)
		return NULL;
	allocate_buffer(pool, found, size);
	return found;
}

static void
check_hash(bool ok)
{
	if (!ok)
		ereport(ERROR, (errcode(ERRCODE_INTERNAL_ERROR),
						errmsg("could not compute the SHA-256 of a part")));
}

/* false: no buffer is free, and a part has to be sent first. */
static bool
start_filling(Upload *upload)
{
	UploadPool *pool = upload->pool;
	PartBuffer *buffer = find_buffer(pool, next_part_size(pool, upload));

	if (buffer == NULL)
		return false;
	if (upload->nparts >= S3_MAX_PARTS)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("object \"%s\" is too large", s3_uri(pool->s3, upload->options.key)),
				 errdetail("After %llu bytes its %d parts, the most that S3 takes, are used up.",
						   (unsigned long long) upload->bytes_written, S3_MAX_PARTS),
				 errhint("Increase s3export.part_size, or s3export.upload_memory, of which a part "
						 "may take half.")));
	buffer->upload = upload;
	buffer->state = BUFFER_FILLING;
	buffer->len = 0;
	buffer->crc = 0;
	if (buffer->hash)
		check_hash(sigv4_hash_init(buffer->hash));
	upload->filling = buffer;
	return true;
}

static size_t
fill_part(Upload *upload, const char *data, size_t len)
{
	PartBuffer *buffer = upload->filling;
	size_t      n = Min(Min(len, buffer->size - buffer->len), UPLOAD_BLOCK);

	memcpy(buffer->data + buffer->len, data, n);
	data = buffer->data + buffer->len;
	buffer->crc = crc32c_append(buffer->crc, data, n);
	if (buffer->hash)
		check_hash(sigv4_hash_update(buffer->hash, data, n));
	buffer->len += n;
	upload->bytes_written += n;
	upload->pool->unattended += n;
	return n;
}

static void
end_filling(Upload *upload)
{
	PartBuffer *buffer = upload->filling;

	if (buffer->hash)
		check_hash(sigv4_hash_final(buffer->hash, buffer->sha256));
	s3_format_crc32c(buffer->crc32c, buffer->crc);
	upload->crc = crc32c_join(upload->crc, buffer->crc, buffer->len);
	upload->filling = NULL;
}

void
upload_body_of(PartBuffer *buffer, S3Call *call)
{
	call->body = buffer->data;
	call->body_len = buffer->len;
	if (buffer->hash)
		call->sha256 = buffer->sha256;
	if (s3_sends_checksum(buffer->pool->s3))
		call->crc32c = buffer->crc32c;
}


/* ----------
 * Multipart uploads
 * ----------
 */

/* The calls of which an upload has one at a time, and none for most of its life. */
S3Call *
upload_new_call(Upload *upload, S3Verb verb)
{
	upload->call_context =
		AllocSetContextCreate(upload->context, "s3export call", ALLOCSET_SMALL_SIZES);
	upload->call = MemoryContextAllocZero(upload->call_context, sizeof(S3Call));
	upload->call->verb = verb;
	upload->call->key = upload->options.key;
	return upload->call;
}

void
upload_submit_call(Upload *upload)
{
	MemoryContext old = MemoryContextSwitchTo(upload->call_context);

	s3_submit(upload->pool->s3, upload->call);
	MemoryContextSwitchTo(old);
}

void
upload_end_call(Upload *upload)
{
	MemoryContextDelete(upload->call_context);
	upload->call_context = NULL;
	upload->call = NULL;
}

/* A callback of libcurl's: an error is only noted here, and raised in the next turn. */
static void
part_done(S3Call *call)
{
	PartBuffer *buffer = call->arg;
	Upload     *upload = buffer->upload;
	UploadPool *pool = buffer->pool;
	S3Part     *part = &upload->parts[buffer->number - 1];

	pool->sending--;
	pool->attempts += call->attempts;
	buffer->state = BUFFER_FREE;
	if (call->ok)
	{
		part->etag = MemoryContextStrdup(upload->context, call->etag);
		pool->bytes_sent += buffer->len;
		concurrency_part_done(&pool->concurrency, buffer->len, most_sending(pool), now_us());
		if (pool->limits.part_sent)
			pool->limits.part_sent(pool->limits.arg, buffer->len);
	}
	upload->parts_in_flight |= call->in_doubt;
	if (!call->ok && pool->part_error == NULL)
	{
		pool->part_error = MemoryContextAlloc(pool->context, sizeof(S3Error));
		*pool->part_error = call->error;
		pool->failed_part = buffer->number;
	}
}

/* The call's memory goes with the buffer's next part. */
static void
send_part(PartBuffer *buffer)
{
	UploadPool   *pool = buffer->pool;
	Upload       *upload = buffer->upload;
	S3Call       *call = &buffer->call;
	MemoryContext old;

	MemoryContextReset(buffer->context);
	memset(call, 0, sizeof(*call));
	call->verb = S3_UPLOAD_PART;
	call->key = upload->options.key;
	call->upload_id = upload->id;
	call->part_number = buffer->number;
	upload_body_of(buffer, call);
	call->done = part_done;
	call->arg = buffer;
	buffer->state = BUFFER_SENDING;
	pool->sending++;
	old = MemoryContextSwitchTo(buffer->context);
	s3_submit(pool->s3, call);
	MemoryContextSwitchTo(old);
}

/* The part to be sent next; NULL: none is full, or none of an upload that has its id. */
static PartBuffer *
next_full(const UploadPool *pool)
{
	PartBuffer *next = NULL;

	for (int i = 0; i < pool->nbuffers; i++)
	{
		PartBuffer *buffer = &pool->buffers[i];

		if (buffer->state == BUFFER_FULL && buffer->upload->state == UPLOAD_OPEN &&
			(next == NULL || buffer->turn < next->turn))
			next = buffer;
	}
	return next;
}

void
upload_cancel_transfers(UploadPool *pool)
{
	dlist_iter iter;

	for (int i = 0; i < pool->nbuffers; i++)
	{
		if (pool->buffers[i].state == BUFFER_SENDING)
		{
			s3_cancel(&pool->buffers[i].call);
			pool->buffers[i].upload->parts_in_flight = true;
		}
		pool->buffers[i].state = BUFFER_FREE;
	}
	pool->sending = 0;
	dlist_foreach (iter, &pool->uploads)
	{
		Upload *upload = dlist_container(Upload, node, iter.cur);

		upload->filling = NULL;
		if (upload->call != NULL)
			s3_cancel(upload->call);
	}
}

/*
 * The request has no body, so what is wrong with the credentials, the region,
 * the clock or the permission is told before a whole part was sent in vain.
 */
static void
create_upload(Upload *upload)
{
	S3Call *call = upload_new_call(upload, S3_CREATE_UPLOAD);

	call->content_type = upload->options.content_type;
	call->token = upload->token;
	upload->state = UPLOAD_CREATING;
	dlist_push_tail(&upload->pool->creating, &upload->creating);
	upload_submit_call(upload);
}

/* When CreateUpload has been answered. */
static void
upload_created(Upload *upload)
{
	UploadPool *pool = upload->pool;

	dlist_delete(&upload->creating);
	pool->attempts += upload->call->attempts;
	if (!upload->call->ok)
	{
		upload->left = upload->call->in_doubt;
		upload_cancel_transfers(pool);
		s3_report(ERROR, &upload->call->error, "could not start upload of object");
	}
	upload->id = MemoryContextStrdup(upload->context, upload->call->answer_id);
	upload_end_call(upload);
	upload->state = UPLOAD_OPEN;
	if (pool->sending == 0 && pool->bytes_sent == 0)
		concurrency_begin(&pool->concurrency, now_us());
	if (upload->options.started)
		upload->options.started(upload->options.arg, upload->id);
}

/* Does what answers that have come make possible; raises the errors among them. */
static void
advance_uploads(UploadPool *pool)
{
	dlist_mutable_iter iter;
	PartBuffer        *buffer;

	if (pool->part_error != NULL)
	{
		char what[64];

		upload_cancel_transfers(pool);
		snprintf(what, sizeof(what), "could not upload part %d of object", pool->failed_part);
		s3_report(ERROR, pool->part_error, what);
	}
	dlist_foreach_modify (iter, &pool->creating)
	{
		Upload *upload = dlist_container(Upload, creating, iter.cur);

		if (upload->call->over)
			upload_created(upload);
	}
	while (pool->sending < max_sending(pool) && (buffer = next_full(pool)) != NULL)
		send_part(buffer);
}

static void
drive_uploads(UploadPool *pool, long timeout)
{
	pool->unattended = 0;
	http_drive(s3_http(pool->s3), timeout);
	advance_uploads(pool);
}

/* The first full part makes a multipart upload of a small one. */
static void
hand_over(Upload *upload)
{
	PartBuffer *buffer = upload->filling;
	S3Part     *part;

	if (upload->nparts == upload->parts_size)
	{
		upload->parts_size *= 4;
		upload->parts = repalloc(upload->parts, upload->parts_size * sizeof(S3Part));
	}
	end_filling(upload);
	buffer->number = ++upload->nparts;
	buffer->turn = ++upload->pool->turns;
	buffer->state = BUFFER_FULL;
	part = &upload->parts[buffer->number - 1];
	part->number = buffer->number;
	part->etag = NULL;
	strlcpy(part->crc32c, s3_sends_checksum(upload->pool->s3) ? buffer->crc32c : "",
			sizeof(part->crc32c));
	if (upload->state == UPLOAD_SMALL)
		create_upload(upload);
	advance_uploads(upload->pool);
}


/* ----------
 * The interface
 * ----------
 */

static void
free_hashes(void *arg)
{
	UploadPool *pool = arg;

	for (int i = 0; i < pool->nbuffers; i++)
		sigv4_hash_free(pool->buffers[i].hash);
}

static void
open_hashes(UploadPool *pool)
{
	pool->cleanup.func = free_hashes;
	pool->cleanup.arg = pool;
	MemoryContextRegisterResetCallback(pool->context, &pool->cleanup);
	for (int i = 0; i < pool->nbuffers; i++)
	{
		pool->buffers[i].hash = sigv4_hash_create();
		if (pool->buffers[i].hash == NULL)
			ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	}
}

UploadPool *
upload_pool_open(S3Session *s3, const UploadLimits *limits)
{
	MemoryContext context =
		AllocSetContextCreate(CurrentMemoryContext, "s3export uploads", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	UploadPool   *pool = palloc0(sizeof(UploadPool));

	Assert(limits->part_size > 0 && limits->max_open > 0);
	Assert(limits->memory / 2 / limits->max_open > 0);
	pool->s3 = s3;
	pool->limits = *limits;
	pool->context = context;
	dlist_init(&pool->uploads);
	dlist_init(&pool->creating);
	pool->nbuffers = limits->max_concurrent_parts + limits->max_open;
	pool->buffers = palloc0(pool->nbuffers * sizeof(PartBuffer));
	for (int i = 0; i < pool->nbuffers; i++)
	{
		pool->buffers[i].pool = pool;
		pool->buffers[i].context =
			AllocSetContextCreate(context, "s3export part", ALLOCSET_SMALL_SIZES);
	}
	concurrency_begin(&pool->concurrency, now_us());
	if (s3_signs_payload(s3))
		open_hashes(pool);
	MemoryContextSwitchTo(old);
	return pool;
}

bool
upload_pool_ready(UploadPool *pool)
{
	const PartBuffer *filling = pool->current != NULL ? pool->current->filling : NULL;

	advance_uploads(pool);
	if (pool->limits.max_open == 1 && filling != NULL &&
		filling->size - filling->len >= UPLOAD_BLOCK)
		return true;
	if (find_buffer(pool, next_part_size(pool, pool->current)) != NULL)
		return true;
	concurrency_waited(&pool->concurrency);
	return false;
}

void
upload_pool_flush(UploadPool *pool)
{
	while (!dlist_is_empty(&pool->creating) || pool->sending > 0 || next_full(pool) != NULL)
		drive_uploads(pool, -1);
}

uint64
upload_pool_bytes_sent(const UploadPool *pool)
{
	return pool->bytes_sent;
}

int
upload_pool_attempts(const UploadPool *pool)
{
	return pool->attempts;
}

Upload *
upload_begin(UploadPool *pool, const UploadOptions *options)
{
	MemoryContext context =
		AllocSetContextCreate(pool->context, "s3export upload", ALLOCSET_SMALL_SIZES);
	Upload *upload = MemoryContextAllocZero(context, sizeof(Upload));

	upload->pool = pool;
	upload->options = *options;
	upload->context = context;
	upload->parts_size = 4;
	upload->parts = MemoryContextAlloc(context, upload->parts_size * sizeof(S3Part));
	s3_make_token(upload->token);
	dlist_push_tail(&pool->uploads, &upload->node);
	pool->current = upload;
	return upload;
}

static void
begin_part(Upload *upload)
{
	while (upload->filling == NULL && !start_filling(upload))
	{
		concurrency_waited(&upload->pool->concurrency);
		drive_uploads(upload->pool, -1);
	}
}

void
upload_write(Upload *upload, const char *data, size_t len)
{
	UploadPool *pool = upload->pool;

	pool->current = upload;
	while (len > 0)
	{
		size_t n;

		if (upload->filling != NULL && upload->filling->len == upload->filling->size)
			hand_over(upload);
		begin_part(upload);
		n = fill_part(upload, data, len);
		data += n;
		len -= n;

		/* S3 closes connections on which nothing moves. */
		if (pool->unattended >= UPLOAD_BLOCK && (pool->sending > 0 || upload->nparts > 0))
			drive_uploads(pool, 0);
	}
}

void
upload_seal(Upload *upload, bool may_put)
{
	if (upload->state == UPLOAD_SMALL)
		begin_part(upload);
	if (upload->state == UPLOAD_SMALL && may_put)
	{
		/* the buffer stays taken */
		upload->small = upload->filling;
		end_filling(upload);
	}
	else if (upload->filling != NULL)
		hand_over(upload);
}

uint64
upload_bytes_written(const Upload *upload)
{
	return upload->bytes_written;
}

const char *
upload_token(const Upload *upload)
{
	return upload->token;
}
