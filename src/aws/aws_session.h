/*-------------------------------------------------------------------------
 *
 * aws_session.h
 *	  Keys that may have an end, and the ways to get them.
 *
 *-------------------------------------------------------------------------
 */
#ifndef AWS_SESSION_H
#define AWS_SESSION_H

#include "aws/refusal_codes.h"
#include "aws/sigv4.h"
#include "http/http.h"

/* Keys with an end far away, further than any that a service gives. */
#define SESSION_NO_END ((time_t) PG_INT64_MAX)

typedef struct Session
{
	MemoryContext    context; /* holds this too; overwrites the secrets when it goes */
	SigV4Credentials keys;
	char            *arn;   /* of the assumed role, as AWS names it; NULL: unknown */
	time_t           since; /* by our clock, as is the next */
	time_t           until;
} Session;

/*
 * Copies the values, and "arn" unless it is NULL.  NULL when a key is missing or
 * malformed: what a service sent must not put headers of its own into requests.
 */
extern Session *
aws_session_create(MemoryContext parent, const SigV4Credentials *keys, const char *arn);

/*
 * "expiration" is by the server's clock, like "2026-11-22T11:25:45Z" with any number
 * of decimals; "server_now" tells that clock.  False when it is no time, or over.
 */
extern bool aws_session_set_end(Session *session, const char *expiration, time_t server_now);

extern void aws_session_free(Session *session);

/* Why there are no keys; texts are ASCII and hold no secret. */
typedef struct CredentialFailure
{
	int         status; /* HTTP status, 0: no answer */
	int         attempts;
	const char *service; /* that was asked: "STS", "the instance metadata service" */
	const char *action;  /* what it was asked for: "sts:AssumeRole", "credentials" */
	const char *code;    /* of the service, NULL: none */
	const char *message;
	const char *request_id; /* NULL: none */
	const char *hint;       /* what to do about it, NULL: nothing is known */
	Refusal     refusal;    /* of the credentials, in the service's own words */
	bool        foreign;    /* the answer is not the service's */
} CredentialFailure;

/* One line in ASCII, of bounded length, palloc'd. */
extern char *aws_session_clean_text(const char *text);

/*
 * A way to get a session, by requests of its own.  "fetch" returns at once;
 * "done" is called when it is over, in http_drive, with the session, a child of
 * "context", or with NULL and the reason, which stays until the next fetch.
 */
typedef struct SessionSource SessionSource;

struct SessionSource
{
	MemoryContext context;
	const char   *what; /* "the session of role \"...\"" */
	void (*fetch)(SessionSource *source);

	/* set by whoever wants the session, before "fetch" */
	bool brief; /* a few attempts at most: there is something to fall back on */
	void (*done)(void *arg, Session *session, const CredentialFailure *failure);
	void *arg;
};

/* So many attempts are a few. */
#define SESSION_BRIEF_ATTEMPTS 3

#endif /* AWS_SESSION_H */
