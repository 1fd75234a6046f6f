# CSV equals COPY's, byte for byte: every type, option, setting and encoding.
use strict;
use warnings;

use Cwd qw(abs_path);
use File::Basename;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $test = abs_path(dirname(__FILE__) . '/..');
my $module = "$test/csv_probe/csv_probe";

plan skip_all => 'test/csv_probe is not built (make -C test/csv_probe)' unless -e "$module.so";
$ENV{PGCLIENTENCODING} = 'UTF8';

my $node = PostgreSQL::Test::Cluster->new('csv');
$node->init(extra => [ '--encoding=UTF8', '--locale=C' ]);
$node->append_conf('postgresql.conf', "fsync = off\nautovacuum = off\njit = off\n");
$node->start;
my $dir = PostgreSQL::Test::Utils::tempdir;
chmod 0777, $dir;

# A database of an encoding, with the functions and the corpus.
sub database
{
	my ($name, $encoding, $rows) = @_;
	my $superuser = $node->safe_psql('postgres', 'SELECT current_user');

	$node->safe_psql('postgres', "CREATE DATABASE $name TEMPLATE template0 ENCODING '$encoding' LOCALE 'C'");
	$node->safe_psql('postgres', "ALTER DATABASE $name SET probe.dir = '$dir'");
	$node->safe_psql('postgres', 'DO $$BEGIN CREATE ROLE postgres SUPERUSER; EXCEPTION WHEN duplicate_object THEN NULL; END$$');
	$node->safe_psql($name, qq{
		CREATE FUNCTION csv_probe(query text, path text, header bool, delimiter text, quote text, escape text,
			nul text, force_quote text[], encoding text, block_size int) RETURNS bigint LANGUAGE c AS '$module';
		CREATE FUNCTION csv_probe_slots() RETURNS bigint LANGUAGE c AS '$module';
		CREATE FUNCTION float8_of_bits(bigint) RETURNS float8 LANGUAGE c IMMUTABLE STRICT AS '$module';
		CREATE FUNCTION float4_of_bits(bigint) RETURNS float4 LANGUAGE c IMMUTABLE STRICT AS '$module';
	});
	foreach my $file (qw(compare corpus random tables), $encoding eq 'UTF8' ? 'encodings' : ())
	{
		system_or_bail('psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-v', "rows=$rows", '-o', '/dev/null',
			'-d', $node->connstr($name), '-f', "$test/lib/csv_$file.sql");
	}
	return;
}

# Compares queries of some sets under options, with settings, once with the
# fast paths and once without.
sub compare
{
	my ($database, $sets, $options, %settings) = @_;
	my $title = "$database: $sets, options like '$options'"
	  . join('', map { ", $_ = '$settings{$_}'" } sort keys %settings);

	foreach my $fast (qw(on off))
	{
		my $result = $node->safe_psql($database,
			"LOAD '$module'; SET s3export.fast_output = $fast; "
			  . join('', map { "DO \$\$BEGIN PERFORM set_config('$_', '$settings{$_}', false); END\$\$; " } sort keys %settings)
			  . "SELECT compare('{$sets}', '$options')");

		like($result, qr/^[1-9]\d* compared, \d+ failed alike, 0 differ$/, "$title, fast $fast") or diag($result);
	}
	return;
}

database('utf8', 'UTF8', 3000);
is($node->safe_psql('utf8', 'SELECT * FROM types_without_values'), '', 'every type has values');

# The comparison itself must be able to fail.
is( $node->safe_psql('utf8',
		q{SELECT first_difference('abcd', 'abXd') || E'\n' || first_difference('ab', 'abc')}),
	"at byte 2 of 4 (COPY) and 4\n  COPY: abcd\n  ours: abXd\nat byte 2 of 2 (COPY) and 3\n  COPY: ab\n  ours: abc",
	'differences are found');
like($node->safe_psql('utf8', q{SELECT (difference(
		'SELECT txid_current_if_assigned(), clock_timestamp()', o)).what FROM options o WHERE name = 'plain'}),
	qr/^query: .*\noptions: .*\nat byte \d+/, 'differences are shown');

# What has no reason to fail does not.
like($node->safe_psql('utf8', "LOAD '$module'; SELECT compare('{text,types,composites,catalogs,random,zones,large}', 'plain')"),
	qr/^[1-9]\d* compared, 0 failed alike, 0 differ$/, 'queries do not fail');

