/*-------------------------------------------------------------------------
 *
 * aws_names.h
 *	  Rules for what users name: buckets, folders, keys, endpoints, roles.
 *
 *-------------------------------------------------------------------------
 */
#ifndef AWS_NAMES_H
#define AWS_NAMES_H

#include "lib/stringinfo.h"

/*
 * Each check returns NULL when "value" is right, else a phrase that says what
 * is right, fit for errdetail ("A bucket name has 3 to 63 characters."), and
 * without the value in it, which may be a secret.  None of them looks anything
 * up, none reports an error; results are palloc'd.
 */

/* https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html */
extern const char *aws_names_check_bucket(const char *value);

/* One label of a host name, as a region is put into one. */
extern const char *aws_names_check_region(const char *value);

/* arn:partition:iam::account:role/path; Ceph leaves the account empty. */
extern const char *aws_names_check_role_arn(const char *value);

/* https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html */
extern const char *aws_names_check_external_id(const char *value);

extern const char *aws_names_check_access_key_id(const char *value);
extern const char *aws_names_check_secret(const char *value);
extern const char *aws_names_check_session_token(const char *value);

/*
 * What objects are created with.  Stores other than AWS have keys and storage
 * classes of their own naming.
 * https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutObject.html
 */
extern const char *aws_names_check_kms_key_id(const char *value);
extern const char *aws_names_check_storage_class(const char *value);
extern const char *aws_names_check_acl(const char *value);
extern const char *aws_names_check_content_type(const char *value);

/* An AWS account: 12 digits. */
extern const char *aws_names_check_account(const char *value);

/*
 * Folder paths and keys: slashes at either end are removed from a folder;
 * "." and ".." and empty segments, control characters and more than 1,024
 * bytes are refused.  "" is the bucket's root.  The normalised value is put
 * into *normalized.
 * https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-keys.html
 */
extern const char *aws_names_normalize_folder(const char *value, char **normalized);
extern const char *aws_names_check_key(const char *value);

/*
 * "scheme://host[:port]", lower-cased, without a trailing slash or a default
 * port; http and https only; no user, path, query or fragment.
 */
typedef struct NamesEndpoint
{
	bool  https;
	char *host; /* IPv6 addresses keep their brackets */
	int   port; /* 0: the scheme's own */
	char *url;  /* the normalised whole */
} NamesEndpoint;

extern const char *aws_names_parse_endpoint(const char *value, NamesEndpoint *endpoint);

/* The DNS suffix of a region's partition, such as "amazonaws.com.cn". */
extern const char *aws_names_region_suffix(const char *region);

/* The partition in the ARNs of a region, such as "aws-cn"; NULL is a region of "aws". */
extern const char *aws_names_region_partition(const char *region);

/* Is this one label that a wild-card certificate covers (no dot, lower case)? */
extern bool aws_names_bucket_is_dns_label(const char *bucket);

#endif /* AWS_NAMES_H */
