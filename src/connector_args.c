/*-------------------------------------------------------------------------
 *
 * connector_args.c
 *	  The arguments of the SQL functions about connectors.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_authid.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/syscache.h"
#include "utils/varlena.h"

#include "connector_args.h"
#include "guc.h"
#include "names.h"
#include "secret.h"

#define MAX_NAME_LENGTH (NAMEDATALEN - 1)

/* ---------------------------------------------------------------- errors */

/* "value" is NULL where it could be a secret, or hold one. */
static void
invalid_value(const char *argument, const char *value, const char *what_is_right)
{
	if (value != NULL)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("invalid value for argument \"%s\": \"%s\"", argument, value),
						errdetail("%s", what_is_right)));
	ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					errmsg("invalid value for argument \"%s\"", argument),
					errdetail("%s", what_is_right)));
}

static void
require(const char *argument, const char *value, const char *what_is_right)
{
	if (what_is_right != NULL)
		invalid_value(argument, value, what_is_right);
}

static void
null_value(const char *argument)
{
	ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					errmsg("argument \"%s\" must not be null", argument)));
}

/* --------------------------------------------------------------- reading */

char *
args_text(FunctionCallInfo fcinfo, int n)
{
	return PG_ARGISNULL(n) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(n));
}

char *
args_required_text(FunctionCallInfo fcinfo, int n, const char *argument)
{
	if (PG_ARGISNULL(n))
		null_value(argument);
	return text_to_cstring(PG_GETARG_TEXT_PP(n));
}

bool
args_required_bool(FunctionCallInfo fcinfo, int n, const char *argument)
{
	if (PG_ARGISNULL(n))
		null_value(argument);
	return PG_GETARG_BOOL(n);
}

Oid
args_required_role(FunctionCallInfo fcinfo, int n, const char *argument)
{
	Oid role;

	if (PG_ARGISNULL(n))
		null_value(argument);
	role = PG_GETARG_OID(n);
	/* regrole takes any number, and "-" for none. */
	if (!SearchSysCacheExists1(AUTHOID, ObjectIdGetDatum(role)))
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT),
						errmsg("role with OID %u does not exist", role)));
	return role;
}

static char *
secret_text(FunctionCallInfo fcinfo, int n)
{
	char *plain = args_text(fcinfo, n);
	char *copy;

	if (plain == NULL)
		return NULL;
	copy = secret_strdup(CurrentMemoryContext, plain);
	secret_wipe(plain);
	pfree(plain);
	return copy;
}

/* ----------------------------------------------------------- connectors */

void
args_set_name(Connector *connector, const char *argument, const char *value)
{
	bool right = *value != '\0' && strlen(value) <= MAX_NAME_LENGTH;

	for (const char *c = value; *c != '\0'; c++)
	{
		if ((unsigned char) *c < ' ' || *c == 0x7f)
			right = false;
	}
	if (!right)
		invalid_value(argument, value,
					  psprintf("A connector's name has 1 to %d bytes and no control characters.",
							   MAX_NAME_LENGTH));
	connector->name = pstrdup(value);
}

void
args_set_kind(Connector *connector, const char *value)
{
	if (strcmp(value, "data_export") != 0 && strcmp(value, "currents") != 0)
		invalid_value("kind", value, "It is \"data_export\" or \"currents\".");
	connector->kind = pstrdup(value);
}

void
args_set_bucket(Connector *connector, const char *value)
{
	require("bucket", value, names_check_bucket(value));
	connector->s3.bucket = pstrdup(value);
}

static void
set_folder_path(Connector *connector, const char *value)
{
	char *normalized;

	require("folder_path", value, names_normalize_folder(value, &normalized));
	connector->folder_path = normalized;
}

static void
set_server_side_encryption(Connector *connector, const char *value)
{
	if (pg_strcasecmp(value, "none") == 0)
		connector->s3.server_side_encryption = NULL;
	else if (pg_strcasecmp(value, "AES256") == 0)
		connector->s3.server_side_encryption = "AES256";
	else
		invalid_value("server_side_encryption", value, "It is \"AES256\" or \"none\".");
}

static void
set_region(Connector *connector, const char *value)
{
	if (*value == '\0')
		connector->s3.region = NULL;
	else
	{
		require("region", value, names_check_region(value));
		connector->s3.region = pstrdup(value);
	}
}

static bool
endpoint_is_allowed(const char *url)
{
	List     *allowed;
	ListCell *lc;

	if (superuser() || strcmp(guc_allowed_endpoints, "*") == 0)
		return true;
	if (!SplitGUCList(pstrdup(guc_allowed_endpoints), ',', &allowed))
		return false;
	foreach (lc, allowed)
	{
		NamesEndpoint endpoint;

		if (names_parse_endpoint((char *) lfirst(lc), &endpoint) == NULL &&
			strcmp(endpoint.url, url) == 0)
			return true;
	}
	return false;
}

