/*-------------------------------------------------------------------------
 *
 * connector_api.c
 *	  SQL functions about connectors.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "funcapi.h"
#include "miscadmin.h"
#include "tcop/utility.h"
#include "utils/acl.h"

#include "api/result_row.h"
#include "base/args.h"
#include "base/compat.h"
#include "base/guc.h"
#include "currents/current_args.h"
#include "tables/connector.h"
#include "tables/connector_args.h"
#include "uploader/permission_check.h"
#include "uploader/uploader.h"

SQL_FUNCTION(s3export_create_connector);
SQL_FUNCTION(s3export_alter_connector);
SQL_FUNCTION(s3export_drop_connector);
SQL_FUNCTION(s3export_set_credentials);
SQL_FUNCTION(s3export_set_identity);
SQL_FUNCTION(s3export_grant_usage);
SQL_FUNCTION(s3export_revoke_usage);
SQL_FUNCTION(s3export_test_credentials);
SQL_FUNCTION(s3export_ambient_credentials_allowed);

/*
 * The arguments of create_connector; those of test_credentials, whose first one is
 * "connector" and which has no "validate".
 */
enum
{
	ARG_NAME,
	ARG_BUCKET,
	ARG_KIND,
	ARG_CREDENTIALS,
	ARG_PLACE = ARG_CREDENTIALS + ARGS_CREDENTIALS,
	ARG_OBJECT = ARG_PLACE + ARGS_PLACE,
	ARG_VALIDATE = ARG_OBJECT + ARGS_OBJECT,
	ARG_ROLE_WAIT,
	ARG_CURRENT,
	TEST_ARG_CONNECTOR = ARG_NAME,
	TEST_ARG_ROLE_WAIT = ARG_VALIDATE
};

/* The arguments of alter_connector. */
enum
{
	ALTER_ARG_CONNECTOR,
	ALTER_ARG_NEW_NAME,
	ALTER_ARG_BUCKET,
	ALTER_ARG_PLACE,
	ALTER_ARG_REGION = ALTER_ARG_PLACE + 1,
	ALTER_ARG_ENDPOINT_URL,
	ALTER_ARG_OBJECT = ALTER_ARG_PLACE + ARGS_PLACE,
	ALTER_ARG_OWNER = ALTER_ARG_OBJECT + ARGS_OBJECT,
	ALTER_ARG_VALIDATE,
	ALTER_ARG_CURRENT
};

/* The arguments of set_credentials. */
enum
{
	SET_ARG_CONNECTOR,
	SET_ARG_CREDENTIALS,
	SET_ARG_UNSHARE = SET_ARG_CREDENTIALS + ARGS_CREDENTIALS,
	SET_ARG_VALIDATE,
	SET_ARG_ROLE_WAIT
};

/* -------------------------------------------------------------- validation */

/* "put object (s3:PutObject): S3 answered AccessDenied (HTTP status 403) ..." */
static void
append_failure(StringInfo buf, const PermissionResult *result)
{
	appendStringInfo(buf, "%s%s (%s): %s", buf->len > 0 ? "\n" : "", result->check, result->action,
					 result->message);
}

/*
 * Raises one error for all checks that failed: the first check decides the SQLSTATE and the
 * hint.  A check that a connector can do without is only a warning.
 */
static void
require_passed(List *results)
{
	List                   *failed = NIL;
	const PermissionResult *first;
	StringInfoData          failures;
	ListCell               *lc;

	initStringInfo(&failures);
	foreach (lc, results)
	{
		PermissionResult *result = lfirst(lc);

		if (result->ok || result->skipped)
			continue;
		if (result->advisory)
		{
			ereport(WARNING, (errmsg("check \"%s\" of the credentials failed", result->check),
							  errdetail("%s", result->message),
							  result->hint ? errhint("%s", result->hint) : 0));
			continue;
		}
		failed = lappend(failed, result);
		append_failure(&failures, result);
	}
	if (failed == NIL)
		return;
	first = linitial(failed);
	ereport(ERROR,
			(errcode(first->sqlstate),
			 first->sqlstate == ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION
				 ? errmsg("S3 credentials are invalid: check \"%s\" failed", first->check)
				 : errmsg("S3 cannot be used as configured: check \"%s\" failed", first->check),
			 errdetail("%s", failures.data), first->hint ? errhint("%s", first->hint) : 0));
}

