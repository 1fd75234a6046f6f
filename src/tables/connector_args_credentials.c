/*-------------------------------------------------------------------------
 *
 * connector_args_credentials.c
 *	  Arguments that are credentials: keys, files of keys, roles.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "catalog/pg_authid.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "utils/acl.h"
#include "utils/builtins.h"

#include "base/args.h"
#include "aws/aws_names.h"
#include "base/guc.h"
#include "base/secret.h"
#include "tables/connector_args.h"

/* Room for a secret and a session token of the greatest length, and line ends. */
#define MAX_SECRET_FILE (17 * 1024)

static char *
secret_text(FunctionCallInfo fcinfo, int n)
{
	char *plain = args_text(fcinfo, n);
	char *copy;

	if (plain == NULL)
		return NULL;
	copy = secret_strdup(CurrentMemoryContext, plain);
	secret_wipe(plain);
	pfree(plain);
	return copy;
}

/* ----------------------------------------------------------------- files */

/* Only who may read any file of the server's may say which one holds a secret. */
static void
require_read_privilege(void)
{
	if (!has_privs_of_role(GetUserId(), ROLE_PG_READ_SERVER_FILES))
		ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
						errmsg("permission denied to read a secret from a file"),
						errdetail("Only superusers and members of role \"%s\" can use argument "
								  "\"%s\".",
								  "pg_read_server_files", "secret_file")));
}

static void
refuse_file(const char *path, const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("file \"%s\" cannot be used as secret_file", path), errdetail("%s", detail),
			 errhint("Its first line is the secret access key, its second line, if there is "
					 "one, the session token.")));
}

/*
 * The whole file, NUL-terminated, into "buf" of MAX_SECRET_FILE + 1 bytes.  A
 * pipe would be waited for without an end, so it is opened without waiting.
 */
static void
read_file(const char *path, char *buf)
{
	int         fd = OpenTransientFile(path, O_RDONLY | O_NONBLOCK | PG_BINARY);
	struct stat status;
	ssize_t     len = 0;
	ssize_t     n = 0;

	if (fd < 0)
		ereport(ERROR, (errcode_for_file_access(), errmsg("could not open file \"%s\": %m", path)));
	if (fstat(fd, &status) != 0)
		ereport(ERROR, (errcode_for_file_access(), errmsg("could not stat file \"%s\": %m", path)));
	if (!S_ISREG(status.st_mode))
		refuse_file(path, "It is not a regular file.");
	while (len <= MAX_SECRET_FILE && (n = read(fd, buf + len, MAX_SECRET_FILE + 1 - len)) > 0)
		len += n;
	if (n < 0)
	{
		int save_errno = errno;

		explicit_bzero(buf, MAX_SECRET_FILE + 1);
		errno = save_errno;
		ereport(ERROR, (errcode_for_file_access(), errmsg("could not read file \"%s\": %m", path)));
	}
	CloseTransientFile(fd);
	if (len > MAX_SECRET_FILE)
	{
		explicit_bzero(buf, MAX_SECRET_FILE + 1);
		refuse_file(path, "It is too long.");
	}
	buf[len] = '\0';
	if (strlen(buf) < (size_t) len)
	{
		explicit_bzero(buf, MAX_SECRET_FILE + 1);
		refuse_file(path, "It is not text.");
	}
}

/* Cuts a line off the text, without its end. */
static char *
next_line(char **text)
{
	char  *line = *text;
	size_t len = strcspn(line, "\n");

	*text = line + len + (line[len] != '\0' ? 1 : 0);
	line[len] = '\0';
	if (len > 0 && line[len - 1] == '\r')
		line[len - 1] = '\0';
	return line;
}

/* An error says what is wrong with the file, and nothing of what is in it. */
static void
read_secret_file(CredentialArgs *args, const char *path)
{
	char       *buf;
	char       *rest;
	char       *secret;
	char       *token;
	const char *wrong;

	require_read_privilege();
	if (!is_absolute_path(path))
		args_invalid_value("secret_file", path, "It is an absolute path.");
	buf = palloc0(MAX_SECRET_FILE + 1);
	read_file(path, buf);
	rest = buf;
	secret = next_line(&rest);
	token = next_line(&rest);

	if (*rest != '\0')
		wrong = "It has more than two lines.";
	else if ((wrong = aws_names_check_secret(secret)) == NULL && *token != '\0')
		wrong = aws_names_check_session_token(token);
	if (wrong == NULL)
	{
		args->secret_access_key = secret_strdup(CurrentMemoryContext, secret);
		if (*token != '\0')
			args->session_token = secret_strdup(CurrentMemoryContext, token);
	}
	explicit_bzero(buf, MAX_SECRET_FILE + 1);
	pfree(buf);
	if (wrong != NULL)
		refuse_file(path, wrong);
}

/* ------------------------------------------------------------------ keys */

static void
refuse_both(const char *one, const char *other, const char *detail)
{
	ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					errmsg("arguments \"%s\" and \"%s\" exclude each other", one, other),
					errdetail("%s", detail)));
}

