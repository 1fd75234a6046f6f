/*-------------------------------------------------------------------------
 *
 * test_object_path.c
 *	  The paths of an export's files.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres_fe.h"

#include "base/object_path.h"
#include "tap.h"

/* 2026-11-02 03:04:05 UTC, whatever the zone of who runs this */
#define STARTED 1793588645

static void
expands(const char *path, int part, const char *expected)
{
	PathFields fields = {.started = STARTED, .job = "42", .connector = "lake", .part = part};

	is(object_path_check(path), NULL, "\"%s\" is accepted", path);
	is(object_path_expand(path, &fields), expected, "file %d of \"%s\"", part, path);
}

static void
refuses(const char *path, const char *phrase)
{
	const char *got = object_path_check(path);

	ok(got != NULL && strstr(got, phrase) != NULL && got[strlen(got) - 1] == '.',
	   "\"%s\" is refused: %s", path, got ? got : "it was accepted");
}

static void
test_formats(void)
{
	static const char *const ours[] = {
		"a.csv",     "a.csv.gz", "a.csv.zst", "a.CSV.LZ4",  "a",        "a.txt",
		"a.tsv.gz",  "parquet",  ".json",     "json/a.csv", "a.json/b", "a.gz",
		"a.zip.csv", "",         ".",         "a.parquetx", "xjson.gz"};
	static const char *const foreign[][2] = {
		{"a.parquet", "parquet"}, {"a/b.JSON", "json"},         {"a.json.gz", "json"},
		{"a.csv.bz2", "bz2"},     {"a.Parquet.ZST", "parquet"}, {"a.zip", "zip"},
		{"a.csv.Z", "z"},         {"{job}.xlsx", "xlsx"}};

	for (size_t i = 0; i < lengthof(ours); i++)
		is(object_path_foreign_format(ours[i]), NULL, "\"%s\" names no format that is not ours",
		   ours[i]);
	for (size_t i = 0; i < lengthof(foreign); i++)
		is(object_path_foreign_format(foreign[i][0]), foreign[i][1], "\"%s\" does", foreign[i][0]);
}

static void
test_placeholders(void)
{
	expands("a.csv", 1, "a.csv");
	expands("{yyyy}/{mm}/{dd}/{hh}{mi}{ss}.csv", 1, "2026/11/02/030405.csv");
	expands("{connector}-{job}-{part}.csv", 1, "lake-42-1.csv");
	expands("{connector}-{job}-{part}.csv", 12, "lake-42-12.csv");
	expands("{part}/a.csv", 2, "2/a.csv");
	expands("{part}{part}.csv", 3, "33.csv");
	expands("{{yyyy}}.csv", 1, "{yyyy}.csv");
	expands("{{{yyyy}}}.csv", 1, "{2026}.csv");
	expands("}}{{.csv", 1, "}{.csv");
	expands("", 1, "");

	refuses("{year}.csv", "not known");
	refuses("{YYYY}.csv", "not known");
	refuses("{}.csv", "not known");
	refuses("{ yyyy}.csv", "not known");
	refuses("{yyyy.csv", "counterpart");
	refuses("yyyy}.csv", "counterpart");
	refuses("{{yyyy}.csv", "counterpart");
	refuses("{yyyy}}.csv", "counterpart");
	refuses("a{", "counterpart");
	refuses("}", "counterpart");
	refuses("{{}", "counterpart");
}

