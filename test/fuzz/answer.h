/*-------------------------------------------------------------------------
 *
 * answer.h
 *	  Answers of a hostile server, as http_wire.c hands them on.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ANSWER_H
#define ANSWER_H

#include "fuzz.h"

#include "http/http.h"

/*
 * The rest of the input is an answer in the form that it has on the wire, cut
 * off in the middle where "cut".  Without a status line no answer came.
 */
extern HttpResponse *answer_read(FuzzInput *input, bool cut);

/* A client of which only the clock is used. */
extern HttpClient *answer_client(void);

#endif /* ANSWER_H */
