# Exports into a real S3 server: what arrives is what COPY writes, and the rows
# about it say so.
use strict;
use warnings;
use lib 'test/lib';
use PostgreSQL::Test::Utils;
use S3Export;
use Test::More;

s3_or_skip();
my $node = s3export_node('main');
my $folder = unique_folder();

create_connector($node, 'lake', folder_path => $folder);

# The result row of a copy_to, by column.
sub copy_to
{
	my ($arguments, $before) = @_;
	my @columns = qw(job_id uri rows files bytes);
	my $out = $node->safe_psql('postgres',
		($before // '') . ";\nSELECT * FROM s3export.copy_to($arguments)");
	my %row;

	@row{@columns} = split /\|/, (split /\n/, $out)[-1], -1;
	return \%row;
}

sub job
{
	my ($id, $column) = @_;

	return $node->safe_psql('postgres', "SELECT $column FROM s3export.jobs WHERE job_id = $id");
}

$node->safe_psql('postgres', <<'SQL');
CREATE TABLE orders (id int, customer text, note text, amount numeric, at timestamptz);
INSERT INTO orders SELECT i, 'customer ' || i, CASE i % 4 WHEN 0 THEN NULL WHEN 1 THEN ''
	WHEN 2 THEN 'a "quoted", note' || E'\nof lines' ELSE 'ünïcödé' END, i * 1.25, '2026-01-01Z'::timestamptz + i * interval '1 minute'
	FROM generate_series(1, 5000) i;
SQL

# ---- a small export: one object, by one request
my $row = copy_to("'lake', 'SELECT * FROM orders ORDER BY id', 'orders.csv'");
my $oracle = copy_oracle($node, 'SELECT * FROM orders ORDER BY id', 'HEADER');
is(s3_get("$folder/orders.csv"), $oracle, 'the object is what COPY writes');
is($row->{uri}, "s3://$S3{BUCKET}/$folder/orders.csv", 'its URI is returned');
is($row->{rows}, 5000, 'rows, without the header');
is($row->{bytes}, length $oracle, 'bytes, with the header');
is($row->{files}, 1, 'one file');
is(job($row->{job_id}, 'state, rows, files, bytes, owner, connector, open_uploads = 0, error_code IS NULL'),
	'succeeded|5000|1|' . length($oracle) . '|' . $node->safe_psql('postgres', 'SELECT current_user') . '|lake|t|t',
	'the job row says what happened');
is(job($row->{job_id}, 'source'), 'SELECT * FROM orders ORDER BY id', 'and of what');
is($node->safe_psql('postgres', "SELECT file_no, uri, rows, bytes, parts, etag <> '' FROM s3export.job_files WHERE job_id = $row->{job_id}"),
	"1|$row->{uri}|5000|" . length($oracle) . '|0|t', 'one file row');

# ---- a table's name, views, partitions
$node->safe_psql('postgres', <<'SQL');
CREATE SCHEMA "Odd schema";
CREATE TABLE "Odd schema"."Odd ""table""" (a int);
INSERT INTO "Odd schema"."Odd ""table""" VALUES (1), (2);
CREATE VIEW order_totals AS SELECT count(*) AS n, sum(amount) AS total FROM orders;
CREATE TABLE measures (d date, v int) PARTITION BY RANGE (d);
CREATE TABLE measures_1 PARTITION OF measures FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
CREATE TABLE measures_2 PARTITION OF measures FOR VALUES FROM ('2026-02-01') TO ('2026-03-01');
INSERT INTO measures VALUES ('2026-01-05', 1), ('2026-02-05', 2);
SQL
foreach my $source (['orders', 'orders'], ['public.orders', 'orders'], ['"Odd schema"."Odd ""table"""', 'Odd__table_'],
	['order_totals', 'order_totals'], ['measures', 'measures'], ['TABLE measures', 'query'], ['VALUES (1, 2), (3, NULL)', 'query'],
	['WITH x AS (SELECT 1 AS a) SELECT * FROM x;', 'query'])
{
	my ($text, $stem) = @$source;
	my $made = copy_to("'lake', " . sql_literal($text));
	my $query = $text =~ /^(SELECT|TABLE|VALUES|WITH)/ ? $text =~ s/;$//r : "TABLE $text";

	like($made->{uri}, qr{/$folder/\Q$stem\E-\d{8}T\d{6}Z-$made->{job_id}\.csv$}, "$text: a name is made");
	is(s3_get($made->{uri} =~ s{^s3://[^/]+/}{}r), copy_oracle($node, $query, 'HEADER'), "$text: its rows");
}

# ---- options
my $odd = q(SELECT 1 AS "a,b", NULL AS n, ''::text AS e, 'x;y' AS "q""q", E'l1\nl2' AS l, 'na' || chr(239) || 've' AS u);
foreach my $options (
	[ 'header => false', '' ],
	[ q(delimiter => ';'), q(HEADER, DELIMITER ';') ],
	[ q(quote => '''', escape => '\\'), q(HEADER, QUOTE '''', ESCAPE '\\') ],
	[ q("null" => 'NULL'), q(HEADER, NULL 'NULL') ],
	[ q(force_quote => '{*}'), q(HEADER, FORCE_QUOTE *) ],
	[ q(force_quote => '{e,u}', header => false), q(FORCE_QUOTE (e, u)) ],
	[ q(encoding => 'LATIN1'), q(HEADER, ENCODING 'LATIN1') ])
{
	my ($ours, $theirs) = @$options;

	copy_to("'lake', " . sql_literal($odd) . ", 'options.csv', if_exists => 'overwrite', $ours");
	is(s3_get("$folder/options.csv"), copy_oracle($node, $odd, $theirs), "as COPY: $ours");
}
copy_to("'lake', " . sql_literal($odd) . ", 'client.csv'", 'SET client_encoding = LATIN1');
is(s3_get("$folder/client.csv"), copy_oracle($node, $odd, q(HEADER, ENCODING 'UTF8')), 'UTF8 whatever the client speaks');

my $settings = q(SET datestyle = 'SQL, DMY'; SET timezone = 'Asia/Kolkata'; SET extra_float_digits = -5; SET bytea_output = 'escape'; SET intervalstyle = 'sql_standard');
my $typed = q(SELECT '2026-03-01 12:00Z'::timestamptz, '2026-03-01'::date, 1.0/3::float8, '\x00ff41'::bytea, interval '1 day 2:03');
copy_to("'lake', " . sql_literal($typed) . ", 'settings.csv'", $settings);
is(s3_get("$folder/settings.csv"), copy_oracle($node, $typed, 'HEADER', $settings), 'the settings of the session shape the output');

# ---- it sees what its caller sees
copy_to(q('lake', 'SELECT * FROM fresh', 'fresh.csv', header => false),
	q(BEGIN; CREATE TABLE fresh AS SELECT 1 AS a; INSERT INTO fresh VALUES (2); LOCK fresh));
is(s3_get("$folder/fresh.csv"), "1\n2\n", 'rows of its own transaction, of a table not committed and locked');
copy_to(q('lake', 'scratch', 'scratch.csv', header => false), q(CREATE TEMP TABLE scratch AS SELECT 7 AS a));
is(s3_get("$folder/scratch.csv"), "7\n", 'temporary tables');
copy_to(q('lake', 'things', 'things.csv', header => false),
	q(CREATE SCHEMA elsewhere; CREATE TABLE elsewhere.things AS SELECT 'here' AS a; SET search_path = elsewhere));
is(s3_get("$folder/things.csv"), "here\n", 'search_path');

$node->safe_psql('postgres', <<'SQL');
CREATE ROLE reader LOGIN;
SELECT s3export.grant_usage('lake', 'reader');
CREATE TABLE accounts (owner name, balance int);
INSERT INTO accounts VALUES ('reader', 1), ('postgres', 2), ('reader', 3);
ALTER TABLE accounts ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON accounts USING (owner = current_user);
GRANT SELECT ON accounts TO reader;
SQL
my $own = copy_to(q('lake', 'SELECT balance FROM accounts', 'own.csv', header => false), 'SET ROLE reader');
is(s3_get("$folder/own.csv"), "1\n3\n", 'row security');
is(job($own->{job_id}, 'owner'), 'reader', 'the job belongs to the role that ran it');
error_like($node, q(SET ROLE reader; SELECT s3export.copy_to('lake', 'orders', 'stolen.csv')),
	{ sqlstate => '42501', message => 'permission denied for table orders' }, 'the query runs with its caller\'s rights');
is_deeply([ s3_list("$folder/stolen") ], [], 'and nothing is written without');

# ---- a transaction that rolls back
$node->safe_psql('postgres', q(BEGIN; SELECT s3export.copy_to('lake', 'VALUES (1)', 'rolled back.csv'); ROLLBACK));
is(s3_get("$folder/rolled back.csv"), "column1\n1\n", 'an object stays when the caller rolls back');
is($node->safe_psql('postgres', "SELECT state FROM s3export.jobs WHERE uri LIKE '%rolled back.csv'"), 'succeeded',
	'and so does its job');
copy_to(q('lake', 'VALUES (1)', 'in block.csv'),
	q(DO $$ BEGIN BEGIN PERFORM s3export.copy_to('lake', 'SELECT 1 / (i - 1) FROM generate_series(1, 1) i', 'zero.csv'); EXCEPTION WHEN division_by_zero THEN NULL; END; END $$));
is(s3_get("$folder/in block.csv"), "column1\n1\n", 'an export may fail in a block and another follow');
is_deeply([ s3_list("$folder/zero") ], [], 'the failed one left no object');
is($node->safe_psql('postgres', "SELECT state, error_code, error_message FROM s3export.jobs WHERE uri LIKE '%zero.csv'"),
	'failed|22012|division by zero', 'but a job row with the reason');

# ---- objects in the way, empty results
error_like($node, q(SELECT s3export.copy_to('lake', 'SELECT pg_sleep(60)', 'orders.csv')),
	{ sqlstate => '42710', message => qr{^object "s3://\S+/orders\.csv" already exists$}, hint => qr/if_exists => 'overwrite'/ },
	'an object in the way is found before the query runs');
is(s3_get("$folder/orders.csv"), $oracle, 'and is left alone');
$row = copy_to(q('lake', 'VALUES (1)', 'orders.csv', if_exists => 'overwrite', header => false));
is(s3_get("$folder/orders.csv"), "1\n", 'unless it may be overwritten');

my $none = 'SELECT 1 AS a WHERE false';
$row = copy_to("'lake', '$none', 'empty.csv'");
is(s3_get("$folder/empty.csv"), "a\n", 'no rows: a file with a header');
$row = copy_to("'lake', '$none', 'nothing.csv', header => false");
is(s3_get("$folder/nothing.csv"), '', 'or an empty one');
$row = copy_to("'lake', '$none', 'skipped.csv', on_empty => 'skip'");
is("$row->{uri}|$row->{files}|$row->{rows}", '|0|0', 'or none');
is_deeply([ s3_list("$folder/skipped") ], [], 'none at all');
error_like($node, "SELECT s3export.copy_to('lake', '$none', 'error.csv', on_empty => 'error')",
	{ sqlstate => 'P0002', message => 'the query returned no rows' }, 'or an error');

# ---- names
foreach my $name ('a b+c&d=e~f.csv', 'ümläut/日本語.csv', 'q?uo#te\'s"%41.csv', 'x' x 900)
{
	copy_to("'lake', 'VALUES (1)', " . sql_literal($name) . ', header => false');
	is(s3_get("$folder/$name"), "1\n", 'odd name ' . substr $name, 0, 20);
}

# In a database of another encoding, too.
$node->safe_psql('postgres', q(CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0));
$ENV{PGCLIENTENCODING} = 'UTF8';
$node->safe_psql('latin', 'CREATE EXTENSION s3export; SELECT ' . connector_sql('größe', folder_path => "$folder/größe"));
foreach my $more ('', q(, max_rows_per_file => 10, manifest => true))
{
	$node->safe_psql('latin', "SELECT s3export.copy_to('größe', 'SELECT ''ä'' AS übel', 'ü.csv', if_exists => 'overwrite'$more)");
	is(s3_get("$folder/größe/ü.csv"), "übel\nä\n", "from LATIN1 to UTF-8$more");
}
$node->safe_psql('latin', q(SELECT s3export.copy_to('größe', 'SELECT 1 AS a, ''ä'' AS übel', 'hive.csv', partition_by => 'übel')));
is(s3_get("$folder/größe/übel=ä/hive.csv"), "a\n1\n", 'partitions too');
like(s3_get("$folder/größe/_ü.manifest.json"), qr/"name": "übel"/, 'and manifests');
delete $ENV{PGCLIENTENCODING};

# ---- more than one part, the same bytes
$node->safe_psql('postgres', <<'SQL');
CREATE TABLE wide AS SELECT i, repeat(md5(i::text), 30) AS filler FROM generate_series(1, 45000) i;
SQL
foreach my $memory ('128MB', '15MB')
{
	my $parts = copy_to(q('lake', 'SELECT * FROM wide ORDER BY i', 'wide.csv', if_exists => 'overwrite'),
		"SET s3export.part_size = '5MB'; SET s3export.upload_memory = '$memory'");
	ok(s3_get("$folder/wide.csv") eq copy_oracle($node, 'SELECT * FROM wide ORDER BY i', 'HEADER'), "a multipart upload with $memory");
	is($node->safe_psql('postgres', "SELECT parts FROM s3export.job_files WHERE job_id = $parts->{job_id}"), 9, 'in 9 parts');
}
is_deeply([ s3_uploads($folder) ], [], 'no multipart upload is open');

# Sizes around the size of one part, where the ways to upload change.
my $part = 5 * 1024 * 1024;
foreach my $size ($part - 1, $part, $part + 1, 2 * $part)
{
	my $length = $size - 1;
	my $edge = copy_to("'lake', 'SELECT repeat(''x'', $length)', 'edge.csv', header => false, if_exists => 'overwrite'",
		"SET s3export.part_size = '5MB'");
	is($edge->{bytes}, $size, "$size bytes are reported");
	ok(s3_get("$folder/edge.csv") eq 'x' x $length . "\n", "$size bytes arrive");
}

# ---- a table's name gives what COPY of the table gives
$node->safe_psql('postgres', <<'SQL');
CREATE TABLE made(a int, b int GENERATED ALWAYS AS (a * 2) STORED, gone int, "Odd c" text);
ALTER TABLE made DROP COLUMN gone;
INSERT INTO made VALUES (1, DEFAULT, 'x'), (2, DEFAULT, NULL);
CREATE TABLE parent(a int);
CREATE TABLE child() INHERITS (parent);
INSERT INTO parent VALUES (1);
INSERT INTO child VALUES (2);
CREATE TABLE nothing();
INSERT INTO nothing DEFAULT VALUES;
CREATE TABLE parts(a int, twice int GENERATED ALWAYS AS (a * 2) STORED) PARTITION BY RANGE (a);
CREATE TABLE parts1 PARTITION OF parts FOR VALUES FROM (0) TO (9);
INSERT INTO parts VALUES (1);
CREATE VIEW view_of_made AS SELECT * FROM made;
SQL
foreach my $case ([ 'made', 'TABLE' ], [ 'public.made', 'TABLE' ], [ 'postgres.public.made', 'TABLE' ], [ 'parent', 'TABLE' ], [ 'parts', 'SELECT a FROM parts' ],
	[ 'view_of_made', 'SELECT * FROM made' ])
{
	my ($source, $oracle) = @$case;
	my $expected = $oracle eq 'TABLE' ? $node->safe_psql('postgres', 'COPY ' . ($source =~ s/^postgres\.//r) . ' TO STDOUT (FORMAT csv, HEADER)') . "\n" : copy_oracle($node, $oracle, 'HEADER');

	copy_to("'lake', '$source', 'table.csv', if_exists => 'overwrite'");
	is(s3_get("$folder/table.csv"), $expected, "table $source");
}
copy_to(q('lake', 'nothing', 'table.csv', if_exists => 'overwrite', header => false));
is(s3_get("$folder/table.csv"), "\n", 'a table without columns');
$node->safe_psql('postgres', 'CREATE ROLE half LOGIN; GRANT SELECT (a, "Odd c") ON made TO half; SELECT s3export.grant_usage($$lake$$, $$half$$)');
is($node->safe_psql('postgres', q(SET ROLE half; SELECT rows FROM s3export.copy_to('lake', 'made', 'half.csv'))), 2, 'rights on the columns that are read are enough');

# ---- credentials of another connector bring its store along
is($node->safe_psql('postgres', "SELECT s3export.create_connector('lake2', '$S3{BUCKET}', folder_path => '$folder/second', credentials_from => 'lake') > 0"), 't', 'a connector by the credentials of another');
is($node->safe_psql('postgres', q(SELECT count(DISTINCT (endpoint_url, region, addressing)), min(endpoint_url) IS NOT NULL FROM s3export.connectors WHERE name IN ('lake', 'lake2'))), '1|t', 'is of the same store');
$node->safe_psql('postgres', q(SELECT s3export.create_connector('lake3', 'bucket', endpoint_url => 'http://127.0.0.1:1', credentials_from => 'lake', validate => false)));
is($node->safe_psql('postgres', q(SELECT endpoint_url FROM s3export.connectors WHERE name = 'lake3')), 'http://127.0.0.1:1', 'unless it names one');

# ---- encryption
create_connector($node, 'sealed', folder_path => "$folder/sealed", server_side_encryption => 'AES256');
copy_to(q('sealed', 'VALUES (1)', 'one.csv'));
copy_to(q('sealed', 'TABLE wide', 'wide.csv'), q(SET s3export.part_size = '5MB'));
is(length s3_get("$folder/sealed/wide.csv"), length copy_oracle($node, 'TABLE wide', 'HEADER'), 'encrypted by one request and by parts');

# ---- many exports at once
my @sessions = map { "SELECT s3export.copy_to('lake', 'SELECT $_ AS n, g FROM generate_series(1, 20000) g', 'side/$_.csv')" } 1 .. 6;
my @handles = map { IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('postgres'), '-c', $_ ], '>', \my $out, '2>', \my $err) } @sessions;
$_->finish foreach @handles;
is(scalar(@{ [ s3_list("$folder/side/") ] }), 6, 'exports side by side');

$node->stop;
s3_clear($folder);
done_testing();
