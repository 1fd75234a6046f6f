/*-------------------------------------------------------------------------
 *
 * json_member.h
 *	  Members of the JSON objects that are written to the store.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JSON_MEMBER_H
#define JSON_MEMBER_H

#include "lib/stringinfo.h"

/* Appends "name": "value", or null, in the encoding of both. */
extern void json_member_append(StringInfo buf, const char *name, const char *value);

#endif /* JSON_MEMBER_H */
