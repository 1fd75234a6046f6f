# Other people's code in the server: hooks that change plans, and the extensions that
# many servers have, all of them loaded.
use strict;
use warnings;
use lib 'test/lib';
use Cwd qw(abs_path);
use File::Basename qw(dirname);
use PostgreSQL::Test::Utils;
use S3Currents;
use S3Export;
use S3Faults;
use Test::More;

my $probe = abs_path(dirname(__FILE__) . '/../planner_probe') . '/planner_probe';
my $s3 = scripted_s3();
my %keys = scripted_user($s3);
my $table = 'SELECT i, md5(i::text) AS filler FROM generate_series(1, 20000) i';
my $small = 'SET parallel_setup_cost = 0; SET min_parallel_table_scan_size = 0';

# What users type into a statement is theirs to keep: it is not what is logged here.
sub connector
{
	my ($node, @arguments) = @_;

	local $ENV{PGOPTIONS} = '-c pgaudit.log=none -c auto_explain.log_min_duration=-1';
	create_connector($node, @arguments, %keys);
	return;
}

sub start
{
	my ($name, @settings) = @_;
	my $node = currents_node($name, 'max_worker_processes = 16', 'autovacuum = off', @settings);

	$node->safe_psql('postgres', "CREATE TABLE items AS $table; ALTER TABLE items ADD PRIMARY KEY (i); ANALYZE items");
	connector($node, 'lake', at_endpoint($s3), folder_path => $name);
	return $node;
}

sub rows { return join '', sort split /^/, $_[0]; }

sub object { return rows($s3->object('exports', $_[0])); }

# ---- a planner hook

SKIP:
{
	skip 'test/planner_probe is not built (make -C test/planner_probe)', 8 unless -e "$probe.so";

	my $node = start('hook');
	my $expected = rows($node->safe_psql('postgres', 'COPY items TO STDOUT (FORMAT csv)') . "\n");

	# Exports a query with the hook; returns how often it was planned.
	sub runs
	{
		my ($name, $query, $settings) = @_;
		my ($status, $out, $err) = $node->psql('postgres', "LOAD '$probe'; $small; SET s3export.max_parallel_workers = 3; "
			  . ($settings // 'SELECT') . '; SELECT s3export.copy_to(' . sql_literal('lake') . ', ' . sql_literal($query) . ", '$name.csv', header => false)");

		is($status, 0, "$name is exported") or diag($err);
		return scalar(() = $err =~ /planned: \Q$query\E\n/g);
	}

	runs('more', 'SELECT * FROM items', 'SET planner_probe.workers = 6');
	is(object('hook/more.csv'), $expected, 'a hook asks for more workers than the export has queues for: all rows, once');
	is(runs('parallel', 'SELECT * FROM items'), 1, 'planned once: with workers');
	is(runs('ordered', 'SELECT * FROM items ORDER BY filler'), 1, 'planned once: ordered');
	is(runs('alone', 'VALUES (1)'), 1, 'planned once: nothing to be shared');
	$node->stop;
}

# ---- what is loaded together

my %preload = (auto_explain => q(auto_explain.log_min_duration = 0, auto_explain.log_analyze = on, auto_explain.log_buffers = on,
		auto_explain.log_verbose = on, auto_explain.log_nested_statements = on), pg_stat_statements => q(pg_stat_statements.track = all),
	pgaudit => q(pgaudit.log = all, pgaudit.log_relation = on, pgaudit.log_parameter = on), pg_cron => q(cron.database_name = postgres), hypopg => '');
my ($lib) = PostgreSQL::Test::Utils::run_command([ 'pg_config', '--pkglibdir' ]);
my @there = grep { -e "$lib/$_.so" } sort keys %preload;

foreach my $missing (grep { !-e "$lib/$_.so" } sort keys %preload)
{
  SKIP: { skip "$missing is not installed", 1; }
}

my $node = start('together', 'shared_preload_libraries = ' . sql_literal(join(', ', @there)), map { s/ = (.*)/ = '$1'/r } map { split /,\s+/, $preload{$_} } @there);
my $expected = rows($node->safe_psql('postgres', 'COPY items TO STDOUT (FORMAT csv)') . "\n");

sub sql { return $node->safe_psql('postgres', @_); }

foreach my $extension (grep { $_ ne 'auto_explain' } @there)
{
	sql("CREATE EXTENSION $extension");
}
is(sql('SHOW shared_preload_libraries'), join(', ', @there), 'all of them are loaded');
is(sql(q(SELECT bool_and(ok) FROM s3export.test_credentials('lake'))), 't', 'a connector is tested');
foreach my $parallel (0, 3)
{
	sql("$small; SELECT s3export.copy_to('lake', 'items', 'items-$parallel.csv', header => false, parallel => $parallel)");
	is(object("together/items-$parallel.csv"), $expected, "an export with $parallel parallel workers");
}
sql('SELECT s3export.wait(' . sql(q(SELECT job_id FROM s3export.copy_to('lake', 'items', 'queued.csv', header => false, wait => false))) . ')');
is(object('together/queued.csv'), $expected, 'an export in the background');
SKIP:
{
	skip 'hypopg is not installed', 1 unless grep { $_ eq 'hypopg' } @there;
	sql(q(SELECT hypopg_create_index('CREATE INDEX ON items (filler)');
		SELECT s3export.copy_to('lake', $$SELECT * FROM items WHERE filler = md5('7')$$, 'one.csv', header => false)));
	is($s3->object('exports', 'together/one.csv'), "7,8f14e45fceea167a5a36dedd4bea2543\n", 'an index that does not exist helps nobody');
}
error_like($node, q(SELECT s3export.copy_to('lake', 'SELECT 1 / (20000 - i) FROM items', 'failed.csv')), { sqlstate => '22012' }, 'an export that fails');
connector($node, 'flow', at_endpoint($s3), folder_path => 'flow', kind => 'currents', tables => '{items}');
launch($node, 'flow', copy_existing => 1);
sql(q(UPDATE items SET filler = 'changed' WHERE i <= 3; DELETE FROM items WHERE i > 19999));
is(deliver($node, 'flow')->{events}, 4, 'changes are delivered');
my @files = files_in_scripted($s3, 'flow');
is_deeply([ wrong_files(@files), wrong_events(all_events(@files)) ], [], 'their files');
is(scalar(grep { $_->{op} eq 'copy' } all_events(@files)), 20000, 'and the copy');
ok(slurp_file($node->logfile) !~ /was terminated by signal/, 'nothing has crashed');

$node->stop;
$s3->stop;
done_testing();
