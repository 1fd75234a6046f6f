/*-------------------------------------------------------------------------
 *
 * message.h
 *	  How values are written into messages between our own processes.
 *
 * Both ends run the same library on the same machine, so values travel in the
 * machine's own representation.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MESSAGE_H
#define MESSAGE_H

#include "lib/stringinfo.h"
#include "nodes/pg_list.h"

extern void message_put_int64(StringInfo buf, int64 value);

/* Raises an error when the message is too short, as do all functions that get. */
extern int64 message_get_int64(StringInfo buf);

/* A counted run of bytes; NULL stays NULL. */
extern void message_put_bytes(StringInfo buf, const void *value, size_t len);

/* A string, or NULL.  What is got is palloc'd. */
extern void  message_put_string(StringInfo buf, const char *value);
extern char *message_get_string(StringInfo buf);

/* What a member of a struct is. */
typedef enum MessageType
{
	MESSAGE_BOOL,
	MESSAGE_CHAR,
	MESSAGE_INT,   /* also enums and OIDs */
	MESSAGE_INT64, /* with or without a sign */
	MESSAGE_STRING,
	MESSAGE_BYTEA,
	MESSAGE_STRINGS /* a List of char * */
} MessageType;

typedef struct MessageMember
{
	MessageType type;
	size_t      offset;
} MessageMember;

/* clang-format off */
#define MESSAGE_TYPE_OF(value) \
	_Generic((value), \
		bool: MESSAGE_BOOL, \
		char: MESSAGE_CHAR, \
		int: MESSAGE_INT, \
		unsigned int: MESSAGE_INT, \
		int64: MESSAGE_INT64, \
		uint64: MESSAGE_INT64, \
		char *: MESSAGE_STRING, \
		const char *: MESSAGE_STRING, \
		bytea *: MESSAGE_BYTEA, \
		List *: MESSAGE_STRINGS)
/* clang-format on */

/*
 * Describes one member of a struct, for both directions.  The member's own type decides how it
 * travels; a type that cannot travel does not compile.
 */
#define MESSAGE_MEMBER(structure, member)                                          \
	{                                                                              \
		MESSAGE_TYPE_OF(((structure *) NULL)->member), offsetof(structure, member) \
	}

/*
 * Puts the members of a struct that the array "members" describes, and gets them again.
 * Pointers may be NULL.  Getting leaves all other members of the struct as they are; what it
 * allocates is palloc'd.
 */
#define message_put_struct(buf, value, members) \
	message_put_members(buf, value, members, lengthof(members))
#define message_get_struct(buf, value, members) \
	message_get_members(buf, value, members, lengthof(members))

extern void
message_put_members(StringInfo buf, const void *value, const MessageMember *members, size_t count);
extern void
message_get_members(StringInfo buf, void *value, const MessageMember *members, size_t count);

#endif /* MESSAGE_H */
