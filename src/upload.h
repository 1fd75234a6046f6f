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
	const char *key;
	bool		fail_if_exists; /* If-None-Match: * */
	size_t		memory;			/* bytes, all part buffers together */
	size_t		part_size;		/* bytes, of the first parts */
	int			max_concurrent_parts;

	/*
	 * Called when the multipart upload has its id, before its first part is
	 * sent, so that the id can be made durable.  May raise an error.
	 */
	void		(*started) (void *arg, const char *upload_id);
	void	   *arg;
} UploadOptions;

typedef struct UploadResult
{
	uint64		bytes;
	int			parts;			/* 0: one PutObject */
	int			attempts;		/* requests sent, retries too */
	char	   *etag;			/* as S3 gave it; NULL: none */
} UploadResult;

/*
 * Nothing is sent before the first part is full, and an object that fits one
 * part is sent by one PutObject at upload_finish.  The Upload is palloc'd in
 * the current context; its buffers are freed with that context.
 */
extern Upload *upload_begin(S3Session *s3, const UploadOptions *options);

/*
 * Copies "data"; returns at once while a buffer is free, else drives the
 * transfers until one is.  Raises S3's errors.
 */
extern void upload_write(Upload *upload, const char *data, size_t len);

/* Can upload_write take a block without waiting for S3? */
extern bool upload_ready(Upload *upload);

/* Sends what is left and makes the object appear.  Raises S3's errors. */
extern void upload_finish(Upload *upload, UploadResult *result);

/* Bytes that S3 has acknowledged, and bytes taken by upload_write. */
extern uint64 upload_bytes_sent(Upload *upload);
extern uint64 upload_bytes_written(Upload *upload);

/*
 * Stops the transfers and aborts the multipart upload, if there is one, for
 * at most "timeout" ms.  Raises nothing.  Returns whether nothing is left
 * behind; *in_doubt is set when a PutObject or CompleteMultipartUpload had
 * been sent and its outcome is not known.
 */
extern bool upload_abort(Upload *upload, int timeout, bool *in_doubt);

#endif /* UPLOAD_H */
