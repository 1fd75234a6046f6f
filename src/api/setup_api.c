/*-------------------------------------------------------------------------
 *
 * setup_api.c
 *	  SQL functions for setting AWS up: who we are, and what to paste into IAM.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "tcop/utility.h"
#include "utils/fmgrprotos.h"

#include "api/result_row.h"
#include "base/args.h"
#include "aws/aws_names.h"
#include "aws/iam_policy.h"
#include "base/compat.h"
#include "tables/connector_args.h"
#include "uploader/uploader.h"

SQL_FUNCTION(s3export_identity);
SQL_FUNCTION(s3export_iam_policy);
SQL_FUNCTION(s3export_trust_policy);

/* Region and sts_endpoint_url, the arguments of identity and trust_policy. */
static void
set_sts(Connector *identity, FunctionCallInfo fcinfo)
{
	char *region = args_text(fcinfo, 0);
	char *endpoint = args_text(fcinfo, 1);

	if (region != NULL)
		args_set_region(identity, region);
	if (endpoint != NULL)
		identity->credentials.sts_endpoint_url = args_endpoint("sts_endpoint_url", endpoint);
}

/* -------------------------------------------------------------- identity */

/* NULL, after a report of "elevel": nobody can be asked about. */
static const UploaderIdentity *
ask_identity(FunctionCallInfo fcinfo, int elevel)
{
	Connector *identity;

	PreventCommandIfParallelMode("a request for the base identity");
	if (!connector_may_create())
	{
		ereport(
			elevel,
			(errcode(elevel == ERROR ? ERRCODE_INSUFFICIENT_PRIVILEGE
									 : ERRCODE_SUCCESSFUL_COMPLETION),
			 errmsg("permission denied to see the account and ARN of the base identity"),
			 errdetail("It takes the EXECUTE privilege on function s3export.create_connector.")));
		return NULL;
	}
	identity = connector_base_identity();
	if (identity == NULL ||
		(identity->credentials.sealed == NULL && !identity->credentials.ambient))
	{
		ereport(elevel, (errcode(elevel == ERROR ? ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE
												 : ERRCODE_SUCCESSFUL_COMPLETION),
						 identity == NULL ? errmsg("there is no base identity")
										  : errmsg("credentials of the base identity are missing"),
						 identity == NULL
							 ? 0
							 : errdetail("Secrets are not dumped: a restored database has none."),
						 errhint("A superuser can set it with s3export.set_identity().")));
		return NULL;
	}
	set_sts(identity, fcinfo);
	return uploader_identity(identity);
}

/* STS did not say. */
static void
report_failure(int elevel, const UploaderIdentity *identity)
{
	ereport(elevel,
			(errcode(identity->sqlerrcode), errmsg("could not find out who the base identity is"),
			 errdetail_internal("%s", identity->detail),
			 identity->hint ? errhint("%s", identity->hint) : 0));
}

/* The external ID is shown also where STS cannot be asked. */
Datum
s3export_identity(PG_FUNCTION_ARGS)
{
	const UploaderIdentity *identity = ask_identity(fcinfo, NOTICE);
	bool                    known = identity != NULL && identity->arn != NULL;
	ResultRow               row = {0};

	if (identity != NULL && identity->arn == NULL)
		report_failure(WARNING, identity);
	result_row_add_text(&row, known ? identity->account : NULL);
	result_row_add_text(&row, known ? identity->arn : NULL);
	result_row_add_text(&row, connector_external_id(GetUserId()));
	PG_RETURN_DATUM(result_row_datum(fcinfo, &row));
}

/* -------------------------------------------------------------- policies */

static Datum
jsonb_of(char *json)
{
	return DirectFunctionCall1(jsonb_in, CStringGetDatum(json));
}

/* The arguments of iam_policy, which are named and checked as create_connector's. */
enum
{
	POLICY_ARG_BUCKET,
	POLICY_ARG_KIND,
	POLICY_ARG_FOLDER_PATH,
	POLICY_ARG_REGION,
	POLICY_ARG_KMS_KEY_ID,
	POLICY_ARG_ACL,
	POLICY_ARG_TAGS
};

Datum
s3export_iam_policy(PG_FUNCTION_ARGS)
{
	Connector  *connector = palloc0(sizeof(Connector));
	char       *region = args_text(fcinfo, POLICY_ARG_REGION);
	char       *folder = args_text(fcinfo, POLICY_ARG_FOLDER_PATH);
	PolicyScope scope = {0};

	args_set_bucket(connector, args_required_text(fcinfo, POLICY_ARG_BUCKET, "bucket"));
	args_set_kind(connector, args_required_text(fcinfo, POLICY_ARG_KIND, "kind"));
	if (folder != NULL)
		args_set_folder_path(connector, folder);
	if (region != NULL)
		args_set_region(connector, region);
	args_set_rights(connector, fcinfo, POLICY_ARG_KMS_KEY_ID);

	scope.partition = aws_names_region_partition(connector->s3.region);
	scope.bucket = connector->s3.bucket;
	scope.need_delete = connector->kind == CONNECTOR_DATA_EXPORT;
	scope.sets_acl = connector->s3.acl != NULL;
	scope.sets_tags = connector->s3.tags != NULL;
	scope.kms_key_id = connector->s3.kms_key_id;
	PG_RETURN_DATUM(jsonb_of(iam_policy_for_connector(&scope, connector->folder_path)));
}

Datum
s3export_trust_policy(PG_FUNCTION_ARGS)
{
	const UploaderIdentity *identity = ask_identity(fcinfo, ERROR);
	char                   *principal;

	if (identity->arn == NULL)
		report_failure(ERROR, identity);
	principal = iam_policy_principal(identity->arn);
	if (strcmp(principal, identity->arn) != 0)
		ereport(NOTICE, (errmsg("the base identity is a session of role \"%s\"", principal),
						 errhint("If the role has a path, such as \"role/service/name\", write it "
								 "into the policy's principal: STS does not tell it.")));
	PG_RETURN_DATUM(jsonb_of(iam_policy_for_trust(principal, connector_external_id(GetUserId()))));
}
