/*-------------------------------------------------------------------------
 *
 * upload.h
 *	  One object as a stream of bytes: begin, write, finish or abort.
 *
 *-------------------------------------------------------------------------
 */
#ifndef UPLOAD_H
#define UPLOAD_H

#include "s3.h"

typedef struct Upload Upload;

typedef struct UploadOptions
{
	const char *key;                  /* UTF-8 */
	const char *content_type;         /* NULL: none is sent */
	bool        fail_if_exists;       /* If-None-Match: * */
	size_t      memory;               /* bytes, all part buffers together */
	size_t      part_size;            /* bytes, of the first parts */
	int         max_concurrent_parts; /* the most; how many see pace.h */

	/*
	 * What the caller may make durable: that the multipart upload has its id,
	 * before its first part is sent, and that the request that makes the object
	 * appear is about to be sent.  Both may raise errors; NULL: not called.
	 */
	void (*started)(void *arg, const char *upload_id);
	void (*completing)(void *arg);

	/* S3 has acknowledged a part; must not raise errors.  NULL: not called. */
	void (*part_sent)(void *arg, size_t bytes);
	void *arg;
} UploadOptions;

typedef struct UploadResult
{
	uint64 bytes;
	int    parts;    /* 0: one PutObject */
	int    attempts; /* requests sent, retries too */
	char  *etag;     /* as S3 gave it; NULL: none */
	char  *crc32c;   /* of the whole object, base64 of big-endian bytes as in S3 */
} UploadResult;

/*
 * Nothing is sent while all fits one part, and such an object is sent by one
 * PutObject at upload_finish.  Parts have the size asked for up to the 1,000th,
 * then double with each further 1,000 up to half of the memory, so that 128 MB
 * hold 500 GB; more than fit is an error that names the settings.
 *
 * The Upload and its buffers are palloc'd below the current context and go
 * with it.  "s3" and the strings of "options" must outlive it.
 */
extern Upload *upload_begin(S3Session *s3, const UploadOptions *options);

/*
 * Copies "data"; returns at once while a buffer is free, else drives the
 * transfers until one is.  Raises S3's errors, with the other transfers
 * stopped, and whatever the callbacks and the client's watch raise; upload_abort
 * must follow then.
 */
extern void upload_write(Upload *upload, const char *data, size_t len);

/*
 * Can upload_write take a block (UPLOAD_BLOCK) without waiting for S3?  Also
 * does what the last http_drive has made possible: a caller that drives the
 * client itself asks in every turn.  Raises what upload_write does.
 */
#define UPLOAD_BLOCK (256 * 1024)

extern bool upload_ready(Upload *upload);

/* Sends what is left and makes the object appear.  Raises what upload_write does. */
extern void upload_finish(Upload *upload, UploadResult *result);

/* Bytes that S3 has acknowledged, and bytes taken by upload_write. */
extern uint64 upload_bytes_sent(Upload *upload);
extern uint64 upload_bytes_written(Upload *upload);

/*
 * Stops the transfers and aborts the multipart upload, if there is one, for
 * at most "timeout" ms.  Interrupts are held meanwhile and the client's watch
 * is taken off for good, so that nothing is raised but for want of memory.
 * Returns whether nothing is left behind; *in_doubt is set when a PutObject or
 * CompleteMultipartUpload had been sent and its outcome is not known, so that
 * the object may be there or appear yet.  After upload_finish it does nothing.
 */
extern bool upload_abort(Upload *upload, int timeout, bool *in_doubt);

/* What the object's metadata has under x-amz-meta-s3export-upload. */
extern const char *upload_token(const Upload *upload);

#endif /* UPLOAD_H */
