/*-------------------------------------------------------------------------
 *
 * http.h
 *	  HTTP requests side by side: submit, drive, retry.
 *
 * A request is described once and sent as often as it takes.  Before each
 * attempt its "prepare" writes the URL and the headers anew, since a signature
 * is bound to a time, a region and a set of credentials; after each attempt its
 * "judge" says whether the answer is final.  Only then "done" is called.
 * The three run in the ordinary flow of the process, within http_drive and
 * never inside libcurl, so they may palloc (in the context that http_drive was
 * called in); they must not raise errors and must not drive.  They may submit
 * and cancel requests, their own included.
 *
 *-------------------------------------------------------------------------
 */
#ifndef HTTP_H
#define HTTP_H

#include "lib/stringinfo.h"

#include "http/address.h"

typedef struct HttpClient  HttpClient;
typedef struct HttpRequest HttpRequest;

typedef struct HttpOptions
{
	int         connect_timeout; /* ms, name resolution and TLS included */
	int         retry_timeout;   /* ms of retries without any request getting through; 0: none */
	int         max_connections; /* requests sent at once */
	const char *ca_file;         /* NULL or "": libcurl's default */
	const char *proxy;           /* NULL or "": none, whatever the environment says */
} HttpOptions;

/* Valid until "judge" or "done", which it was given to, returns. */
typedef struct HttpResponse
{
	int         status;          /* 0: no answer came */
	const char *transport_error; /* what went wrong on the way, in words; NULL: nothing */
	bool        transport_final; /* it will not go away by itself (certificate, address) */
	bool        exhausted;       /* we had no memory or file descriptor left for it */
	bool        stalled;         /* it was given up, as stall_timeout says */
	bool        unsent;          /* no byte of the request has left, so it has no effect */
	const char *body;            /* NUL-terminated, "" if there is none; at most 1 MiB is kept */
	size_t      body_len;
	bool        truncated;         /* there was more, or the end is missing */
	int         attempts;          /* this one included */
	const StringInfoData *headers; /* "name: value\n" each, names in lower case */
} HttpResponse;

/* The value of a header, palloc'd; NULL: there was none. */
extern char *http_header(const HttpResponse *response, const char *name);

/* The server's clock as its Date header tells it; 0: it does not. */
extern time_t http_date(const HttpResponse *response);

/*
 * A status that proxies, firewalls and portals refuse with, too, whatever has been
 * asked for.  The body tells whether it was the service.
 */
extern bool http_is_refusal(int status);

/* What an answer says of itself, palloc'd: "\"text/html\" from \"squid/5.7\"". */
extern char *http_describe(const HttpResponse *response);

/* What prepare fills in for one attempt; wiped and freed by http.c. */
typedef struct HttpAttempt
{
	StringInfoData url;
	StringInfoData headers; /* "name: value\n" each */
} HttpAttempt;

typedef enum HttpReadiness
{
	HTTP_SEND,
	HTTP_NOT_YET, /* asked again soon: credentials are being renewed */
	HTTP_GIVE_UP  /* judge is asked, with status 0 and prepare's reason */
} HttpReadiness;

/*
 * Retries end when no request got through for retry_timeout ms, and those of
 * HTTP_RETRY_NOW after three in a row; "done" has the last answer then.
 */
typedef enum HttpVerdict
{
	HTTP_DONE,            /* final, good or bad */
	HTTP_RETRY,           /* a passing fault: with back-off */
	HTTP_RETRY_THROTTLED, /* the server asks for less: slower, fewer at once */
	HTTP_RETRY_NOW        /* prepare will do it differently (region, clock, token) */
} HttpVerdict;

struct HttpRequest
{
	const char   *method;
	const char   *body; /* must stay until "done"; NULL: none; prepare may replace it */
	size_t        body_len;
	int           timeout;       /* ms for one attempt; 0: none */
	int           stall_timeout; /* ms without progress; 0: none */
	AddressPolicy addresses;     /* that it may go to */
	bool          direct;        /* past the proxy, on a connection that nothing else uses */
	HttpReadiness (*prepare)(HttpRequest *request, HttpAttempt *attempt, const char **reason);
	HttpVerdict (*judge)(HttpRequest *request, const HttpResponse *response);
	void (*done)(HttpRequest *request, const HttpResponse *response);
	void *arg;      /* the caller's */
	void *internal; /* http.c's own; zero before the first use */
};

/*
 * The client's libcurl and epoll handles are released when the current
 * memory context is reset, whichever way that happens.
 */
extern HttpClient *http_open(const HttpOptions *options);

/*
 * The request must stay until "done" was called or http_cancel returned, which
 * calls nothing and is harmless when the request is not under way.  "done" may
 * submit its request again.
 */
extern void http_submit(HttpClient *client, HttpRequest *request);
extern void http_cancel(HttpClient *client, HttpRequest *request);

/*
 * Works on what is due and returns; with nothing due, waits at most "timeout"
 * ms (-1: for ever, 0: not at all) for sockets, back-offs or the process latch.
 * Returns without waiting when a request came to its end.  Resets the latch if
 * it waited; always checks for interrupts and calls the watch, once.  What the
 * server asks of all processes (barriers) is done even with interrupts held.
 */
extern void http_drive(HttpClient *client, long timeout);

/* Submits and drives until "done"; cancels the request if an error is raised. */
extern void http_perform(HttpClient *client, HttpRequest *request);

/* Has a request that failed by a passing fault been given up, as its time was over? */
extern bool http_has_given_up(const HttpClient *client);

/* Requests submitted and not done. */
extern int http_active(HttpClient *client);

/* Called once in each http_drive; may raise an error.  NULL: none. */
extern void http_set_watch(HttpClient *client, void (*watch)(void *arg), void *arg);

typedef struct HttpWait
{
	int  sending;  /* requests under way */
	long retry_in; /* ms until one that failed is sent again; -1: others are under way,
					* or none has failed */
	int  retries;  /* so far, of all requests */
} HttpWait;

/*
 * Called before each wait of http_drive; returns the wait event to be shown, 0
 * for the client's own.  NULL: none.
 */
extern void
http_set_waits(HttpClient *client, uint32 (*waits)(void *arg, const HttpWait *wait), void *arg);

/*
 * The time by the servers' clocks, as far as their difference to ours is
 * known: learnt by whoever sees RequestTimeTooSkewed.
 */
extern time_t http_now(HttpClient *client);
extern void   http_set_clock(HttpClient *client, time_t server_time);

/* The versions of libcurl and of its TLS library, palloc'd. */
extern char *http_version(void);

#endif /* HTTP_H */
