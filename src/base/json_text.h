/*-------------------------------------------------------------------------
 *
 * json_text.h
 *	  Single strings out of the JSON that metadata services answer with.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JSON_TEXT_H
#define JSON_TEXT_H

/* Answers that are longer or nested deeper are treated as not well-formed. */
#define JSON_TEXT_MAX_LEN (64 * 1024)
#define JSON_TEXT_MAX_DEPTH 32

/*
 * The string that an object has under "name" at its top level, in UTF-8,
 * palloc'd; the first if there are several.  NULL when there is none or the
 * text is not one well-formed object (RFC 8259).
 */
extern char *json_text_find(const char *json, size_t len, const char *name);

#endif /* JSON_TEXT_H */
