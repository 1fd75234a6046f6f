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
#include "utils/fmgrprotos.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"
#include "utils/varlena.h"

#include "aws/aws_names.h"
#include "base/args.h"
#include "base/guc.h"
#include "tables/connector_args.h"
#include "tables/utf8.h"

#define MAX_NAME_LENGTH (NAMEDATALEN - 1)
#define MAX_CURRENTS_FOLDER 512
#define MAX_ROLE_WAIT (60 * 60 * 1000) /* ms */

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
		args_invalid_value(
			argument, value,
			psprintf("A connector's name has 1 to %d bytes and no control characters.",
					 MAX_NAME_LENGTH));
	connector->name = pstrdup(value);
}

void
args_set_kind(Connector *connector, const char *value)
{
	if (!connector_parse_kind(value, &connector->kind))
		args_invalid_value("kind", value, "It is \"data_export\" or \"currents\".");
}

void
args_set_bucket(Connector *connector, const char *value)
{
	args_require("bucket", value, aws_names_check_bucket(value));
	connector->s3.bucket = pstrdup(value);
}

/* A current makes the names of its files, which need what is left of S3's 1024 bytes. */
static void
require_room_for_files(const Connector *connector)
{
	size_t len;

	if (connector->kind != CONNECTOR_CURRENTS)
		return;
	len = strlen(utf8_from_database(connector->folder_path));
	if (len > MAX_CURRENTS_FOLDER)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid value for argument \"%s\"", "folder_path"),
				 errdetail("For kind \"currents\" it has at most %d bytes; this one has %zu.",
						   MAX_CURRENTS_FOLDER, len),
				 errhint("Choose a shorter one: the names of the files need the rest of the 1024 "
						 "bytes that S3 allows.")));
}

void
args_set_folder_path(Connector *connector, const char *value)
{
	char *normalized;

	args_require("folder_path", value, aws_names_normalize_folder(value, &normalized));
	connector->folder_path = normalized;
	require_room_for_files(connector);
}

/*
 * A connector without a name is only tested: in the bucket's root, since a policy of
 * iam_policy() that names no folder allows the whole bucket.
 */
static void
set_default_folder(Connector *connector)
{
	const char *wrong = connector->name ? aws_names_check_key(connector->name) : NULL;

	if (connector->kind == CONNECTOR_CURRENTS)
		connector->folder_path = pstrdup("currents");
	else if (wrong == NULL)
		connector->folder_path = pstrdup(connector->name ? connector->name : "");
	else
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the name of connector \"%s\" cannot be its folder_path", connector->name),
				 errdetail("%s", wrong), errhint("Give a folder_path.")));
}

void
args_set_region(Connector *connector, const char *value)
{
	if (*value == '\0')
		connector->s3.region = NULL;
	else
	{
		args_require("region", value, aws_names_check_region(value));
		connector->s3.region = pstrdup(value);
	}
}

static bool
endpoint_is_allowed(const char *url, const char *list)
{
	List     *allowed;
	ListCell *lc;

	if (superuser() || strcmp(list, "*") == 0)
		return true;
	if (!SplitGUCList(pstrdup(list), ',', &allowed))
		return false;
	foreach (lc, allowed)
	{
		NamesEndpoint endpoint;

		if (aws_names_parse_endpoint((char *) lfirst(lc), &endpoint) == NULL &&
			strcmp(endpoint.url, url) == 0)
			return true;
	}
	return false;
}

static void
refuse_endpoint(const char *url, const char *setting)
{
	ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
					errmsg("permission denied for endpoint \"%s\"", url),
					errdetail("Only a superuser can use an endpoint that \"%s\" does not list.",
							  setting)));
}

/* Requests of the base identity go there. */
static void
require_sts_endpoint(const char *url)
{
	if (!endpoint_is_allowed(url, guc_allowed_sts_endpoints))
		refuse_endpoint(url, "s3export.allowed_sts_endpoints");
}

char *
args_endpoint(const char *argument, const char *value)
{
	NamesEndpoint endpoint;

	if (*value == '\0')
		return NULL;
	/* What stands before an "@" could be a password. */
	args_require(argument, strchr(value, '@') ? NULL : value,
				 aws_names_parse_endpoint(value, &endpoint));
	if (strcmp(argument, "sts_endpoint_url") == 0)
		require_sts_endpoint(endpoint.url);
	else if (!endpoint_is_allowed(endpoint.url, guc_allowed_endpoints))
		refuse_endpoint(endpoint.url, "s3export.allowed_endpoints");
	return endpoint.url;
}

void
args_require_sts(const Connector *connector)
{
	if (connector->credentials.role_arn != NULL &&
		connector->credentials.sts_endpoint_url == NULL && connector->s3.endpoint_url != NULL)
		require_sts_endpoint(connector->s3.endpoint_url);
}

static void
set_endpoint_url(Connector *connector, const char *value)
{
	connector->s3.endpoint_url = args_endpoint("endpoint_url", value);
}

static void
set_sts_endpoint_url(Connector *connector, const char *value)
{
	connector->credentials.sts_endpoint_url = args_endpoint("sts_endpoint_url", value);
}

static void
set_addressing(Connector *connector, const char *value)
{
	if (!connector_parse_addressing(value, &connector->s3.addressing))
		args_invalid_value("addressing", value, "It is \"auto\", \"path\" or \"virtual\".");
}

static void
set_payload_signing(Connector *connector, const char *value)
{
	if (!connector_parse_payload_signing(value, &connector->s3.payload_signing))
		args_invalid_value("payload_signing", value, "It is \"auto\", \"signed\" or \"unsigned\".");
}

