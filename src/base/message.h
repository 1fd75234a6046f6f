/*-------------------------------------------------------------------------
 *
 * message.h
 *	  How values are written into messages between our own processes.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MESSAGE_H
#define MESSAGE_H

#include "lib/stringinfo.h"

static inline void
message_put(StringInfo buf, const void *value, size_t len)
{
	appendBinaryStringInfo(buf, value, (int) len);
}

static inline void
message_put_int64(StringInfo buf, int64 value)
{
	message_put(buf, &value, sizeof(value));
}

/* A counted run of bytes; NULL stays NULL. */
static inline void
message_put_bytes(StringInfo buf, const void *value, size_t len)
{
	message_put_int64(buf, value ? (int64) len : -1);
	if (value)
		message_put(buf, value, len);
}

static inline void
message_put_string(StringInfo buf, const char *value)
{
	message_put_bytes(buf, value, value ? strlen(value) + 1 : 0);
}

static inline const char *
message_take(StringInfo buf, size_t len)
{
	const char *at = buf->data + buf->cursor;

	if (len > (size_t) (buf->len - buf->cursor))
		elog(ERROR, "message is too short");
	buf->cursor += (int) len;
	return at;
}

static inline int64
message_get_int64(StringInfo buf)
{
	int64 value;

	memcpy(&value, message_take(buf, sizeof(value)), sizeof(value));
	return value;
}

/* palloc'd; NULL when NULL was put. */
static inline void *
message_get_bytes(StringInfo buf)
{
	int64 len = message_get_int64(buf);
	void *value;

	if (len < 0)
		return NULL;
	value = palloc(len);
	memcpy(value, message_take(buf, (size_t) len), (size_t) len);
	return value;
}

static inline char *
message_get_string(StringInfo buf)
{
	return message_get_bytes(buf);
}

#endif /* MESSAGE_H */
