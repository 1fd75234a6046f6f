/*-------------------------------------------------------------------------
 *
 * s3_xml.c
 *	  Single values out of the XML that S3 and STS answer with.
 *
 * The documents come from the network.  expat would expand entities that a
 * document type declares, so parsing stops at such a declaration, which no
 * answer of S3 has.  The handlers only write into memory reserved beforehand:
 * nothing that could leave them by longjmp is called while expat is on the
 * stack.
 *
 *-------------------------------------------------------------------------
 */
#ifndef FRONTEND
#include "postgres.h"
#else
#include "postgres_fe.h"
#endif

#include <expat.h>

#include "base/s3_xml.h"

typedef struct XmlSearch
{
	XML_Parser  parser;
	const char *path;       /* what is left of it below the elements matched */
	int         depth;      /* of the element being read; the root is 1 */
	int         matched;    /* so many elements from the root are on the path */
	int         components; /* of the path */
	bool        found;      /* the element has begun */
	bool        closed;     /* and ended */
	bool        stopped;    /* the document is not acceptable */
	char       *text;
	size_t      text_len;
	size_t      text_size;
} XmlSearch;

static int
count_components(const char *path)
{
	int n = 1;

	for (; *path; path++)
		n += (*path == '/');
	return n;
}

/* The beginning of the path's nth component, counted from 0. */
static const char *
path_component(const char *path, int n)
{
	while (n-- > 0)
		path = strchr(path, '/') + 1;
	return path;
}

static bool
component_is(const char *component, const char *name)
{
	size_t      len = strcspn(component, "/");
	const char *colon = strchr(name, ':');

	if (colon != NULL)
		name = colon + 1;
	return strlen(name) == len && memcmp(component, name, len) == 0;
}

static void
stop_parser(XmlSearch *search)
{
	search->stopped = true;
	XML_StopParser(search->parser, XML_FALSE);
}

static void XMLCALL
on_start(void *arg, const XML_Char *name, const XML_Char **attributes)
{
	XmlSearch *search = arg;

	(void) attributes;
	if (++search->depth > S3_XML_MAX_DEPTH)
	{
		stop_parser(search);
		return;
	}
	if (search->found || search->matched != search->depth - 1 ||
		!component_is(path_component(search->path, search->matched), name))
		return;
	search->matched++;
	search->found = (search->matched == search->components);
}

static void XMLCALL
on_end(void *arg, const XML_Char *name)
{
	XmlSearch *search = arg;

	(void) name;
	if (search->depth == search->components && search->found)
		search->closed = true;
	if (!search->found && search->matched == search->depth)
		search->matched--;
	search->depth--;
}

static void XMLCALL
on_text(void *arg, const XML_Char *text, int len)
{
	XmlSearch *search = arg;

	if (!search->found || search->closed || search->depth != search->components)
		return;
	if (search->text_len + len >= search->text_size)
	{
		stop_parser(search);
		return;
	}
	memcpy(search->text + search->text_len, text, len);
	search->text_len += len;
}

static void XMLCALL
on_doctype(void *arg, const XML_Char *name, const XML_Char *sysid, const XML_Char *pubid,
		   int has_internal_subset)
{
	(void) name;
	(void) sysid;
	(void) pubid;
	(void) has_internal_subset;
	stop_parser(arg);
}

static bool
run_parser(XmlSearch *search, const char *xml, size_t len)
{
	bool ok;

	search->parser = XML_ParserCreate(NULL);
	if (search->parser == NULL)
		return false;
	XML_SetUserData(search->parser, search);
	XML_SetElementHandler(search->parser, on_start, on_end);
	XML_SetCharacterDataHandler(search->parser, on_text);
	XML_SetStartDoctypeDeclHandler(search->parser, on_doctype);
	ok = XML_Parse(search->parser, xml, (int) len, XML_TRUE) == XML_STATUS_OK;
	XML_ParserFree(search->parser);
	return ok && !search->stopped;
}

char *
s3_xml_find(const char *xml, size_t len, const char *path)
{
	XmlSearch search = {.path = path, .components = count_components(path)};

	if (xml == NULL || len > S3_XML_MAX_LEN)
		return NULL;

	/* S3 keeps a slow CompleteMultipartUpload's connection alive with it. */
	while (len > 0 && (*xml == ' ' || *xml == '\t' || *xml == '\r' || *xml == '\n'))
	{
		xml++;
		len--;
	}

	/* No encoding that expat knows takes more than twice the room in UTF-8. */
	search.text_size = 2 * len + 1;
	search.text = palloc(search.text_size);
	if (!run_parser(&search, xml, len) || !search.found)
	{
		pfree(search.text);
		return NULL;
	}
	search.text[search.text_len] = '\0';
	return search.text;
}

bool
s3_xml_root_is(const char *xml, size_t len, const char *name)
{
	char *text = s3_xml_find(xml, len, name);

	if (text == NULL)
		return false;
	pfree(text);
	return true;
}
