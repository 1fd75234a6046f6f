/*-------------------------------------------------------------------------
 *
 * http.c
 *	  HTTP requests side by side: when to send, when to send again, when to
 *	  give up.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <limits.h>
#include <time.h>

#include "common/pg_prng.h"
#include "lib/ilist.h"
#include "miscadmin.h"
#include "storage/procsignal.h"
#include "utils/memutils.h"

#include "base/compat.h"
#include "http/http.h"
#include "http/http_internal.h"

/* A session token fits without the buffer, and a copy of it, moving. */
#define ATTEMPT_BUFFER_SIZE (16 * 1024)

#define BACKOFF_BASE 100            /* ms */
#define BACKOFF_BASE_THROTTLED 1000 /* ms */
#define BACKOFF_CAP 20000           /* ms */
#define NOT_YET_PAUSE 50            /* ms */
#define MAX_RETRIES_NOW 3
#define CLOCK_TOLERANCE 60 /* s */

#define NEVER PG_INT64_MAX

/* A request on its way through its attempts. */
typedef struct Transfer
{
	dlist_node   node;     /* in HttpClient.transfers */
	HttpRequest *request;  /* NULL: done or cancelled */
	Exchange    *exchange; /* what is being sent, or being judged */
	bool         sending;
	int64        due;     /* of the next attempt */
	bool         not_yet; /* what prepare said last */
	uint64       asked;   /* the round in which prepare was asked */
	int          attempts;
	int          failures;      /* in a row, for the back-off */
	int          retries_now;   /* in a row */
	int64        failing_since; /* 0: it did not fail yet */
	bool         fresh_connection;
	int64        sent; /* bytes of the body */
	int64        sent_at;
} Transfer;

struct HttpClient
{
	MemoryContext         context;
	MemoryContextCallback cleanup;
	HttpOptions           options;
	HttpWire             *wire;
	dlist_head            transfers;
	int                   active; /* transfers that have a request */
	int                   sending;
	int                   window;     /* how many may be sent at once */
	int64                 success_at; /* when a request last got through */
	bool                  given_up;   /* one that might have got through later */
	uint64                round;      /* of asking for attempts */
	uint64                ended;      /* how many requests were done so far */
	Transfer             *calling;    /* the one whose prepare or judge is running */
	HttpAttempt           attempt;
	void (*watch)(void *arg);
	void *watch_arg;
	uint32 (*waits)(void *arg, const HttpWait *wait);
	void  *waits_arg;
	int    retries;
	time_t clock_offset;
};


static int64
now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64) now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void
end_exchange(HttpClient *client, Transfer *transfer)
{
	if (transfer->sending)
		client->sending--;
	transfer->sending = false;
	if (transfer->exchange != NULL)
		exchange_free(transfer->exchange);
	transfer->exchange = NULL;
}

/* From here on the request is its owner's again. */
static void
detach_request(HttpClient *client, Transfer *transfer)
{
	transfer->request->internal = NULL;
	transfer->request = NULL;
	client->active--;
}

static void
free_transfer(HttpClient *client, Transfer *transfer)
{
	end_exchange(client, transfer);
	dlist_delete(&transfer->node);
	pfree(transfer);
}

static void
end_transfer(HttpClient *client, Transfer *transfer, const HttpResponse *response)
{
	HttpRequest *request = transfer->request;
	dlist_iter   iter;

	detach_request(client, transfer);
	client->ended++;
	/* What the others wait for may have come with it. */
	dlist_foreach (iter, &client->transfers)
	{
		Transfer *other = dlist_container(Transfer, node, iter.cur);

		if (other->not_yet)
			other->due = 0;
	}
	request->done(request, response);
	free_transfer(client, transfer);
}

/*
 * When to try again after the verdict; NEVER: the last answer stands.
 *
 * The limit is time without anything getting through, not a number of
 * attempts: an export of hours shall survive a minute of faults, and a broken
 * server shall not hold it for long.
 */
static int64
next_attempt(HttpClient *client, Transfer *transfer, HttpVerdict verdict)
{
	int64  now = now_ms();
	int64  give_up_at;
	double backoff;

	if (verdict == HTTP_DONE)
		return NEVER;
	if (verdict == HTTP_RETRY_NOW)
		return ++transfer->retries_now > MAX_RETRIES_NOW ? NEVER : now;
	transfer->retries_now = 0;

	if (transfer->failing_since == 0)
		transfer->failing_since = now;
	give_up_at = Max(transfer->failing_since, client->success_at) + client->options.retry_timeout;
	if (now >= give_up_at)
	{
		client->given_up = true;
		return NEVER;
	}

	/* Full jitter, so that requests that failed together do not come back so. */
	backoff = verdict == HTTP_RETRY_THROTTLED ? BACKOFF_BASE_THROTTLED : BACKOFF_BASE;
	for (int i = 0; i < transfer->failures && backoff < BACKOFF_CAP; i++)
		backoff *= 2;
	transfer->failures++;
	backoff = Min(backoff, BACKOFF_CAP) * pg_prng_double(&pg_global_prng_state);
	return Min(now + (int64) backoff, give_up_at);
}

