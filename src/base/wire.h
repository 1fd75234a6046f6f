/*-------------------------------------------------------------------------
 *
 * wire.h
 *	  How values are written into messages between our own processes.
 *
 *-------------------------------------------------------------------------
 */
#ifndef WIRE_H
#define WIRE_H

#include "lib/stringinfo.h"

static inline void
wire_put(StringInfo buf, const void *value, size_t len)
{
	appendBinaryStringInfo(buf, value, (int) len);
}

static inline void
wire_put_int64(StringInfo buf, int64 value)
{
	wire_put(buf, &value, sizeof(value));
}

/* A counted run of bytes; NULL stays NULL. */
static inline void
wire_put_bytes(StringInfo buf, const void *value, size_t len)
{
	wire_put_int64(buf, value ? (int64) len : -1);
	if (value)
		wire_put(buf, value, len);
}

static inline void
wire_put_string(StringInfo buf, const char *value)
{
	wire_put_bytes(buf, value, value ? strlen(value) + 1 : 0);
}

static inline const char *
wire_take(StringInfo buf, size_t len)
{
	const char *at = buf->data + buf->cursor;

	if (len > (size_t) (buf->len - buf->cursor))
		elog(ERROR, "message is too short");
	buf->cursor += (int) len;
	return at;
}

static inline int64
wire_get_int64(StringInfo buf)
{
	int64 value;

	memcpy(&value, wire_take(buf, sizeof(value)), sizeof(value));
	return value;
}

/* palloc'd; NULL when NULL was put. */
static inline void *
wire_get_bytes(StringInfo buf)
{
	int64 len = wire_get_int64(buf);
	void *value;

	if (len < 0)
		return NULL;
	value = palloc(len);
	memcpy(value, wire_take(buf, (size_t) len), (size_t) len);
	return value;
}

static inline char *
wire_get_string(StringInfo buf)
{
	return wire_get_bytes(buf);
}

#endif /* WIRE_H */
