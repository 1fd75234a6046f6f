# Tables and partitions that join a publication or leave it: each row is an event, or a gap tells of it.
use strict;
use warnings;
use lib 'test/lib';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use S3Currents qw(:DEFAULT :scripted);
use S3Export;
use S3Faults;
use ScriptedS3;
use Test::More;

my $s3 = scripted_s3();
my %keys = scripted_user($s3);
my $node = currents_node('main', 'autovacuum = off', 'max_locks_per_transaction = 4000', 'max_prepared_transactions = 1', q(s3export.retry_timeout = '0'));
my %session = map { $_ => $node->background_psql('postgres') } 1, 2;

share_scripted($node, $s3, %keys);

# What the connector has sent since it was asked last: gaps, and events with their tables.
my %seen;

sub sent
{
	my ($name) = @_;
	my @batches = batches(objects($name));
	my @events = sort { $a->{id} cmp $b->{id} } events(files($name));
	my ($batches, $events) = @{ $seen{$name} // [ 0, 0 ] };

	$seen{$name} = [ scalar @batches, scalar @events ];
	return (
		join('|', sort split /\|/, gaps(@batches[ $batches .. $#batches ])),
		join(', ', map { "$_->{type} $_->{op} $_->{values}{id}" =~ s/^public\.//r } @events[ $events .. $#events ]));
}

# "1 ...": in the first session; "deliver": here, too; "forget": what has been sent until then.
sub run
{
	my ($name, @steps) = @_;

	foreach my $step (@steps)
	{
		if ($step eq 'forget') { deliver_loudly($name); sent($name) }
		elsif ($step eq 'deliver') { my ($events) = deliver_loudly($name); like($events, qr/^\d+$/, "delivered: $events") }
		elsif ($step =~ /^([12]) (.*)/) { $session{$1}->query_safe($2) }
		else { sql($step) }
	}
	return;
}

sub joined { return "public.$_[0]: the table has joined the publication without the rows that it had"; }
sub partition { return "public.r: partition public.$_[0] has joined without the rows that it had"; }

sql(<<'SQL');
CREATE TABLE h (id int PRIMARY KEY);
CREATE TABLE y (id int);
CREATE SCHEMA pubs;
CREATE SCHEMA later;
CREATE TABLE r (id int PRIMARY KEY) PARTITION BY RANGE (id);
CREATE TABLE r1 PARTITION OF r FOR VALUES FROM (0) TO (10);
CREATE TABLE rm PARTITION OF r FOR VALUES FROM (1000) TO (2000) PARTITION BY RANGE (id);
CREATE TABLE s (id int PRIMARY KEY) PARTITION BY RANGE (id);
CREATE ROLE reader;
CREATE PUBLICATION pub FOR TABLE h, r, s WITH (publish_via_partition_root = true);
SQL
flow('f', publication => 'pub');
launch($node, 'f');
run('f', 'INSERT INTO h VALUES (1)', 'INSERT INTO r VALUES (1)', 'deliver');
sent('f');

# Gaps, events, what is done.
foreach my $case (
	# whoever writes while it joins
	[ joined('a1'), 'a1 insert 2', 'CREATE TABLE a1 (id int PRIMARY KEY)', '1 BEGIN', '1 INSERT INTO a1 VALUES (1)', 'ALTER PUBLICATION pub ADD TABLE a1', '1 INSERT INTO a1 VALUES (2)', '1 COMMIT' ],
	[ joined('a2'), 'h insert 2, a2 insert 2', 'CREATE TABLE a2 (id int PRIMARY KEY)', '1 BEGIN', '1 INSERT INTO a2 VALUES (1)', 'ALTER PUBLICATION pub ADD TABLE a2', 'INSERT INTO h VALUES (2)', 'deliver', '1 INSERT INTO a2 VALUES (2)', '1 COMMIT' ],
	[ '', '', 'CREATE TABLE a3 (id int PRIMARY KEY)', '1 BEGIN', '1 INSERT INTO a3 VALUES (1)', 'ALTER PUBLICATION pub ADD TABLE a3', '1 ROLLBACK', '1 BEGIN', '1 INSERT INTO y VALUES (1)', '1 COMMIT' ],
	[ joined('a4'), 'a4 insert 1, a4 insert 2', 'CREATE TABLE a4 (id int PRIMARY KEY)', 'INSERT INTO a4 VALUES (0)', '1 BEGIN', '1 INSERT INTO y VALUES (2)', 'ALTER PUBLICATION pub ADD TABLE a4', 'INSERT INTO a4 VALUES (1)', 'deliver', '1 ALTER TABLE a4 ADD w int', '1 INSERT INTO a4 VALUES (2)', '1 COMMIT' ],
	[ 'public.a4: the table has left the publication', '', '1 BEGIN', '1 INSERT INTO y VALUES (3)', 'ALTER PUBLICATION pub DROP TABLE a4', 'deliver', '1 ALTER TABLE a4 ADD w2 int', '1 INSERT INTO a4 VALUES (3)', '1 COMMIT' ],
	[ joined('a4'), 'a4 insert 5', '1 BEGIN', '1 INSERT INTO y VALUES (4)', 'INSERT INTO a4 VALUES (4)', 'ALTER PUBLICATION pub ADD TABLE a4', '1 INSERT INTO a4 VALUES (5)', '1 COMMIT' ],
	[ partition('b1'), 'r insert 12', 'CREATE TABLE b1 (LIKE r INCLUDING ALL)', '1 BEGIN', '1 INSERT INTO b1 VALUES (11)', '2 BEGIN', '2 INSERT INTO y VALUES (5)', '1 COMMIT', 'ALTER TABLE r ATTACH PARTITION b1 FOR VALUES FROM (10) TO (20)', '2 INSERT INTO r VALUES (12)', '2 COMMIT' ],

	# more than are remembered of others
	[ join('|', joined('m1'), joined('m2300'), partition('m2')), '', q(DO $$ BEGIN FOR i IN 1 .. 2300 LOOP EXECUTE format('CREATE TABLE m%s (id int PRIMARY KEY); INSERT INTO m%s VALUES (%s)', i, i, 2000 + i); END LOOP; ALTER TABLE r ATTACH PARTITION m2 FOR VALUES FROM (2002) TO (2003); ALTER PUBLICATION pub ADD TABLE m1, m2300; END $$) ],

	# has it rows?
	[ joined('c1'), '', 'CREATE TABLE c1 (id int PRIMARY KEY); INSERT INTO c1 VALUES (1)', 'deliver', 'BEGIN; GRANT SELECT (ctid) ON c1 TO reader; ALTER PUBLICATION pub ADD TABLE c1; COMMIT' ],
	[ joined('c2'), '', 'BEGIN; CREATE TABLE c2 (id int PRIMARY KEY); INSERT INTO c2 VALUES (1); ALTER PUBLICATION pub ADD TABLE c2; COMMIT' ],
	[ '', 'c3 insert 1', 'BEGIN; CREATE TABLE c3 (id int PRIMARY KEY); ALTER PUBLICATION pub ADD TABLE c3; INSERT INTO c3 VALUES (1); COMMIT' ],
	[ '', 'c4 insert 1', 'CREATE TABLE c4 (id int PRIMARY KEY)', 'ALTER PUBLICATION pub ADD TABLE c4', 'INSERT INTO c4 VALUES (1)' ],
	[ '', 'c5 insert 2', 'CREATE TABLE c5 (id int PRIMARY KEY)', 'INSERT INTO c5 VALUES (1)', 'TRUNCATE c5', 'ALTER PUBLICATION pub ADD TABLE c5', 'INSERT INTO c5 VALUES (2)' ],
	[ '', 'c6 insert 2', 'CREATE TABLE c6 (id int PRIMARY KEY); INSERT INTO c6 VALUES (1)', 'deliver', 'TRUNCATE c6', 'ALTER PUBLICATION pub ADD TABLE c6', 'INSERT INTO c6 VALUES (2)' ],
	[ joined('c7'), '', 'CREATE TABLE c7 (id int PRIMARY KEY)', 'TRUNCATE c7', 'INSERT INTO c7 VALUES (1)', 'ALTER PUBLICATION pub ADD TABLE c7' ],
	[ '', '', 'BEGIN; CREATE TABLE c8 (id int PRIMARY KEY); SAVEPOINT s; INSERT INTO c8 VALUES (1); ROLLBACK TO s; ALTER PUBLICATION pub ADD TABLE c8; COMMIT' ],
	[ joined('c9'), '', q(CREATE TABLE c9 (id int PRIMARY KEY); INSERT INTO c9 VALUES (1)), q(BEGIN; ALTER PUBLICATION pub ADD TABLE c9; PREPARE TRANSACTION 'p'), q(COMMIT PREPARED 'p') ],

	# out and in again
	[ partition('r1'), '', 'BEGIN; ALTER TABLE r DETACH PARTITION r1; TRUNCATE r1; ALTER TABLE r ATTACH PARTITION r1 FOR VALUES FROM (0) TO (10); COMMIT' ],
	[ '', 'h insert 4', 'BEGIN; ALTER PUBLICATION pub DROP TABLE h; ALTER PUBLICATION pub ADD TABLE h; INSERT INTO h VALUES (4); COMMIT' ],
	[ joined('h'), 'h insert 6', 'BEGIN; ALTER PUBLICATION pub DROP TABLE h; INSERT INTO h VALUES (5); ALTER PUBLICATION pub ADD TABLE h; INSERT INTO h VALUES (6); COMMIT' ],

	# rows that were events of another table, or none at all
	[ 'public.r: partition public.d1 was detached|public.s: partition public.d1 has joined without the rows that it had', 'r insert 21', 'CREATE TABLE d1 (LIKE r INCLUDING ALL)', 'ALTER TABLE r ATTACH PARTITION d1 FOR VALUES FROM (20) TO (30)', 'INSERT INTO r VALUES (21)', 'ALTER TABLE r DETACH PARTITION d1', 'ALTER TABLE s ATTACH PARTITION d1 FOR VALUES FROM (20) TO (30)' ],
	[ 'public.d2: the table has left the publication|' . partition('d2'), 'd2 insert 31', 'CREATE TABLE d2 (LIKE r INCLUDING ALL)', 'ALTER PUBLICATION pub ADD TABLE d2', 'INSERT INTO d2 VALUES (31)', 'ALTER PUBLICATION pub DROP TABLE d2', 'ALTER TABLE r ATTACH PARTITION d2 FOR VALUES FROM (30) TO (40)' ],
	[ joined('d3'), 'd3 insert 20', 'CREATE TABLE d3 (id int PRIMARY KEY)', 'ALTER PUBLICATION pub ADD TABLE d3 WHERE (id > 10)', 'INSERT INTO d3 VALUES (1)', 'ALTER PUBLICATION pub DROP TABLE d3', 'ALTER PUBLICATION pub ADD TABLE d3', 'INSERT INTO d3 VALUES (20)' ],

	# partitions of which the server says nothing
	[ partition('e1'), '', 'CREATE TABLE e1 (LIKE r INCLUDING ALL)', 'INSERT INTO e1 VALUES (1001)', 'ALTER TABLE rm ATTACH PARTITION e1 FOR VALUES FROM (1000) TO (1010)' ],
	[ 'public.r: partition public.e2 was detached', 'r insert 41', 'CREATE TABLE e2 PARTITION OF r FOR VALUES FROM (40) TO (50)', 'INSERT INTO r VALUES (41)', 'ALTER TABLE r DETACH PARTITION e2 CONCURRENTLY', 'INSERT INTO e2 VALUES (42)' ],
	[ partition('e2'), '', 'ALTER TABLE r ATTACH PARTITION e2 FOR VALUES FROM (40) TO (50)' ],
	[ 'public.r: partition public.e2 was detached', '', 'ALTER TABLE r DETACH PARTITION e2 CONCURRENTLY', 'INSERT INTO e2 VALUES (43)' ],

	[ partition('t1'), '', 'CREATE TABLE t (id int PRIMARY KEY) PARTITION BY RANGE (id); CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (60) TO (70); INSERT INTO t VALUES (61)', 'ALTER TABLE r ATTACH PARTITION t FOR VALUES FROM (60) TO (70)' ],
	[ 'public.r: partition public.t1 was detached', '', 'ALTER TABLE r DETACH PARTITION t' ],
	[ partition('t1'), '', 'ALTER TABLE r ATTACH PARTITION t FOR VALUES FROM (60) TO (70)' ],
	[ 'public.r: partition public.t1 was detached', '', 'ALTER TABLE r DETACH PARTITION t CONCURRENTLY' ],
	# what is published otherwise, with a row in the same transaction
	[ 'public.h: the row filter has changed', 'h insert 201', 'ALTER PUBLICATION pub SET TABLE h, r, s', 'forget', 'BEGIN; ALTER PUBLICATION pub SET TABLE h WHERE (id > 200), r, s; INSERT INTO h VALUES (201); COMMIT' ],
	[ 'public.h: the row filter has changed', 'h insert 202', 'BEGIN; ALTER PUBLICATION pub SET TABLE h, r, s; INSERT INTO h VALUES (202); COMMIT' ],

	# whoever does not see it when it begins
	[ 'pubs.w1: the table has joined the publication without the rows that it had', '', 'ALTER PUBLICATION pub ADD TABLES IN SCHEMA pubs', 'deliver', '1 BEGIN', '1 INSERT INTO h VALUES (203)', '1 ROLLBACK', '1 BEGIN', '1 INSERT INTO y VALUES (1)', 'CREATE TABLE pubs.b (id int PRIMARY KEY)', 'CREATE TABLE w1 (id int PRIMARY KEY)', 'INSERT INTO w1 VALUES (1)', '1 ALTER TABLE w1 SET SCHEMA pubs', '1 COMMIT' ],
	[ 'later.w2: the table has joined the publication without the rows that it had', '', '1 BEGIN', '1 ALTER PUBLICATION pub ADD TABLES IN SCHEMA later', '2 CREATE TABLE later.w2 (id int PRIMARY KEY); INSERT INTO later.w2 VALUES (1)', '1 COMMIT' ],
	[ 'pubs.z: the table has joined the publication without the rows that it had', '', 'CREATE TABLE z (id int PRIMARY KEY) PARTITION BY RANGE (id); CREATE TABLE z1 PARTITION OF z FOR VALUES FROM (0) TO (10); INSERT INTO z VALUES (1)', 'ALTER TABLE z SET SCHEMA pubs' ],
	[ 'pubs.z: the table has left the publication', 'pubs.z insert 2', 'INSERT INTO pubs.z VALUES (2)', 'ALTER TABLE pubs.z SET SCHEMA public', 'INSERT INTO z VALUES (3)' ])
{
	my ($gaps, $events, @steps) = @$case;

	run('f', @steps, 'deliver');
	is_deeply([ sent('f') ], [ $gaps, $events ], join '; ', map { substr $_, 0, 60 } @steps);
}

# ---- the publication is made again while a transaction is open
run('f', '1 BEGIN', '1 INSERT INTO h VALUES (7)', 'DROP PUBLICATION pub', 'CREATE PUBLICATION pub FOR TABLE h, r WITH (publish_via_partition_root = true)', '1 INSERT INTO h VALUES (8)', '1 COMMIT', 'INSERT INTO h VALUES (9)', 'deliver', 'deliver');
my ($gaps, $events) = sent('f');
like($gaps, qr/^all: the publication was dropped and made again/, 'a publication that is made again while a transaction is open');
like($events, qr/^h insert 7, (?:h insert 8, )?h insert 9$/, 'does not fail, and sends what is published');

# ---- a batch that is written again tells what it told
sql($_) foreach 'CREATE TABLE g (id int PRIMARY KEY)', 'INSERT INTO h VALUES (10)', 'ALTER PUBLICATION pub ADD TABLE g', 'ALTER TABLE r DETACH PARTITION r1';
$s3->call('add_fault', do => 'error', code => 'AccessDenied', match => { key => "$folder{f}/.*/_batches/" }, times => undef);
like((deliver_loudly('f'))[0], qr/could not/, 'S3 refuses the batch object');
my $waiting = sql('SELECT count(*) FROM s3export.current_gap');
sql('INSERT INTO g VALUES (1)');
sql(q(SELECT s3export.resume('f')));
my (undef, $warnings) = deliver_loudly('f');
unlike($warnings, qr/without the rows|was detached/, 'written again, it warns of nothing');
is(sql('SELECT count(*) FROM s3export.current_gap'), $waiting, 'and finds nothing twice');
$s3->call('clear_faults');
sql(q(SELECT s3export.resume('f')));
deliver_loudly('f');
is_deeply([ sent('f') ], [ 'public.r: partition public.r1 was detached', 'h insert 10, g insert 1' ], 'it tells what it told at first');
is(sql('SELECT count(*) FROM s3export.current_gap'), '0', 'after which nothing is owed');

# ---- a launch with a copy of nothing
sql('CREATE PUBLICATION nothing');
flow('nothing', publication => 'nothing');
launch($node, 'nothing', copy_existing => 1);
sql($_) foreach 'CREATE TABLE n (id int PRIMARY KEY)', 'ALTER PUBLICATION nothing ADD TABLE n', 'INSERT INTO n VALUES (1)';
deliver_loudly('nothing');
is_deeply([ sent('nothing') ], [ '', 'n insert 1' ], 'a launch with a copy of no table misses no row');

# ---- a crash between the copy of a table that joins and its record
sql('CREATE TABLE copied (id int PRIMARY KEY); INSERT INTO copied VALUES (1)');
deliver_loudly('f');
sent('f');
my ($before) = reverse batches(objects('f'));
run('f', '1 BEGIN', '1 LOCK TABLE s3export.current_gap IN SHARE ROW EXCLUSIVE MODE');
my $adding = start_psql($node, q(SELECT s3export.add_table('f', 'copied')));
poll_until(sub { (batches(objects('f')))[-1]{batch} ne $before->{batch} }, 'the copy');
$node->stop('immediate');
finish_psql($adding);
$node->start;
sql('INSERT INTO copied VALUES (2)');
deliver_loudly('f');
is_deeply([ sent('f') ], [ 'public.copied: the copy of its rows was interrupted', 'copied copy 1, copied insert 2' ], 'a crash between a copy and its record: the gap, and all that was sent');
my (undef, $copy, $next) = (batches(objects('f')))[ -3 .. -1 ];
is_deeply([ map { $_->{previous} } $copy, $next ], [ ($before->{batch}) x 2 ], 'the copy and the next batch follow the same one');
is_deeply([ wrong_batches(objects('f')) ], [], 'which readers can tell');
%session = map { $_ => $node->background_psql('postgres') } 1, 2;

$_->quit foreach values %session;
keep_secrets($s3);
$node->stop;
$s3->stop;
done_testing();
