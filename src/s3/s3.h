/*-------------------------------------------------------------------------
 *
 * s3.h
 *	  The S3 requests that s3export makes, and what S3 answers.
 *
 * https://docs.aws.amazon.com/AmazonS3/latest/API/API_Operations_Amazon_Simple_Storage_Service.html
 *
 * A session is one bucket seen with one set of credentials.  It builds the
 * host names, signs every attempt anew, renews what has expired, corrects a
 * wrong region once and decides which answers are worth another attempt; its
 * callers see the final answer only.
 *
 *-------------------------------------------------------------------------
 */
#ifndef S3_H
#define S3_H

#include "s3/s3_error.h"

typedef enum S3Addressing
{
	S3_ADDRESSING_AUTO, /* virtual on AWS where the name allows it, else path */
	S3_ADDRESSING_PATH,
	S3_ADDRESSING_VIRTUAL
} S3Addressing;

typedef enum S3PayloadSigning
{
	S3_PAYLOAD_SIGNING_AUTO, /* over plain http only, where nothing else protects the body */
	S3_PAYLOAD_SIGNED,
	S3_PAYLOAD_UNSIGNED
} S3PayloadSigning;

typedef struct S3Config
{
	char            *endpoint_url; /* normalised; NULL: AWS */
	char            *bucket;
	char            *region; /* NULL: found out (AWS), "us-east-1" (others) */
	S3Addressing     addressing;
	S3PayloadSigning payload_signing;
	char            *expected_bucket_owner;  /* an account; NULL: any */
	char            *server_side_encryption; /* "AES256", "aws:kms"; NULL: off */

	/* what else objects are created with; NULL: as the bucket, or S3, has it */
	char *kms_key_id;
	char *bucket_key; /* "true" or "false" */
	char *storage_class;
	char *tags;         /* "name=value&...", encoded as in a URL */
	char *acl;          /* a canned one */
	char *content_type; /* NULL: that of what is exported */
} S3Config;

/* ms, each for one attempt */
typedef struct S3Timeouts
{
	int request;  /* requests with a short body and a short answer */
	int stall;    /* without progress of a transfer */
	int complete; /* CompleteMultipartUpload, which S3 may take minutes for */
} S3Timeouts;

typedef struct S3Session S3Session;

/*
 * Palloc'd in the current memory context, as is all that it learns; "config"
 * and "credentials" must outlive it.  Sends nothing.
 */
extern S3Session *s3_open(HttpClient *http, const S3Config *config, Credentials *credentials,
						  const S3Timeouts *timeouts);

extern HttpClient *s3_http(const S3Session *session);

/* The bucket's region, if S3 has named it; NULL: not (yet), or not AWS. */
extern const char *s3_region(const S3Session *session);

/*
 * Does the SHA-256 of a body go into its request's signature?  Every store that
 * knows SigV4 checks it.  Without it TLS protects the body on its way.
 */
extern bool s3_signs_payload(const S3Session *session);

/*
 * Does a CRC32C go with each part and each object, which S3 checks and keeps?
 * On AWS alone: several other stores refuse requests that have one.
 */
extern bool s3_sends_checksum(const S3Session *session);

typedef enum S3Verb
{
	S3_HEAD_BUCKET,
	S3_GET_BUCKET_LOCATION,
	S3_LIST_OBJECTS,
	S3_HEAD_OBJECT,
	S3_GET_OBJECT, /* its first byte */
	S3_DELETE_OBJECT,
	S3_PUT_OBJECT,
	S3_CREATE_UPLOAD,
	S3_UPLOAD_PART,
	S3_COMPLETE_UPLOAD,
	S3_ABORT_UPLOAD
} S3Verb;

#define S3_MAX_PARTS 10000
#define S3_CRC32C_LEN 8 /* four bytes in base64 */
#define S3_TOKEN_LEN 32 /* hex digits */

typedef struct S3Part
{
	int   number;                    /* from 1 */
	char *etag;                      /* as S3 gave it, quotes and all */
	char  crc32c[S3_CRC32C_LEN + 1]; /* "": not used */
} S3Part;