/* One at a time once a server is overloaded, one more for each success. */
static void
adjust_window(HttpClient *client, HttpVerdict verdict, int status)
{
	if (verdict == HTTP_RETRY_THROTTLED)
		client->window = 1;
	else if (verdict == HTTP_DONE && status / 100 == 2)
	{
		client->window = Min(client->window + 1, client->options.max_connections);
		client->success_at = now_ms();
	}
}

/* Until another request ends, or a little while has passed. */
static void
postpone_transfer(Transfer *transfer)
{
	transfer->not_yet = true;
	transfer->due = now_ms() + NOT_YET_PAUSE;
}

/* Asks judge about an answer, and ends the transfer or schedules a retry. */
static void
settle_answer(HttpClient *client, Transfer *transfer, const HttpResponse *response)
{
	HttpRequest *request = transfer->request;
	HttpVerdict  verdict;

	client->calling = transfer;
	verdict = request->judge(request, response);
	client->calling = NULL;
	if (transfer->request == NULL)
	{
		free_transfer(client, transfer);
		return;
	}

	adjust_window(client, verdict, response->status);
	transfer->due = next_attempt(client, transfer, verdict);
	if (transfer->due == NEVER)
	{
		end_transfer(client, transfer, response);
		return;
	}
	client->retries++;
	elog(DEBUG1, "attempt %d of HTTP %s ended with status %d%s%s, next in %d ms",
		 response->attempts, request->method, response->status,
		 response->transport_error != NULL ? ", " : "",
		 response->transport_error != NULL ? response->transport_error : "",
		 (int) Max(transfer->due - now_ms(), 0));
	/* Another connection may meet another of the service's machines. */
	transfer->fresh_connection = verdict != HTTP_RETRY_NOW;
	end_exchange(client, transfer);
}

static void
give_up(HttpClient *client, Transfer *transfer, const char *reason)
{
	StringInfoData none = {.data = ""};
	HttpResponse response = {.headers = &none, .body = "", .transport_final = true, .unsent = true};

	response.transport_error = reason != NULL ? reason : "the request could not be prepared";
	response.attempts = transfer->attempts;
	settle_answer(client, transfer, &response);
}

static void
begin_attempt(HttpClient *client, Transfer *transfer)
{
	transfer->exchange = http_wire_send(client->wire, transfer->request, &client->attempt,
										transfer->fresh_connection, transfer);
	transfer->sending = true;
	client->sending++;
	transfer->attempts++;
	transfer->sent = 0;
	transfer->sent_at = now_ms();
}

/* Asks prepare for the next attempt, and begins it. */
static void
prepare_and_begin(HttpClient *client, Transfer *transfer)
{
	HttpAttempt  *attempt = &client->attempt;
	HttpRequest  *request = transfer->request;
	const char   *reason = NULL;
	HttpReadiness readiness;

	transfer->asked = client->round;
	transfer->not_yet = false;
	resetStringInfo(&attempt->url);
	resetStringInfo(&attempt->headers);

	client->calling = transfer;
	readiness = request->prepare(request, attempt, &reason);
	client->calling = NULL;

	if (transfer->request == NULL)
		free_transfer(client, transfer);
	else if (readiness == HTTP_SEND)
		begin_attempt(client, transfer);
	else if (readiness == HTTP_GIVE_UP)
		give_up(client, transfer, reason);
	else
		postpone_transfer(transfer);
	explicit_bzero(attempt->headers.data, attempt->headers.maxlen);
}

static bool
is_waiting(const Transfer *transfer)
{
	return transfer->request != NULL && transfer->exchange == NULL;
}

/*
 * Begins the attempts that are due.  The search starts over after each, since
 * callbacks may change the list; nobody is asked twice in a round.
 */
static void
begin_due(HttpClient *client)
{
	int64     now = now_ms();
	Transfer *next;

	client->round++;
	do
	{
		dlist_iter iter;

		next = NULL;
		dlist_foreach (iter, &client->transfers)
		{
			Transfer *transfer = dlist_container(Transfer, node, iter.cur);

			if (is_waiting(transfer) && transfer->due <= now && transfer->asked != client->round)
			{
				next = transfer;
				break;
			}
		}
		if (next != NULL && client->sending < client->window)
			prepare_and_begin(client, next);
		else
			next = NULL;
	} while (next != NULL);
}

