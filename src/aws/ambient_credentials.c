/*-------------------------------------------------------------------------
 *
 * ambient_credentials.c
 *	  The credentials that the server finds around itself.
 *
 * What is set up halfway is an error and not passed over: the next place might
 * have the credentials of a whole machine, where those of a service were meant.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <pwd.h>
#include <unistd.h>

#include "aws/ambient_credentials.h"
#include "aws/aws_config.h"
#include "aws/aws_names.h"
#include "base/secret.h"
#include "base/text_file.h"

#define MAX_CONFIG_FILE (256 * 1024)
#define CONTAINER_HOST "http://169.254.170.2"
#define INSTANCE_HOST "http://169.254.169.254"
#define INSTANCE_HOST_IPV6 "http://[fd00:ec2::254]"

/* https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html */
#define MIN_DURATION 900
#define MAX_DURATION 43200

/* The two files, each NULL where there is none. */
typedef struct ConfigFiles
{
	char *config;
	char *credentials;
} ConfigFiles;


/* What is wrong is a sentence, without a secret in it. */
static void
raise_unusable(const char *found_in, const char *wrong)
{
	ereport(ERROR,
			(errcode(ERRCODE_CONFIG_FILE_ERROR),
			 errmsg("cannot use the ambient credentials in %s", found_in), errdetail("%s", wrong)));
}

/* Empty ones count as not set, as with AWS's own tools. */
static char *
get_environment(const char *name)
{
	const char *value = getenv(name);

	return value != NULL && *value != '\0' ? pstrdup(value) : NULL;
}

static char *
environment_of_two(const char *first, const char *second)
{
	char *value = get_environment(first);

	return value != NULL ? value : get_environment(second);
}

static void
check_role(const char *found_in, const AmbientRole *role)
{
	const char *wrong = aws_names_check_role_arn(role->role_arn);

	if (wrong == NULL && role->external_id != NULL)
		wrong = aws_names_check_external_id(role->external_id);
	if (wrong != NULL)
		raise_unusable(found_in, wrong);
}


/* ----------------------------------------------------------------
 * The environment
 * ----------------------------------------------------------------
 */

static bool
find_keys(Ambient *ambient)
{
	char *access_key_id = get_environment("AWS_ACCESS_KEY_ID");
	char *secret = get_environment("AWS_SECRET_ACCESS_KEY");

	if (access_key_id == NULL && secret == NULL)
		return false;
	ambient->found_in = "the environment";
	if (access_key_id == NULL || secret == NULL)
		raise_unusable(ambient->found_in,
					   "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY belong together.");
	ambient->kind = AMBIENT_KEYS;
	ambient->keys.access_key_id = access_key_id;
	ambient->keys.secret_access_key = secret;
	ambient->keys.session_token = get_environment("AWS_SESSION_TOKEN");
	return true;
}

static bool
find_web_identity(Ambient *ambient)
{
	ambient->web_identity.role_arn = get_environment("AWS_ROLE_ARN");
	ambient->web_identity.session_name = get_environment("AWS_ROLE_SESSION_NAME");
	ambient->token_file = get_environment("AWS_WEB_IDENTITY_TOKEN_FILE");
	if (ambient->token_file == NULL)
		return false;
	ambient->found_in = "the environment (web identity)";
	ambient->kind = AMBIENT_WEB_IDENTITY;
	if (ambient->web_identity.role_arn == NULL)
		raise_unusable(ambient->found_in, "AWS_WEB_IDENTITY_TOKEN_FILE requires AWS_ROLE_ARN.");
	check_role(ambient->found_in, &ambient->web_identity);
	return true;
}

static bool
find_container(Ambient *ambient)
{
	char *path = get_environment("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI");
	char *url = get_environment("AWS_CONTAINER_CREDENTIALS_FULL_URI");

	if (path == NULL && url == NULL)
		return false;
	ambient->found_in = "the environment (container)";
	ambient->kind = AMBIENT_CONTAINER;
	if (path != NULL && path[0] != '/')
		raise_unusable(ambient->found_in,
					   "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI begins with a slash.");
	ambient->url = path != NULL ? psprintf("%s%s", CONTAINER_HOST, path) : url;
	ambient->token_file = get_environment("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE");
	ambient->token = get_environment("AWS_CONTAINER_AUTHORIZATION_TOKEN");
	return true;
}

