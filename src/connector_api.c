/*-------------------------------------------------------------------------
 *
 * connector_api.c
 *	  SQL functions about connectors.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "commands/trigger.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/rel.h"

#include "compat.h"
#include "connector.h"
#include "connector_args.h"
#include "probe.h"
#include "uploader.h"

SQL_FUNCTION(s3export_create_connector);
SQL_FUNCTION(s3export_alter_connector);
SQL_FUNCTION(s3export_drop_connector);
SQL_FUNCTION(s3export_set_credentials);
SQL_FUNCTION(s3export_set_identity);
SQL_FUNCTION(s3export_grant_usage);
SQL_FUNCTION(s3export_revoke_usage);
SQL_FUNCTION(s3export_test_credentials);
SQL_FUNCTION(s3export_refuse_direct_writes);

/* -------------------------------------------------------------- validation */

/* "put object (s3:PutObject): S3 answered AccessDenied (HTTP status 403) ..." */
static void
append_failure(StringInfo buf, const ProbeResult *result)
{
	appendStringInfo(buf, "%s%s (%s): %s", buf->len > 0 ? "\n" : "", result->check, result->action,
					 result->message);
}

static void
require_passed(List *results)
{
	List              *failed = NIL;
	const ProbeResult *first;
	StringInfoData     failures;
	ListCell          *lc;

	initStringInfo(&failures);
	foreach (lc, results)
	{
		ProbeResult *result = lfirst(lc);

		if (result->ok)
			continue;
		failed = lappend(failed, result);
		append_failure(&failures, result);
	}
	if (failed == NIL)
		return;
	first = linitial(failed);
	ereport(ERROR, (errcode(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION),
					errmsg("S3 credentials are invalid: check \"%s\" failed", first->check),
					errdetail("%s", failures.data), first->hint ? errhint("%s", first->hint) : 0));
}

/* Tests what is about to be saved, and learns AWS's region when none is given. */
static ConnectorValidation
validate_connector(Connector *connector, bool validate)
{
	char *region = NULL;

	if (!validate)
		return CONNECTOR_NOT_VALIDATED;
	connector_require_credentials(connector);
	require_passed(uploader_check(connector, &region));
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

static void
return_checks(FunctionCallInfo fcinfo, List *results)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	ListCell      *lc;

	InitMaterializedSRF(fcinfo, 0);
	foreach (lc, results)
	{
		const ProbeResult *result = lfirst(lc);
		const char        *texts[] = {
				   result->check,   NULL,        result->action, result->code, result->request_id,
				   result->message, result->hint};
		Datum values[lengthof(texts)];
		bool  nulls[lengthof(texts)];

		for (size_t i = 0; i < lengthof(texts); i++)
		{
			nulls[i] = texts[i] == NULL;
			values[i] = nulls[i] ? (Datum) 0 : CStringGetTextDatum(texts[i]);
		}
		values[1] = BoolGetDatum(result->ok);
		nulls[1] = false;
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
}

static void
use_credentials(Connector *connector, const CredentialArgs *args)
{
	if (args->role_arn != NULL)
		connector_use_role(connector, args->role_arn);
	else
		connector_use_keys(connector, args->access_key_id, args->secret_access_key,
						   args->session_token);
}

/* --------------------------------------------------------------- functions */

Datum
s3export_create_connector(PG_FUNCTION_ARGS)
{
	Connector          *connector = palloc0(sizeof(Connector));
	CredentialArgs      credentials;
	bool                validate;
	ConnectorValidation validation;

	args_set_name(connector, "name", args_required_text(fcinfo, 0, "name"));
	args_set_bucket(connector, args_required_text(fcinfo, 1, "bucket"));
	args_set_kind(connector, args_required_text(fcinfo, 2, "kind"));
	args_read_credentials(&credentials, fcinfo, 3);
	(void) args_set_place(connector, fcinfo, 7, false);
	validate = args_required_bool(fcinfo, 13, "validate");

	connector->owner = GetUserId();
	connector->credential_owner = connector->owner;
	connector_require_unique(connector);

	connector->credential_id = connector_new_credential_id();
	use_credentials(connector, &credentials);
	validation = validate_connector(connector, validate);
	connector_insert(connector, validation);
	PG_RETURN_INT64(connector->connector_id);
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

Datum
s3export_alter_connector(PG_FUNCTION_ARGS)
{
	Connector          *connector = connector_lock(args_required_text(fcinfo, 0, "name"), false);
	char               *new_name = args_text(fcinfo, 1);
	char               *bucket = args_text(fcinfo, 2);
	bool                keeps_region = !PG_ARGISNULL(5) || (bucket == NULL && PG_ARGISNULL(6));
	bool                validate = args_required_bool(fcinfo, 10, "validate");
	bool                moved;
	ConnectorValidation validation = CONNECTOR_VALIDATION_KEPT;

	if (bucket != NULL)
		args_set_bucket(connector, bucket);
	moved = args_set_place(connector, fcinfo, 3, true) || bucket != NULL;
	if (!keeps_region)
		connector->s3.region = NULL;
	if (!PG_ARGISNULL(9))
	{
		change_owner(connector, args_required_role(fcinfo, 9, "owner"));
		/* Its role is assumed with another external ID now. */
		moved = moved || connector->credentials.role_arn != NULL;
	}
	if (moved)
	{
		connector_require_unique(connector);
		validation = validate_connector(connector, validate);
	}
	/* Last, so that errors above name the connector as it is. */
	if (new_name != NULL)
		args_set_name(connector, "new_name", new_name);
	connector_update(connector, validation);
	PG_RETURN_VOID();
}

Datum
s3export_drop_connector(PG_FUNCTION_ARGS)
{
	char      *name = args_required_text(fcinfo, 0, "name");
	bool       if_exists = args_required_bool(fcinfo, 1, "if_exists");
	Connector *connector = connector_lock(name, if_exists);

	if (connector == NULL)
		ereport(NOTICE, (errmsg("connector \"%s\" does not exist, skipping", name)));
	else
		connector_delete(connector);
	PG_RETURN_VOID();
}

Datum
s3export_set_credentials(PG_FUNCTION_ARGS)
{
	Connector     *connector = connector_lock(args_required_text(fcinfo, 0, "name"), false);
	bool           validate = args_required_bool(fcinfo, 5, "validate");
	CredentialArgs credentials;

	if (!has_privs_of_role(GetUserId(), connector->credential_owner))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be owner of the credentials of connector \"%s\"", connector->name),
				 errdetail("Other connectors use the same credentials.")));
	args_read_credentials(&credentials, fcinfo, 1);
	use_credentials(connector, &credentials);
	connector_update_credentials(connector, validate_connector(connector, validate));
	PG_RETURN_VOID();
}

