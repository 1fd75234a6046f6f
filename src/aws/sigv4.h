/*-------------------------------------------------------------------------
 *
 * sigv4.h
 *	  AWS Signature Version 4, a function of request, credentials and time.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SIGV4_H
#define SIGV4_H

#include "lib/stringinfo.h"

/*
 * https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html
 *
 * libcurl's own signer is not used: up to 8.13 it signs the queries of
 * multipart uploads wrongly.
 */

#define SIGV4_UNSIGNED_PAYLOAD "UNSIGNED-PAYLOAD"
#define SIGV4_DATE_LEN 16 /* 20130524T000000Z */
#define SIGV4_SHA256_HEX_LEN 64

typedef struct SigV4Credentials
{
	const char *access_key_id;
	const char *secret_access_key;
	const char *session_token; /* NULL: none */
} SigV4Credentials;

typedef struct SigV4Header
{
	const char *name;
	const char *value;
} SigV4Header;

typedef struct SigV4Request
{
	const char        *method;
	const char        *path;    /* as on the wire */
	const char        *query;   /* as on the wire, without '?'; "" or NULL: none */
	const SigV4Header *headers; /* those to sign, any order and case */
	int                nheaders;
	const char        *payload_hash; /* lower-case hex, or SIGV4_UNSIGNED_PAYLOAD */
	const char        *region;
	const char        *service;        /* "s3", "sts" */
	bool               normalize_path; /* all services but S3 */
	bool               encode_path;    /* once more; all services but S3 */
} SigV4Request;

/* "now" as x-amz-date wants it, into a buffer of SIGV4_DATE_LEN + 1. */
extern void sigv4_date(char *buf, time_t now);

/* Appends the canonical request; for tests, and for sigv4_authorization. */
extern void sigv4_canonical_request(StringInfo buf, const SigV4Request *request);

/*
 * Appends the value of the Authorization header.  "date" is the value of the
 * x-amz-date header, which the caller has put among the headers, as it has
 * put host, x-amz-content-sha256 and x-amz-security-token where they apply.
 * Returns false when libcrypto fails.
 */
extern bool sigv4_authorization(StringInfo buf, const SigV4Request *request,
								const SigV4Credentials *credentials, const char *date);

/* RFC 3986 percent encoding, upper-case hex; '/' is kept when "is_path". */
extern void sigv4_uri_encode(StringInfo buf, const char *value, bool is_path);

/*
 * SHA-256 in lower-case hex, into a buffer of SIGV4_SHA256_HEX_LEN + 1, whole or
 * in pieces; false when libcrypto fails.
 */
typedef struct SigV4Hash SigV4Hash;

extern bool       sigv4_sha256(const void *data, size_t len, char *hex);
extern SigV4Hash *sigv4_hash_create(void); /* malloc'd; NULL: out of memory */
extern bool       sigv4_hash_init(SigV4Hash *hash);
extern bool       sigv4_hash_update(SigV4Hash *hash, const void *data, size_t len);
extern bool       sigv4_hash_final(SigV4Hash *hash, char *hex); /* hash may be inited again */
extern void       sigv4_hash_free(SigV4Hash *hash);

#endif /* SIGV4_H */
