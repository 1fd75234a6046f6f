/*-------------------------------------------------------------------------
 *
 * args.h
 *	  The arguments of SQL functions.
 *
 * What is wrong raises an error that names the argument and says what is right.
 * "n" counts the function's arguments from 0.  Strings and lists are palloc'd.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ARGS_H
#define ARGS_H

#include "fmgr.h"
#include "nodes/pg_list.h"

#include "base/compat.h"

/*
 * Raises ERRCODE_INVALID_PARAMETER_VALUE.  "value" is NULL where it could be a secret, or hold
 * one; "what_is_right" is a sentence, the error's detail.
 */
COMPAT_NORETURN extern void
args_invalid_value(const char *argument, const char *value, const char *what_is_right);

/* Raises args_invalid_value's error unless "what_is_right" is NULL. */
extern void args_require(const char *argument, const char *value, const char *what_is_right);

/* Raise ERRCODE_NULL_VALUE_NOT_ALLOWED for an argument, and for an element of an array. */
COMPAT_NORETURN extern void args_null_value(const char *argument);
COMPAT_NORETURN extern void args_null_element(const char *argument);

/* Raises args_null_value's error when the argument is null. */
extern void args_require_not_null(FunctionCallInfo fcinfo, int n, const char *argument);

/* A text; NULL when the argument is null. */
extern char *args_text(FunctionCallInfo fcinfo, int n);

/* A text or a bool that must not be null. */
extern char *args_required_text(FunctionCallInfo fcinfo, int n, const char *argument);
extern bool  args_required_bool(FunctionCallInfo fcinfo, int n, const char *argument);

/* The OID of a role that exists. */
extern Oid args_required_role(FunctionCallInfo fcinfo, int n, const char *argument);

/* The index of the text in "choices", an array that ends with NULL. */
extern int args_required_choice(FunctionCallInfo fcinfo, int n, const char *argument,
								const char *const *choices, const char *what_is_right);

/* The elements of an array of texts, a List of char *; NIL when the argument is null. */
extern List *args_list(FunctionCallInfo fcinfo, int n, const char *argument);

#endif /* ARGS_H */