/*
 * Ends exchanges that make no progress.  libcurl's own low-speed limit is an
 * average that reacts late.  Bytes count as sent once the kernel has taken
 * them: what it still holds for a slow peer delays the finding.  The answer has
 * to be whole in that time: its bytes, one now and then, could hold an export
 * for days.
 */
static void
end_stalled(HttpClient *client)
{
	int64      now = now_ms();
	dlist_iter iter;

	dlist_foreach (iter, &client->transfers)
	{
		Transfer *transfer = dlist_container(Transfer, node, iter.cur);
		int64     sent;

		if (!transfer->sending || transfer->request->stall_timeout == 0)
			continue;
		sent = exchange_sent(transfer->exchange);
		if (sent != transfer->sent)
		{
			transfer->sent = sent;
			transfer->sent_at = now;
		}
		else if (now - transfer->sent_at >= transfer->request->stall_timeout)
		{
			bool whole = sent >= (int64) transfer->request->body_len;
			char error[64];

			snprintf(error, sizeof(error),
					 whole ? "no answer %d ms after all was sent" : "no progress for %d ms",
					 transfer->request->stall_timeout);
			exchange_stop(transfer->exchange, error);
		}
	}
}

/*
 * An exchange that found no file descriptor was never sent: fewer exchanges run at a time from
 * then on.
 */
static void
settle_finished(HttpClient *client)
{
	Transfer *transfer;

	while ((transfer = http_wire_finished(client->wire)) != NULL)
	{
		HttpResponse response;

		transfer->sending = false;
		client->sending--;
		if (exchange_out_of_files(transfer->exchange) && client->sending > 0)
		{
			/* Nothing was sent, and there is something to wait for. */
			client->window = Min(client->window, client->sending);
			transfer->attempts--;
			end_exchange(client, transfer);
			postpone_transfer(transfer);
			continue;
		}
		exchange_response(transfer->exchange, &response);
		response.attempts = transfer->attempts;
		settle_answer(client, transfer, &response);
	}
}

/* How long nothing of ours can be due, at most "timeout"; -1: for ever. */
static long
time_to_wait(HttpClient *client, long timeout)
{
	int64      now = now_ms();
	int64      until = timeout < 0 ? NEVER : now + timeout;
	dlist_iter iter;

	dlist_foreach (iter, &client->transfers)
	{
		Transfer *transfer = dlist_container(Transfer, node, iter.cur);

		if (transfer->sending)
		{
			if (transfer->request->stall_timeout > 0)
				until = Min(until, transfer->sent_at + transfer->request->stall_timeout);
		}
		else if (is_waiting(transfer) && client->sending < client->window)
			until = Min(until, transfer->due);
	}
	if (until == NEVER)
		return -1;
	return (long) Min(Max(until - now, 0), INT_MAX);
}

/* How long until something that failed is tried again, if that is all there is to do. */
static long
time_to_retry(HttpClient *client)
{
	int64      due = NEVER;
	dlist_iter iter;

	if (client->sending > 0)
		return -1;
	dlist_foreach (iter, &client->transfers)
	{
		Transfer *transfer = dlist_container(Transfer, node, iter.cur);

		if (is_waiting(transfer) && transfer->failing_since != 0)
			due = Min(due, transfer->due);
	}
	return due == NEVER ? -1 : (long) Min(Max(due - now_ms(), 0), INT_MAX);
}

static void
wait_for_events(HttpClient *client, long timeout)
{
	static uint32 store_event = 0;
	static uint32 retry_event = 0;
	HttpWait      wait = {
			 .sending = client->sending, .retry_in = time_to_retry(client), .retries = client->retries};
	uint32 event = 0;

	if (client->waits != NULL)
		event = client->waits(client->waits_arg, &wait);
	if (event == 0)
		event = wait.retry_in >= 0 ? compat_wait_event(retry_event, "S3exportRetry")
								   : compat_wait_event(store_event, "S3exportStore");
	http_wire_wait(client->wire, timeout, event);
}

void
http_drive(HttpClient *client, long timeout)
{
	uint64 ended = client->ended;

	client->calling = NULL; /* what an error may have left */
	begin_due(client);
	if (timeout != 0 && client->ended == ended)
		wait_for_events(client, time_to_wait(client, timeout));
	CHECK_FOR_INTERRUPTS();
	/* Whoever holds interrupts back while requests end must not keep all others waiting. */
	if (ProcSignalBarrierPending)
		ProcessProcSignalBarrier();
	if (client->watch != NULL)
		client->watch(client->watch_arg);

	/* Twice, so that what takes the place of something finished connects. */
	for (int turn = 0; turn < 2; turn++)
	{
		http_wire_run(client->wire);
		end_stalled(client);
		settle_finished(client);
		begin_due(client);
		if (!http_wire_is_due(client->wire))
			break;
	}
}