static void
set_expected_bucket_owner(Connector *connector, const char *value)
{
	if (*value != '\0')
		args_require("expected_bucket_owner", value, aws_names_check_account(value));
	connector->s3.expected_bucket_owner = *value != '\0' ? pstrdup(value) : NULL;
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
		{"folder_path", false, args_set_folder_path},
		{"region", false, args_set_region},
		{"endpoint_url", false, set_endpoint_url},
		{"sts_endpoint_url", false, set_sts_endpoint_url},
		{"addressing", true, set_addressing},
		{"payload_signing", true, set_payload_signing},
		{"expected_bucket_owner", false, set_expected_bucket_owner},
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
			args_null_value(arguments[i].argument);
	}
	if (connector->folder_path == NULL)
		set_default_folder(connector);
	return any;
}

/* --------------------------------------------------------------- objects */

/* What belongs to a KMS key goes with it. */
static void
set_server_side_encryption(S3Config *s3, const char *value)
{
	if (pg_strcasecmp(value, "none") == 0)
		s3->server_side_encryption = NULL;
	else if (pg_strcasecmp(value, "AES256") == 0)
		s3->server_side_encryption = "AES256";
	else if (pg_strcasecmp(value, "aws:kms") == 0)
	{
		s3->server_side_encryption = "aws:kms";
		return;
	}
	else
		args_invalid_value("server_side_encryption", value,
						   "It is \"AES256\", \"aws:kms\" or \"none\".");
	s3->kms_key_id = NULL;
	s3->bucket_key = NULL;
}

static void
require_kms(const S3Config *s3, const char *argument)
{
	if (s3->server_side_encryption == NULL || strcmp(s3->server_side_encryption, "aws:kms") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"%s\" requires server_side_encryption => 'aws:kms'", argument)));
}

/* "": what the bucket, or S3, has by default. */
static char *
optional_text(const char *argument, char *value, const char *(*check)(const char *value))
{
	if (*value == '\0')
		return NULL;
	args_require(argument, value, check(value));
	return value;
}

static void
set_tags(Connector *connector, Datum tags)
{
	char *json = DatumGetCString(DirectFunctionCall1(jsonb_out, tags));

	args_require("tags", json, connector_set_tags(connector, json));
}

/* A key of KMS, and an S3 Bucket Key, make sense with aws:kms alone. */
static bool
set_encryption(S3Config *s3, FunctionCallInfo fcinfo, int first)
{
	char *encryption = args_text(fcinfo, first);
	char *kms_key_id = args_text(fcinfo, first + 1);

	if (encryption != NULL)
		set_server_side_encryption(s3, encryption);
	if (kms_key_id != NULL)
	{
		s3->kms_key_id = optional_text("kms_key_id", kms_key_id, aws_names_check_kms_key_id);
		if (s3->kms_key_id != NULL)
			require_kms(s3, "kms_key_id");
	}
	if (!PG_ARGISNULL(first + 2))
	{
		require_kms(s3, "bucket_key");
		s3->bucket_key = PG_GETARG_BOOL(first + 2) ? "true" : "false";
	}
	return encryption != NULL || kms_key_id != NULL || !PG_ARGISNULL(first + 2);
}

bool
args_set_object(Connector *connector, FunctionCallInfo fcinfo, int first)
{
	S3Config *s3 = &connector->s3;
	char     *storage_class = args_text(fcinfo, first + 3);
	char     *acl = args_text(fcinfo, first + 5);
	char     *content_type = args_text(fcinfo, first + 6);
	bool      any = set_encryption(s3, fcinfo, first);

	if (storage_class != NULL)
		s3->storage_class =
			optional_text("storage_class", storage_class, aws_names_check_storage_class);
	if (!PG_ARGISNULL(first + 4))
		set_tags(connector, PG_GETARG_DATUM(first + 4));
	if (acl != NULL)
		s3->acl = optional_text("acl", acl, aws_names_check_acl);
	if (content_type != NULL)
		s3->content_type =
			optional_text("content_type", content_type, aws_names_check_content_type);
	return any || storage_class != NULL || !PG_ARGISNULL(first + 4) || acl != NULL ||
		   content_type != NULL;
}

void
args_set_rights(Connector *connector, FunctionCallInfo fcinfo, int first)
{
	S3Config *s3 = &connector->s3;
	char     *kms_key_id = args_text(fcinfo, first);
	char     *acl = args_text(fcinfo, first + 1);

	if (kms_key_id != NULL)
		s3->kms_key_id = optional_text("kms_key_id", kms_key_id, aws_names_check_kms_key_id);
	if (acl != NULL)
		s3->acl = optional_text("acl", acl, aws_names_check_acl);
	if (!PG_ARGISNULL(first + 2))
		set_tags(connector, PG_GETARG_DATUM(first + 2));
}

/* ---------------------------------------------------------------- waiting */

int
args_role_wait(FunctionCallInfo fcinfo, int n)
{
	Interval *interval;
	double    ms;

	if (PG_ARGISNULL(n))
		args_null_value("role_wait");
	interval = PG_GETARG_INTERVAL_P(n);
	ms = interval->time / 1000.0 +
		 (interval->day + (double) DAYS_PER_MONTH * interval->month) * SECS_PER_DAY * 1000.0;
	if (!(ms >= 0 && ms <= MAX_ROLE_WAIT))
		args_invalid_value("role_wait",
						   DatumGetCString(DirectFunctionCall1(interval_out, PG_GETARG_DATUM(n))),
						   "It is between zero and one hour.");
	return (int) ms;
}
