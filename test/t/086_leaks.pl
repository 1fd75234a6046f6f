# A thousand exports in one session, and hundreds that fail: afterwards the
# session, the postmaster and the cluster have what they had before, no more.
use strict;
use warnings;
use lib 'test/lib';
use File::Temp ();
use IPC::Run qw(timeout);
use PostgreSQL::Test::Utils;
use S3Export;
use S3Faults;
use ScriptedS3;
use Test::More;

my $lib = "$ENV{TESTDIR}/../test/lib";

# nginx answers at once, and the scripted server knows keys and uploads.
my $directory = PostgreSQL::Test::Utils::tempdir_short();
system('/bin/bash', "$lib/nginx_sink.sh", 'start', $directory) == 0 or BAIL_OUT('could not start nginx');
my ($sink) = slurp_file("$directory/env.sh") =~ /^export S3EXPORT_SINK_HTTP=(\S+)/m;

END
{
	local $?;
	system('/bin/bash', "$lib/nginx_sink.sh", 'stop', $directory) if defined $directory;
}

# In files the cluster's dynamic shared memory is told from that of others.
my $s3 = scripted_s3();
my %keys = scripted_user($s3);
my $node = s3export_node('main', 'dynamic_shared_memory_type = mmap', 'max_worker_processes = 8', 'log_min_messages = debug1',
	q(s3export.part_size = '5MB'), q(s3export.retry_timeout = '2s'), 'autovacuum = off');

$node->safe_psql('postgres', 'CREATE TABLE few AS SELECT i, md5(i::text) AS filler FROM generate_series(1, 100) i');
create_connector($node, 'sink', bucket => 'null', endpoint_url => $sink, access_key_id => 'AKIASINK', secret_access_key => 'sink' x 8, validate => \'false');
create_connector($node, 'lake', at_endpoint($s3), %keys);
create_connector($node, 'bad', at_endpoint($s3), %keys, secret_access_key => 'wrong' x 8, validate => \'false');

# ---- the session

my ($in, $out, $err) = ('', '', '');
my $session = IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('postgres') ], '<', \$in, '>', \$out, '2>', \$err, timeout(600));