static void
require_both(const char *present, const char *missing)
{
	ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					errmsg("argument \"%s\" requires argument \"%s\"", present, missing),
					errdetail("A secret key has an access_key_id and a secret_access_key; "
							  "temporary ones have a session_token too.")));
}

/* The secret and the token from their arguments or from their file. */
static void
read_secret(CredentialArgs *args, FunctionCallInfo fcinfo, int first)
{
	static const char detail[] = "The file holds the secret access key and the session token.";
	char             *path = args_text(fcinfo, first + 3);

	args->access_key_id = secret_text(fcinfo, first);
	args->secret_access_key = secret_text(fcinfo, first + 1);
	args->session_token = secret_text(fcinfo, first + 2);
	if (path == NULL)
		return;
	if (args->secret_access_key != NULL)
		refuse_both("secret_access_key", "secret_file", detail);
	if (args->session_token != NULL)
		refuse_both("session_token", "secret_file", detail);
	if (args->access_key_id == NULL)
		require_both("secret_file", "access_key_id");
	read_secret_file(args, path);
}

/* No value is shown: they get mixed up. */
static void
check_keys(const CredentialArgs *args)
{
	args_require("access_key_id", NULL, aws_names_check_access_key_id(args->access_key_id));
	args_require("secret_access_key", NULL, aws_names_check_secret(args->secret_access_key));
	if (args->session_token != NULL)
		args_require("session_token", NULL, aws_names_check_session_token(args->session_token));
}

void
args_read_keys(CredentialArgs *args, FunctionCallInfo fcinfo, int first)
{
	memset(args, 0, sizeof(*args));
	if (PG_ARGISNULL(first))
		args_null_value("access_key_id");
	if (PG_ARGISNULL(first + 1) && PG_ARGISNULL(first + 3))
		args_null_value("secret_access_key");
	read_secret(args, fcinfo, first);
	check_keys(args);
}

/* The first of the arguments that make keys which is given; NULL: none. */
static const char *
key_argument(FunctionCallInfo fcinfo, int first)
{
	static const char *const names[] = {"access_key_id", "secret_access_key", "session_token",
										"secret_file"};

	for (size_t i = 0; i < lengthof(names); i++)
	{
		if (!PG_ARGISNULL(first + i))
			return names[i];
	}
	return NULL;
}

/* Does auth_method say the same as the other arguments, where it is given? */
static void
check_method(const CredentialArgs *args, const char *method, const char *key)
{
	static const char one_way[] =
		"A connector authenticates with a secret key, a role or ambient credentials.";
	const char *other = NULL;

	if (strcmp(method, "secret_key") != 0 && strcmp(method, "role_arn") != 0 && !args->ambient)
		args_invalid_value("auth_method", method,
						   "It is \"secret_key\", \"role_arn\" or \"ambient\".");
	if (args->credentials_from != NULL)
		other = "credentials_from";
	else if (key != NULL && strcmp(method, "secret_key") != 0)
		other = key;
	else if (args->role_arn != NULL && strcmp(method, "role_arn") != 0)
		other = "role_arn";
	if (other != NULL)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("argument \"%s\" does not fit auth_method \"%s\"", other, method),
						errdetail("%s", one_way)));
	if (args->ambient && !guc_allow_ambient_credentials)
		ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
						errmsg("ambient credentials are not allowed"),
						errhint("The server's administrator can allow them with the setting "
								"\"%s\".",
								"s3export.allow_ambient_credentials")));
}

void
args_read_credentials(CredentialArgs *args, FunctionCallInfo fcinfo, int first)
{
	static const char one_way[] =
		"A connector authenticates with a secret key, or with a role, never with both.";
	static const char from[] = "The credentials of another connector are taken whole.";
	const char       *key = key_argument(fcinfo, first);
	const char       *method = args_text(fcinfo, first + 6);

	memset(args, 0, sizeof(*args));
	args->role_arn = args_text(fcinfo, first + 4);
	args->credentials_from = args_text(fcinfo, first + 5);
	args->ambient = method != NULL && strcmp(method, "ambient") == 0;

	if (args->credentials_from != NULL && (key != NULL || args->role_arn != NULL))
		refuse_both(key != NULL ? key : "role_arn", "credentials_from", from);
	if (args->role_arn != NULL && key != NULL)
		refuse_both(key, "role_arn", one_way);
	if (method != NULL)
		check_method(args, method, key);
	if (args->credentials_from != NULL || args->ambient)
		return;
	if (args->role_arn != NULL)
	{
		args_require("role_arn", args->role_arn, aws_names_check_role_arn(args->role_arn));
		return;
	}
	if (key == NULL)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("credentials are missing"),
						errdetail("A connector authenticates with a secret key or with a role."),
						errhint("Give access_key_id and secret_access_key, or role_arn, or "
								"credentials_from.")));
	read_secret(args, fcinfo, first);
	if (args->access_key_id == NULL)
		require_both(key, "access_key_id");
	if (args->secret_access_key == NULL)
		require_both(key, "secret_access_key");
	check_keys(args);
}