/* On any machine there could be one: only asking tells. */
static bool
find_instance(Ambient *ambient)
{
	char *disabled = get_environment("AWS_EC2_METADATA_DISABLED");
	char *mode = get_environment("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE");

	if (disabled != NULL && pg_strcasecmp(disabled, "true") == 0)
		return false;
	ambient->found_in = "the instance metadata service";
	ambient->kind = AMBIENT_INSTANCE;
	ambient->url = get_environment("AWS_EC2_METADATA_SERVICE_ENDPOINT");
	if (ambient->url == NULL)
		ambient->url = pstrdup(mode != NULL && pg_strcasecmp(mode, "IPv6") == 0 ? INSTANCE_HOST_IPV6
																				: INSTANCE_HOST);
	return true;
}


/* ----------------------------------------------------------------
 * Files and their profiles
 * ----------------------------------------------------------------
 */

/* NULL: nobody knows. */
static char *
home_directory(void)
{
	char          *home = get_environment("HOME");
	struct passwd  entry;
	struct passwd *found;
	char           buf[BUFSIZ];

	if (home != NULL)
		return home;
	if (getpwuid_r(geteuid(), &entry, buf, sizeof(buf), &found) != 0 || found == NULL)
		return NULL;
	return pstrdup(entry.pw_dir);
}

/* NULL: there is none, which is an error only where the environment names it. */
static char *
read_config_file(const char *variable, const char *name)
{
	char *path = get_environment(variable);
	char *home = home_directory();
	bool  named = path != NULL;
	char *text;

	if (named && strncmp(path, "~/", 2) == 0 && home != NULL)
		path = psprintf("%s%s", home, path + 1);
	if (!named && home != NULL)
		path = psprintf("%s/.aws/%s", home, name);
	if (path == NULL)
		return NULL;
	text = text_file_read(path, MAX_CONFIG_FILE);
	if (text == NULL && (named || (errno != ENOENT && errno != ENOTDIR && errno != EACCES)))
		ereport(ERROR, (errcode_for_file_access(), errmsg("could not read file \"%s\": %m", path),
						errdetail("It is where AWS's tools look for profiles with credentials.")));
	return text;
}

static void
use_keys(Ambient *ambient, const AwsProfile *profile)
{
	if (profile->access_key_id == NULL || profile->secret_access_key == NULL)
		raise_unusable(
			ambient->found_in,
			profile->unsupported != NULL
				? psprintf("Setting \"%s\" of a profile is not supported.", profile->unsupported)
				: "A profile has aws_access_key_id and aws_secret_access_key, or a role_arn "
				  "with what is needed to assume it.");
	ambient->kind = AMBIENT_KEYS;
	ambient->keys.access_key_id = profile->access_key_id;
	ambient->keys.secret_access_key = profile->secret_access_key;
	ambient->keys.session_token = profile->session_token;
}

/* What credential_source names in place of a profile. */
static void
use_credential_source(Ambient *ambient, const char *credential_source)
{
	const char *found_in = ambient->found_in;
	bool        found;

	if (strcmp(credential_source, "Environment") == 0)
		found = find_keys(ambient);
	else if (strcmp(credential_source, "EcsContainer") == 0)
		found = find_container(ambient);
	else if (strcmp(credential_source, "Ec2InstanceMetadata") == 0)
		found = find_instance(ambient);
	else
	{
		raise_unusable(found_in, "A credential_source is \"Environment\", \"EcsContainer\" or "
								 "\"Ec2InstanceMetadata\".");
		found = false;
	}
	ambient->found_in = found_in;
	if (!found)
		raise_unusable(found_in, psprintf("Its credential_source \"%s\" has no credentials.",
										  credential_source));
}

static int
parse_duration(const char *found_in, const char *value)
{
	char *end;
	long  seconds;

	if (value == NULL)
		return 0;
	errno = 0;
	seconds = strtol(value, &end, 10);
	if (errno != 0 || *end != '\0' || seconds < MIN_DURATION || seconds > MAX_DURATION)
		raise_unusable(found_in, psprintf("A profile's duration_seconds is from %d to %d.",
										  MIN_DURATION, MAX_DURATION));
	return (int) seconds;
}

