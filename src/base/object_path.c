/*-------------------------------------------------------------------------
 *
 * object_path.c
 *	  The paths of an export's files: placeholders, numbers, Hive's folders.
 *
 *-------------------------------------------------------------------------
 */
#ifndef FRONTEND
#include "postgres.h"
#else
#include "postgres_fe.h"
#endif

#include "base/object_path.h"

typedef enum Placeholder
{
	PLACE_YEAR,
	PLACE_MONTH,
	PLACE_DAY,
	PLACE_HOUR,
	PLACE_MINUTE,
	PLACE_SECOND,
	PLACE_JOB,
	PLACE_PART,
	PLACE_CONNECTOR,
	PLACE_NONE
} Placeholder;

static const char *const placeholders[] = {
	[PLACE_YEAR] = "{yyyy}", [PLACE_MONTH] = "{mm}",  [PLACE_DAY] = "{dd}",
	[PLACE_HOUR] = "{hh}",   [PLACE_MINUTE] = "{mi}", [PLACE_SECOND] = "{ss}",
	[PLACE_JOB] = "{job}",   [PLACE_PART] = "{part}", [PLACE_CONNECTOR] = "{connector}",
};

static Placeholder
placeholder_at(const char *path)
{
	int i = 0;

	while (i < PLACE_NONE && strncmp(path, placeholders[i], strlen(placeholders[i])) != 0)
		i++;
	return (Placeholder) i;
}

static bool
is_brace_twice(const char *path)
{
	return (*path == '{' || *path == '}') && path[1] == *path;
}

const char *
object_path_check(const char *path)
{
	while (*path)
	{
		Placeholder place = placeholder_at(path);

		if (is_brace_twice(path))
			path += 2;
		else if (place != PLACE_NONE)
			path += strlen(placeholders[place]);
		else if (*path == '{' && strchr(path, '}') != NULL)
			return "It has a placeholder that is not known.";
		else if (*path == '{' || *path == '}')
			return "It has a brace without its counterpart.";
		else
			path++;
	}
	return NULL;
}

bool
object_path_names_job(const char *path)
{
	for (; *path; path++)
	{
		if (is_brace_twice(path))
			path++;
		else if (placeholder_at(path) == PLACE_JOB)
			return true;
	}
	return false;
}

/* Times are in UTC, so that a path does not depend on the session. */
static void
append_place(StringInfo buf, Placeholder place, const PathFields *fields)
{
	struct tm utc;

	gmtime_r(&fields->started, &utc);
	switch (place)
	{
		case PLACE_YEAR:
			appendStringInfo(buf, "%04d", utc.tm_year + 1900);
			break;
		case PLACE_MONTH:
			appendStringInfo(buf, "%02d", utc.tm_mon + 1);
			break;
		case PLACE_DAY:
			appendStringInfo(buf, "%02d", utc.tm_mday);
			break;
		case PLACE_HOUR:
			appendStringInfo(buf, "%02d", utc.tm_hour);
			break;
		case PLACE_MINUTE:
			appendStringInfo(buf, "%02d", utc.tm_min);
			break;
		case PLACE_SECOND:
			appendStringInfo(buf, "%02d", utc.tm_sec);
			break;
		case PLACE_JOB:
			appendStringInfoString(buf, fields->job);
			break;
		case PLACE_PART:
			appendStringInfo(buf, "%d", fields->part);
			break;
		case PLACE_CONNECTOR:
			appendStringInfoString(buf, fields->connector);
			break;
		case PLACE_NONE:
			break;
	}
}

const char *
object_path_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash != NULL ? slash + 1 : path;
}

/*
 * Where the extension begins, that of a compressed file included; the end when
 * there is none.  A name does not consist of its extension alone.
 */
static size_t
extension_at(const char *path)
{
	static const char *const compressed[] = {".gz", ".zst", ".lz4"};
	const char              *name = object_path_name(path);
	size_t                   len = strlen(name);

	for (size_t i = 0; i < lengthof(compressed); i++)
	{
		size_t suffix_len = strlen(compressed[i]);

		if (len > suffix_len && strcmp(name + len - suffix_len, compressed[i]) == 0)
		{
			len -= suffix_len;
			break;
		}
	}
	for (size_t dot = len; dot > 1; dot--)
	{
		if (name[dot - 1] == '.')
			return name - path + dot - 1;
	}
	return name - path + len;
}

/* Which of "list" a name's extension is, in any case; a name is more than that.  NULL: none. */
static const char *
find_extension(const char *name, size_t len, const char *const *list)
{
	for (; *list != NULL; list++)
	{
		size_t extension_len = strlen(*list);

		if (len > extension_len + 1 && name[len - extension_len - 1] == '.' &&
			pg_strncasecmp(name + len - extension_len, *list, extension_len) == 0)
			return *list;
	}
	return NULL;
}

