/*-------------------------------------------------------------------------
 *
 * tap.h
 *	  Unit tests that print TAP, for modules that need no server.
 *
 *-------------------------------------------------------------------------
 */
#ifndef TAP_H
#define TAP_H

/* One test, "ok N - name" or "not ok N - name".  Returns "condition". */
extern bool ok(bool condition, const char *name, ...) pg_attribute_printf(2, 3);

/* Are both equal, or both NULL?  Prints them when not. */
extern bool
is(const char *got, const char *expected, const char *name, ...) pg_attribute_printf(3, 4);

extern void skip(const char *name, const char *reason);

/* Prints the plan; returns the exit status, which says whether all tests passed. */
extern int done_testing(void);

#endif /* TAP_H */
