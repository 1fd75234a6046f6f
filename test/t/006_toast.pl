# Values stored out of line are COPY's, however they came to lie where they do.
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

my $node = PostgreSQL::Test::Cluster->new('toast');
$node->init(extra => [ '--encoding=UTF8', '--locale=C' ]);
$node->append_conf('postgresql.conf', "fsync = off\nautovacuum = off\njit = off\nmax_parallel_workers_per_gather = 0\n");
$node->start;
my $dir = PostgreSQL::Test::Utils::tempdir;
chmod 0777, $dir;

$node->safe_psql('postgres', "ALTER DATABASE postgres SET probe.dir = '$dir'");
$node->safe_psql('postgres', qq{
	CREATE FUNCTION csv_probe(query text, path text, header bool, delimiter text, quote text, escape text,
		nul text, force_quote text[], encoding text, block_size int) RETURNS bigint LANGUAGE c AS '$module';
	CREATE FUNCTION probe(query text) RETURNS bigint LANGUAGE sql
		RETURN csv_probe(query, NULL, false, NULL, NULL, NULL, NULL, NULL, NULL, 262144)});
system_or_bail('psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-o', '/dev/null',
	'-d', $node->connstr('postgres'), '-f', "$test/lib/csv_$_.sql") foreach qw(compare toast);

my $same = qr/^[1-9]\d* compared, \d+ failed alike, 0 differ$/m;