# What statements, one of which is made for each row of a query, have said and complained.
sub run
{
	my ($sql) = @_;

	($out, $err) = ('', '');
	$in .= "$sql\n\\echo end of answer\n\\warn end of errors\n";
	$session->pump until $out =~ /^end of answer$/m && $err =~ /^end of errors$/m;
	return ($out =~ s/^end of answer\n//mr, $err =~ s/^end of errors\n//mr);
}

my ($pid) = run('SELECT pg_backend_pid();');
chomp $pid;
my $postmaster = (split /\n/, slurp_file($node->data_dir . '/postmaster.pid'))[0];

# Exports a query "count" times; returns how many succeeded, and the errors.
sub export
{
	my ($count, $connector, $query, $arguments) = @_;
	my ($done, $errors) = run('SELECT format(' . sql_literal("SELECT 'done' FROM s3export.copy_to('$connector', %L, 'f%s.csv', if_exists => 'overwrite'"
		. ($arguments // '') . ')') . ', ' . sql_literal($query) . ", i) FROM generate_series(1, $count) i \\gexec");

	return (scalar(() = $done =~ /^done$/gm), $errors);
}

# ---- what there is

sub entries
{
	my ($path) = @_;

	opendir(my $handle, $path) or return 0;
	return scalar grep { !/^\.\.?$/ } readdir $handle;
}

# Not those of tables, of which the server keeps some open.
sub open_files
{
	my ($process) = @_;
	my $data = $node->data_dir;
	my $files = 0;

	foreach my $file (glob "/proc/$process/fd/*")
	{
		my $name = readlink $file;

		$files++ if defined $name && $name !~ m{^\Q$data\E/(base|global|pg_wal|pg_xact)/};
	}
	return $files;
}

sub anonymous_memory
{
	my ($process) = @_;

	return slurp_file("/proc/$process/status") =~ /^RssAnon:\s+(\d+) kB/m ? $1 : die "no RssAnon of $process";
}

sub value
{
	my ($sql) = @_;
	my ($answer) = run("$sql;");

	chomp $answer;
	return $answer;
}

sub processes
{
	return scalar(split ' ', slurp_file("/proc/$postmaster/task/$postmaster/children"));
}

my $processes = processes();

# Things that are there or not, and memory in kB, which has some play.  Workers
# may still be on their way out.
sub measure
{
	my (%things, %memory);

	poll_until(sub { value(q(SELECT count(*) FROM pg_stat_activity WHERE backend_type IN ('s3export uploader', 'parallel worker'))) eq '0' },
		'the end of workers');
	poll_until(sub { processes() == $processes }, 'the end of processes');
	%things = (
		'files of the backend' => open_files($pid),
		'files of the postmaster' => open_files($postmaster),
		'shared memory segments' => entries($node->data_dir . '/pg_dynshmem'),
		'temporary files' => entries($node->data_dir . '/base/pgsql_tmp'),
		'replication slots' => value('SELECT count(*) FROM pg_replication_slots'),
		'locks of others' => value('SELECT count(*) FROM pg_locks WHERE pid <> pg_backend_pid()'),
		'memory contexts' => value(q(SELECT count(*) FROM pg_backend_memory_contexts WHERE parent IS DISTINCT FROM 'CacheMemoryContext')),
		'jobs that run' => value(q(SELECT count(*) FROM s3export.jobs WHERE state = 'running')),
		'uploads in jobs' => value('SELECT count(*) FROM s3export.jobs WHERE upload_id IS NOT NULL'),
		'open uploads' => scalar($s3->uploads('exports')));
	%memory = (
		'memory of the backend' => anonymous_memory($pid),
		'memory of the postmaster' => anonymous_memory($postmaster),
		'memory in contexts' => int(value('SELECT sum(total_bytes) FROM pg_backend_memory_contexts') / 1024));
	return (\%things, \%memory);
}

# ---- before and after

my $query = 'SELECT * FROM few';
my $last_row = 'SELECT 1 / (100 - i) FROM few';
my $large = q(SELECT repeat('x', 1000), 1 / (6000 - i) FROM generate_series(1, 6000) i);

# Some of each, so that caches are filled.
sub all_kinds
{
	my ($times) = @_;
	my %result;

	$result{compressed} = [ export($times * 2, 'sink', 'few', q(, compression => 'gzip')) ];
	$result{parallel} = [ export($times, 'sink', 'few', ', parallel => 2') ];
	$result{refused} = [ export($times * 3, 'bad', 'few') ];
	$result{'last row'} = [ export($times * 3, 'sink', $last_row) ];
	$result{parts} = [ export($times, 'lake', $large) ];
	run(q(SET statement_timeout = '30ms';));
	$result{cancelled} = [ export($times * 3, 'sink', 'SELECT pg_sleep(0.1) FROM few') ];
	run('RESET statement_timeout;');
	return \%result;
}

run('SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0; SET max_parallel_workers_per_gather = 0;');
export(50, 'sink', $query);
all_kinds(2);
my ($things, $memory) = measure();

is((export(1000, 'sink', $query))[0], 1000, 'a thousand exports');
my $result = all_kinds(20);
is($result->{compressed}[0], 40, 'compressed ones');
is($result->{parallel}[0], 20, 'parallel ones');
my %error = (refused => [ 60, qr/SignatureDoesNotMatch/ ], 'last row' => [ 60, qr/division by zero/ ],
	parts => [ 20, qr/division by zero/ ], cancelled => [ 60, qr/canceling statement due to statement timeout/ ]);
foreach my $kind (sort keys %error)
{
	my ($done, $errors) = @{ $result->{$kind} };

	is("$done, " . scalar(() = $errors =~ /$error{$kind}[1]/g), "0, $error{$kind}[0]", "exports that fail: $kind");
}

my ($things_after, $memory_after) = measure();
is($things_after->{$_}, $things->{$_}, "$_: as many as before") foreach sort keys %$things;
foreach my $what (sort keys %$memory)
{
	note("$what: $memory->{$what} kB before, $memory_after->{$what} kB after");
	cmp_ok($memory_after->{$what} - $memory->{$what}, '<', 512, "$what: no more than before, in kB");
}

$in .= "\\q\n";
$session->finish;
$node->stop;
$s3->stop;
done_testing();
