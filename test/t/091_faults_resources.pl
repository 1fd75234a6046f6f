# What an export does when the server has run out of something: worker processes,
# dynamic shared memory, file descriptors, memory, disk.  Each time the caller's error,
# the job's row and the bucket are looked at.
use strict;
use warnings;
use lib 'test/lib';

use Cwd qw(abs_path);
use File::Basename;
use IPC::Run qw(timeout);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use S3Export;
use S3Faults;
use ScriptedS3;
use Test::More;

my $module = abs_path(dirname(__FILE__) . '/../csv_probe') . '/csv_probe';

plan skip_all => 'test/csv_probe is not built (make -C test/csv_probe)' unless -e "$module.so";

my $s3 = scripted_s3();
my $folder = unique_folder();
my %lake = (at_endpoint($s3), scripted_user($s3), folder_path => $folder);
my $node;

# ---- exports

# What a table's file consists of, in no order that matters where workers read it.
my $rows = 60000;
my $whole = join '', sort "i,filler\n", map { "$_," . ('x' x 100) . "\n" } 1 .. $rows;

sub make_table
{
	$node->safe_psql('postgres', "CREATE TABLE big AS SELECT i, repeat('x', 100) AS filler FROM generate_series(1, $rows) i; ANALYZE big");
	create_connector($node, 'lake', %lake);
	return;
}