compare('utf8', 'text,shapes,tables', 'plain');
compare('utf8', 'tables', $_) foreach ('o header', 'o all%', 'o null 0');
compare('utf8', 'tables', 'plain', enable_seqscan => 'off');
compare('utf8', 'tables', 'plain', jit => 'on', jit_above_cost => 0);
compare('utf8', 'text,shapes,types', 'o %');
compare('utf8', 'types,composites,catalogs,random,zones,large', 'plain');
compare('utf8', 'composites,random,zones', 'o %all%');
compare('utf8', 'random', 'o null%');
compare('utf8', 'text,shapes,types', 'e %');
compare('utf8', 'multibyte', 'm %');
compare('utf8', 'types,text,random', 't %');

compare('utf8', 'types,random,zones', 'o some', DateStyle => $_)
  foreach ('SQL, DMY', 'SQL, MDY', 'Postgres, DMY', 'Postgres, MDY', 'German', 'ISO, YMD');
compare('utf8', 'types,zones', 'plain', TimeZone => $_)
  foreach ('America/New_York', 'Asia/Kolkata', 'Europe/Amsterdam', 'Africa/Monrovia', 'Australia/Lord_Howe',
	'Pacific/Apia', '<+03:30>-3:30', 'FOO+12:34BAR', '-14');
compare('utf8', 'types,random', 'plain', IntervalStyle => $_)
  foreach qw(postgres postgres_verbose sql_standard iso_8601);
compare('utf8', 'types,random', 'plain', extra_float_digits => $_) foreach (-15, -3, 0, 2, 3);
compare('utf8', 'types', 'plain', bytea_output => $_) foreach qw(escape hex);
compare('utf8', 'types', 'plain', lc_monetary => 'C.UTF-8');
compare('utf8', 'types', 'plain', quote_all_identifiers => 'on', search_path => 'public, "Odd schema"');
compare('utf8', 'types,composites', 't %', client_encoding => $_) foreach qw(SJIS LATIN1);

# A conversion made by a user is called for every value, as COPY does.
$node->safe_psql('utf8', qq{
	CREATE FUNCTION to_upper(int, int, cstring, internal, int, bool) RETURNS int LANGUAGE c STRICT AS '$module';
	CREATE SCHEMA mine;
	CREATE DEFAULT CONVERSION mine.upper FOR 'UTF8' TO 'LATIN2' FROM to_upper;
	INSERT INTO options (name, header, nul, encoding) VALUES ('c', true, 'null', 'LATIN2')});