/*
 * Tests what is about to be saved, and learns AWS's region when none is given.
 * A role that AWS does not know yet is waited for, for "role_wait" ms.
 */
static ConnectorValidation
validate_connector(Connector *connector, bool validate, int role_wait)
{
	char *region = NULL;

	if (!validate)
		return CONNECTOR_NOT_VALIDATED;
	connector->reserved = true;
	connector_require_credentials(connector);
	require_passed(uploader_check(connector, role_wait, &region));
	if (connector->s3.region == NULL && connector->s3.endpoint_url == NULL)
		connector->s3.region = region;
	else if (region != NULL && strcmp(region, connector->s3.region) != 0)
		ereport(WARNING,
				(errmsg("bucket \"%s\" is in region \"%s\", not \"%s\"", connector->s3.bucket,
						region, connector->s3.region),
				 errhint("Set the region to \"%s\": until then, each export asks the wrong one "
						 "first.",
						 region)));
	return CONNECTOR_VALIDATED;
}

/* A row for each check, in the order in which they ran. */
static void
return_checks(FunctionCallInfo fcinfo, List *results)
{
	ListCell *lc;

	InitMaterializedSRF(fcinfo, 0);
	foreach (lc, results)
	{
		const PermissionResult *result = lfirst(lc);
		ResultRow               row = {0};

		result_row_add_text(&row, result->check);
		result_row_add_bool(&row, result->ok);
		result_row_add_text(&row, result->action);
		result_row_add_text(&row, result->code);
		result_row_add_text(&row, result->request_id);
		result_row_add_text(&row, result->message);
		result_row_add_text(&row, result->hint);
		result_row_put(fcinfo, &row);
	}
}

static void
use_credentials(Connector *connector, const CredentialArgs *args)
{
	if (args->credentials_from != NULL)
		connector_use_credentials_of(connector, args->credentials_from);
	else if (args->role_arn != NULL)
		connector_use_role(connector, args->role_arn);
	else if (args->ambient)
		connector_use_ambient(connector);
	else
		connector_use_keys(connector, args->access_key_id, args->secret_access_key,
						   args->session_token);
	connector_require_ambient_privilege(connector);
	args_require_sts(connector);
}

/* What create_connector and test_credentials say alike, all but the name. */
static void
read_connector(Connector *connector, CredentialArgs *credentials, FunctionCallInfo fcinfo)
{
	args_set_bucket(connector, args_required_text(fcinfo, ARG_BUCKET, "bucket"));
	args_set_kind(connector, args_required_text(fcinfo, ARG_KIND, "kind"));
	args_read_credentials(credentials, fcinfo, ARG_CREDENTIALS);
	(void) args_set_place(connector, fcinfo, ARG_PLACE, false);
	(void) args_set_object(connector, fcinfo, ARG_OBJECT);
	connector->owner = GetUserId();
	connector->credential_owner = connector->owner;
}

/* The two kinds differ in what they may do: one policy would not fit both. */
static void
notice_other_kind(const Connector *connector)
{
	char         *other = connector_of_other_kind(connector);
	ConnectorKind others =
		connector->kind == CONNECTOR_CURRENTS ? CONNECTOR_DATA_EXPORT : CONNECTOR_CURRENTS;

	if (other == NULL)
		return;
	ereport(NOTICE,
			(errmsg("bucket \"%s\" now has connectors of both kinds", connector->s3.bucket),
			 errdetail("Connector \"%s\" is of kind \"%s\", connector \"%s\" of kind \"%s\": each "
					   "kind needs a policy of its own.",
					   connector->name, connector_kind_name(connector->kind), other,
					   connector_kind_name(others)),
			 errhint("Functions s3export.iam_policy('%s', 'data_export') and "
					 "s3export.iam_policy('%s', 'currents') make them.",
					 connector->s3.bucket, connector->s3.bucket)));
}