/* Palloc'd; NULL where S3 does not say. */
typedef struct S3Object
{
	int64 size; /* -1: S3 does not say */
	char *etag;
	char *token; /* NULL: none */
} S3Object;

/* Has the upload with this token made the object?  Another writer's object has another token. */
static inline bool
s3_object_is_of(const S3Object *object, const char *token)
{
	return object->token != NULL && strcmp(object->token, token) == 0;
}

/*
 * One call: the caller zeroes it and fills in the first half, as its verb
 * needs.  Strings and bodies stay the caller's and must not change until the
 * call is over.  Keys and prefixes are UTF-8, not encoded.
 */
typedef struct S3Call      S3Call;
typedef struct S3CallState S3CallState;

struct S3Call
{
	S3Verb        verb;
	const char   *key;
	const char   *prefix;      /* ListObjects; NULL: none */
	const char   *upload_id;   /* UploadPart, Complete, Abort */
	int           part_number; /* UploadPart */
	const char   *body;        /* PutObject, UploadPart */
	size_t        body_len;
	const char   *sha256; /* of the body, in hex; where s3_signs_payload */
	const char   *crc32c; /* of the body, or at Complete of the object; where s3_sends_checksum */
	const S3Part *parts;  /* Complete, ascending */
	int           nparts;
	uint64        object_size;    /* Complete */
	const char   *token;          /* PutObject, CreateUpload: into the object's metadata */
	const char   *content_type;   /* PutObject, CreateUpload; NULL: none */
	bool          fail_if_exists; /* PutObject, Complete: If-None-Match */
	void (*done)(S3Call *call);   /* s3_submit; must not raise errors */
	void *arg;

	/* the answer, palloc'd in the context that was current at the call */
	bool     over;
	bool     ok;
	int      attempts;
	S3Error  error;     /* when not ok */
	char    *etag;      /* PutObject, UploadPart, Complete; NULL or "": none */
	char    *answer_id; /* CreateUpload: the upload id */
	char    *location;  /* GetBucketLocation: as S3 names it, "" for us-east-1 */
	char    *found_key; /* ListObjects: of the first object, as S3 names it; NULL: there is none */
	S3Object found;     /* HeadObject */

	/*
	 * An attempt has been sent of which S3 has not told the outcome, so that
	 * it may have taken effect or may still do so.
	 */
	bool in_doubt;

	S3CallState *state; /* s3.c's own */
};

/* Sends the call; "done" is called while the HTTP client is driven. */
extern void s3_submit(S3Session *session, S3Call *call);

/* Cancels a call: it is over then, and its "done" is not called. */
extern void s3_cancel(S3Call *call);

/* Sends the call and waits for its end; returns call->ok.  Raises what http_drive does. */
extern bool s3_perform(S3Session *session, S3Call *call);

/* Performs a call for at most "timeout" ms, and cancels it then. */
extern bool s3_perform_until(S3Session *session, S3Call *call, int timeout);

/* Waits for a submitted call for at most "timeout" ms, and cancels it then. */
extern bool s3_wait_until(S3Session *session, S3Call *call, int timeout);

/* False with *error: there is none (http_status 404), or S3 does not say. */
extern bool s3_head_object(S3Session *session, const char *key, S3Object *object, S3Error *error);

/*
 * Aborts a multipart upload, of this process or of another, in at most
 * "timeout" ms.  One that is gone is a success.
 */
extern bool s3_abort_upload(S3Session *session, const char *key, const char *upload_id, int timeout,
							S3Error *error);

/* "s3://bucket/key", palloc'd, fit to be shown. */
extern char *s3_uri(const S3Session *session, const char *key);

/* A random token for S3Call.token, into a buffer of S3_TOKEN_LEN + 1. */
extern void s3_make_token(char *token);

/* A CRC32C in base64, into a buffer of S3_CRC32C_LEN + 1. */
extern void s3_format_crc32c(char *buf, uint32 crc);

#endif /* S3_H */
