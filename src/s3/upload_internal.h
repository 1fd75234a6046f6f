/*-------------------------------------------------------------------------
 *
 * upload_internal.h
 *	  What upload.c, which sends parts, and upload_end.c, which completes and
 *	  aborts uploads, have in common.
 *
 *-------------------------------------------------------------------------
 */
#ifndef UPLOAD_INTERNAL_H
#define UPLOAD_INTERNAL_H

#include "lib/ilist.h"
#include "utils/timestamp.h"

#include "s3/concurrency.h"
#include "s3/upload.h"

typedef enum BufferState
{
	BUFFER_FREE,
	BUFFER_FILLING,
	BUFFER_FULL, /* waits to be sent */
	BUFFER_SENDING
} BufferState;

typedef struct PartBuffer
{
	UploadPool   *pool;
	Upload       *upload;
	BufferState   state;
	char         *data;
	size_t        size;
	size_t        len;
	int           number; /* of the part */
	uint64        turn;   /* parts are sent in the order in which they were full */
	uint32        crc;
	char          crc32c[S3_CRC32C_LEN + 1];
	SigV4Hash    *hash; /* NULL: not used */
	char          sha256[SIGV4_SHA256_HEX_LEN + 1];
	MemoryContext context; /* of the call */
	S3Call        call;
} PartBuffer;

/*
 *	  SMALL --first full part--> CREATING --its id--> OPEN --Complete--> COMPLETING
 *	    |                                                                    ^
 *	    +------------------------------PutObject-----------------------------+
 *
 *	  COMPLETING --success--> FINISHED, or LOOKING --HeadObject--> FINISHED
 *	  COMPLETING --refused--> REFUSED
 *
 * upload_pool_abort makes ABORTED of all uploads that are not in place.
 */
typedef enum UploadState
{
	UPLOAD_SMALL, /* nothing was sent */
	UPLOAD_CREATING,
	UPLOAD_OPEN,       /* has its id */
	UPLOAD_COMPLETING, /* the request that makes the object appear was sent */
	UPLOAD_REFUSED,    /* in vain */
	UPLOAD_LOOKING,    /* in place; S3 was asked for its ETag */
	UPLOAD_FINISHED,
	UPLOAD_ABORTED
} UploadState;

/* There may be thousands, sealed and waiting for the others: they are small. */
struct Upload
{
	dlist_node    node;     /* of the pool's uploads */
	dlist_node    creating; /* of those that wait for an id */
	UploadPool   *pool;
	UploadOptions options;
	MemoryContext context;
	UploadState   state;
	bool          left;            /* could not be aborted */
	bool          parts_in_flight; /* were, when nobody waited for them any more */
	bool          in_doubt;        /* whether the object is there */
	char          token[S3_TOKEN_LEN + 1];
	char         *id; /* NULL: none yet */

	/* CreateUpload, then PutObject or Complete, then HeadObject; NULL: none is of interest */
	S3Call       *call;
	MemoryContext call_context;

	PartBuffer *filling; /* NULL: none */
	PartBuffer *small;   /* the whole, to be sent by PutObject; NULL: it is sent in parts */
	S3Part     *parts;
	int         parts_size;
	int         nparts; /* handed over */

	uint32 crc; /* of the parts that were filled */
	char   crc32c[S3_CRC32C_LEN + 1];
	char  *etag;
	uint64 bytes_written;
};

struct UploadPool
{
	S3Session            *s3;
	UploadLimits          limits;
	MemoryContext         context;
	MemoryContextCallback cleanup;
	dlist_head            uploads;
	dlist_head            creating;
	Upload               *current; /* written last; NULL: none */

	PartBuffer *buffers;
	int         nbuffers;
	int         sending;
	Concurrency concurrency;
	uint64      turns;
	size_t      allocated;  /* bytes in buffers */
	size_t      unattended; /* bytes written since the client was driven */

	/* while it is undone */
	TimestampTz deadline;
	int         shutdown_timeout; /* ms */
	bool        hurried;

	uint64   bytes_sent;
	int      attempts;
	S3Error *part_error; /* of the first part that failed; NULL: none */
	int      failed_part;
};

/* The call of an upload, of which it has one at a time and none for most of its life. */
extern S3Call *upload_new_call(Upload *upload, S3Verb verb);
extern void    upload_submit_call(Upload *upload);
extern void    upload_end_call(Upload *upload);
/* Stops all transfers and calls of the pool. */
extern void    upload_cancel_transfers(UploadPool *pool);
/* Sets body, checksums and hash of a PutObject or UploadPart. */
extern void    upload_body_of(PartBuffer *buffer, S3Call *call);

#endif /* UPLOAD_INTERNAL_H */
