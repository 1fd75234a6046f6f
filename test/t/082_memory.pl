# Memory is bounded: of sessions that wait, of the queue, and shared memory of exports.
use strict;
use warnings;
use lib 'test/lib';
use PostgreSQL::Test::Utils;
use S3Export;
use S3Faults;
use Test::More;
use Time::HiRes qw(sleep);

# In files the cluster's dynamic shared memory is told from that of others.
my $s3 = scripted_s3();
my $node = s3export_node('main', 'dynamic_shared_memory_type = mmap', 'max_connections = 300', 'max_worker_processes = 32', 'max_parallel_workers = 8',
	'autovacuum = off', 'log_min_messages = debug1', q(s3export.max_running_jobs = 1));
my %keys = scripted_user($s3);

create_connector($node, 'lake', at_endpoint($s3), %keys);

sub sql { return $node->safe_psql('postgres', @_); }

sub start_sql
{
	my ($statement) = @_;
	my %session = (out => '', err => '');

	$session{handle} = IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('postgres'), '-c', $statement ], '<', \undef, '>', \$session{out}, '2>', \$session{err});
	return \%session;
}

# Bytes of all memory contexts of a process.
sub memory_of
{
	my ($pid) = @_;
	my $offset = -s $node->logfile;
	my $total;

	sql("SELECT pg_log_backend_memory_contexts($pid)");
	poll_until(sub { ($total) = slurp_file($node->logfile, $offset) =~ /\[$pid\].*Grand total: (\d+) bytes/ }, "memory contexts of $pid");
	return $total;
}

sub pid_of
{
	my ($condition) = @_;

	return poll_until(sub { sql("SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND $condition") }, $condition);
}

# ---- a session that waits, and the dispatcher of a thousand jobs that wait
{
	my $first = sql(q(SELECT job_id FROM s3export.copy_to('lake', 'SELECT pg_sleep(600)', 'long.csv', wait => false)));
	poll_until(sub { sql("SELECT state FROM s3export.jobs WHERE job_id = $first") eq 'running' }, 'the first job');
	sql(q(SELECT count(s3export.copy_to('lake', 'VALUES (1)', 'queued' || i || '.csv', wait => false)) FROM generate_series(1, 1000) i));
	my $waiting = start_sql("SELECT s3export.wait($first)");
	my %pid = ('a session that waits' => pid_of("query LIKE '%s3export.wait%'"), 'the dispatcher' => pid_of(q(backend_type = 's3export dispatcher')));

	# The first looks fill caches.
	sleep 4;
	my %before = map { $_ => memory_of($pid{$_}) } keys %pid;
	sleep 12;
	my %after = map { $_ => memory_of($pid{$_}) } keys %pid;
	foreach my $what (sort keys %pid)
	{
		note("$what: $before{$what} bytes, $after{$what} after a dozen seconds");
		cmp_ok($after{$what} - $before{$what}, '<', 65536, "$what takes no more memory with each look");
	}
	sql(q(SELECT count(s3export.cancel(job_id)) FROM s3export.jobs WHERE state = 'queued'));
	sql("SELECT s3export.cancel($first)");
	$waiting->{handle}->finish;
	like($waiting->{err}, qr/cancel/, 'the session has waited');
}

# ---- shared memory of an export is for the workers of its plan

sub shared_memory
{
	my $bytes = 0;

	$bytes += (-s $_) // 0 foreach glob($node->data_dir . '/pg_dynshmem/*');
	return $bytes;
}

# Bytes that a running export has, besides what there was.
sub during
{
	my ($settings, $query) = @_;
	my $before = shared_memory();
	my $session = start_sql("$settings; SELECT s3export.copy_to('lake', " . sql_literal($query) . ", 'shared.csv', if_exists => 'overwrite')");
	my $job = poll_until(sub { sql(q(SELECT job_id FROM s3export.progress WHERE phase = 'reading rows')) }, 'an export that runs');
	my $bytes = shared_memory() - $before;

	sql("SELECT pg_cancel_backend(leader_pid) FROM s3export.jobs WHERE job_id = $job");
	$session->{handle}->finish;
	poll_until(sub { shared_memory() <= $before }, 'the end of shared memory');
	return sprintf "%.1f", $bytes / (1024 * 1024);
}

my $many = 'SET s3export.max_parallel_workers = 1000; SET max_parallel_workers = 1000';

sql('CREATE TABLE large AS SELECT i, repeat($$x$$, 1000) FROM generate_series(1, 40000) i; ALTER TABLE large SET (parallel_workers = 1000); ANALYZE large');
sql('CREATE FUNCTION slowly(i int) RETURNS int LANGUAGE plpgsql PARALLEL SAFE COST 0.1 AS $$BEGIN PERFORM pg_sleep(0.01); RETURN i; END$$');
my $one = during($many, 'SELECT pg_sleep(60)');
cmp_ok($one, '<', 2, "an export of one row has one queue ($one MB)");
my $some = during("$many; SET max_parallel_workers = 3", 'SELECT slowly(i), l.* FROM large l');
cmp_ok($some, '>', 4, "an export with three workers has four ($some MB)");
cmp_ok($some, '<', 6, 'and no more');
my $most = during($many, 'SELECT slowly(i), l.* FROM large l');
cmp_ok($most, '<', 45, "there are never more than the server has worker processes ($most MB)");

$node->stop;
$s3->stop;
done_testing();