/* --------------------------------------------------------------- functions */

Datum
s3export_create_connector(PG_FUNCTION_ARGS)
{
	Connector          *connector = palloc0(sizeof(Connector));
	CredentialArgs      credentials;
	CurrentSettings     current;
	bool                validate;
	int                 role_wait;
	ConnectorValidation validation;

	PreventCommandIfParallelMode("s3export.create_connector()");
	PreventCommandDuringRecovery("s3export.create_connector()");
	args_set_name(connector, "name", args_required_text(fcinfo, ARG_NAME, "name"));
	read_connector(connector, &credentials, fcinfo);
	validate = args_required_bool(fcinfo, ARG_VALIDATE, "validate");
	role_wait = args_role_wait(fcinfo, ARG_ROLE_WAIT);
	(void) current_args_read(&current, fcinfo, ARG_CURRENT, connector);
	connector->reserved = validate;
	connector_require_unique(connector);

	if (credentials.credentials_from == NULL)
		connector->credential_id = connector_new_credential_id();
	use_credentials(connector, &credentials);
	validation = validate_connector(connector, validate, role_wait);
	connector_insert(connector, validation);
	if (connector->kind == CONNECTOR_CURRENTS)
		current_insert(connector, &current);
	notice_other_kind(connector);
	PG_RETURN_INT64(connector->connector_id);
}

/* The connector that a function changes, whose first argument is its name. */
static Connector *
lock_connector(FunctionCallInfo fcinfo, const char *function)
{
	Connector *connector;

	PreventCommandIfParallelMode(function);
	PreventCommandDuringRecovery(function);
	connector = connector_lock(args_required_text(fcinfo, 0, "connector"), false);
	connector_require_proof(connector, true);
	return connector;
}

static void
change_owner(Connector *connector, Oid owner)
{
	if (!compat_can_set_role(GetUserId(), owner))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be able to SET ROLE \"%s\" to make it the owner of connector \"%s\"",
						GetUserNameFromId(owner, false), connector->name)));
	connector_set_owner(connector, owner);
}

static bool
is_at_place_of(const Connector *connector, const Connector *other)
{
	const char *endpoint = connector->s3.endpoint_url;
	const char *other_endpoint = other->s3.endpoint_url;

	return strcmp(connector->s3.bucket, other->s3.bucket) == 0 &&
		   strcmp(connector->folder_path, other->folder_path) == 0 &&
		   strcmp(endpoint ? endpoint : "", other_endpoint ? other_endpoint : "") == 0;
}

/* With the connector's name alone alter_connector validates it as it is. */
static bool
changes_nothing(FunctionCallInfo fcinfo)
{
	for (int i = ALTER_ARG_NEW_NAME; i < PG_NARGS(); i++)
	{
		if (i != ALTER_ARG_VALIDATE && !PG_ARGISNULL(i))
			return false;
	}
	return true;
}

