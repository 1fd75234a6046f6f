# What a current sends when types, columns, publications, owners and slots become others on the way.
use strict;
use warnings;
use lib 'test/lib';
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use S3Currents;
use S3Export;
use S3Faults;
use ScriptedS3;
use Test::More;
use Time::HiRes qw(sleep);

my $s3 = scripted_s3();
my %keys = scripted_user($s3);
my $node = currents_node('main', 'max_slot_wal_keep_size = 10GB');
my %folder;

sub sql { return $node->safe_psql('postgres', @_); }

sub flow
{
	my ($name, %more) = @_;

	$folder{$name} = unique_folder();
	create_connector($node, $name, at_endpoint($s3), %keys, folder_path => $folder{$name}, kind => 'currents', validate => \'false', %more);
	return;
}

sub files { return files_in_scripted($s3, $folder{ $_[0] }); }

# "insert 1, delete 2" of a connector, in the order of a table's events; of some columns, "insert 1/a".
sub short
{
	my ($name, $type, @columns) = @_;

	@columns = ('id') unless @columns;
	return join ', ', map { my $event = $_; "$event->{op} " . join('/', map { $event->{values}{$_} // '-' } @columns) } grep { !defined $type || $_->{type} eq $type } events(files($name));
}

# How many versions the events of a table have.
sub versions
{
	my ($name) = @_;
	my %versions = map { $_->{file}{version} => 1 } events(files($name));

	return scalar keys %versions;
}

# What a statement says: its rows and its messages, with their SQLSTATEs.
sub said
{
	my ($statement, $user) = @_;
	my ($status, $out, $err) = $node->psql('postgres', "\\set VERBOSITY verbose\n$statement", extra_params => [ defined $user ? ('-U', $user) : () ]);

	return ($out, $err);
}

# The number of events, or the error, and the messages.
sub deliver_loudly
{
	my ($name, $user) = @_;

	return said("SELECT coalesce(error, events::text) FROM s3export.deliver('$name', \"raise\" => false)", $user);
}

sub events_of
{
	my ($name) = @_;

	return sql("SELECT string_agg(event, ' ' ORDER BY at) FROM s3export.current_events WHERE connector = '$name'");
}

# S3 refuses the connector's files while the block runs.
sub refusing
{
	my ($name, $block) = @_;

	$s3->call('add_fault', do => 'error', code => 'AccessDenied', match => { key => $folder{$name} }, times => undef);
	$block->();
	$s3->call('clear_faults');
	return;
}

# A transaction that has run these statements and goes on for so many seconds.
sub open_transaction
{
	my ($seconds, @statements) = @_;
	my $sleep = "SELECT pg_sleep($seconds) AS open_" . int(rand 1e9);
	my $session = start_psql($node, 'BEGIN', @statements, $sleep, 'COMMIT');

	poll_until(sub { sql("SELECT count(*) FROM pg_stat_activity WHERE query = '$sleep'") > 0 }, 'an open transaction');
	return $session;
}

# ---- row filters, with changes of other tables in between
sql('CREATE TABLE wide (id int PRIMARY KEY, ' . join(', ', map { "c$_ int DEFAULT 257" } 1 .. 400) . ')');
sql(<<'SQL');
CREATE TABLE t (id int, k text, PRIMARY KEY (id, k));
CREATE PUBLICATION pt FOR TABLE t WHERE (k = 'eu'), wide;
CREATE TABLE p (id int, k text, PRIMARY KEY (id, k)) PARTITION BY RANGE (id);
CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (100);
CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (100) TO (200);
CREATE PUBLICATION pp FOR TABLE p WHERE (k = 'a') WITH (publish_via_partition_root = true);
SQL
flow('filter', publication => 'pt');
flow('leaf', publication => 'pp');
launch($node, $_) foreach 'filter', 'leaf';
sql($_) foreach q(INSERT INTO t VALUES (1, 'eu')), q(INSERT INTO wide VALUES (1)), q(INSERT INTO t VALUES (2, 'eu'), (3, 'us')), q(DELETE FROM t WHERE id = 1),
  q(INSERT INTO p VALUES (1, 'a')), q(INSERT INTO p VALUES (101, 'a'), (102, 'b')), q(INSERT INTO p VALUES (2, 'a'), (3, 'b'));
deliver($node, $_) foreach 'filter', 'leaf';
is(short('filter', 'public.t'), 'insert 1, insert 2, delete 1', 'a row filter with a text, changes of another table in between');
is(short('leaf'), 'insert 1, insert 101, insert 2', 'a row filter of a root with two partitions');

# ---- a type that is made anew under its name
sql('CREATE DOMAIN status AS text; CREATE TABLE b (id int PRIMARY KEY, s status)');
flow('type', tables => '{b}');
launch($node, 'type');
sql(q(INSERT INTO b VALUES (1, 'new')));
sql(q(BEGIN; ALTER DOMAIN status RENAME TO status_old; CREATE TYPE status AS ENUM ('new', 'done'); ALTER TABLE b ALTER s TYPE status USING s::text::status; COMMIT));
sql(q(INSERT INTO b VALUES (2, 'done')));
is((deliver_loudly('type'))[0], '2', 'a domain that becomes an enum of the same name');
is(short('type', undef, 'id', 's'), 'insert 1/new, insert 2/done', 'each value by its own type');
is(versions('type'), 2, 'in two versions');

# ---- a column that is made anew under its name
sql('CREATE TABLE c (id int PRIMARY KEY, v text)');
flow('column', tables => '{c}');
launch($node, 'column');
sql($_) foreach q(INSERT INTO c VALUES (1, 'one')), 'ALTER TABLE c DROP COLUMN v; ALTER TABLE c ADD COLUMN v text', q(INSERT INTO c (id, v) VALUES (2, 'two')), q(UPDATE c SET v = 'uno' WHERE id = 1);
deliver($node, 'column');
is(short('column', undef, 'id', 'v'), 'insert 1/one, insert 2/two, update 1/uno', 'a column that is dropped and added again has its values');
is(versions('column'), 2, 'in two versions');
sql('CREATE TABLE g (id int PRIMARY KEY, d int GENERATED ALWAYS AS (id * 2) STORED)');
flow('generated', tables => '{g}');
launch($node, 'generated');
sql($_) foreach 'INSERT INTO g VALUES (1)', 'ALTER TABLE g DROP COLUMN d; ALTER TABLE g ADD d int GENERATED ALWAYS AS (id * 3) STORED', 'INSERT INTO g VALUES (2)';
deliver($node, 'generated');
is(short('generated', undef, 'id', 'd'), 'insert 1/2, insert 2/6', 'a generated column that is made anew has its values');
is(versions('generated'), 2, 'in two versions');

# ---- a table that is published already does not join
sql(<<'SQL');
CREATE SCHEMA s;
CREATE TABLE s.t (id int PRIMARY KEY); CREATE TABLE s.u (id int PRIMARY KEY);
CREATE PUBLICATION ps FOR TABLES IN SCHEMA s;
CREATE TABLE q (id int PRIMARY KEY) PARTITION BY RANGE (id);
CREATE TABLE q1 PARTITION OF q FOR VALUES FROM (0) TO (10);
SQL
flow('schema', publication => 'ps');
flow('root', tables => '{q}');
flow('part', tables => '{q1}');
launch($node, $_) foreach 'schema', 'root', 'part';
sql('INSERT INTO s.t VALUES (1); INSERT INTO s.u VALUES (1); INSERT INTO q VALUES (1); DELETE FROM q; INSERT INTO q VALUES (2)');
foreach my $case ([ 'schema', 's.t', 'by its schema' ], [ 'root', 'q', 'by itself' ], [ 'root', 'q1', 'by its root' ], [ 'part', 'q', 'by a partition' ])
{
	my ($name, $table, $how) = @$case;

	error_like($node, "SELECT s3export.add_table('$name', '$table')", { sqlstate => '42710', message => qr/is already in publication/, hint => qr/launch/ }, "a table that is published $how does not join");
}
sql('INSERT INTO s.u VALUES (2)');
foreach my $name ('schema', 'root', 'part')
{
	unlike((deliver_loudly($name))[1], qr/WARNING/, "$name: nothing has come of it");
	is(events_of($name), 'launched', "$name: nor is there an event");
}
is(short('schema'), 'insert 1, insert 1, insert 2', 'by its schema: all is sent');
is($_, 'insert 1, delete 1, insert 2', 'by root and partition: all is sent') foreach short('root'), short('part');

# ---- a copy that fails takes nothing with it
sql('CREATE TABLE r (id int PRIMARY KEY, v text); CREATE TABLE r0 (id int PRIMARY KEY)');
flow('again', tables => '{r,r0}');
launch($node, 'again');
sql(q(INSERT INTO r VALUES (1, 'a'); UPDATE r SET v = 'b'; ALTER PUBLICATION s3export_again DROP TABLE r));
refusing('again', sub { isnt(sql_error($node, q(SELECT s3export.add_table('again', 'r')))->{sqlstate}, undef, 'a copy of a table that was published before fails') });
is(current_of($node, 'again', 'state, tables'), 'running|{public.r0}', 'and leaves it out');
is((deliver_loudly('again'))[0], '2', 'what was published before is sent');
is(short('again'), 'insert 1, update 1', 'and nothing else');
sql('ALTER TABLE r SET UNLOGGED');
error_like($node, q(SELECT s3export.add_table('again', 'r')), { message => qr/unlogged|publication/ }, 'a table that cannot be published');
my ($out, $err) = deliver_loudly('again');
is($out, '0', 'is left out');
unlike($err, qr/WARNING/, 'without a word about it afterwards');
unlike(events_of('again'), qr/copy_failed.*(?:copy_failed|tables_changed)/, 'and without an event');

# ---- a transaction that is open while a copy fails
sql('CREATE TABLE j (id int PRIMARY KEY); INSERT INTO j VALUES (1); CREATE TABLE j0 (id int PRIMARY KEY)');
flow('open', tables => '{j0}');
launch($node, 'open');
$s3->call('add_fault', do => 'stall', when => 'before', seconds => 1, match => { operation => 'PutObject', key => $folder{open} }, times => 1);
refusing('open', sub {
	my $adder = start_psql($node, q(SELECT s3export.add_table('open', 'j')));
	sleep 0.6;
	my $open = open_transaction(1.5, 'INSERT INTO j VALUES (50)');
	isnt((finish_psql($adder))[0], 0, 'a copy fails while a transaction is open that has changed the table');
	finish_psql($open);
});
is(current_of($node, 'open', 'tables'), '{public.j0}', 'the table is left out');
is((deliver_loudly('open'))[0], '0', 'and nothing of it is sent');
sql(q(SELECT s3export.add_table('open', 'j'); INSERT INTO j VALUES (51)));
deliver($node, 'open');
is(short('open'), 'copy 1, copy 50, insert 51', 'when it joins again each row is there once');

# ---- a partition that is made while a copy waits for its slot
sql(<<'SQL');
CREATE TABLE w (id int PRIMARY KEY) PARTITION BY RANGE (id);
CREATE TABLE w1 PARTITION OF w FOR VALUES FROM (0) TO (10);
INSERT INTO w VALUES (1);
CREATE TABLE x (id int PRIMARY KEY);
CREATE PUBLICATION pw FOR TABLE x;
SQL
flow('late', publication => 'pw');
launch($node, 'late');
my $open = open_transaction(2, 'INSERT INTO x VALUES (1)');
my $adder = start_psql($node, q(SELECT s3export.add_table('late', 'w')));
poll_until(sub { sql(q(SELECT count(*) FROM pg_replication_slots WHERE slot_name LIKE '%copy')) > 0 }, 'the slot of the copy');
sql($_) foreach 'CREATE TABLE w2 PARTITION OF w FOR VALUES FROM (10) TO (20)', 'INSERT INTO w VALUES (11)';
finish_psql($open);
is((finish_psql($adder))[0], 0, 'a table joins while a partition is made');
sql('INSERT INTO w VALUES (12), (2)');
deliver($node, 'late');
is(join('|', map { short('late', "public.$_") } 'x', 'w1', 'w2'), 'insert 1|copy 1, insert 2|copy 11, insert 12', 'each row of each partition once');

# ---- another publication takes the name of one that is dropped
sql('CREATE TABLE e (id int PRIMARY KEY); CREATE TABLE f (id int PRIMARY KEY)');
foreach my $case ([ 'cut', 1 ], [ 'whole', 0 ])
{
	my ($name, $interrupted) = @$case;
	my $what = $interrupted ? 'an interrupted batch, and a publication that is replaced' : 'a publication that is replaced';

	sql("TRUNCATE e; CREATE PUBLICATION $name FOR TABLE e; CREATE PUBLICATION ${name}_new FOR TABLE f");
	flow($name, publication => $name);
	launch($node, $name);
	sql('INSERT INTO e VALUES (1)');
	if ($interrupted)
	{
		refusing($name, sub { deliver_loudly($name) });
		is(current_of($node, $name, 'state'), 'suspended', "$what: the batch is interrupted");
		sql("SELECT s3export.resume('$name')");
	}
	sql("BEGIN; DROP PUBLICATION $name; ALTER PUBLICATION ${name}_new RENAME TO $name; ALTER PUBLICATION $name ADD TABLE e; COMMIT");
	sql('INSERT INTO e VALUES (2)') unless $interrupted;
	my ($events, $messages) = deliver_loudly($name);
	is($events, $interrupted ? 1 : 2, "$what: a delivery");
	like($messages, qr/WARNING: .*publication "$name" of connector "$name" was dropped and made again/, "$what: it is told");
	sql('INSERT INTO e VALUES (3)');
	($events, $messages) = deliver_loudly($name);
	is($events, 1, "$what: another delivery");
	unlike($messages, qr/WARNING/, "$what: it is told once");
	is(short($name), $interrupted ? 'insert 1, insert 3' : 'insert 1, insert 2, insert 3', "$what: nothing is lost, nothing comes twice");
	is(() = events_of($name) =~ /publication_replaced/g, 1, "$what: an event");
	sql("SELECT s3export.drop_connector('$name'); DROP PUBLICATION $name");
}

# ---- a batch that is written again has what it had
sql('CREATE TABLE n (v text); CREATE TABLE y (id int PRIMARY KEY); CREATE TABLE z (id int PRIMARY KEY); CREATE PUBLICATION py FOR TABLE y');
flow('same', publication => 'py');
launch($node, 'same');
$open = open_transaction(1.5, 'INSERT INTO z VALUES (200)');
sql($_) foreach 'ALTER PUBLICATION py ADD TABLE z WHERE (id > 100)', 'INSERT INTO z VALUES (1), (201)', 'INSERT INTO n SELECT repeat(md5(i::text), 30) FROM generate_series(1, 8000) i';
finish_psql($open);
refusing('same', sub { deliver_loudly('same') });
is(current_of($node, 'same', 'state'), 'suspended', 'a batch with changes of a publication, after much else in the WAL, is interrupted');
my $promised = sql(q(SELECT events FROM s3export.current_batch JOIN s3export.connector USING (connector_id) WHERE name = 'same'));
sql(q(SELECT s3export.resume('same')));
is((deliver_loudly('same'))[0], $promised, 'and is written again as it was');
like(short('same'), qr/^insert 201\b/, 'with the filter of then');

# ---- two launches at once
sql('CREATE TABLE l (id int PRIMARY KEY)');
flow('twice', tables => '{l}');
$s3->call('add_fault', do => 'stall', when => 'before', seconds => 1.5, match => { operation => 'ListObjectsV2' }, times => 1);
my $second = start_psql($node, q(SELECT s3export.launch('twice')));
poll_until(sub { sql(q(SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%launch(''twice'')%' AND pid <> pg_backend_pid())) > 0 }, 'a launch');
sleep 0.5;
launch($node, 'twice');
sql('INSERT INTO l VALUES (1)');
my ($status, undef, $refusal) = finish_psql($second);
isnt($status, 0, 'of two launches at once the second is refused');
like($refusal, qr/55000: .*is already launched/, 'as it should be');
sql('INSERT INTO l VALUES (2)');
deliver($node, 'twice');
is(short('twice'), 'insert 1, insert 2', 'and nothing is lost');

# ---- two deliveries at once, for a while
sql('CREATE TABLE h (id serial PRIMARY KEY)');
flow('hammer', tables => '{h}');
launch($node, 'hammer');
my $scripts = PostgreSQL::Test::Utils::tempdir();
append_to_file("$scripts/deliver", qq(SELECT count(*) FROM s3export.deliver('hammer', "raise" => false);\n));
append_to_file("$scripts/insert", "INSERT INTO h DEFAULT VALUES;\n");
my $discard = '';
my $inserts = IPC::Run::start([ qw(pgbench -n -T 7 -c 1 -R 100 -f), "$scripts/insert", '-d', $node->connstr('postgres') ], '>', \$discard, '2>&1');
IPC::Run::run([ qw(pgbench -n -T 6 -c 2 -f), "$scripts/deliver", '-d', $node->connstr('postgres') ], '>', \my $deliveries, '2>', \my $warnings);
$inserts->finish;
like($deliveries, qr/failed transactions: 0 |number of transactions actually processed: \d/, 'deliveries run beside each other');
is(join('', grep { /WARNING|ERROR/ } split /^/, $warnings), '', 'without a word');
deliver($node, 'hammer');
is(current_of($node, 'hammer', 'state, events_sent'), 'running|' . sql('SELECT count(*) FROM h'), 'and send each event once');
is(join(' ', wrong_events(events(files('hammer')))), '', 'in their order');
is(events_of('hammer'), 'launched', 'nothing was lost or failed');

#MORE#

keep_secrets($s3);
$node->stop;
$s3->stop;
done_testing();
