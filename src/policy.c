/*-------------------------------------------------------------------------
 *
 * policy.c
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

#include "policy.h"

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
append_resource(StringInfo buf, const char *partition, const char *bucket)
{
	appendStringInfo(buf, "\"Resource\": \"arn:%s:s3:::", partition);
	append_literal(buf, bucket);
}

char *
policy_for_connector(const char *bucket, const char *folder, bool need_delete)
{
	StringInfoData buf;

	initStringInfo(&buf);
	appendStringInfoString(&buf, "{\"Version\": \"2012-10-17\", \"Statement\": ["
								 "{\"Effect\": \"Allow\", "
								 "\"Action\": [\"s3:ListBucket\", \"s3:GetBucketLocation\"], ");
	append_resource(&buf, "aws", bucket);
	appendStringInfo(&buf,
					 "\"}, {\"Effect\": \"Allow\", \"Action\": [\"s3:PutObject\", "
					 "\"s3:GetObject\", %s\"s3:AbortMultipartUpload\"], ",
					 need_delete ? "\"s3:DeleteObject\", " : "");
	append_resource(&buf, "aws", bucket);
	appendStringInfoChar(&buf, '/');
	if (folder != NULL && folder[0])
	{
		append_literal(&buf, folder);
		appendStringInfoChar(&buf, '/');
	}
	appendStringInfoString(&buf, "*\"}]}");
	return buf.data;
}

char *
policy_for_trust(const char *principal_arn, const char *external_id)
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
policy_for_session(const char *partition, const char *bucket, const char *key, bool kms)
{
	StringInfoData buf;

	initStringInfo(&buf);
	appendStringInfoString(&buf, "{\"Version\": \"2012-10-17\", \"Statement\": ["
								 "{\"Effect\": \"Allow\", \"Action\": \"s3:ListBucket\", ");
	append_resource(&buf, partition, bucket);
	appendStringInfoString(&buf, "\"}, {\"Effect\": \"Allow\", \"Action\": [\"s3:PutObject\", "
								 "\"s3:GetObject\", \"s3:AbortMultipartUpload\"], ");
	append_resource(&buf, partition, bucket);
	appendStringInfoChar(&buf, '/');
	append_literal(&buf, key);
	appendStringInfoString(&buf, "\"}");
	if (kms)
		appendStringInfoString(&buf,
							   ", {\"Effect\": \"Allow\", \"Action\": [\"kms:GenerateDataKey\", "
							   "\"kms:Decrypt\"], \"Resource\": \"*\"}");
	appendStringInfoString(&buf, "]}");
	return buf.len > MAX_SESSION_POLICY ? NULL : buf.data;
}
