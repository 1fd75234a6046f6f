# What is refused before anything has been sent: sources that lock rows, callers in
# a parallel worker, names of formats that are not written, and recovery for those
# who have nothing to recover.
use strict;
use warnings;
use lib 'test/lib';
use PostgreSQL::Test::Utils;
use S3Export;
use S3Faults;
use ScriptedS3;
use Test::More;

my $s3 = scripted_s3();
my %keys = scripted_user($s3);
my $node = s3export_node('main', q(s3export.retry_timeout = '1s'));

create_connector($node, 'lake', at_endpoint($s3), %keys, validate => \'false');
$node->safe_psql('postgres', 'CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)');

sub copy_sql
{
	my ($source, $path, %more) = @_;

	return 'SELECT rows FROM s3export.copy_to(' . join(', ', map { sql_literal($_) } 'lake', $source, $path)
	  . join('', map { ", $_ => " . sql_literal($more{$_}) } sort keys %more) . ')';
}

sub jobs
{
	return $node->safe_psql('postgres', 'SELECT count(*) FROM s3export.job');
}

# How many processes of the extension have been started.
sub processes
{
	my @started = slurp_file($node->logfile) =~ /starting background worker process "s3export/g;

	return scalar @started;
}

# ---- rows are locked nowhere
$node->safe_psql('postgres', 'CREATE VIEW locking AS SELECT * FROM t FOR UPDATE');
foreach my $source (
	'SELECT * FROM t FOR UPDATE',
	'SELECT * FROM t FOR KEY SHARE SKIP LOCKED',
	'SELECT * FROM (SELECT * FROM t FOR UPDATE) s',
	'SELECT 1 WHERE EXISTS (SELECT FROM t FOR SHARE)',
	'SELECT (SELECT id FROM t LIMIT 1 FOR NO KEY UPDATE)',
	'WITH w AS (SELECT * FROM t FOR UPDATE) SELECT * FROM w',
	'WITH w AS MATERIALIZED (SELECT * FROM (SELECT * FROM t FOR SHARE) s) SELECT * FROM w UNION ALL SELECT 2',
	'SELECT * FROM t UNION ALL SELECT * FROM (SELECT * FROM t FOR UPDATE) s',
	'SELECT * FROM t a, LATERAL (SELECT * FROM t b WHERE a.id = b.id FOR UPDATE) c',
	'SELECT * FROM generate_series(1, (SELECT id FROM t FOR UPDATE)) g ORDER BY g',
	'SELECT * FROM locking',
	'locking')
{
	error_like($node, copy_sql($source, 'x.csv'), { sqlstate => '22023', message => 'cannot export this source', detail => 'It locks rows with FOR UPDATE or FOR SHARE.' }, $source);
	error_like($node, copy_sql($source, 'x.csv', wait => \'false'), { sqlstate => '22023' }, "$source: in the background");
}
is($node->safe_psql('postgres', copy_sql(q(SELECT 'FOR UPDATE' AS "for update" FROM (SELECT * FROM t) s), 'words.csv')), 1, 'the words alone lock nothing');

# ---- names of formats
{
	my $jobs = jobs();

	foreach my $path (qw(x.parquet x.json x.jsonl x.ndjson x.avro x.orc x.xlsx x.csv.bz2 x.csv.xz x.zip x.csv.br 2026/{job}.PARQUET x.json.gz))
	{
		my ($format) = $path =~ /\.(\w+?)(?:\.gz)?$/;

		error_like($node, copy_sql('TABLE t', $path), { sqlstate => '22023', message => "invalid value for argument \"path\": \"$path\"", detail => "Files named .\L$format\E are no CSV, and s3export writes CSV.", hint => qr/orders\.csv/ }, "a file named $path");
	}
	error_like($node, copy_sql('TABLE t', 'x.parquet', wait => \'false'), { sqlstate => '22023' }, 'in the background');
	error_like($node, copy_sql('TABLE t', 'x.parquet', compression => 'gzip'), { sqlstate => '22023' }, 'with a method of compression');
	is(jobs(), $jobs, 'there is no job of it');
	is($node->safe_psql('postgres', copy_sql('TABLE t', $_)), 1, "a file named $_") foreach qw(x.csv x.txt x.tsv.gz x parquet/x.csv);
}

# ---- in a parallel worker, or beside one: functions that are marked wrongly
{
	my $jobs = jobs();
	my %calls = (
		copy_to => copy_sql('SELECT 1', 'worker.csv'),
		'copy_to in the background' => copy_sql('SELECT 1', 'worker.csv', wait => \'false'),
		recover => 'SELECT count(*) FROM s3export.recover()',
		test_credentials => q(SELECT count(*) FROM s3export.test_credentials('lake')),
		identity => 'SELECT count(*) FROM s3export.identity()',
		cancel => 'SELECT s3export.cancel(1)',
		wait => 'SELECT count(*) FROM s3export.wait(1)',
		deliver => 'SELECT count(*) FROM s3export.deliver()',
		launch => q(SELECT s3export.launch('lake')),
		drop_connector => q(SELECT s3export.drop_connector('lake')));
	my $before = processes();

	foreach my $call (sort keys %calls)
	{
		$node->safe_psql('postgres', "CREATE OR REPLACE FUNCTION wrong() RETURNS text LANGUAGE plpgsql PARALLEL SAFE AS \$f\$BEGIN RETURN ($calls{$call}); END\$f\$");
		error_like($node, 'SELECT wrong() FROM t', { sqlstate => '25000', message => qr/^cannot execute .* during a parallel operation$/ }, "$call in a parallel worker",
			before => 'SET ' . ($node->pg_version < 16 ? 'force_parallel_mode' : 'debug_parallel_query') . ' = on;');
	}
	is(processes(), $before, 'no process of the extension was started');
	is(jobs(), $jobs, 'there is no job of it');
}

# ---- recovery for those who have no job
{
	my $before;

	$node->safe_psql('postgres', q(CREATE ROLE nobody LOGIN; CREATE ROLE user1 LOGIN; SELECT s3export.grant_usage('lake', 'user1')));
	$before = processes();
	is($node->safe_psql('postgres', 'SELECT count(*) FROM s3export.recover()', extra_params => [ '-U', $_ ]), 0, "$_ has nothing to recover") foreach 'nobody', 'user1';
	is(processes(), $before, 'and starts no process');
	$node->safe_psql('postgres', copy_sql('SELECT 1', 'user1.csv'), extra_params => [ '-U', 'user1' ]);
	$before = processes();
	$node->safe_psql('postgres', 'SELECT count(*) FROM s3export.recover()', extra_params => [ '-U', 'user1' ]);
	cmp_ok(processes(), '>', $before, 'who has a job has it looked at');
	$before = processes();
	$node->safe_psql('postgres', 'CREATE DATABASE fresh');
	$node->safe_psql('fresh', 'CREATE EXTENSION s3export; SELECT count(*) FROM s3export.recover()');
	is(processes(), $before, 'in a database without jobs not even a superuser starts one');
}

keep_secrets($s3);
$node->stop;
$s3->stop;
done_testing();