/* A profile with a role_arn says in one of three ways with which keys the role is assumed. */
static void
use_role(Ambient *ambient, const char *name, const AwsProfile *profile, const ConfigFiles *files)
{
	AmbientRole role = {
		.role_arn = profile->role_arn,
		.session_name = profile->role_session_name,
		.external_id = profile->external_id,
		.duration = parse_duration(ambient->found_in, profile->duration_seconds),
	};
	AwsProfile  source;
	const char *wrong;

	check_role(ambient->found_in, &role);
	if (profile->unsupported != NULL)
		raise_unusable(ambient->found_in, psprintf("Setting \"%s\" of a profile is not supported.",
												   profile->unsupported));
	if ((profile->source_profile != NULL) + (profile->credential_source != NULL) +
			(profile->web_identity_token_file != NULL) !=
		1)
		raise_unusable(ambient->found_in, "A profile with a role_arn has one of source_profile, "
										  "credential_source and web_identity_token_file.");
	if (profile->web_identity_token_file != NULL)
	{
		ambient->kind = AMBIENT_WEB_IDENTITY;
		ambient->web_identity = role;
		ambient->token_file = profile->web_identity_token_file;
		return;
	}
	ambient->role = role;
	if (profile->credential_source != NULL)
	{
		use_credential_source(ambient, profile->credential_source);
		return;
	}
	wrong = aws_config_source(files->config, files->credentials, name, profile, &source);
	if (wrong != NULL)
		raise_unusable(ambient->found_in, wrong);
	use_keys(ambient, &source);
}

static bool
says_nothing(const AwsProfile *profile)
{
	return profile->access_key_id == NULL && profile->secret_access_key == NULL &&
		   profile->role_arn == NULL && profile->unsupported == NULL;
}

/*
 * A profile that somebody has chosen by name must be there.  The profile "default" need not be.
 */
static bool
find_profile(Ambient *ambient)
{
	char       *chosen = environment_of_two("AWS_PROFILE", "AWS_DEFAULT_PROFILE");
	const char *name = chosen != NULL ? chosen : "default";
	ConfigFiles files = {
		.config = read_config_file("AWS_CONFIG_FILE", "config"),
		.credentials = read_config_file("AWS_SHARED_CREDENTIALS_FILE", "credentials"),
	};
	AwsProfile profile;

	aws_config_read(files.config, files.credentials, name, &profile);
	ambient->found_in = psprintf("profile \"%s\"", name);
	if (chosen != NULL && !profile.exists)
		raise_unusable(ambient->found_in,
					   "Neither the config file nor the credentials file has it.");
	if (ambient->region == NULL)
		ambient->region = profile.region;
	if (profile.role_arn != NULL)
		use_role(ambient, name, &profile, &files);
	else if (!says_nothing(&profile))
		use_keys(ambient, &profile);
	text_file_free(files.config);
	text_file_free(files.credentials);
	return !says_nothing(&profile);
}


/* ----------------------------------------------------------------
 * All together
 * ----------------------------------------------------------------
 */

Ambient *
ambient_credentials_find(void)
{
	Ambient *ambient = palloc0(sizeof(Ambient));

	ambient->region = environment_of_two("AWS_REGION", "AWS_DEFAULT_REGION");
	ambient->sts_endpoint_url = environment_of_two("AWS_ENDPOINT_URL_STS", "AWS_ENDPOINT_URL");
	if (!find_keys(ambient) && !find_profile(ambient) && !find_web_identity(ambient) &&
		!find_container(ambient) && !find_instance(ambient))
		ereport(ERROR,
				(errcode(ERRCODE_CONFIG_FILE_ERROR), errmsg("there are no ambient credentials"),
				 errdetail("The server's environment has none, its files have no profile "
						   "with any, and AWS_EC2_METADATA_DISABLED says not to ask for "
						   "those of an instance.")));
	if (ambient->region != NULL && aws_names_check_region(ambient->region) != NULL)
		raise_unusable(ambient->found_in, psprintf("Region \"%s\" is not one.", ambient->region));
	ereport(DEBUG1, (errmsg_internal("ambient credentials are those in %s", ambient->found_in)));
	return ambient;
}

void
ambient_credentials_wipe(Ambient *ambient)
{
	secret_wipe((char *) ambient->keys.secret_access_key);
	secret_wipe((char *) ambient->keys.session_token);
	secret_wipe(ambient->token);
	ambient->keys.secret_access_key = NULL;
	ambient->keys.session_token = NULL;
	ambient->token = NULL;
}
