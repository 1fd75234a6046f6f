/*-------------------------------------------------------------------------
 *
 * connector_args.h
 *	  The arguments of the SQL functions about connectors.
 *
 * What is wrong raises an error that names the argument and says what is right,
 * and repeats no secret.  "n" counts the function's arguments from 0.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CONNECTOR_ARGS_H
#define CONNECTOR_ARGS_H

#include "fmgr.h"

#include "tables/connector.h"

/*
 * Each checks a value, normalises it and puts it into the connector.  The limits of a
 * folder_path depend on the kind, which is set before it.
 */
extern void args_set_name(Connector *connector, const char *argument, const char *value);
extern void args_set_kind(Connector *connector, const char *value);
extern void args_set_bucket(Connector *connector, const char *value);
extern void args_set_folder_path(Connector *connector, const char *value);
extern void args_set_region(Connector *connector, const char *value);

/*
 * folder_path, region, endpoint_url, sts_endpoint_url, addressing, payload_signing
 * and expected_bucket_owner, from "first" on.  When "altering", those that are
 * null are left as they are.  A new connector's name is set, if it has one, for it
 * is the default of folder_path.  Returns whether any was not null.
 */
#define ARGS_PLACE 7
extern bool args_set_place(Connector *connector, FunctionCallInfo fcinfo, int first, bool altering);

/*
 * server_side_encryption, kms_key_id, bucket_key, storage_class, tags, acl and
 * content_type, from "first" on: what objects are created with.  Those that are
 * null are left as they are.  Returns whether any was not null.
 */
#define ARGS_OBJECT 7
extern bool args_set_object(Connector *connector, FunctionCallInfo fcinfo, int first);

/* kms_key_id, acl and tags, from "first" on, where they only say what rights they take. */
extern void args_set_rights(Connector *connector, FunctionCallInfo fcinfo, int first);

/* The URL as connectors keep it, NULL for AWS's own; the user may use it. */
extern char *args_endpoint(const char *argument, const char *value);

/* Where a role is assumed at the endpoint of S3, the user may do that. */
extern void args_require_sts(const Connector *connector);

/* How long a new role may stay unknown, in ms. */
extern int args_role_wait(FunctionCallInfo fcinfo, int n);

/* The strings are overwritten when the current memory context goes. */
typedef struct CredentialArgs
{
	char *access_key_id;
	char *secret_access_key;
	char *session_token;    /* NULL: none */
	char *role_arn;         /* not NULL: all others are */
	char *credentials_from; /* not NULL: all others are */
	bool  ambient;          /* all others are NULL */
} CredentialArgs;

/*
 * access_key_id, secret_access_key, session_token and secret_file, from "first"
 * on, of which the file may hold the two before it.
 */
extern void args_read_keys(CredentialArgs *args, FunctionCallInfo fcinfo, int first);

/*
 * Reads the arguments of args_read_keys, and role_arn, credentials_from and auth_method after them: either
 * keys, or a role, or another connector's, or ambient ones.
 */
#define ARGS_CREDENTIALS 7
extern void args_read_credentials(CredentialArgs *args, FunctionCallInfo fcinfo, int first);

#endif /* CONNECTOR_ARGS_H */
