/*-------------------------------------------------------------------------
 *
 * aws_config.h
 *	  Profiles in AWS's shared config and credentials files.
 *
 *-------------------------------------------------------------------------
 */
#ifndef AWS_CONFIG_H
#define AWS_CONFIG_H

/*
 * https://docs.aws.amazon.com/sdkref/latest/guide/file-format.html
 *
 * What a profile says about credentials; all strings are palloc'd, NULL where
 * it says nothing.
 */
typedef struct AwsProfile
{
	bool  exists;
	char *access_key_id;
	char *secret_access_key;
	char *session_token;
	char *role_arn;
	char *source_profile;
	char *credential_source;
	char *web_identity_token_file;
	char *external_id;
	char *role_session_name;
	char *duration_seconds;
	char *region;
	char *unsupported; /* the name of a setting that takes what we do not do */
} AwsProfile;

/*
 * Reads profile "name" out of the text of the two files, each NULL where there
 * is none; what the credentials file says goes first.
 */
extern void
aws_config_read(const char *config, const char *credentials, const char *name, AwsProfile *profile);

/*
 * The profile that serves "profile", of that name, as its source_profile, which
 * may be itself.  Returns NULL, or a sentence that says what is wrong: it is not
 * there, the two form a cycle, or it has a role to assume itself.
 */
extern const char *aws_config_source(const char *config, const char *credentials, const char *name,
									 const AwsProfile *profile, AwsProfile *source);

#endif /* AWS_CONFIG_H */
