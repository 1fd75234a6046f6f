/*-------------------------------------------------------------------------
 *
 * message.c
 *	  How values are written into messages between our own processes.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/compat.h"
#include "base/message.h"

static void
put_bytes(StringInfo buf, const void *value, size_t len)
{
	appendBinaryStringInfo(buf, value, (int) len);
}

static void
get_bytes(StringInfo buf, void *value, size_t len)
{
	if (len > (size_t) (buf->len - buf->cursor))
		elog(ERROR, "message is too short");
	memcpy(value, buf->data + buf->cursor, len);
	buf->cursor += (int) len;
}

void
message_put_int64(StringInfo buf, int64 value)
{
	put_bytes(buf, &value, sizeof(value));
}

int64
message_get_int64(StringInfo buf)
{
	int64 value;

	get_bytes(buf, &value, sizeof(value));
	return value;
}

void
message_put_bytes(StringInfo buf, const void *value, size_t len)
{
	message_put_int64(buf, value != NULL ? (int64) len : -1);
	if (value != NULL)
		put_bytes(buf, value, len);
}

static void *
get_counted(StringInfo buf)
{
	int64 len = message_get_int64(buf);
	void *value;

	if (len < 0)
		return NULL;
	/* Before memory is asked for. */
	if (len > buf->len - buf->cursor)
		elog(ERROR, "message is too short");
	value = palloc(len);
	get_bytes(buf, value, (size_t) len);
	return value;
}

void
message_put_string(StringInfo buf, const char *value)
{
	message_put_bytes(buf, value, value != NULL ? strlen(value) + 1 : 0);
}

char *
message_get_string(StringInfo buf)
{
	return get_counted(buf);
}

static void
put_bytea(StringInfo buf, const bytea *value)
{
	message_put_bytes(buf, value, value != NULL ? VARSIZE(value) : 0);
}

static void
put_strings(StringInfo buf, const List *strings)
{
	ListCell *cell;

	message_put_int64(buf, list_length(strings));
	foreach (cell, strings)
		message_put_string(buf, lfirst(cell));
}

static List *
get_strings(StringInfo buf)
{
	List *strings = NIL;

	for (int64 left = message_get_int64(buf); left > 0; left--)
		strings = lappend(strings, message_get_string(buf));
	return strings;
}

static size_t
size_of(MessageType type)
{
	static const size_t sizes[] = {
		[MESSAGE_BOOL] = sizeof(bool),
		[MESSAGE_CHAR] = sizeof(char),
		[MESSAGE_INT] = sizeof(int),
		[MESSAGE_INT64] = sizeof(int64),
	};

	return sizes[type];
}

void
message_put_members(StringInfo buf, const void *value, const MessageMember *members, size_t count)
{
	for (size_t i = 0; i < count; i++)
	{
		const char *member = (const char *) value + members[i].offset;

		if (members[i].type == MESSAGE_STRING)
			message_put_string(buf, *(char *const *) member);
		else if (members[i].type == MESSAGE_BYTEA)
			put_bytea(buf, *(bytea *const *) member);
		else if (members[i].type == MESSAGE_STRINGS)
			put_strings(buf, *(List *const *) member);
		else
			put_bytes(buf, member, size_of(members[i].type));
	}
}

void
message_get_members(StringInfo buf, void *value, const MessageMember *members, size_t count)
{
	for (size_t i = 0; i < count; i++)
	{
		char *member = (char *) value + members[i].offset;

		if (members[i].type == MESSAGE_STRING)
			*(char **) member = message_get_string(buf);
		else if (members[i].type == MESSAGE_BYTEA)
			*(bytea **) member = get_counted(buf);
		else if (members[i].type == MESSAGE_STRINGS)
			*(List **) member = get_strings(buf);
		else
			get_bytes(buf, member, size_of(members[i].type));
	}
}
