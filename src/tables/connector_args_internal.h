/*-------------------------------------------------------------------------
 *
 * connector_args_internal.h
 *	  Errors about arguments, for the files of this module.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CONNECTOR_ARGS_INTERNAL_H
#define CONNECTOR_ARGS_INTERNAL_H

#include "tables/connector_args.h"

/* "value" is NULL where it could be a secret, or hold one. */
extern void args_invalid_value(const char *argument, const char *value, const char *what_is_right);

/* Nothing where "what_is_right" is NULL. */
extern void args_require(const char *argument, const char *value, const char *what_is_right);

extern void args_null_value(const char *argument);

#endif /* CONNECTOR_ARGS_INTERNAL_H */
