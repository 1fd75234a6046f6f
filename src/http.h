/*-------------------------------------------------------------------------
 *
 * http.h
 *	  HTTP requests side by side: submit, drive, retry.  The only libcurl user.
 *
 * A request is described once and sent as often as it takes.  Before each
 * attempt its "prepare" writes the URL and the headers anew, since a signature
 * is bound to a time, a region and a set of credentials; after each attempt its
 * "judge" says whether the answer is final.  Only then "done" is called.
 * The three run in the ordinary flow of the process, never inside libcurl, so
 * they may palloc; they must not raise errors.
 *
 *-------------------------------------------------------------------------
 */
#ifndef HTTP_H
#define HTTP_H

#include "lib/stringinfo.h"

typedef struct HttpClient HttpClient;
typedef struct HttpRequest HttpRequest;

typedef struct HttpOptions
{
	int			connect_timeout;	/* ms */
	int			retry_timeout;	/* ms of retries without any request getting through */
	int			max_connections;
	const char *ca_file;		/* NULL: libcurl's default */
	const char *proxy;			/* NULL: none, whatever the environment says */
} HttpOptions;

typedef struct HttpResponse
{
	int			status;			/* 0: no answer came */
	const char *transport_error;	/* what went wrong then, in words; NULL: nothing */
	bool		transport_final;	/* it will not go away by itself (certificate, address) */
	const char *body;			/* NUL-terminated; at most 1 MiB is kept */
	size_t		body_len;
	bool		truncated;		/* there was more, or the end is missing */
	int			attempts;		/* this one included */
	const StringInfoData *headers;	/* "name: value\n" each, names in lower case */
} HttpResponse;

/* The value of a header, palloc'd; NULL: there was none. */
extern char *http_header(const HttpResponse *response, const char *name);

/* What prepare fills in for one attempt; wiped and freed by http.c. */
typedef struct HttpAttempt
{
	StringInfoData url;
	StringInfoData headers;		/* "name: value\n" each */
} HttpAttempt;

typedef enum HttpReadiness
{
	HTTP_SEND,
	HTTP_NOT_YET,				/* ask again soon: credentials are being renewed */
	HTTP_GIVE_UP				/* judge is asked, with status 0 and prepare's reason */
} HttpReadiness;

typedef enum HttpVerdict
{
	HTTP_DONE,					/* final, good or bad */
	HTTP_RETRY,					/* a passing fault: with back-off */
	HTTP_RETRY_THROTTLED,		/* the server asks for less: slower, fewer at once */
	HTTP_RETRY_NOW				/* prepare will do it differently (region, clock, token) */
} HttpVerdict;

struct HttpRequest
{
	const char *method;
	const char *body;			/* must stay until "done"; NULL: none */
	size_t		body_len;
	int			timeout;		/* ms for one attempt; 0: none */
	int			stall_timeout;	/* ms without progress; 0: none */
	bool		local_allowed;	/* may the address be loopback or link-local? */
	HttpReadiness (*prepare) (HttpRequest *request, HttpAttempt *attempt, const char **reason);
	HttpVerdict (*judge) (HttpRequest *request, const HttpResponse *response);
	void		(*done) (HttpRequest *request, const HttpResponse *response);
	void	   *arg;			/* the caller's */
	void	   *internal;		/* http.c's own */
};

/*
 * The client's libcurl and epoll handles are released when the current
 * memory context is reset, whichever way that happens.
 */
extern HttpClient *http_open(const HttpOptions *options);

/* The request must stay until "done" was called or http_cancel returned. */
extern void http_submit(HttpClient *client, HttpRequest *request);
extern void http_cancel(HttpClient *client, HttpRequest *request);

/*
 * Waits at most "timeout" ms (-1: for ever) for sockets, back-offs or the
 * process latch, works on what is due and returns; 0 only works on what is due.
 * Resets the latch and checks for interrupts, and calls the watch, once.
 */
extern void http_drive(HttpClient *client, long timeout);

/* Submits and drives until "done"; raises an error only for interrupts. */
extern void http_perform(HttpClient *client, HttpRequest *request);

/* Requests submitted and not done. */
extern int	http_active(HttpClient *client);

/* Called once in each http_drive; may raise an error.  NULL: none. */
extern void http_set_watch(HttpClient *client, void (*watch) (void *arg), void *arg);

/*
 * Seconds that the servers' clocks are ahead of ours, as far as is known:
 * learnt by whoever sees RequestTimeTooSkewed.
 */
extern time_t http_now(HttpClient *client);
extern void http_set_clock(HttpClient *client, time_t server_time);

#endif							/* HTTP_H */