static void
test_numbers(void)
{
	expands("a.csv", 2, "a_part2.csv");
	expands("a.csv.gz", 10000, "a_part10000.csv.gz");
	expands("a.csv.zst", 2, "a_part2.csv.zst");
	expands("a.csv.lz4", 2, "a_part2.csv.lz4");
	expands("a.v1.csv.gz", 2, "a.v1_part2.csv.gz");
	expands("a.gz", 2, "a_part2.gz");
	expands("b.d/a", 2, "b.d/a_part2");
	expands("b.d/a.txt", 2, "b.d/a_part2.txt");
	expands(".csv", 2, ".csv_part2");
	expands(".gz", 2, ".gz_part2");
	expands("b/.csv.gz", 2, "b/.csv_part2.gz");
	expands("a.", 2, "a_part2.");
	expands("{{part}}.csv", 2, "{part}_part2.csv");

	is(object_path_of_manifest("b/a.csv.gz"), "b/_a.manifest.json", "a manifest's name");
	is(object_path_of_manifest("a"), "_a.manifest.json", "without an extension");
	is(object_path_in_folder("b/a.csv", "c=1"), "b/c=1/a.csv", "a file of a partition");
	is(object_path_in_folder("a.csv", "c=1"), "c=1/a.csv", "without a folder");
	is(object_path_folder("b/c/a.csv"), "b/c/", "a folder");
	is(object_path_folder("a.csv"), "", "no folder");
	is(object_path_name("b/c/a.csv"), "a.csv", "a name in a folder");
	is(object_path_name("a.csv"), "a.csv", "a name in no folder");
	is(object_path_name("b/"), "", "no name");
}

static void
encodes(const char *value, const char *expected)
{
	char *folder = object_path_hive_folder("c", value);

	is(folder, psprintf("c=%s", expected), "value \"%s\"", value);
	is(object_path_hive_value(folder), value, "and back");
}

static void
test_hive(void)
{
	char every[256];
	int  len = 0;

	encodes("plain-value_1.5", "plain-value_1.5");
	encodes("a b&c+d,e;f@g!h$i(j)", "a b&c+d,e;f@g!h$i(j)");
	encodes("a/b=c%d", "a%2Fb%3Dc%25d");
	encodes("\"'*#:?\\{}[]^<>|`~", "%22%27%2A%23%3A%3F%5C%7B%7D%5B%5D%5E%3C%3E%7C%60%7E");
	encodes("\x01\n\x1f\x7f", "%01%0A%1F%7F");
	encodes("\xc3\xbcn\xc3\xaf", "\xc3\xbcn\xc3\xaf");
	encodes("%2F", "%252F");
	encodes("..", "..");
	encodes(NULL, PATH_HIVE_NULL);
	encodes(PATH_HIVE_NULL, "%5F_HIVE_DEFAULT_PARTITION__");
	encodes("", "");
	is(object_path_hive_place("c="), "c=" PATH_HIVE_NULL, "an empty string lies where NULL does");
	is(object_path_hive_place("c=x"), "c=x", "others lie where they are named");
	is(object_path_hive_folder("a=b/c", "x"), "a%3Db%2Fc=x", "a column's name is encoded too");

	for (int c = 1; c < 256; c++)
		every[len++] = (char) c;
	every[len] = '\0';
	is(object_path_hive_value(object_path_hive_folder("c", every)), every, "every byte, and back");
	ok(strpbrk(object_path_hive_folder("c", every) + 2, "/\n") == NULL,
	   "none of them ends a folder");
}

static void
test_tables(void)
{
	is(object_path_table("public", "orders"), "public.orders", "a table");
	is(object_path_table("public", "a.b"), "public.a%2Eb", "a dot in its name");
	is(object_path_table("a.b", "c"), "a%2Eb.c", "a dot in its schema's name");
	is(object_path_table("a", "b.c"), "a.b%2Ec", "which is another table");
	is(object_path_table("..", "."), "%2E%2E.%2E", "nothing but dots");
	is(object_path_table("a%2Eb", "c/d=e"), "a%252Eb.c%2Fd%3De", "what is encoded elsewhere too");
	is(object_path_table("S P", "\xc3\xbc"), "S P.\xc3\xbc", "letters stay");
	is(object_path_hive_value(psprintf("_table=%s", object_path_table("a%.b", "c.d"))), "a%.b.c.d",
	   "and back");
}

int
main(void)
{
	test_placeholders();
	test_formats();
	test_numbers();
	test_hive();
	test_tables();
	return done_testing();
}
