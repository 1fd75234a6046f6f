/*-------------------------------------------------------------------------
 *
 * refusal_codes.h
 *	  The codes with which services refuse credentials.
 *
 *-------------------------------------------------------------------------
 */
#ifndef REFUSAL_CODES_H
#define REFUSAL_CODES_H

/* Who refuses; each has codes of its own, and shares some with others. */
typedef enum RefusingService
{
	REFUSING_S3 = 1 << 0,
	REFUSING_STS = 1 << 1,
	REFUSING_INSTANCE = 1 << 2 /* the instance metadata service */
} RefusingService;

typedef enum Refusal
{
	REFUSAL_NONE,      /* the code says nothing of credentials */
	REFUSAL_EXPIRED,   /* their time is over: renewed ones may do */
	REFUSAL_KEYS,      /* they are not accepted, whatever they ask for */
	REFUSAL_PERMISSION /* they are accepted, and may not do this */
} Refusal;

/*
 * What a code means that the service has put into an error document of its own.
 * A refusal suspends a current, whose oldest events are dropped in the end: a
 * code that is not known is none.
 */
extern Refusal refusal_of(RefusingService service, const char *code);

#endif /* REFUSAL_CODES_H */
