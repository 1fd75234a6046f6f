/*-------------------------------------------------------------------------
 *
 * policy.h
 *	  IAM documents: what a connector needs, who may assume its role.
 *
 * https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies.html
 *
 *-------------------------------------------------------------------------
 */
#ifndef POLICY_H
#define POLICY_H

/*
 * All results are JSON, palloc'd.  Names are taken literally: what IAM would
 * read as a wildcard or a variable is escaped.
 */

/* For the user or role of a connector; "folder" NULL or "": the whole bucket. */
extern char *policy_for_connector(const char *bucket, const char *folder, bool need_delete);

/* For the role of a connector: who may assume it, with which external ID. */
extern char *policy_for_trust(const char *principal_arn, const char *external_id);

/*
 * For the session of one export: its role's rights, narrowed to one object.
 * "partition" is that of the role's ARN ("aws").  NULL when the document
 * would be longer than AssumeRole takes.
 */
extern char *
policy_for_session(const char *partition, const char *bucket, const char *key, bool kms);

#endif /* POLICY_H */