Datum
s3export_set_identity(PG_FUNCTION_ARGS)
{
	CredentialArgs keys;

	if (!superuser())
		ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
						errmsg("must be superuser to set the base identity")));
	args_read_keys(&keys, fcinfo, 0);
	connector_set_identity(keys.access_key_id, keys.secret_access_key, keys.session_token);
	PG_RETURN_VOID();
}

Datum
s3export_grant_usage(PG_FUNCTION_ARGS)
{
	Connector *connector = connector_lock(args_required_text(fcinfo, 0, "name"), false);

	connector_grant(connector, args_required_role(fcinfo, 1, "grantee"));
	PG_RETURN_VOID();
}

/* The grantee need not exist any more. */
Datum
s3export_revoke_usage(PG_FUNCTION_ARGS)
{
	Connector *connector = connector_lock(args_required_text(fcinfo, 0, "name"), false);

	if (PG_ARGISNULL(1))
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
						errmsg("argument \"%s\" must not be null", "grantee")));
	connector_revoke(connector, PG_GETARG_OID(1));
	PG_RETURN_VOID();
}

/* A name stands for everything else; what has a default cannot be told from it. */
static Connector *
saved_connector(FunctionCallInfo fcinfo)
{
	for (int i = 1; i < PG_NARGS(); i++)
	{
		bool has_default = (i == 2 || i == 7 || i == 12);

		if (!has_default && !PG_ARGISNULL(i))
			ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
							errmsg("argument \"name\" excludes all others"),
							errhint("Give the name of a connector, or what a connector would be "
									"created with.")));
	}
	return connector_load(args_text(fcinfo, 0), CONNECTOR_OWNER);
}

static Connector *
unsaved_connector(FunctionCallInfo fcinfo)
{
	Connector     *connector = palloc0(sizeof(Connector));
	CredentialArgs credentials;

	connector_require_create_privilege();
	args_set_bucket(connector, args_required_text(fcinfo, 1, "bucket"));
	args_set_kind(connector, args_required_text(fcinfo, 2, "kind"));
	args_read_credentials(&credentials, fcinfo, 3);
	(void) args_set_place(connector, fcinfo, 7, false);
	connector->owner = GetUserId();
	connector->credential_owner = connector->owner;
	use_credentials(connector, &credentials);
	return connector;
}

Datum
s3export_test_credentials(PG_FUNCTION_ARGS)
{
	Connector *connector = PG_ARGISNULL(0) ? unsaved_connector(fcinfo) : saved_connector(fcinfo);
	char      *region;

	connector_require_credentials(connector);
	return_checks(fcinfo, uploader_check(connector, &region));
	return (Datum) 0;
}

Datum
s3export_refuse_direct_writes(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR, (errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
						errmsg("function \"%s\" can only be called as a trigger",
							   "refuse_direct_writes")));
	if (GetUserId() != trigger->tg_relation->rd_rel->relowner && !superuser())
		ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
						errmsg("permission denied for table %s",
							   RelationGetRelationName(trigger->tg_relation)),
						errhint("Use the functions of extension \"s3export\".")));
	PG_RETURN_POINTER(NULL);
}
