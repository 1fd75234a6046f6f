/*-------------------------------------------------------------------------
 *
 * files_internal.h
 *	  What the files of the files module share.
 *
 *-------------------------------------------------------------------------
 */
#ifndef FILES_INTERNAL_H
#define FILES_INTERNAL_H

#include "lib/ilist.h"
#include "utils/hsearch.h"

#include "aws/sigv4.h"
#include "s3/upload.h"
#include "uploader/files.h"

typedef struct Partition Partition;
typedef struct File      File;

struct File
{
	JobFile    row;
	Partition *partition;
	Upload    *upload;
	dlist_node node; /* of the small or the open files */
	Files     *files;
	File      *next; /* to appear when this one has; NULL: none */

	CompressFile   compressed;
	SigV4Hash     *hash; /* of what has left memory; NULL: none */
	char           sha256[SIGV4_SHA256_HEX_LEN + 1];
	bool           ended;
	bool           small;
	StringInfoData bytes; /* of a small one */

	/* what is sent as a whole: of an object, the manifest too, and of small files; NULL: nothing */
	const char *data;
	size_t      len;
};

struct Partition
{
	const char *folder;      /* the hash table's key; NULL: there are no partitions */
	int         files;       /* so far */
	File       *open;        /* NULL: none */
	char       *description; /* NULL: none */
};

struct Files
{
	FilesOptions   options;
	MemoryContext  context;
	HttpClient    *http;
	UploadPool    *pool;
	StringInfoData header;

	HTAB      *partitions; /* NULL: there is one */
	Partition  whole;      /* that one */
	dlist_head small;      /* kept in memory */
	size_t     kept;       /* bytes of memory that they take */
	size_t     may_keep;
	dlist_head open; /* parts of them are sent; used last is first */
	int        nopen;
	int        max_open;
	File      *current; /* written last; NULL: none */

	List *objects;     /* of File, in the order in which they came */
	List *list;        /* of File, in the order of their numbers */
	File *manifest;    /* NULL: none */
	char *description; /* of the whole; NULL: none */
	bool  completing;
};

#endif /* FILES_INTERNAL_H */