sub copy_to
{
	my ($source, $file, $more) = @_;

	return "SELECT rows FROM s3export.copy_to('lake', " . sql_literal($source) . ", '$file'" . ($more // '') . ')';
}

# Looks at what has become of an export, with the wanted three cells of the table of
# faults, and states its line.  "error" is what psql said.
sub fault
{
	my ($fault, $error, $file, @wanted) = @_;
	my $object = $s3->object('exports', "$folder/$file");
	my $uploads = grep { $_->{key} eq "$folder/$file" } $s3->uploads('exports');
	my @cells;

	$object = join '', sort split /^/, $object if defined $object;
	@cells = (caller_cell($error), job_cell($node, $file), bucket_cell($object, $whole, $uploads));
	$cells[0] =~ s{ "/PostgreSQL\.\d+" to \d+ bytes}{};
	$cells[0] =~ s{ "pg_tblspc/[^"]*"}{};
	is_deeply(\@cells, \@wanted, $fault) or diag(explain(\@cells, $error));
	fault_outcome($fault, @cells);
	return;
}

# A session that stays.  One that began before limits were lowered does not have them.
sub session
{
	my %session = (in => '', out => '', err => '');

	$session{run} = IPC::Run::start([ 'psql', '-XAtq', '-v', 'VERBOSITY=verbose', '-d', $node->connstr('postgres') ],
		'<', \$session{in}, '>', \$session{out}, '2>', \$session{err}, timeout(120));
	$session{pid} = (ask(\%session, 'SELECT pg_backend_pid()'))[0];
	return \%session;
}

# Sends a statement, and does not wait.
sub order
{
	my ($session, $sql) = @_;

	@$session{qw(out err)} = ('', '');
	$session->{ordered} = 1;
	$session->{in} .= "$sql;\n";
	$session->{run}->pump_nb;
	return;
}

# What a statement, and one that was ordered before, answers and complains of.
sub ask
{
	my ($session, $sql) = @_;

	@$session{qw(out err)} = ('', '') unless delete $session->{ordered};
	$session->{in} .= "$sql;\n\\echo end of answer\n\\warn end of errors\n";
	$session->{run}->pump until $session->{out} =~ /^end of answer\n/m && $session->{err} =~ /^end of errors\n/m;
	chomp(my ($out, $err) = ($session->{out} =~ s/^end of answer\n//mr, $session->{err} =~ s/^end of errors\n//mr));
	return ($out, $err);
}

sub leave
{
	my ($session) = @_;

	$session->{in} .= "\\q\n";
	$session->{run}->finish;
	return;
}

sub postmaster
{
	return (split /\n/, slurp_file($node->data_dir . '/postmaster.pid'))[0];
}

# Lowers a soft limit of a process, which those it starts from now on inherit; or takes
# that back.
sub limit
{
	my ($pid, $what, $soft) = @_;

	system_or_bail('prlimit', '--pid', $pid, "--$what=$soft:");
	return;
}

sub limit_of
{
	my ($pid, $what) = @_;

	return qx{prlimit --pid $pid --$what --noheadings --output SOFT} =~ s/\s//gr;
}

# ---- worker processes

# One process, and nobody else takes it.  Setup costs something, so that the extension's own
# queries do without workers, and without segments.
$node = s3export_node('workers', 'max_worker_processes = 1', 'max_logical_replication_workers = 0', 'max_connections = 40', 'autovacuum = off',
	'max_parallel_workers = 8', 'parallel_setup_cost = 150', 'parallel_tuple_cost = 0', 'min_parallel_table_scan_size = 0', 's3export.part_size = 5MB');
make_table();
$node->safe_psql('postgres', "CREATE FUNCTION take_segments(integer) RETURNS integer LANGUAGE c STRICT AS '$module'");

# Holds an export up, for as long as the first session has the lock.
my $gate = 'SELECT i, filler FROM (SELECT pg_advisory_xact_lock_shared(91)) gate, LATERAL (SELECT * FROM big OFFSET 0) rows';

sub waits_at_gate
{
	my ($count) = @_;

	poll_until(sub { $node->safe_psql('postgres', q(SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 91 AND NOT granted)) == $count }, 'an export at the gate');
	return;
}

sub export
{
	my ($file, $more) = @_;

	return sql_error($node, copy_to('big', $file, $more));
}

{
	my $keeper = session();
	my $first = session();

	ask($keeper, 'SELECT pg_advisory_lock(91)');
	order($first, copy_to($gate, 'first.csv'));
	waits_at_gate(1);
	my $error = export('second.csv');
	like($error->{hint}, qr/^Wait until other exports have ended, or raise "max_worker_processes"\.$/, 'no worker process is free: the hint');
	fault('no worker process is free', $error, 'second.csv', '`53000` could not start an uploader: no background worker is free', 'none', 'no object');
	ask($keeper, 'SELECT pg_advisory_unlock(91)');
	is((ask($first, 'SELECT 1'))[0], "$rows\n1", 'the one that has a worker ends well');
	leave($_) foreach $keeper, $first;
}

# Who runs which rows is in the debug messages.
sub parallel_export
{
	my ($file, $before) = @_;
	my ($status, $out, $err) = $node->psql('postgres', "\\set VERBOSITY verbose\nSET client_min_messages = debug1; " . ($before // '') . copy_to('big', $file, ', parallel => 2'));
	my $workers = () = $err =~ /parallel worker \d+ has sent/g;

	return ($workers, join("\n", grep { !/DEBUG:|^LOCATION:/ } split /\n/, $err));
}

{
	my ($workers, $error) = parallel_export('alone.csv');

	is($workers, 0, 'the only worker process is the uploader');
	fault('no worker process is free for a parallel query', $error, 'alone.csv', 'success', 'succeeded', 'the whole object');
}

# Sessions that export at once; returns their errors, by the number of the session.
sub at_once
{
	my ($count, $statement) = @_;
	my @sessions = map { session() } 1 .. $count;
	my @errors;

	order($sessions[$_], $statement->($_)) foreach 0 .. $#sessions;
	@errors = map { (ask($_, 'SELECT 1'))[1] } @sessions;
	leave($_) foreach @sessions;
	return @errors;
}

# With the one worker process most have to go without.
{
	my @errors = at_once(20, sub { copy_to('big', "few$_[0].csv") });
	my @refused = grep { $errors[$_] ne '' } 0 .. $#errors;
	my @done = grep { $errors[$_] eq '' } 0 .. $#errors;

	cmp_ok(scalar @refused, '>', 0, '20 at once, and one worker process: some are refused');
	is_deeply([ grep { caller_cell($errors[$_]) ne '`53000` could not start an uploader: no background worker is free' } @refused ], [], 'each with the error that says why');
	is($node->safe_psql('postgres', "SELECT count(*) FROM s3export.jobs WHERE uri LIKE '%/few%'"), scalar @done, 'the others have jobs');
	is_deeply([ grep { ($s3->object('exports', "$folder/few$_.csv") // '') ne '' } @refused ], [], 'and no object');
	is($node->safe_psql('postgres', "SELECT count(*) FROM s3export.jobs WHERE state <> 'succeeded' AND uri LIKE '%/few%'"), 0, 'each of which has succeeded');
	is(scalar($s3->uploads('exports')), 0, 'no upload stays open');
}

$node->adjust_conf('postgresql.conf', 'max_worker_processes', '30');
$node->restart;

{
	my ($workers, $error) = parallel_export('forbidden.csv', 'SET max_parallel_workers = 0; ');

	is($workers, 0, 'max_parallel_workers forbids workers, not the uploader');
	fault('`max_parallel_workers` is used up', $error, 'forbidden.csv', 'success', 'succeeded', 'the whole object');
}
{
	my @errors = at_once(20, sub { copy_to('big', "many$_[0].csv") });

	is_deeply([ grep { $_ ne '' } @errors ], [], '20 exports at once, with enough worker processes');
	is($node->safe_psql('postgres', "SELECT count(*), bool_and(state = 'succeeded'), sum(rows) FROM s3export.jobs WHERE uri LIKE '%/many%'"), '20|t|' . 20 * $rows, 'their jobs');
	is(scalar(grep { join('', sort split /^/, $s3->object('exports', "$folder/many$_.csv") // '') eq $whole } 0 .. 19), 20, 'their objects');
	fault('20 exports at once', $errors[0], 'many0.csv', 'success', 'succeeded', 'the whole object');
}

# One path for all: the gate keeps the winner until the others have given up.
{
	my $keeper = session();
	my @sessions = map { session() } 1 .. 20;
	my $losers = q(SELECT count(*) FROM s3export.jobs WHERE path = 'same.csv' AND state = 'failed');

	ask($keeper, 'SELECT pg_advisory_lock(91)');
	order($_, copy_to($gate, 'same.csv')) foreach @sessions;
	poll_until(sub { $_->{run}->pump_nb foreach @sessions; $node->safe_psql('postgres', $losers) == 19 }, 'the losers');
	ask($keeper, 'SELECT pg_advisory_unlock(91)');
	my @errors = map { (ask($_, 'SELECT 1'))[1] } @sessions;
	my @refused = grep { $_ ne '' } @errors;

	is(scalar @refused, 19, '20 exports to one path: one wins');
	is(scalar(grep { /ERROR:  55006: another export writes to .*\nDETAIL:  It is job \d+\.\nHINT:  Wait until it has ended, or choose another path\./ } @refused), 19, 'the others have an error that says why');
	is($node->safe_psql('postgres', q(SELECT string_agg(DISTINCT state || coalesce(error_code, ''), ' ' ORDER BY state || coalesce(error_code, '')) FROM s3export.jobs WHERE path = 'same.csv')), 'failed55006 succeeded', 'so do their jobs');
	my $last = $node->safe_psql('postgres', q(SELECT state || ' `' || error_code || '`' FROM s3export.jobs WHERE path = 'same.csv' AND state = 'failed' LIMIT 1));
	my $object = join '', sort split /^/, $s3->object('exports', "$folder/same.csv");
	fault_outcome('20 exports at once to one path, all but the first', caller_cell($refused[0]), $last, bucket_cell($object, $whole, scalar($s3->uploads('exports'))) . ', of the first');
	ok($object eq $whole, 'the object is the winner\'s');
	leave($_) foreach $keeper, @sessions;
}

# ---- segments of dynamic shared memory
{
	my $taker = session();
	my $taken = (ask($taker, 'SELECT take_segments(0)'))[0];
	my $error = export('segments.csv');

	cmp_ok($taken, '>', 100, 'all segments are taken');
	like($error->{hint}, qr/^Wait until other exports have ended, or raise "max_connections", /, 'no segment is free: the hint');
	fault('no dynamic shared memory segment is free', $error, 'segments.csv', '`53000` could not start an uploader: too many dynamic shared memory segments', 'none', 'no object');
	leave($taker);

	$taker = session();
	ask($taker, 'SELECT take_segments(1)');
	my ($workers, $complaint) = parallel_export('segment.csv');
	is($workers, 0, 'the only segment is the uploader\'s');
	fault('no dynamic shared memory segment is free for a parallel query', $complaint, 'segment.csv', 'success', 'succeeded', 'the whole object');
	leave($taker);

	($workers, $complaint) = parallel_export('workers.csv');
	is("$workers$complaint", 2, 'with enough of them there are parallel workers');
}

# ---- file descriptors

# Does a block with a limit that the processes have which are started meanwhile.
sub with_limit
{
	my ($what, $soft, $block) = @_;
	my $before = limit_of(postmaster(), $what);
	my @result;

	limit(postmaster(), $what, $soft);
	@result = $block->();
	limit(postmaster(), $what, $before);
	return @result;
}

# With as few as the server takes to start, libcurl gets a part of them.
$node->append_conf('postgresql.conf', "max_files_per_process = 64\ns3export.max_concurrent_parts = 64\ns3export.upload_memory = '400MB'\ns3export.retry_timeout = '1s'");
$node->restart;
$s3->call('add_fault', do => 'stall', seconds => 1, match => { operation => 'UploadPart', key => '.*few_files.csv' });
{
	my $times = 20;
	my $source = "SELECT i, filler FROM big, generate_series(1, $times)";
	my $error = sql_error($node, copy_to($source, 'few_files.csv'));
	my $object = $s3->object('exports', "$folder/few_files.csv") // '';
	my @lines = $object =~ /^(.*\n)/mg;
	my %seen = map { $_ => 1 } @lines;

	is(scalar @lines, $rows * $times + 1, 'max_files_per_process = 64: all rows');
	is(join('', sort keys %seen), $whole, 'max_files_per_process = 64: each of them');
	$object = $whole if @lines == $rows * $times + 1;
	fault_outcome('fewer file descriptors than concurrent parts', caller_cell($error), job_cell($node, 'few_files.csv'), bucket_cell($object, $whole, scalar $s3->uploads('exports')));
	is(caller_cell($error) . job_cell($node, 'few_files.csv'), 'successsucceeded', 'max_files_per_process = 64: so say the caller and the job');
}
$s3->call('clear_faults');

# What each of these exports has come to: it has succeeded, or nothing is left but what
# its job's row says.
sub settled
{
	my ($file, $error, $sqlstates) = @_;
	my $object = $s3->object('exports', "$folder/$file");
	my $job = job_cell($node, $file);

	return 'succeeded' if $error eq '' && $job eq 'succeeded' && join('', sort split /^/, $object // '') eq $whole;
	return 'failed' if caller_cell($error) =~ /^`($sqlstates)` / && $job =~ /^(none|failed `($sqlstates)`|running)$/ && !defined $object;
	return "$error, $job, " . (defined $object ? 'an object' : 'no object');
}

# Ever more, until it is enough: wherever the uploader runs out of them.
sub sweep
{
	my ($what, $sqlstates, @softs) = @_;
	my (%count, @errors);

	foreach my $soft (@softs)
	{
		my $session = session();
		my (undef, $error) = with_limit($what, $soft, sub { ask($session, copy_to('big', "$what$soft.csv", ', parallel => 0')) });
		my $end = settled("$what$soft.csv", $error, $sqlstates);

		leave($session);
		$count{$end}++;
		push @errors, $error;
		last if $end eq 'succeeded';
	}
	is_deeply([ sort keys %count ], [ 'failed', 'succeeded' ], "$what: an export fails with its own error, or succeeds") or diag(explain(\%count));
	is(scalar($s3->uploads('exports')), 0, "$what: no upload stays open");
	unlike(slurp_file($node->logfile), qr/was terminated by signal/, "$what: no process crashes");
	return @errors;
}

$node->adjust_conf('postgresql.conf', 'max_files_per_process', '1000');
$node->restart;
{
	# The server's own functions are out of them, too; XX000 is WaitLatch's.
	my ($first) = sweep('nofile', '53000|08006|XX000', map { 8 + $_ } 0 .. 120);

	fault_outcome('no file descriptor is left for the uploader', caller_cell($first), $node->safe_psql('postgres', q(SELECT DISTINCT state || ' `' || error_code || '`' FROM s3export.jobs WHERE path LIKE 'nofile%' AND error_code = '53000')), 'no object');
}

# ---- memory

sub size_of
{
	my ($pid) = @_;

	return slurp_file("/proc/$pid/status") =~ /^VmSize:\s+(\d+) kB/m ? $1 * 1024 : die "no VmSize of $pid";
}

{
	my $size = size_of(postmaster());

	sweep('as', '53200|08006|53000', map { $size + $_ * 3 * 1024 * 1024 } 1 .. 40);

	# One that could not write how it ended is settled by recovery.
	$node->safe_psql('postgres', 'SELECT * FROM s3export.recover()');
	is($node->safe_psql('postgres', q(SELECT count(*) FROM s3export.jobs WHERE state = 'running')), 0, 'as: no job runs for ever');

	my $row = q(SELECT repeat('x', i) FROM generate_series(200000000, 200000000) i);
	my $session = session();
	my (undef, $error) = with_limit('as', $size + 100 * 1024 * 1024, sub { ask($session, copy_to($row, 'uploader.csv')) });
	is($node->safe_psql('postgres', q(SELECT state, rows, bytes FROM s3export.jobs WHERE path = 'uploader.csv')), "succeeded|1|200000008",
		'the uploader takes a row that is larger than its memory in pieces') or diag(explain($error));

	limit($session->{pid}, 'as', size_of($session->{pid}) + 100 * 1024 * 1024);
	(undef, $error) = ask($session, copy_to($row, 'leader.csv'));
	fault('the session has no memory for a large row', $error, 'leader.csv', '`53200` out of memory', 'failed `53200`', 'no object');
	leave($session);
}
$node->stop;

# ---- /dev/shm as containers have it, and a full disk

# A mount namespace of the server's own, in a user namespace, which needs no root.
my $bin = PostgreSQL::Test::Utils::tempdir();
my $uid = $<;
my $gid = (split ' ', $()[0];
my $mounts = "unshare --user --map-root-user --mount sh -c 'mount -t tmpfs -o size=64m,mode=1777 tmpfs /dev/shm && exec unshare --user --map-user=$uid --map-group=$gid ";

SKIP:
{
	if (system("$mounts true' 2>/dev/null") != 0)
	{
		fault_untried($_) foreach '20 exports at once, /dev/shm of 64 MB', '/dev/shm is full', '/dev/shm is full when parallel workers start',
		  'the disk for temporary files is full', '/dev/shm has room again';
		skip 'this user may not mount anything in a namespace of its own', 7;
	}

	my $pg_ctl = qx{which pg_ctl} =~ s/\n//r;
	append_to_file("$bin/pg_ctl", qq{#!/bin/sh\ncase " \$* " in *" start "*) exec $mounts "\$0" "\$@"' $pg_ctl "\$@" ;; esac\nexec $pg_ctl "\$@"\n});
	chmod 0755, "$bin/pg_ctl";
	{
		local $ENV{PATH} = "$bin:$ENV{PATH}";
		$node = s3export_node('container', 'max_worker_processes = 30', 'max_connections = 40', 'dynamic_shared_memory_type = posix', 'autovacuum = off',
			'max_parallel_workers = 8', 'parallel_setup_cost = 150', 'parallel_tuple_cost = 0', 'min_parallel_table_scan_size = 0');
	}
	make_table();

	my $shell = sub { $node->safe_psql('postgres', q(COPY (SELECT 1) TO PROGRAM ) . sql_literal("cat >/dev/null; $_[0]")) };
	# Leaves so many bytes of its 64 MB.
	my $fill = sub {
		$shell->('rm -f /dev/shm/fill; left=$(df --output=avail -B1 /dev/shm | tail -n 1); head -c $((left - ' . $_[0] . ')) /dev/zero >/dev/shm/fill');
	};

	my @errors = at_once(20, sub { copy_to('big', "shm$_[0].csv", ', parallel => 0') });
	is_deeply([ grep { $_ ne '' } @errors ], [], '20 exports at once with a /dev/shm of 64 MB');
	fault('20 exports at once, /dev/shm of 64 MB', $errors[0], 'shm0.csv', 'success', 'succeeded', 'the whole object');

	$fill->(500000);
	fault('/dev/shm is full', export('full.csv'), 'full.csv', '`53100` could not resize shared memory segment: No space left on device', 'none', 'no object');

	# Enough for the rings of three processes, not for what a parallel query needs.
	$fill->(3 * 1024 * 1024 + 64 * 1024 + 32 * 1024);
	fault('/dev/shm is full when parallel workers start', export('half.csv', ', parallel => 2'), 'half.csv',
		'`53100` could not resize shared memory segment: No space left on device', 'failed `53100`', 'no object');

	$shell->('mkdir /dev/shm/disk');
	$node->safe_psql('postgres', q(CREATE TABLESPACE small LOCATION '/dev/shm/disk'));
	$fill->(4 * 1024 * 1024);
	my $error = sql_error($node, q(SET temp_tablespaces = small; SET work_mem = '64kB'; SET max_parallel_workers_per_gather = 0; )
		  . copy_to('SELECT i, filler FROM big ORDER BY filler, i', 'sorted.csv'));
	fault('the disk for temporary files is full', $error, 'sorted.csv', '`53100` could not write to file: No space left on device', 'failed `53100`', 'no object');

	$shell->('rm /dev/shm/fill');
	fault('/dev/shm has room again', export('again.csv', ', parallel => 2'), 'again.csv', 'success', 'succeeded', 'the whole object');
	is(scalar($s3->uploads('exports')), 0, 'no upload stays open');
	$node->stop;
}

keep_secrets($s3);
$s3->stop;
done_testing();
