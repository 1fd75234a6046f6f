/*-------------------------------------------------------------------------
 *
 * s3_xml.h
 *	  Single values out of the XML that S3 and STS answer with.
 *
 *-------------------------------------------------------------------------
 */
#ifndef S3_XML_H
#define S3_XML_H

/* Answers that are longer or nested deeper are treated as not well-formed. */
#define S3_XML_MAX_LEN (1024 * 1024)
#define S3_XML_MAX_DEPTH 32

/*
 * The text of the first element at "path" ("Error/Code"), in UTF-8, palloc'd;
 * "" when it is there and empty.  NULL when it is missing or the document is
 * not whole and well-formed, or has a document type declaration.  White space
 * before the document, namespace prefixes, attributes and the text of child
 * elements are ignored.
 */
extern char *s3_xml_find(const char *xml, size_t len, const char *path);

/* Is it a whole, well-formed document whose root element has this name? */
extern bool s3_xml_root_is(const char *xml, size_t len, const char *name);

#endif /* S3_XML_H */