Datum
s3export_alter_connector(PG_FUNCTION_ARGS)
{
	Connector          *connector = lock_connector(fcinfo, "s3export.alter_connector()");
	char               *new_name = args_text(fcinfo, ALTER_ARG_NEW_NAME);
	char               *bucket = args_text(fcinfo, ALTER_ARG_BUCKET);
	bool                elsewhere = bucket != NULL || !PG_ARGISNULL(ALTER_ARG_ENDPOINT_URL);
	bool                validate = args_required_bool(fcinfo, ALTER_ARG_VALIDATE, "validate");
	bool                changed = bucket != NULL;
	ConnectorValidation validation = CONNECTOR_VALIDATION_KEPT;
	CurrentSettings     current;
	bool current_changed = current_args_read(&current, fcinfo, ALTER_ARG_CURRENT, connector);

	const Connector old = *connector;

	connector_require_ambient_privilege(connector);
	if (bucket != NULL)
		args_set_bucket(connector, bucket);
	changed |= args_set_place(connector, fcinfo, ALTER_ARG_PLACE, true);
	changed |= args_set_object(connector, fcinfo, ALTER_ARG_OBJECT);
	if (!PG_ARGISNULL(ALTER_ARG_ENDPOINT_URL) || !PG_ARGISNULL(ALTER_ARG_ENDPOINT_URL + 1))
		args_require_sts(connector);
	if (elsewhere && PG_ARGISNULL(ALTER_ARG_REGION))
		connector->s3.region = NULL;
	if (!PG_ARGISNULL(ALTER_ARG_OWNER))
	{
		change_owner(connector, args_required_role(fcinfo, ALTER_ARG_OWNER, "owner"));
		/* Its role is assumed with another external ID now. */
		changed |= connector->credentials.role_arn != NULL;
	}
	if (changed || changes_nothing(fcinfo))
	{
		connector->reserved = validate || (connector->reserved && is_at_place_of(connector, &old));
		connector_require_unique(connector);
		validation = validate_connector(connector, validate, 0);
	}
	/* Last, so that errors above name the connector as it is. */
	if (new_name != NULL)
		args_set_name(connector, "new_name", new_name);
	connector_update(connector, validation);
	if (connector->kind == CONNECTOR_CURRENTS &&
		(strcmp(connector->s3.bucket, old.s3.bucket) != 0 ||
		 strcmp(connector->folder_path, old.folder_path) != 0))
		current_move(connector);
	if (connector->kind == CONNECTOR_CURRENTS &&
		(current_changed || !PG_ARGISNULL(ALTER_ARG_OWNER)))
		current_update(connector, &current, !PG_ARGISNULL(ALTER_ARG_OWNER));
	if (changed && connector->kind == CONNECTOR_CURRENTS)
		current_wake(connector, validation == CONNECTOR_VALIDATED);
	if (elsewhere)
		notice_other_kind(connector);
	PG_RETURN_VOID();
}

Datum
s3export_drop_connector(PG_FUNCTION_ARGS)
{
	bool       if_exists = args_required_bool(fcinfo, 1, "if_exists");
	Connector *connector;

	PreventCommandIfParallelMode("s3export.drop_connector()");
	PreventCommandDuringRecovery("s3export.drop_connector()");
	connector = connector_lock(args_required_text(fcinfo, 0, "connector"), if_exists);
	if (connector == NULL)
		ereport(NOTICE, (errmsg("connector \"%s\" does not exist, skipping",
								args_required_text(fcinfo, 0, "connector"))));
	else
	{
		if (connector->kind == CONNECTOR_CURRENTS)
			current_delete(connector);
		connector_delete(connector);
	}
	PG_RETURN_VOID();
}

/* New credentials for all that share the old ones, or only for this one. */
static void
prepare_rotation(Connector *connector, bool unshare)
{
	int  sharing = connector_count_sharing(connector);
	bool owns = has_privs_of_role(GetUserId(), connector->credential_owner);

	if (unshare && (sharing > 1 || !owns))
	{
		connector_leave_shared(connector);
		return;
	}
	if (!owns)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be owner of the credentials of connector \"%s\"", connector->name),
				 errdetail("It shares them with a connector of another owner."),
				 errhint("With unshare => true, the connector gets credentials of its own.")));
	if (sharing > 1)
		ereport(NOTICE, (errmsg("replacing the credentials that %d connectors share", sharing),
						 errhint("With unshare => true, connector \"%s\" alone would get new ones.",
								 connector->name)));
}