compare('utf8', 'types,text,multibyte,random', 'c', search_path => 'mine, public, pg_catalog');
like($node->safe_psql('utf8', "SET search_path = mine, public, pg_catalog;
	SELECT csv_probe('SELECT ''abc''', '$dir/upper.csv', false, NULL, NULL, NULL, NULL, NULL, 'LATIN2', 64);
	SELECT pg_read_file('$dir/upper.csv')"), qr/ABC/, 'the conversion was called');

# What no function makes, and a damaged page may hold: groups of more than four
# digits, and times that are none.
$node->safe_psql('utf8', q{
	CREATE CAST (bytea AS numeric) WITHOUT FUNCTION;
	CREATE CAST (bigint AS time) WITHOUT FUNCTION;
	CREATE TABLE damaged (i serial, n numeric, t time);
	INSERT INTO damaged (n, t) SELECT decode(header || digits, 'hex')::numeric, time::time
	  FROM unnest('{8080,0081,0181,008c,7f80,00000000,00020000,01400100}'::text[]) header,
		unnest('{ffff,1027,ff7f,0080,0100ffff,010001001027,0100010001000f27,ffffffffffffffff}'::text[]) digits,
		unnest('{-1,0,86400000000,86400000001,9223372036854775807,-9223372036854775808,3600000000000000}'::bigint[]) time;
	INSERT INTO queries VALUES ('damaged', 'SELECT n FROM damaged'), ('damaged', 'SELECT i, n, t FROM damaged ORDER BY i'), ('damaged', 'SELECT t FROM damaged'),
		('damaged', 'TABLE damaged'), ('damaged', 'SELECT ARRAY[n], ARRAY[t], ROW(n, t) FROM damaged')});
compare('utf8', 'damaged', 'plain');

foreach my $encoding (qw(LATIN1 SQL_ASCII))
{
	my $name = lc $encoding;

	database($name, $encoding, 300);
	$node->safe_psql($name, q{
		INSERT INTO queries VALUES ('bytes', $$SELECT chr(c) AS v, 'x' || chr(c) || 'y', repeat(chr(c), 30) FROM generate_series(128, 255) c$$);
		INSERT INTO options (name, encoding) SELECT 'x ' || e, e
			FROM unnest('{UTF8,LATIN1,LATIN2,SJIS,GB18030,EUC_JP,SQL_ASCII}'::text[]) e});
	compare($name, 'types,text,shapes,random,bytes', 'x %');
	compare($name, 'tables', 'x LATIN%');
	compare($name, 'types,text', 'o %');
}
$node->safe_psql('latin1', q{INSERT INTO options (name, delimiter, quote, escape, nul, force_quote, encoding) VALUES
	('h 1', chr(228), chr(195), chr(233), chr(246), NULL, 'UTF8'), ('h 2', chr(228), chr(195), chr(233), chr(246), NULL, 'LATIN1'),
	('h 3', chr(169), chr(195), chr(182), 'x', '{*}', 'UTF8')});
compare('latin1', 'bytes,text', 'h %');

# ---- scans of tables, a page at a time

my $probe = q{csv_probe(%s, %s, false, NULL, NULL, NULL, NULL, NULL, NULL, 65536)};
my $start = "LOAD '$module'; CREATE EXTENSION IF NOT EXISTS file_fdw; "
  . "CREATE OR REPLACE FUNCTION other_heap(internal) RETURNS table_am_handler LANGUAGE c AS '$module';";

sub quote
{
	my ($text) = @_;

	return "'" . ($text =~ s/'/''/gr) . "'";
}

sub probe
{
	my ($query, $path) = @_;

	return sprintf $probe, quote($query), $path ? quote($path) : 'NULL';
}

# How many rows the executor has handed over, of how many.
sub slots
{
	my ($query, %args) = @_;

	return $node->safe_psql('utf8', "LOAD '$module'; " . ($args{before} // '') . '; SELECT csv_probe_slots(), count FROM (SELECT '
		  . probe($query) . ' AS count OFFSET 0) s WHERE count >= 0');
}

# Runs SQL, then compares one query with COPY.
sub same
{
	my ($query, $title, %args) = @_;
	my $before = $args{before} // '';
	my $ours = "$dir/ours.csv";
	my $theirs = "$dir/theirs.csv";

	$node->safe_psql('utf8', "LOAD '$module'; $before; COPY ($query) TO '$theirs' (FORMAT csv); SELECT " . probe($query, $ours));
	is(slurp_file($ours), slurp_file($theirs), $title);
	return;
}

$node->safe_psql('utf8', $start . q{
	CREATE ACCESS METHOD also_heap TYPE TABLE HANDLER heap_tableam_handler;
	CREATE ACCESS METHOD other_heap TYPE TABLE HANDLER other_heap;
	CREATE TABLE by_also_heap USING also_heap AS SELECT * FROM patterns;
	CREATE TABLE by_other_heap USING other_heap AS SELECT i2, i8, b, f8 FROM patterns; -- without TOAST, whose index heap alone can build
	CREATE SERVER files FOREIGN DATA WRAPPER file_fdw;
	COPY patterns TO PROGRAM 'cat >} . $dir . q{/patterns.csv' (FORMAT csv);
	CREATE FOREIGN TABLE from_file (c "char", i2 int2, i8 int8, t text, b bool, f8 float8, n numeric, i4 int4, nm name, u uuid, s varchar, ts timestamptz)
		SERVER files OPTIONS (filename '} . $dir . q{/patterns.csv', format 'csv');
	CREATE FOREIGN TABLE parted_6 PARTITION OF parted FOR VALUES FROM (9000) TO (9999) SERVER files OPTIONS (program 'for i in 9000 9001 9002; do echo $i,foreign,; done', format 'csv');
	INSERT INTO queries SELECT 'methods', 'SELECT * FROM ' || t FROM unnest('{by_also_heap,by_other_heap,from_file,parted}'::text[]) t});
compare('utf8', 'methods', 'plain');

like(slots('SELECT * FROM patterns'), qr/^[1-9]\d{0,2}\|4096$/, 'a table is read a page at a time');
$node->safe_psql('utf8', 'CREATE TABLE vacuumed AS SELECT * FROM patterns; DELETE FROM vacuumed WHERE i4 % 5 = 0; VACUUM vacuumed');
like(slots('SELECT * FROM vacuumed'), qr/^[1-3]\|3686$/, 'and all pages at once, where no row is to be looked at');
same('SELECT * FROM vacuumed', 'its rows');
$node->safe_psql('utf8', 'DELETE FROM vacuumed WHERE i4 % 1000 = 1; INSERT INTO vacuumed SELECT * FROM patterns WHERE i4 % 400 = 0');
like(slots('SELECT * FROM vacuumed'), qr/^[1-3]\|3690$/, 'and where it is for some pages');
same('SELECT * FROM vacuumed', 'the rows of both');
like(slots('SELECT * FROM vacuumed', before => 'BEGIN ISOLATION LEVEL SERIALIZABLE'), qr/^\d{2,3}\|3690$/, 'but not in a serializable transaction');
like(slots('SELECT i2, s FROM patterns'), qr/^[1-9]\d{0,2}\|4096$/, 'some of its columns');
like(slots('SELECT i4 + 1 FROM patterns'), qr/^[1-9]\d{0,2}\|4096$/, 'expressions');
like(slots('SELECT * FROM patterns WHERE i4 % 3 = 0'), qr/^[1-9]\d{0,2}\|683$/, 'with a filter');
like(slots('SELECT * FROM parted WHERE a < 9000'), qr/^[1-9]\d{0,2}\|4000$/, 'partitions');
like(slots('SELECT * FROM by_also_heap'), qr/^[1-9]\d{0,2}\|4096$/, 'heap by another name');
like(slots('SELECT * FROM t', before => 'CREATE TEMP TABLE t AS SELECT * FROM patterns'), qr/^[1-9]\d{0,2}\|4096$/, 'a temporary table');
is(slots('SELECT * FROM by_other_heap'), '4096|4096', 'another access method: row by row');
is(slots('SELECT * FROM from_file'), '4096|4096', 'a foreign table');
is(slots('SELECT * FROM patterns', before => 'SET s3export.fast_output = off'), '4096|4096', 'and when it is turned off');
is(slots('SELECT * FROM patterns ORDER BY i8'), '4096|4096', 'and when rows are sorted');

# What others count.
foreach my $query ('SELECT * FROM patterns', 'SELECT i2 FROM patterns WHERE b', 'SELECT * FROM parted WHERE a < 9000')
{
	my $counters = q{SELECT relname, seq_scan, seq_tup_read FROM pg_stat_xact_user_tables WHERE seq_scan > 0 ORDER BY 1};
	my $read = $node->safe_psql('utf8', "BEGIN; COPY ($query) TO '/dev/null'; $counters");

	is($node->safe_psql('utf8', "LOAD '$module'; BEGIN; DO \$\$BEGIN PERFORM " . probe($query) . "; END\$\$; $counters"), $read, "statistics: $query");
}
{
	my $offset = -s $node->logfile;
	my $analyze = "LOAD '$module'; LOAD 'auto_explain'; SET auto_explain.log_min_duration = 0; SET auto_explain.log_analyze = on; SET auto_explain.log_nested_statements = on; SELECT ";
	my $log;

	$node->safe_psql('utf8', $analyze . probe('SELECT i2, s FROM patterns WHERE i4 % 3 = 0'));
	$node->safe_psql('utf8', $analyze . probe('SELECT * FROM parent'));
	$log = slurp_file($node->logfile, $offset);
	like($log, qr/Seq Scan on patterns .*actual .*rows=683(\.00)? loops=1.*Rows Removed by Filter: 3413\n/s, 'EXPLAIN ANALYZE: a scan');
	like($log, qr/Append .*actual .*rows=1500(\.00)? loops=1.*Seq Scan on child .*actual .*rows=500(\.00)? loops=1/s, 'EXPLAIN ANALYZE: partitions');
}

# Rows of the same transaction, of rolled back ones, and of others.
my $changes = q{CREATE TEMP TABLE t AS SELECT i, 'row ' || i AS t FROM generate_series(1, 3000) i; BEGIN; UPDATE t SET t = 'new' WHERE i % 3 = 0; DELETE FROM t WHERE i % 7 = 0;
	SAVEPOINT a; UPDATE t SET t = 'undone'; INSERT INTO t SELECT * FROM t; ROLLBACK TO a; SAVEPOINT b; UPDATE t SET i = -i WHERE i % 11 = 0; RELEASE b};
same('SELECT * FROM t', 'rows of the same transaction', before => $changes);
same('SELECT t, i FROM t WHERE i > 5', 'and with a filter', before => $changes);
same('SELECT * FROM t', 'rows that wait to be committed', before => $changes =~ s/TEMP //r);
same('SELECT * FROM aged', 'rows of a row type that changes in the same transaction', before => q(BEGIN; ALTER TABLE aged ADD COLUMN more int DEFAULT 7, DROP COLUMN pi; UPDATE aged SET more = 8 WHERE a % 2 = 0));
is( $node->safe_psql('utf8', "LOAD '$module'; " . q{CREATE FUNCTION in_block(q text) RETURNS text LANGUAGE plpgsql AS $$
		DECLARE c CURSOR FOR SELECT i4 FROM patterns; before int; after int; n bigint; result text = ''; BEGIN
		OPEN c; FETCH c INTO before;
		BEGIN n := } . (probe('x', undef) =~ s/'x'/q/r) . q{; RAISE EXCEPTION 'after %', n; EXCEPTION WHEN OTHERS THEN result := SQLERRM; END;
		BEGIN PERFORM } . (probe('x', undef) =~ s/'x'/'SELECT 1 \/ (i4 - 3935) FROM patterns'/r) . q{; EXCEPTION WHEN division_by_zero THEN result := result || ', failed'; END;
		FETCH c INTO after; CLOSE c; RETURN result || ', ' || before || ' ' || after; END $$; SELECT in_block('SELECT * FROM patterns'), in_block('SELECT * FROM patterns WHERE b')}),
	'after 4096, failed, 0 1|after 683, failed, 0 1', 'in subtransactions, beside a cursor on the same table');

# Row security, of partitions too.
$node->safe_psql('utf8', q{
	CREATE ROLE reader; GRANT pg_write_server_files TO reader; GRANT ALL ON ALL TABLES IN SCHEMA public TO reader;
	CREATE TABLE owned (owner name, a int, t text); INSERT INTO owned SELECT CASE WHEN i % 3 = 0 THEN 'reader' ELSE 'x' END, i, 'r' || i FROM generate_series(1, 3000) i;
	ALTER TABLE owned ENABLE ROW LEVEL SECURITY; CREATE POLICY own ON owned USING (owner = current_user); GRANT SELECT (owner, a) ON owned TO reader;
	REVOKE ALL ON parted_1 FROM reader; CREATE TABLE hidden (a int)});
same('SELECT owner, a FROM owned', 'row security', before => 'SET ROLE reader');
is(slurp_file("$dir/ours.csv") =~ tr/\n//, 1000, 'there are rows that the role may see');
same('SELECT a FROM parted WHERE a < 9000', 'rights on the parent alone', before => 'SET ROLE reader');
foreach my $query ('SELECT * FROM owned', 'SELECT * FROM hidden', 'SELECT * FROM parted_1')
{
	my ($status, $out, $error) = $node->psql('utf8', "LOAD '$module'; SET ROLE reader; SELECT " . probe($query));

	like($error, qr/permission denied for table/, "no rights: $query");
}

# A session that stays open while others change things.
sub session
{
	my ($in, $out, $err) = ('', '', '');
	my $handle = IPC::Run::start([ 'psql', '-XAtq', '-v', 'VERBOSITY=sqlstate', '-d', $node->connstr('utf8') ], '<', \$in, '>', \$out, '2>', \$err, IPC::Run::timeout(60));

	return {
		run => sub {
			$out = $err = '';
			$in .= "$_[0];\n\\echo done\n";
			$handle->pump until $out =~ /^done$/m;
			$handle->pump_nb;
			return ($out =~ s/done\n//r) . $err;
		},
		end => sub { $in .= "\\q\n"; $handle->finish; return; },
	};
}

# SERIALIZABLE: two transactions, each of which reads what the other writes.
$node->safe_psql('utf8', q{CREATE TABLE left_hand (a int); CREATE TABLE right_hand (a int);
	INSERT INTO left_hand SELECT generate_series(1, 1000); INSERT INTO right_hand SELECT generate_series(1, 1000)});
foreach my $query ('SELECT * FROM left_hand', 'SELECT a + 1 FROM left_hand WHERE a < 7')
{
	foreach my $reader ("COPY ($query) TO '/dev/null'", 'SELECT ' . probe($query))
	{
		foreach my $vacuum ('', 'VACUUM left_hand')
		{
			foreach my $late (0, 1)
			{
				my $session = session();
				my @answers;

				$node->safe_psql('utf8', $vacuum);
				push @answers, $session->{run}("LOAD '$module'"), $session->{run}('BEGIN ISOLATION LEVEL SERIALIZABLE; TABLE nothing');
				push @answers, $session->{run}($reader) =~ s/^\d+\n//r if !$late;
				$node->safe_psql('utf8', q{BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT count(*) FROM right_hand; INSERT INTO left_hand VALUES (5); COMMIT});
				push @answers, $session->{run}('INSERT INTO right_hand VALUES (5)');
				push @answers, $session->{run}($reader) =~ s/^\d+\n//r if $late;
				push @answers, $session->{run}('COMMIT');
				$session->{end}();
				like(join('', @answers), qr/^ERROR:  40001\n$/, 'write skew is found: ' . ($late ? 'late ' : '') . "$reader $vacuum");
			}
		}
	}
}

# A snapshot is kept while the table is vacuumed, truncated at its end, and grows.
$node->safe_psql('utf8', q{CREATE TABLE busy (a int, t text); INSERT INTO busy SELECT i, repeat('x', 50) FROM generate_series(1, 5000) i});
{
	my $session = session();
	my $ours = "$dir/kept.csv";

	$session->{run}("LOAD '$module'; BEGIN ISOLATION LEVEL REPEATABLE READ; COPY busy TO '$dir/before.csv' (FORMAT csv)");
	foreach my $change ('DELETE FROM busy WHERE a > 2000', 'VACUUM busy', q{UPDATE busy SET t = 'y' WHERE a % 2 = 0}, 'VACUUM busy', q{INSERT INTO busy SELECT 0, 'new' FROM generate_series(1, 5000)})
	{
		$node->safe_psql('utf8', $change);
		like($session->{run}('SELECT ' . probe('SELECT * FROM busy', $ours)), qr/^5000$/, "after $change");
		is(slurp_file($ours), slurp_file("$dir/before.csv"), 'the rows are those of the snapshot');
	}
	$session->{run}('COMMIT');
	$session->{end}();
	$node->safe_psql('utf8', 'DELETE FROM busy WHERE a <> 1; VACUUM busy');
	same('SELECT * FROM busy', 'a table whose end was truncated');
	$node->safe_psql('utf8', 'TRUNCATE busy');
	same('SELECT * FROM busy', 'and all of it');
}

# Larger than a quarter of shared_buffers: through a ring, from where another scan is.
$node->append_conf('postgresql.conf', 'shared_buffers = 1MB');
$node->restart;
$node->safe_psql('utf8', q{CREATE TABLE large AS SELECT i AS id, repeat('l', 200) AS t FROM generate_series(1, 20000) i});
{
	my $scan = session();

	$scan->{run}('BEGIN; DECLARE c CURSOR FOR SELECT * FROM large; MOVE 9000 IN c');
	$node->safe_psql('utf8', "LOAD '$module'; SELECT " . probe('SELECT * FROM large', "$dir/large.csv"));
	$scan->{end}();
}
{
	my @lines = split /\n/, slurp_file("$dir/large.csv");
	my ($first) = split /,/, $lines[0];

	cmp_ok($first, '>', 1, 'a scan joins another');
	is(join(',', sort { $a <=> $b } map { (split /,/)[0] } @lines), join(',', 1 .. 20000), 'and has each row once');
}
same('SELECT * FROM large', 'a large table', before => 'SET synchronize_seqscans = off');

$node->stop;
done_testing();
