/*-------------------------------------------------------------------------
 *
 * iam_policy.h
 *	  IAM documents: what a connector needs, who may assume its role.
 *
 * https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies.html
 *
 *-------------------------------------------------------------------------
 */
#ifndef IAM_POLICY_H
#define IAM_POLICY_H

/*
 * All results are JSON, palloc'd.  Names are taken literally: what IAM would
 * read as a wildcard or a variable is escaped.
 */

typedef struct PolicyScope
{
	const char *partition; /* of the bucket, "aws" */
	const char *bucket;
	bool        need_delete;
	bool        sets_acl;
	bool        sets_tags;
	bool        uses_kms;
	const char *kms_key_id; /* key ID, ARN or alias; NULL: AWS's own key, which needs no right */
} PolicyScope;

/* For the user or role of a connector; "folder" NULL or "": the whole bucket. */
extern char *iam_policy_for_connector(const PolicyScope *scope, const char *folder);

/* For the role of a connector: who may assume it, with which external ID. */
extern char *iam_policy_for_trust(const char *principal_arn, const char *external_id);

/*
 * For the session of one export: its role's rights, narrowed to one object, or
 * with "is_prefix" to those whose keys begin with "key".
 * NULL when the document would be longer than AssumeRole takes.
 */
extern char *iam_policy_for_session(const PolicyScope *scope, const char *key, bool is_prefix);

/*
 * The ARN that a trust policy names for who signs as "caller_arn": a session of
 * a role stands for its role.  STS does not tell the path of that role.
 */
extern char *iam_policy_principal(const char *caller_arn);

#endif /* IAM_POLICY_H */