# Compares the queries of a set, after some statements in the same transaction.
sub compare
{
	my ($title, $set, $statements) = @_;

	foreach my $fast (qw(on off))
	{
		my $result = $node->safe_psql('postgres',
			"LOAD '$module'; SET s3export.fast_output = $fast; BEGIN ISOLATION LEVEL REPEATABLE READ; "
			  . ($statements // '') . "SELECT compare('{$set}', 'plain'); ROLLBACK");

		like($result, $same, "$title, fast $fast") or diag($result);
	}
	return;
}

# How often an index of a TOAST table is asked while a query is exported.
sub index_scans
{
	my ($table, $query, $fast) = @_;

	return $node->safe_psql('postgres', qq{
		LOAD '$module'; SET s3export.fast_output = $fast; BEGIN;
		DO \$\$BEGIN PERFORM probe('$query'); END\$\$;
		SELECT pg_stat_get_xact_numscans(indexrelid) FROM pg_index
		WHERE indrelid = (SELECT reltoastrelid FROM pg_class WHERE relname = '$table'); ROLLBACK});
}

compare('stored in all ways', 'toast');
compare('serializable', 'toast', 'SET TRANSACTION ISOLATION LEVEL SERIALIZABLE; ');

SKIP:
{
	skip 'no LZ4', 1 unless check_pg_config('#define USE_LZ4 1');
	compare('LZ4', 'toast', 'ALTER TABLE packed_values ALTER w SET COMPRESSION lz4;
		UPDATE packed_values SET w = w || w WHERE id % 4 > 0; ');
}

# The index is asked where values begin in the first place, and hardly ever again.
is(index_scans('large_values', 'TABLE large_values', 'off'), 20, 'the server asks once for each value');
cmp_ok(index_scans('large_values', 'TABLE large_values', 'on'), '<', 20, 'we ask less');
is(index_scans('ordered', 'TABLE ordered', 'on'), 1, 'once where all values lie in order');
cmp_ok(index_scans('plain_values', 'SELECT v FROM plain_values WHERE w IS NULL', 'on'), '<', 300,
	'values in between are no great loss');
cmp_ok(index_scans('plain_values', 'SELECT v FROM plain_values ORDER BY id DESC', 'on'), '<=', 2 * 511,
	'nor is another order');

compare('rows of our own', 'toast', q{
	CREATE TEMP TABLE mine (id int, v text); ALTER TABLE mine ALTER v SET STORAGE EXTERNAL;
	INSERT INTO mine SELECT i, noise(i, i * 50) FROM generate_series(1, 300) i;
	INSERT INTO queries VALUES ('toast', 'TABLE mine');
	INSERT INTO changed_values SELECT i, noise(i, 2500) FROM generate_series(2001, 2050) i;
	SAVEPOINT s; INSERT INTO changed_values SELECT i, noise(i, 2500) FROM generate_series(2051, 2100) i; ROLLBACK TO s;
	INSERT INTO changed_values SELECT i, noise(i, 2500) FROM generate_series(2101, 2150) i;
	UPDATE changed_values SET v = noise(id, 3000) WHERE id > 2120; DELETE FROM changed_values WHERE id = 2110; });
compare('a table that the query changes', 'own', q{
	CREATE TEMP TABLE mine (v text); ALTER TABLE mine ALTER v SET STORAGE EXTERNAL;
	CREATE FUNCTION renew(i int) RETURNS text LANGUAGE plpgsql AS $$BEGIN
		DELETE FROM mine; INSERT INTO mine SELECT noise(i + n, 4000) FROM generate_series(1, 3) n;
		RETURN (SELECT v FROM mine LIMIT 1); END$$;
	CREATE FUNCTION replace(i int) RETURNS text LANGUAGE plpgsql AS $$DECLARE t text; BEGIN
		TRUNCATE mine; INSERT INTO mine SELECT noise(i + n, 4000) FROM generate_series(1, 3) n;
		SELECT v INTO t FROM mine LIMIT 1; RETURN t; END$$;
	INSERT INTO queries VALUES ('own', 'SELECT renew(i) AS v, i FROM generate_series(1, 50) i'),
		('own', 'SELECT replace(i) AS v, i FROM generate_series(1, 50) i'); });

# Sessions that fill a table together, and one that looks on from the past.
$node->safe_psql('postgres', q{
	CREATE TABLE shared (id serial, client int, v text); ALTER TABLE shared ALTER v SET STORAGE EXTERNAL;
	INSERT INTO queries VALUES ('shared', 'SELECT * FROM shared'), ('shared', 'SELECT * FROM shared ORDER BY id')});
my $script = "$dir/fill.sql";
append_to_file($script, q{\set n random(1, 9)
INSERT INTO shared (client, v) SELECT :client_id, noise(:n + i, 1500 + 500 * :n) FROM generate_series(1, 3) i;
UPDATE shared SET v = noise(:n + 50, 2100 * :n) WHERE id IN (SELECT id FROM shared WHERE client = :client_id LIMIT 1);
DELETE FROM shared WHERE id IN (SELECT id FROM shared WHERE client = :client_id ORDER BY id OFFSET 20 LIMIT 1);
});

sub fill
{
	my ($transactions) = @_;

	$node->command_ok([ 'pgbench', '-n', '-c', '4', '-t', $transactions, '-f', $script, 'postgres' ],
		'sessions fill and change a table together');
	return;
}

fill(60);
compare('filled by several sessions', 'shared');

my $past = $node->background_psql('postgres');
my $snapshot = $past->query_safe("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT pg_export_snapshot()");
my $digest = "SELECT md5(string_agg(id || v, '' ORDER BY id)) FROM shared";
my $before = $node->safe_psql('postgres', $digest);

fill(40);
$node->safe_psql('postgres', 'UPDATE shared SET v = noise(id, 2500) WHERE id % 3 = 0; VACUUM shared');
$node->safe_psql('postgres', 'DELETE FROM shared WHERE id % 2 = 0; VACUUM (INDEX_CLEANUP off) shared; VACUUM shared');
isnt($node->safe_psql('postgres', $digest), $before, 'the table is another now');
compare('a snapshot of the past', 'shared', "SET TRANSACTION SNAPSHOT '$snapshot'; ");
is($node->safe_psql('postgres',
		"BEGIN ISOLATION LEVEL REPEATABLE READ; SET TRANSACTION SNAPSHOT '$snapshot'; $digest; COMMIT"),
	$before, 'which is what it was');
compare('the present', 'shared');

# All the while others change the table, and VACUUM takes away what it can.
my $busy = IPC::Run::start(
	[ 'pgbench', '-n', '-c', '3', '-t', 150, '-f', $script, $node->connstr('postgres') ],
	'>', "$dir/pgbench.out", '2>&1');
foreach my $round (1 .. 3)
{
	compare("while it changes, round $round", 'shared');
	$node->safe_psql('postgres', 'VACUUM shared');
}
$busy->finish;
is($busy->full_result(0), 0, 'the others met no error');
$past->query_safe('COMMIT');
$past->quit;

$node->safe_psql('postgres', 'VACUUM shared');
compare('after VACUUM', 'shared');
fill(20);
compare('with what VACUUM gave back in use again', 'shared');
$node->safe_psql('postgres', 'VACUUM FULL shared; VACUUM FULL changed_values; VACUUM (FULL, FREEZE) plain_values');
compare('after VACUUM FULL', $_) foreach qw(toast shared);
$node->restart;
compare('after a restart', 'shared');

$node->stop;
done_testing();
