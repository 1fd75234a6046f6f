/*-------------------------------------------------------------------------
 *
 * object_path.h
 *	  The paths of an export's files: placeholders, numbers, Hive's folders.
 *
 * Paths are in any encoding that a server can have; nothing here looks
 * anything up or reports an error, and results are palloc'd.
 *
 *-------------------------------------------------------------------------
 */
#ifndef S3EXPORT_PATH_H
#define S3EXPORT_PATH_H

#include <time.h>

#include "lib/stringinfo.h"

/* For errhint. */
#define PATH_PLACEHOLDERS                                                                          \
	"Placeholders are {yyyy}, {mm}, {dd}, {hh}, {mi}, {ss} (UTC), {job}, {part} and {connector}; " \
	"a brace that is one is written twice."

/* Hive's name of the folder for NULL and for the empty string. */
#define PATH_HIVE_NULL "__HIVE_DEFAULT_PARTITION__"

typedef struct PathFields
{
	time_t      started;
	const char *job;
	const char *connector;
	int         part; /* the file's number, from 1 */
} PathFields;

/* NULL when the placeholders are right, else a sentence that says what is not. */
extern const char *object_path_check(const char *path);

/* Does object_path_expand put the job's id into it? */
extern bool object_path_names_job(const char *path);

/*
 * The format of files, other than CSV and what CSV can be compressed with, that the
 * extension of a path's name stands for, such as "parquet"; NULL: none.
 */
extern const char *object_path_foreign_format(const char *path);

/*
 * Fills in the placeholders of a path that object_path_check found right.  Where it
 * has no {part}, "_part2" and so on goes before the extension of all files but
 * the first.
 */
extern char *object_path_expand(const char *path, const PathFields *fields);

/*
 * The name with .manifest.json in place of the extension, and with a "_" before it: many
 * readers of folders pass over what begins so.
 */
extern char *object_path_of_manifest(const char *path);

/* With a folder between the path's own folders and its name. */
extern char *object_path_in_folder(const char *path, const char *folder);

/* The path up to and with its last slash; "" when there is none. */
extern char *object_path_folder(const char *path);

/* What follows the last slash, within the path; all of it when there is none. */
extern const char *object_path_name(const char *path);

/*
 * "column=value", encoded as Hive does it; NULL is PATH_HIVE_NULL, and the text that
 * reads like this is encoded.
 * https://github.com/apache/hive/blob/master/common/src/java/org/apache/hadoop/hive/common/FileUtils.java
 */
extern char *object_path_hive_folder(const char *column, const char *value);

/* A file's name, encoded likewise; "" stays so. */
extern char *object_path_encode(const char *name);

/* "schema.table", each encoded likewise, so that the dot between them is the only one. */
extern char *object_path_table(const char *schema, const char *table);

/* The value in such a folder; NULL for PATH_HIVE_NULL. */
extern char *object_path_hive_value(const char *folder);

/* Where the rows of such a folder lie: to Hive NULL and '' are the same.  May be "folder" itself. */
extern const char *object_path_hive_place(const char *folder);

#endif /* S3EXPORT_PATH_H */