const char *
object_path_foreign_format(const char *path)
{
	static const char *const compressed[] = {"gz", "zst", "lz4", NULL};
	static const char *const foreign[] = {
		"parquet", "orc", "avro", "arrow", "feather", "json", "jsonl", "ndjson", "xml",
		"sql",     "xls", "xlsx", "ods",   "bz2",     "xz",   "lzma",  "br",     "sz",
		"snappy",  "lzo", "z",    "zip",   "7z",      "tar",  "tgz",   NULL};
	const char *name = object_path_name(path);
	size_t      len = strlen(name);
	const char *ours = find_extension(name, len, compressed);

	if (ours != NULL)
		len -= strlen(ours) + 1;
	return find_extension(name, len, foreign);
}

char *
object_path_expand(const char *path, const PathFields *fields)
{
	StringInfoData buf;
	bool           numbered = false;
	char          *expanded;
	size_t         extension;

	initStringInfo(&buf);
	while (*path)
	{
		Placeholder place = placeholder_at(path);

		if (place != PLACE_NONE)
		{
			append_place(&buf, place, fields);
			numbered |= place == PLACE_PART;
			path += strlen(placeholders[place]);
			continue;
		}
		appendStringInfoChar(&buf, *path);
		path += is_brace_twice(path) ? 2 : 1;
	}
	if (numbered || fields->part == 1)
		return buf.data;
	extension = extension_at(buf.data);
	expanded =
		psprintf("%.*s_part%d%s", (int) extension, buf.data, fields->part, buf.data + extension);
	pfree(buf.data);
	return expanded;
}

char *
object_path_of_manifest(const char *path)
{
	const char *name = object_path_name(path);
	size_t      folder = name - path;

	return psprintf("%.*s_%.*s.manifest.json", (int) folder, path,
					(int) (extension_at(path) - folder), name);
}

char *
object_path_folder(const char *path)
{
	return pnstrdup(path, object_path_name(path) - path);
}

char *
object_path_in_folder(const char *path, const char *folder)
{
	return psprintf("%.*s%s/%s", (int) (object_path_name(path) - path), path, folder,
					object_path_name(path));
}

/*
 * Hive's list, and what else Amazon advises not to have in keys; who reads
 * Hive's folders decodes whatever is encoded.  Bytes above 127 are of letters.
 * https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-keys.html
 */
static void
append_encoded(StringInfo buf, const char *value)
{
	for (const unsigned char *c = (const unsigned char *) value; *c; c++)
	{
		if (*c < ' ' || *c == 0x7f || strchr("\"#%'*/:=?\\{}[]^<>|`~", *c) != NULL)
			appendStringInfo(buf, "%%%02X", *c);
		else
			appendStringInfoChar(buf, (char) *c);
	}
}

char *
object_path_hive_folder(const char *column, const char *value)
{
	StringInfoData buf;

	initStringInfo(&buf);
	append_encoded(&buf, column);
	appendStringInfoChar(&buf, '=');
	if (value == NULL)
		appendStringInfoString(&buf, PATH_HIVE_NULL);
	else if (strcmp(value, PATH_HIVE_NULL) == 0)
		appendStringInfo(&buf, "%%%02X%s", value[0], value + 1);
	else
		append_encoded(&buf, value);
	return buf.data;
}

char *
object_path_encode(const char *name)
{
	StringInfoData buf;

	initStringInfo(&buf);
	append_encoded(&buf, name);
	return buf.data;
}

static void
append_identifier(StringInfo buf, const char *name)
{
	for (const char *encoded = object_path_encode(name); *encoded; encoded++)
	{
		if (*encoded == '.')
			appendStringInfoString(buf, "%2E");
		else
			appendStringInfoChar(buf, *encoded);
	}
}

char *
object_path_table(const char *schema, const char *table)
{
	StringInfoData buf;

	initStringInfo(&buf);
	append_identifier(&buf, schema);
	appendStringInfoChar(&buf, '.');
	append_identifier(&buf, table);
	return buf.data;
}

char *
object_path_hive_value(const char *folder)
{
	const char *encoded = strchr(folder, '=') + 1;
	char       *value = palloc(strlen(encoded) + 1);
	char       *dst = value;

	if (strcmp(encoded, PATH_HIVE_NULL) == 0)
		return NULL;
	for (; *encoded; encoded++)
	{
		unsigned int byte = (unsigned char) *encoded;

		if (*encoded == '%' && sscanf(encoded + 1, "%2x", &byte) == 1)
			encoded += 2;
		*dst++ = (char) byte;
	}
	*dst = '\0';
	return value;
}

const char *
object_path_hive_place(const char *folder)
{
	return strchr(folder, '=')[1] == '\0' ? psprintf("%s%s", folder, PATH_HIVE_NULL) : folder;
}
