/*-------------------------------------------------------------------------
 *
 * iam_policy.c
 *	  IAM documents: what a connector needs, who may assume its role.
 *
 *-------------------------------------------------------------------------
 */
#ifndef FRONTEND
#include "postgres.h"
#else
#include "postgres_fe.h"
#endif

#include "lib/stringinfo.h"

#include "aws/iam_policy.h"

/* https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html */
#define MAX_SESSION_POLICY 2048

static void
append_escaped(StringInfo buf, const char *value)
{
	for (const unsigned char *c = (const unsigned char *) value; *c; c++)
	{
		if (*c == '"' || *c == '\\')
			appendStringInfo(buf, "\\%c", *c);
		else if (*c < 0x20)
			appendStringInfo(buf, "\\u%04x", *c);
		else
			appendStringInfoChar(buf, (char) *c);
	}
}

/* A part of a resource's name in which nothing is a pattern. */
static void
append_literal(StringInfo buf, const char *value)
{
	char one[2] = "";

	for (; *value; value++)
	{
		one[0] = *value;
		if (*value == '*' || *value == '?' || *value == '$')
			appendStringInfo(buf, "${%c}", *value);
		else
			append_escaped(buf, one);
	}
}

static void
append_bucket(StringInfo buf, const PolicyScope *scope)
{
	appendStringInfo(buf, "\"Resource\": \"arn:%s:s3:::", scope->partition);
	append_literal(buf, scope->bucket);
}

/* The actions on objects; their resource follows. */
static void
append_object_actions(StringInfo buf, const PolicyScope *scope)
{
	appendStringInfoString(buf, "{\"Effect\": \"Allow\", \"Action\": [\"s3:PutObject\", "
								"\"s3:GetObject\", ");
	if (scope->need_delete)
		appendStringInfoString(buf, "\"s3:DeleteObject\", ");
	appendStringInfoString(buf, "\"s3:AbortMultipartUpload\"");
	if (scope->sets_acl)
		appendStringInfoString(buf, ", \"s3:PutObjectAcl\"");
	if (scope->sets_tags)
		appendStringInfoString(buf, ", \"s3:PutObjectTagging\"");
	appendStringInfoString(buf, "], ");
	append_bucket(buf, scope);
	appendStringInfoChar(buf, '/');
}

/*
 * A policy names keys, not aliases: an alias is a condition on any key there.
 * Parts are encrypted under the key of the whole, which Complete has to read.
 * https://docs.aws.amazon.com/kms/latest/developerguide/alias-authorization.html
 */
static void
append_kms(StringInfo buf, const char *partition, const char *key)
{
	bool        is_arn = strncmp(key, "arn:", 4) == 0;
	const char *alias = NULL;

	if (is_arn)
		alias = strstr(key, ":alias/");
	else if (strncmp(key, "alias/", 6) == 0)
		alias = key;

	appendStringInfoString(buf, ", {\"Effect\": \"Allow\", \"Action\": "
								"[\"kms:GenerateDataKey\", \"kms:Decrypt\"], \"Resource\": \"");
	if (alias != NULL)
	{
		if (is_arn)
			appendStringInfo(buf, "%.*s", (int) (alias - key), key);
		else
			appendStringInfo(buf, "arn:%s:kms:*:*", partition);
		appendStringInfoString(buf, ":key/*\", \"Condition\": {\"ForAnyValue:StringEquals\": "
									"{\"kms:ResourceAliases\": \"");
		append_escaped(buf, is_arn ? alias + 1 : alias);
		appendStringInfoString(buf, "\"}}}");
		return;
	}
	if (!is_arn)
		appendStringInfo(buf, "arn:%s:kms:*:*:key/", partition);
	append_literal(buf, key);
	appendStringInfoString(buf, "\"}");
}

char *
iam_policy_for_connector(const PolicyScope *scope, const char *folder)
{
	StringInfoData buf;

	initStringInfo(&buf);
	appendStringInfoString(&buf, "{\"Version\": \"2012-10-17\", \"Statement\": ["
								 "{\"Effect\": \"Allow\", "
								 "\"Action\": [\"s3:ListBucket\", \"s3:GetBucketLocation\"], ");
	append_bucket(&buf, scope);
	appendStringInfoString(&buf, "\"}, ");
	append_object_actions(&buf, scope);
	if (folder != NULL && folder[0])
	{
		append_literal(&buf, folder);
		appendStringInfoChar(&buf, '/');
	}
	appendStringInfoString(&buf, "*\"}");
	if (scope->kms_key_id != NULL)
		append_kms(&buf, scope->partition, scope->kms_key_id);
	appendStringInfoString(&buf, "]}");
	return buf.data;
}

char *
iam_policy_for_trust(const char *principal_arn, const char *external_id)
{
	StringInfoData buf;

	initStringInfo(&buf);
	appendStringInfoString(&buf, "{\"Version\": \"2012-10-17\", \"Statement\": ["
								 "{\"Effect\": \"Allow\", \"Principal\": {\"AWS\": \"");
	append_escaped(&buf, principal_arn);
	appendStringInfoString(&buf, "\"}, \"Action\": \"sts:AssumeRole\", "
								 "\"Condition\": {\"StringEquals\": {\"sts:ExternalId\": \"");
	append_escaped(&buf, external_id);
	appendStringInfoString(&buf, "\"}}}]}");
	return buf.data;
}

char *
iam_policy_for_session(const PolicyScope *scope, const char *key, bool is_prefix)
{
	StringInfoData buf;

	initStringInfo(&buf);
	appendStringInfoString(&buf, "{\"Version\": \"2012-10-17\", \"Statement\": ["
								 "{\"Effect\": \"Allow\", \"Action\": \"s3:ListBucket\", ");
	append_bucket(&buf, scope);
	appendStringInfoString(&buf, "\"}, ");
	append_object_actions(&buf, scope);
	append_literal(&buf, key);
	appendStringInfoString(&buf, is_prefix ? "*\"}" : "\"}");
	if (scope->uses_kms)
		appendStringInfoString(&buf,
							   ", {\"Effect\": \"Allow\", \"Action\": [\"kms:GenerateDataKey\", "
							   "\"kms:Decrypt\"], \"Resource\": \"*\"}");
	appendStringInfoString(&buf, "]}");
	return buf.len > MAX_SESSION_POLICY ? NULL : buf.data;
}

/* arn:aws:sts::account:assumed-role/role/session to arn:aws:iam::account:role/role */
char *
iam_policy_principal(const char *caller_arn)
{
	const char *sts = strstr(caller_arn, ":sts::");
	const char *role = strstr(caller_arn, ":assumed-role/");
	const char *name;

	if (sts == NULL || role == NULL || role < sts)
		return pstrdup(caller_arn);
	name = role + strlen(":assumed-role/");
	return psprintf("%.*s:iam::%.*s:role/%.*s", (int) (sts - caller_arn), caller_arn,
					(int) (role - sts - strlen(":sts::")), sts + strlen(":sts::"),
					(int) strcspn(name, "/"), name);
}
