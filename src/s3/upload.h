/*-------------------------------------------------------------------------
 *
 * upload.h
 *	  Objects as streams of bytes: begin, write, seal, complete or abort.
 *
 * The objects of one export share a pool of part buffers and of requests in
 * flight.  Parts are sent while data come; an object appears only when it is
 * told to, so that several can appear together.
 *
 * What drives transfers (named "drives" below) raises S3's errors, with all
 * other transfers stopped, and whatever the callback and the client's watch
 * raise; upload_pool_abort must follow then.
 *
 *-------------------------------------------------------------------------
 */
#ifndef UPLOAD_H
#define UPLOAD_H

#include "s3/s3.h"

typedef struct UploadPool UploadPool;
typedef struct Upload     Upload;

/* The least that S3 takes for a part that is not the last; bytes */
#define UPLOAD_MIN_PART (5 * 1024 * 1024)

/* What upload_write should be given at once; bytes */
#define UPLOAD_BLOCK (256 * 1024)

typedef struct UploadLimits
{
	size_t memory;               /* bytes, all part buffers together */
	size_t part_size;            /* bytes, of the first parts of an object */
	int    max_concurrent_parts; /* the most; how many see concurrency.h */
	int    max_open;             /* objects that are written at the same time: begun, not sealed */

	/* S3 has acknowledged a part; must not raise errors.  NULL: not called. */
	void (*part_sent)(void *arg, size_t bytes);
	void *arg;
} UploadLimits;

typedef struct UploadOptions
{
	const char *key;            /* UTF-8 */
	const char *content_type;   /* NULL: none is sent */
	bool        fail_if_exists; /* If-None-Match: * */

	/*
	 * The multipart upload has its id: the caller may make that durable before
	 * the first part is sent.  May raise errors; NULL: not called.
	 */
	void (*started)(void *arg, const char *upload_id);
	void *arg;
} UploadOptions;

typedef struct UploadResult
{
	uint64      bytes;
	int         parts;  /* 0: one PutObject */
	const char *etag;   /* as S3 gave it; NULL: none */
	const char *crc32c; /* of the whole object, base64 of big-endian bytes as in S3 */
} UploadResult;

/* What is known of an object. */
typedef enum UploadOutcome
{
	UPLOAD_NOT_THERE,
	UPLOAD_IN_PLACE,
	UPLOAD_IN_DOUBT /* the request that makes it appear has been sent, and no more is known */
} UploadOutcome;

/*
 * Parts have the size asked for up to the 1,000th, then double with each further
 * 1,000 up to half of the memory divided by max_open, so that 128 MB hold one
 * object of 500 GB; more than fit is an error that names the settings.
 *
 * The pool, its uploads and their buffers are palloc'd below the current
 * context and go with it.  "s3" must outlive it.
 */
extern UploadPool *upload_pool_open(S3Session *s3, const UploadLimits *limits);

/*
 * Can upload_write take a block without waiting for S3, also when it is the first
 * of another object?  Also does what the last http_drive has made possible: a
 * caller that drives the client itself asks in every turn.  Drives.
 */
extern bool upload_pool_ready(UploadPool *pool);

/* Drives until S3 has acknowledged all parts of the sealed uploads. */
extern void upload_pool_flush(UploadPool *pool);

/*
 * The first half of undoing: waits for the ids of uploads that are being created,
 * and stops all transfers.  Uploads that have an id now and were not "started"
 * are the caller's to make durable before the second half, which aborts each
 * multipart upload whose object is not in place.
 *
 * Both together take at most "timeout" ms, and "shutdown_timeout" ms from when the
 * server is told to stop.  Interrupts are held meanwhile and the client's watch
 * is taken off for good, so that nothing is raised but for want of memory.
 */
extern void upload_pool_stop(UploadPool *pool, int timeout, int shutdown_timeout);
extern void upload_pool_abort(UploadPool *pool);

/* Bytes that S3 has acknowledged; requests sent, retries too. */
extern uint64 upload_pool_bytes_sent(const UploadPool *pool);
extern int    upload_pool_attempts(const UploadPool *pool);

/* Sends nothing yet.  The strings of "options" must live as long as the pool. */
extern Upload *upload_begin(UploadPool *pool, const UploadOptions *options);

/* Copies "data"; returns at once while a buffer is free, else drives until one is. */
extern void upload_write(Upload *upload, const char *data, size_t len);

/*
 * Ends an upload's data, and sends what is left as the last part.  With
 * "may_put", an object of which nothing was sent yet stays as it is, and is made
 * by one PutObject at upload_complete.  Drives.
 */
extern void upload_seal(Upload *upload, bool may_put);

/* Asks S3 to make the object of a sealed upload appear, whose parts are all there. */
extern void upload_complete(Upload *upload);

/*
 * Is the outcome of upload_complete known?  When an answer was lost this asks S3
 * for the object, and drives.
 */
extern bool upload_is_over(Upload *upload);

extern UploadOutcome upload_outcome(const Upload *upload);

/* The id of the multipart upload; NULL: there is none, or it is not known. */
extern const char *upload_id(const Upload *upload);

/* Could the multipart upload not be aborted?  To be asked after upload_pool_abort. */
extern bool upload_is_left(const Upload *upload);

/* Raises why upload_complete was in vain. */
extern void upload_raise(const Upload *upload);

/* What S3 has said of an object that is in place. */
extern void upload_get_result(const Upload *upload, UploadResult *result);

extern uint64 upload_bytes_written(const Upload *upload);

/* What the object's metadata has under x-amz-meta-s3export-upload. */
extern const char *upload_token(const Upload *upload);

#endif /* UPLOAD_H */
