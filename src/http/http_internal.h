/*-------------------------------------------------------------------------
 *
 * http_internal.h
 *	  Single HTTP exchanges, side by side, over libcurl.  For http.c only.
 *
 *-------------------------------------------------------------------------
 */
#ifndef HTTP_INTERNAL_H
#define HTTP_INTERNAL_H

#include "http/http.h"

typedef struct HttpWire HttpWire;
typedef struct Exchange Exchange;

/* All that libcurl owns is freed when the current memory context is reset. */
extern HttpWire *http_wire_open(const HttpOptions *options);

/*
 * Begins an exchange, which moves on in http_wire_run.  It reads the request's body
 * until it is finished, and nothing of "attempt" once this has returned.  That
 * it could not begin is told like any other failure, by http_wire_finished.
 */
extern Exchange *http_wire_send(HttpWire *wire, const HttpRequest *request, HttpAttempt *attempt,
								bool fresh_connection, void *owner);

/*
 * Waits at most "timeout" ms (-1: for ever) until http_wire_run has something to do
 * or the process latch is set, which is reset then.
 */
extern void http_wire_wait(HttpWire *wire, long timeout, uint32 wait_event);
extern void http_wire_run(HttpWire *wire);

/* Has a new exchange, or a timer, work for http_wire_run that waits for nothing? */
extern bool http_wire_is_due(HttpWire *wire);

/* The owner of an exchange that is finished and was not told yet; NULL: none. */
extern void *http_wire_finished(HttpWire *wire);

/* Finishes an exchange as timed out, for the reason "error". */
extern void exchange_stop(Exchange *exchange, const char *error);

/* Bytes of its body that were sent, a measure of progress. */
extern int64 exchange_sent(Exchange *exchange);

/* What a finished exchange brought; points into the exchange. */
extern void exchange_response(Exchange *exchange, HttpResponse *response);

/* Did it fail for want of file descriptors? */
extern bool exchange_out_of_files(const Exchange *exchange);

/* Ends an exchange, finished or not, and overwrites what it held. */
extern void exchange_free(Exchange *exchange);

/* The time that a Date header tells; 0: it is malformed. */
extern time_t http_wire_parse_date(const char *value);

#endif /* HTTP_INTERNAL_H */