void
http_submit(HttpClient *client, HttpRequest *request)
{
	Transfer *transfer = MemoryContextAllocZero(client->context, sizeof(Transfer));

	Assert(request->internal == NULL);
	transfer->request = request;
	request->internal = transfer;
	dlist_push_tail(&client->transfers, &transfer->node);
	client->active++;
}

void
http_cancel(HttpClient *client, HttpRequest *request)
{
	Transfer *transfer = request->internal;

	if (transfer == NULL)
		return;
	detach_request(client, transfer);
	/* If its own callback cancels, it is freed once that has returned. */
	if (transfer != client->calling)
		free_transfer(client, transfer);
}

void
http_perform(HttpClient *client, HttpRequest *request)
{
	http_submit(client, request);
	PG_TRY();
	{
		while (request->internal != NULL)
			http_drive(client, -1);
	}
	PG_CATCH();
	{
		http_cancel(client, request);
		PG_RE_THROW();
	}
	PG_END_TRY();
}

bool
http_has_given_up(const HttpClient *client)
{
	return client->given_up;
}

int
http_active(HttpClient *client)
{
	return client->active;
}

void
http_set_watch(HttpClient *client, void (*watch)(void *arg), void *arg)
{
	client->watch = watch;
	client->watch_arg = arg;
}

void
http_set_waits(HttpClient *client, uint32 (*waits)(void *arg, const HttpWait *wait), void *arg)
{
	client->waits = waits;
	client->waits_arg = arg;
}

static void
wipe_attempt(void *arg)
{
	HttpClient *client = arg;

	explicit_bzero(client->attempt.headers.data, client->attempt.headers.maxlen);
}

static char *
copy_setting(const char *value)
{
	return value != NULL && value[0] != '\0' ? pstrdup(value) : NULL;
}

HttpClient *
http_open(const HttpOptions *options)
{
	HttpClient *client = palloc0(sizeof(HttpClient));

	client->context = CurrentMemoryContext;
	client->options = *options;
	client->options.max_connections = Max(options->max_connections, 1);
	client->options.ca_file = copy_setting(options->ca_file);
	client->options.proxy = copy_setting(options->proxy);
	client->window = client->options.max_connections;
	dlist_init(&client->transfers);

	initStringInfo(&client->attempt.url);
	initStringInfo(&client->attempt.headers);
	enlargeStringInfo(&client->attempt.headers, ATTEMPT_BUFFER_SIZE);
	client->cleanup.func = wipe_attempt;
	client->cleanup.arg = client;
	MemoryContextRegisterResetCallback(client->context, &client->cleanup);

	client->wire = http_wire_open(&client->options);
	return client;
}

char *
http_header(const HttpResponse *response, const char *name)
{
	size_t      len = strlen(name);
	const char *end;

	for (const char *line = response->headers->data; *line != '\0'; line = end + 1)
	{
		end = strchr(line, '\n');
		if (pg_strncasecmp(line, name, len) == 0 && line[len] == ':')
		{
			const char *value = line + len + 2;

			return pnstrdup(value, end - value);
		}
	}
	return NULL;
}

bool
http_is_refusal(int status)
{
	switch (status)
	{
		case 302: /* to a page where to log in */
		case 303:
		case 401:
		case 403:
		case 407: /* Proxy Authentication Required */
		case 511: /* Network Authentication Required */
			return true;
		default:
			return false;
	}
}

char *
http_describe(const HttpResponse *response)
{
	char          *type = http_header(response, "content-type");
	char          *server = http_header(response, "server");
	StringInfoData buf;

	initStringInfo(&buf);
	if (type != NULL)
		appendStringInfo(&buf, "\"%.100s\"", type);
	else
		appendStringInfoString(&buf, response->body_len == 0 ? "empty" : "of no type");
	if (server != NULL)
		appendStringInfo(&buf, " from \"%.100s\"", server);
	return buf.data;
}

time_t
http_date(const HttpResponse *response)
{
	char  *value = http_header(response, "date");
	time_t date = 0;

	if (value != NULL)
	{
		date = http_wire_parse_date(value);
		pfree(value);
	}
	return date;
}

time_t
http_now(HttpClient *client)
{
	return time(NULL) + client->clock_offset;
}

void
http_set_clock(HttpClient *client, time_t server_time)
{
	time_t offset = server_time - time(NULL);

	if (labs((long) (offset - client->clock_offset)) > CLOCK_TOLERANCE)
		ereport(LOG, (errmsg("the clock of this server is %ld seconds %s that of the service",
							 labs((long) offset), offset > 0 ? "behind" : "ahead of"),
					  errdetail("Requests are signed with the service's time."),
					  errhint("Correct the clock of this server.")));
	client->clock_offset = offset;
}