Datum
s3export_set_credentials(PG_FUNCTION_ARGS)
{
	Connector          *connector = lock_connector(fcinfo, "s3export.set_credentials()");
	bool                unshare = args_required_bool(fcinfo, SET_ARG_UNSHARE, "unshare");
	bool                validate = args_required_bool(fcinfo, SET_ARG_VALIDATE, "validate");
	int                 role_wait = args_role_wait(fcinfo, SET_ARG_ROLE_WAIT);
	CredentialArgs      credentials;
	ConnectorValidation validation;

	args_read_credentials(&credentials, fcinfo, SET_ARG_CREDENTIALS);
	if (credentials.credentials_from == NULL)
		prepare_rotation(connector, unshare);
	use_credentials(connector, &credentials);
	validation = validate_connector(connector, validate, role_wait);
	connector_update_credentials(connector, validation);
	current_wake(connector, validation == CONNECTOR_VALIDATED);
	PG_RETURN_VOID();
}

Datum
s3export_set_identity(PG_FUNCTION_ARGS)
{
	CredentialArgs keys;

	PreventCommandIfParallelMode("s3export.set_identity()");
	PreventCommandDuringRecovery("s3export.set_identity()");
	if (!superuser())
		ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
						errmsg("must be superuser to set the base identity")));
	args_read_keys(&keys, fcinfo, 0);
	connector_set_identity(keys.access_key_id, keys.secret_access_key, keys.session_token);
	current_wake_roles();
	PG_RETURN_VOID();
}

Datum
s3export_grant_usage(PG_FUNCTION_ARGS)
{
	Connector *connector = lock_connector(fcinfo, "s3export.grant_usage()");

	connector_grant(connector, args_required_role(fcinfo, 1, "grantee"),
					args_required_bool(fcinfo, 2, "overwrite"));
	PG_RETURN_VOID();
}

/* The grantee need not exist any more. */
Datum
s3export_revoke_usage(PG_FUNCTION_ARGS)
{
	Connector *connector = lock_connector(fcinfo, "s3export.revoke_usage()");

	args_require_not_null(fcinfo, 1, "grantee");
	connector_revoke(connector, PG_GETARG_OID(1));
	PG_RETURN_VOID();
}

/* A name stands for everything else; what has a default cannot be told from it. */
static Connector *
saved_connector(FunctionCallInfo fcinfo)
{
	static const int defaults[] = {ARG_KIND, ARG_PLACE + 4, ARG_PLACE + 5};

	for (int i = ARG_BUCKET; i < TEST_ARG_ROLE_WAIT; i++)
	{
		bool has_default = false;

		for (size_t d = 0; d < lengthof(defaults); d++)
			has_default |= i == defaults[d];
		if (!has_default && !PG_ARGISNULL(i))
			ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
							errmsg("argument \"connector\" excludes all others but "
								   "\"role_wait\""),
							errhint("Give the name of a connector, or what a connector would be "
									"created with.")));
	}
	return connector_load(args_text(fcinfo, TEST_ARG_CONNECTOR), CONNECTOR_OWNER);
}

static Connector *
unsaved_connector(FunctionCallInfo fcinfo)
{
	Connector     *connector = palloc0(sizeof(Connector));
	CredentialArgs credentials;

	if (!connector_may_create())
		ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
						errmsg("permission denied to test credentials without a connector"),
						errdetail("It takes the EXECUTE privilege on function "
								  "s3export.create_connector.")));
	read_connector(connector, &credentials, fcinfo);
	use_credentials(connector, &credentials);
	return connector;
}

Datum
s3export_test_credentials(PG_FUNCTION_ARGS)
{
	int        role_wait = args_role_wait(fcinfo, TEST_ARG_ROLE_WAIT);
	Connector *connector;
	char      *region;

	PreventCommandIfParallelMode("s3export.test_credentials()");
	connector =
		PG_ARGISNULL(TEST_ARG_CONNECTOR) ? unsaved_connector(fcinfo) : saved_connector(fcinfo);
	connector_require_credentials(connector);
	return_checks(fcinfo, uploader_check(connector, role_wait, &region));
	return (Datum) 0;
}

Datum
s3export_ambient_credentials_allowed(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(guc_allow_ambient_credentials);
}
