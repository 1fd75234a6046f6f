/*-------------------------------------------------------------------------
 *
 * aws_session.c
 *	  Keys that may have an end, and the ways to get them.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <time.h>

#include "utils/datetime.h"
#include "utils/memutils.h"

#include "aws/aws_names.h"
#include "aws/aws_session.h"
#include "base/secret.h"

#define MAX_TEXT 1024

static bool
are_well_formed(const SigV4Credentials *keys)
{
	return keys->access_key_id != NULL && keys->secret_access_key != NULL &&
		   aws_names_check_access_key_id(keys->access_key_id) == NULL &&
		   aws_names_check_secret(keys->secret_access_key) == NULL &&
		   (keys->session_token == NULL ||
			aws_names_check_session_token(keys->session_token) == NULL);
}

Session *
aws_session_create(MemoryContext parent, const SigV4Credentials *keys, const char *arn)
{
	MemoryContext context;
	Session      *session;

	if (!are_well_formed(keys))
		return NULL;
	context = AllocSetContextCreate(parent, "s3export session", ALLOCSET_SMALL_SIZES);
	session = MemoryContextAllocZero(context, sizeof(Session));
	session->context = context;
	session->keys.access_key_id = MemoryContextStrdup(context, keys->access_key_id);
	session->keys.secret_access_key = secret_strdup(context, keys->secret_access_key);
	if (keys->session_token != NULL)
		session->keys.session_token = secret_strdup(context, keys->session_token);
	if (arn != NULL)
		session->arn = MemoryContextStrdup(context, arn);
	session->since = time(NULL);
	session->until = SESSION_NO_END;
	return session;
}

/* 0: it is no time. */
static time_t
parse_timestamp(const char *text)
{
	int year;
	int month;
	int day;
	int hour;
	int minute;
	int second;
	int end = 0;

	if (sscanf(text, "%4d-%2d-%2dT%2d:%2d:%2d%n", &year, &month, &day, &hour, &minute, &second,
			   &end) != 6)
		return 0;
	text += end;
	if (*text == '.')
		text += 1 + strspn(text + 1, "0123456789");
	if (strcmp(text, "Z") != 0 || year < 1970 || month < 1 || month > 12 || day < 1 || day > 31 ||
		hour < 0 || hour > 23 || minute < 0 || minute > 59 || second < 0 || second > 60)
		return 0;
	return (time_t) (date2j(year, month, day) - UNIX_EPOCH_JDATE) * SECS_PER_DAY +
		   hour * SECS_PER_HOUR + minute * SECS_PER_MINUTE + second;
}

bool
aws_session_set_end(Session *session, const char *expiration, time_t server_now)
{
	time_t end = expiration != NULL ? parse_timestamp(expiration) : 0;

	/* Of the server's clock only the distance counts. */
	session->until = session->since + (end - server_now);
	return end != 0 && session->until > session->since;
}

void
aws_session_free(Session *session)
{
	MemoryContextDelete(session->context);
}

/*
 * The first line only: those after it in a SignatureDoesNotMatch repeat what
 * was signed, a session token included.
 */
char *
aws_session_clean_text(const char *text)
{
	char *clean = pnstrdup(text, Min(strcspn(text, "\r\n"), MAX_TEXT));

	for (char *p = clean; *p != '\0'; p++)
		if (*p < ' ' || *p > '~')
			*p = '?';
	return clean;
}
