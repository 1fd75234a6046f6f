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

#include "connector.h"

/* NULL: null. */
extern char *args_text(FunctionCallInfo fcinfo, int n);
extern char *args_required_text(FunctionCallInfo fcinfo, int n, const char *argument);
extern bool  args_required_bool(FunctionCallInfo fcinfo, int n, const char *argument);

/* A role that exists. */
extern Oid args_required_role(FunctionCallInfo fcinfo, int n, const char *argument);

/* Each checks a value, normalises it and puts it into the connector. */
extern void args_set_name(Connector *connector, const char *argument, const char *value);
extern void args_set_kind(Connector *connector, const char *value);
extern void args_set_bucket(Connector *connector, const char *value);

/*
 * folder_path, server_side_encryption, region, endpoint_url, sts_endpoint_url
 * and addressing, the six arguments from "first" on.  When "altering", those
 * that are null are left as they are.  Returns whether any was not null.
 */
extern bool args_set_place(Connector *connector, FunctionCallInfo fcinfo, int first, bool altering);

/* The strings are overwritten when the current memory context goes. */
typedef struct CredentialArgs
{
	char *access_key_id;
	char *secret_access_key;
	char *session_token; /* NULL: none */
	char *role_arn;      /* not NULL: the others are */
} CredentialArgs;

/* access_key_id, secret_access_key and session_token, from "first" on. */
extern void args_read_keys(CredentialArgs *args, FunctionCallInfo fcinfo, int first);

/* The same and role_arn: either keys or a role. */
extern void args_read_credentials(CredentialArgs *args, FunctionCallInfo fcinfo, int first);

#endif /* CONNECTOR_ARGS_H */
