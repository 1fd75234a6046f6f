/*-------------------------------------------------------------------------
 *
 * aws_config.c
 *	  Profiles in AWS's shared config and credentials files.
 *
 * The files are read as AWS's own command line reads them: settings may be
 * indented, and what is indented deeper than the setting before it belongs to
 * that one.
 *
 *-------------------------------------------------------------------------
 */
#ifndef FRONTEND
#include "postgres.h"
#else
#include "postgres_fe.h"
#endif

#include "aws/aws_config.h"

#define SPACE " \t\r"

/* One line, without what is around it. */
typedef struct Line
{
	const char *start;
	int         len;
	int         indent;
} Line;

static void
trim_line(Line *line)
{
	while (line->len > 0 && strchr(SPACE, line->start[0]) != NULL)
	{
		line->start++;
		line->len--;
	}
	while (line->len > 0 && strchr(SPACE, line->start[line->len - 1]) != NULL)
		line->len--;
}

/* Returns what comes after the line; NULL: there was none. */
static const char *
next_line(const char *text, Line *line)
{
	int len = (int) strcspn(text, "\n");

	if (*text == '\0')
		return NULL;
	line->start = text;
	line->len = len;
	line->indent = (int) strspn(text, SPACE);
	trim_line(line);
	return text[len] == '\n' ? text + len + 1 : text + len;
}

static bool
is_comment(const Line *line)
{
	return line->len == 0 || line->start[0] == '#' || line->start[0] == ';';
}

static bool
line_equals(const Line *line, const char *text)
{
	return (size_t) line->len == strlen(text) && memcmp(line->start, text, line->len) == 0;
}

/*
 * Is the header "[...]" that of the profile?  The config file has "profile NAME"
 * for all but the default one, the credentials file the bare name.
 */
static bool
begins_profile(Line header, const char *name, bool is_config)
{
	static const char prefix[] = "profile";
	const int         prefix_len = sizeof(prefix) - 1;
	const char       *end = memchr(header.start, ']', header.len);

	if (end == NULL)
		return false;
	header.start++;
	header.len = (int) (end - header.start);
	trim_line(&header);
	if (is_config && header.len > prefix_len && memcmp(header.start, prefix, prefix_len) == 0 &&
		strchr(SPACE, header.start[prefix_len]) != NULL)
	{
		header.start += prefix_len;
		header.len -= prefix_len;
		trim_line(&header);
	}
	else if (is_config && strcmp(name, "default") != 0)
		return false;
	if (header.len >= 2 && header.start[0] == header.start[header.len - 1] &&
		(header.start[0] == '"' || header.start[0] == '\''))
	{
		header.start++;
		header.len -= 2;
	}
	return line_equals(&header, name);
}

/* "name = value" into both; a comment may follow after white space. */
static bool
split_setting(const Line *line, Line *name, Line *value)
{
	const char *sign = memchr(line->start, '=', line->len);

	if (sign == NULL)
		return false;
	*name = (Line){.start = line->start, .len = (int) (sign - line->start)};
	*value = (Line){.start = sign + 1, .len = (int) (line->start + line->len - sign - 1)};
	trim_line(name);
	for (int i = 0; i < value->len - 1; i++)
		if (strchr(SPACE, value->start[i]) && strchr("#;", value->start[i + 1]))
			value->len = i;
	trim_line(value);
	return true;
}

/*
 * The last of equal settings wins, as with AWS's own tools.  A setting that we do not support is
 * noted: whoever needs the profile refuses it.
 */
static void
set_member(AwsProfile *profile, const Line *name, const Line *value)
{
	const struct
	{
		const char *name;
		char      **value;
	} settings[] = {
		{"aws_access_key_id", &profile->access_key_id},
		{"aws_secret_access_key", &profile->secret_access_key},
		{"aws_session_token", &profile->session_token},
		{"role_arn", &profile->role_arn},
		{"source_profile", &profile->source_profile},
		{"credential_source", &profile->credential_source},
		{"web_identity_token_file", &profile->web_identity_token_file},
		{"external_id", &profile->external_id},
		{"role_session_name", &profile->role_session_name},
		{"duration_seconds", &profile->duration_seconds},
		{"region", &profile->region},
	};
	static const char *const unsupported[] = {"credential_process", "sso_session", "sso_start_url",
											  "mfa_serial", "login_session"};

	for (size_t i = 0; i < lengthof(settings); i++)
	{
		if (line_equals(name, settings[i].name))
			*settings[i].value = value->len > 0 ? pnstrdup(value->start, value->len) : NULL;
	}
	for (size_t i = 0; i < lengthof(unsupported); i++)
	{
		if (line_equals(name, unsupported[i]))
			profile->unsupported = pstrdup(unsupported[i]);
	}
}

/*
 * Reads the settings of one profile.  A line that is indented more than the setting before it
 * belongs to a nested setting, and is skipped.
 */
static void
read_file(const char *text, const char *name, bool is_config, AwsProfile *profile)
{
	bool inside = false;
	int  indent = -1; /* of the last setting; -1: there was none */
	Line line;

	if (strncmp(text, "\xEF\xBB\xBF", 3) == 0)
		text += 3;
	while ((text = next_line(text, &line)) != NULL)
	{
		Line key;
		Line value;

		if (is_comment(&line) || (indent >= 0 && line.indent > indent))
			continue;
		if (line.start[0] == '[')
		{
			inside = begins_profile(line, name, is_config);
			profile->exists |= inside;
			indent = -1;
		}
		else if (split_setting(&line, &key, &value))
		{
			indent = line.indent;
			if (inside)
				set_member(profile, &key, &value);
		}
	}
}

void
aws_config_read(const char *config, const char *credentials, const char *name, AwsProfile *profile)
{
	AwsProfile keys;

	memset(profile, 0, sizeof(*profile));
	if (config != NULL)
		read_file(config, name, true, profile);
	if (credentials == NULL)
		return;

	/* The three of a key belong together: those of two files are not mixed. */
	keys = *profile;
	keys.access_key_id = keys.secret_access_key = keys.session_token = NULL;
	read_file(credentials, name, false, &keys);
	if (keys.access_key_id == NULL && keys.secret_access_key == NULL)
	{
		keys.access_key_id = profile->access_key_id;
		keys.secret_access_key = profile->secret_access_key;
		keys.session_token = profile->session_token;
	}
	*profile = keys;
}

const char *
aws_config_source(const char *config, const char *credentials, const char *name,
				  const AwsProfile *profile, AwsProfile *source)
{
	aws_config_read(config, credentials, profile->source_profile, source);
	if (!source->exists)
		return psprintf("Profile \"%s\", the source_profile of profile \"%s\", does not exist.",
						profile->source_profile, name);

	/* A role whose own profile has the keys that assume it is no cycle. */
	if (strcmp(profile->source_profile, name) == 0)
	{
		source->role_arn = source->source_profile = NULL;
		if (source->access_key_id == NULL)
			return psprintf("Profile \"%s\" is its own source_profile and has no keys.", name);
		return NULL;
	}
	if (source->source_profile != NULL && strcmp(source->source_profile, name) == 0)
		return psprintf("Profiles \"%s\" and \"%s\" have each other as source_profile.", name,
						profile->source_profile);
	if (source->role_arn != NULL)
		return psprintf("Profile \"%s\", the source_profile of profile \"%s\", has a role_arn "
						"itself; one role after another is not supported.",
						profile->source_profile, name);
	return NULL;
}