/* NULL: AWS's own. */
static char *
check_endpoint(const char *argument, const char *value)
{
	NamesEndpoint endpoint;

	if (*value == '\0')
		return NULL;
	/* What stands before an "@" could be a password. */
	require(argument, strchr(value, '@') ? NULL : value, names_parse_endpoint(value, &endpoint));
	if (!endpoint_is_allowed(endpoint.url))
		ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
						errmsg("permission denied for endpoint \"%s\"", endpoint.url),
						errdetail("Only a superuser can use an endpoint that \"%s\" does not list.",
								  "s3export.allowed_endpoints")));
	return endpoint.url;
}

static void
set_endpoint_url(Connector *connector, const char *value)
{
	connector->s3.endpoint_url = check_endpoint("endpoint_url", value);
}

static void
set_sts_endpoint_url(Connector *connector, const char *value)
{
	connector->credentials.sts_endpoint_url = check_endpoint("sts_endpoint_url", value);
}

static void
set_addressing(Connector *connector, const char *value)
{
	if (!connector_parse_addressing(value, &connector->s3.addressing))
		invalid_value("addressing", value, "It is \"auto\", \"path\" or \"virtual\".");
}

bool
args_set_place(Connector *connector, FunctionCallInfo fcinfo, int first, bool altering)
{
	static const struct
	{
		const char *argument;
		bool        required;
		void (*set)(Connector *connector, const char *value);
	} arguments[] = {
		{"folder_path", true, set_folder_path},
		{"server_side_encryption", false, set_server_side_encryption},
		{"region", false, set_region},
		{"endpoint_url", false, set_endpoint_url},
		{"sts_endpoint_url", false, set_sts_endpoint_url},
		{"addressing", true, set_addressing},
	};
	bool any = false;

	for (size_t i = 0; i < lengthof(arguments); i++)
	{
		char *value = args_text(fcinfo, first + i);

		if (value != NULL)
		{
			arguments[i].set(connector, value);
			any = true;
		}
		else if (arguments[i].required && !altering)
			null_value(arguments[i].argument);
	}
	return any;
}

/* ----------------------------------------------------------- credentials */

static void
require_both(const char *present, const char *missing)
{
	ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					errmsg("argument \"%s\" requires argument \"%s\"", present, missing),
					errdetail("A secret key has an access_key_id and a secret_access_key; "
							  "temporary ones have a session_token too.")));
}

/* No value is shown: they get mixed up. */
static void
check_keys(const CredentialArgs *args)
{
	require("access_key_id", NULL, names_check_access_key_id(args->access_key_id));
	require("secret_access_key", NULL, names_check_secret(args->secret_access_key));
	if (args->session_token != NULL)
		require("session_token", NULL, names_check_session_token(args->session_token));
}

void
args_read_keys(CredentialArgs *args, FunctionCallInfo fcinfo, int first)
{
	memset(args, 0, sizeof(*args));
	if (PG_ARGISNULL(first))
		null_value("access_key_id");
	if (PG_ARGISNULL(first + 1))
		null_value("secret_access_key");
	args->access_key_id = secret_text(fcinfo, first);
	args->secret_access_key = secret_text(fcinfo, first + 1);
	args->session_token = secret_text(fcinfo, first + 2);
	check_keys(args);
}

void
args_read_credentials(CredentialArgs *args, FunctionCallInfo fcinfo, int first)
{
	const char *key_argument = NULL;

	args->access_key_id = secret_text(fcinfo, first);
	args->secret_access_key = secret_text(fcinfo, first + 1);
	args->session_token = secret_text(fcinfo, first + 2);
	args->role_arn = args_text(fcinfo, first + 3);

	if (args->access_key_id != NULL)
		key_argument = "access_key_id";
	else if (args->secret_access_key != NULL)
		key_argument = "secret_access_key";
	else if (args->session_token != NULL)
		key_argument = "session_token";

	if (args->role_arn != NULL && key_argument != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("arguments \"%s\" and \"role_arn\" exclude each other", key_argument),
				 errdetail("A connector authenticates with a secret key, or with a role, "
						   "never with both.")));
	if (args->role_arn != NULL)
	{
		require("role_arn", args->role_arn, names_check_role_arn(args->role_arn));
		return;
	}
	if (key_argument == NULL)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("credentials are missing"),
						errdetail("A connector authenticates with a secret key or with a role."),
						errhint("Give access_key_id and secret_access_key, or role_arn.")));
	if (args->access_key_id == NULL)
		require_both(key_argument, "access_key_id");
	if (args->secret_access_key == NULL)
		require_both(key_argument, "secret_access_key");
	check_keys(args);
}
