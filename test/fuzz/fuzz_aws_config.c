/*-------------------------------------------------------------------------
 *
 * fuzz_aws_config.c
 *	  Profiles in AWS's files (aws_config.c): values are pieces of single lines, and
 *	  what is written into a file is read from it.
 *
 *-------------------------------------------------------------------------
 */
#include "fuzz.h"

#include "lib/stringinfo.h"

#include "aws/aws_config.h"

static void
check_value(const char *value, const char *config, const char *credentials)
{
	size_t len;

	if (value == NULL)
		return;
	len = strlen(value);
	FUZZ_CHECK(len > 0 && strchr(value, '\n') == NULL);
	FUZZ_CHECK(strchr(" \t\r", value[0]) == NULL && strchr(" \t\r", value[len - 1]) == NULL);
	FUZZ_CHECK((config != NULL && strstr(config, value) != NULL) ||
			   (credentials != NULL && strstr(credentials, value) != NULL));
}

static void
check_profile(const AwsProfile *profile, const char *config, const char *credentials)
{
	const char *const values[] = {
		profile->access_key_id,
		profile->secret_access_key,
		profile->session_token,
		profile->role_arn,
		profile->source_profile,
		profile->credential_source,
		profile->external_id,
		profile->role_session_name,
		profile->web_identity_token_file,
		profile->duration_seconds,
		profile->region,
		profile->unsupported,
	};

	for (size_t i = 0; i < lengthof(values); i++)
	{
		check_value(values[i], config, credentials);
		FUZZ_CHECK(values[i] == NULL || profile->exists);
	}
}

static bool
same(const char *a, const char *b)
{
	return a == b || (a != NULL && b != NULL && strcmp(a, b) == 0);
}

/* The keys of both files together are those of one of them. */
static void
check_keys(const AwsProfile *both, const char *config, const char *credentials, const char *name)
{
	AwsProfile first;
	AwsProfile second;

	aws_config_read(config, NULL, name, &first);
	aws_config_read(NULL, credentials, name, &second);
	FUZZ_CHECK(both->exists == (first.exists || second.exists));
	if (second.access_key_id != NULL || second.secret_access_key != NULL)
		first = second;
	FUZZ_CHECK(same(both->access_key_id, first.access_key_id) &&
			   same(both->secret_access_key, first.secret_access_key) &&
			   same(both->session_token, first.session_token));
}

static void
check_source(const AwsProfile *profile, const char *config, const char *credentials,
			 const char *name)
{
	AwsProfile  source;
	const char *wrong;

	if (profile->source_profile == NULL)
		return;
	wrong = aws_config_source(config, credentials, name, profile, &source);
	check_profile(&source, config, credentials);
	FUZZ_CHECK(wrong != NULL || (source.exists && source.role_arn == NULL));
}

static bool
is_simple(const char *text)
{
	return text[0] != '\0' && strpbrk(text, " \t\r\n[]\"'#;=") == NULL;
}

/* A file of our own, after whatever else there is. */
static void
check_round_trip(const char *before, const char *name, const char *value)
{
	AwsProfile profile;
	char      *file =
		psprintf("%s\n[profile %s]\nrole_arn = %s\nregion=%s # here\n", before, name, value, value);

	/* an unfinished setting takes what is indented deeper, and this is not */
	aws_config_read(file, NULL, name, &profile);
	FUZZ_CHECK(profile.exists && strcmp(profile.role_arn, value) == 0 &&
			   strcmp(profile.region, value) == 0);
}

void
fuzz_one(FuzzInput *input)
{
	char      *name = fuzz_string(input);
	char      *config = fuzz_string(input);
	char      *credentials = fuzz_string(input);
	AwsProfile profile;

	aws_config_read(config, credentials, name, &profile);
	check_profile(&profile, config, credentials);
	check_keys(&profile, config, credentials, name);
	check_source(&profile, config, credentials, name);
	if (is_simple(name) && is_simple(credentials))
		check_round_trip(config, name, credentials);
}
