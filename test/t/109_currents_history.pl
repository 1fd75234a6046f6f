# What a current sends when types, columns, publications, owners and slots become others on the way.
use strict;
use warnings;
use lib 'test/lib';
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use S3Currents qw(:DEFAULT :scripted);
use S3Export;
use S3Faults;
use ScriptedS3;
use Test::More;
use Time::HiRes qw(sleep);

my $s3 = scripted_s3();
my %keys = scripted_user($s3);
my $node = currents_node('main', 'max_slot_wal_keep_size = 10GB', 'max_prepared_transactions = 5');

share_scripted($node, $s3, %keys);

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
is((deliver_loudly('type'))[0], '4', 'a domain that becomes an enum of the same name, for which the table is written anew');
is(in_full('type', 'id', 's'), 'insert 1/new, snapshot -/-, copy 1/new, insert 2/done', 'each value by its own type');
is(versions('type'), 2, 'in two versions');

# ---- a column that is made anew under its name
sql('CREATE TABLE c (id int PRIMARY KEY, v text)');
flow('column', tables => '{c}');
launch($node, 'column');
sql($_) foreach q(INSERT INTO c VALUES (1, 'one')), 'ALTER TABLE c DROP COLUMN v; ALTER TABLE c ADD COLUMN v text', q(INSERT INTO c (id, v) VALUES (2, 'two')), q(UPDATE c SET v = 'uno' WHERE id = 1);
deliver($node, 'column');
is(in_full('column', 'id', 'v'), 'insert 1/one, alter -/-, alter -/-, insert 2/two, update 1/uno', 'a column that is dropped and added again has its values');
is(versions('column'), 3, 'in three versions');
sql('CREATE TABLE g (id int PRIMARY KEY, d int GENERATED ALWAYS AS (id * 2) STORED)');
flow('generated', tables => '{g}');
launch($node, 'generated');
sql($_) foreach 'INSERT INTO g VALUES (1)', 'ALTER TABLE g DROP COLUMN d; ALTER TABLE g ADD d int GENERATED ALWAYS AS (id * 3) STORED', 'INSERT INTO g VALUES (2)';
deliver($node, 'generated');
is(in_full('generated', 'id', 'd'), 'insert 1/2, alter -/-, snapshot -/-, copy 1/3, insert 2/6', 'a generated column that is made anew has its values');
is(versions('generated'), 3, 'in three versions');

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

sql('CREATE ROLE carol LOGIN REPLICATION; GRANT CREATE ON DATABASE postgres TO carol; ALTER PUBLICATION s3export_again OWNER TO postgres; CREATE TABLE theirs (id int PRIMARY KEY)');
sql(q(ALTER TABLE r0 OWNER TO carol; SELECT s3export.alter_connector('again', owner => 'carol', validate => false)));
error_like($node, q(SELECT s3export.add_table('again', 'theirs')), { sqlstate => '42501' }, 'a table of somebody else', user => 'carol');
unlike((deliver_loudly('again'))[1], qr/WARNING/, 'is left out without a word about it afterwards');
unlike(events_of('again'), qr/copy_failed.*(?:copy_failed|tables_changed)/, 'and without an event, too');

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
# On a machine that is slow enough the copy waits no more, and the row is an event.
like(join('|', map { short('late', "public.$_") } 'x', 'w1', 'w2'), qr/^insert 1\|copy 1, insert 2\|(?:copy|insert) 11, insert 12$/, 'each row of each partition once');

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
sql('CREATE TABLE n (v text); CREATE TABLE y (id int PRIMARY KEY); CREATE TABLE z (id int PRIMARY KEY); CREATE PUBLICATION py FOR TABLE y, z WHERE (id > 1000)');
flow('same', publication => 'py');
launch($node, 'same');
# Without an event so far the position moves past the change of the publication, before this commits.
$open = open_transaction(1.5, 'INSERT INTO z VALUES (200)');
sql($_) foreach 'ALTER PUBLICATION py SET TABLE y, z WHERE (id > 100)', 'INSERT INTO z VALUES (1)', 'INSERT INTO n SELECT repeat(md5(i::text), 30) FROM generate_series(1, 8000) i';
finish_psql($open);
sql('INSERT INTO z VALUES (201), (2)');
refusing('same', sub { deliver_loudly('same') });
is(current_of($node, 'same', 'state'), 'suspended', 'a batch after much else in the WAL is interrupted');
my $promised = sql(q(SELECT events FROM s3export.current_batch JOIN s3export.connector USING (connector_id) WHERE name = 'same'));
sql(q(SELECT s3export.resume('same')));
is((deliver_loudly('same'))[0], $promised, 'and is written again as it was');
like(short('same'), qr/\binsert 201$/, 'with the filter of the publication');

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
like($deliveries, qr/number of transactions actually processed: [1-9]/, 'deliveries run beside each other');
is(join('', grep { /WARNING|ERROR/ } split /^/, $warnings), '', 'without a word');
deliver($node, 'hammer');
is(join(' ', map { $_->{values}{id} } events(files('hammer'))), sql(q(SELECT string_agg(id::text, ' ' ORDER BY id) FROM h)), 'and send each event once');
is(current_of($node, 'hammer', 'state, events_sent'), 'running|' . sql('SELECT count(*) FROM h'), 'and count it');
is(join(' ', wrong_events(events(files('hammer')))), '', 'in their order');
is(events_of('hammer'), 'launched', 'nothing was lost or failed');

# ---- a delivery beside another
sql('INSERT INTO h DEFAULT VALUES');
$s3->call('add_fault', do => 'stall', when => 'before', seconds => 1.5, match => { operation => 'PutObject', key => $folder{hammer} }, times => 1);
my $first = start_psql($node, q(SELECT events FROM s3export.deliver('hammer')));
worker_pid($node, undef, $first);
($out, $err) = deliver_loudly('hammer');
like($out, qr/is being delivered or launched/, 'a delivery beside another has nothing to do');
unlike($err, qr/WARNING/, 'which is nothing to warn of');
is((finish_psql($first))[1], '1', 'as the other delivers all');

# ---- rows that are read while a worker's transaction has changed them
# Holds up a worker's transaction that has changed something, and reads its rows.
sub read_meanwhile
{
	my ($what, $block) = @_;
	my $lock = start_psql($node, 'BEGIN', 'LOCK TABLE s3export.current_batch IN EXCLUSIVE MODE', 'SELECT pg_sleep(3)', 'COMMIT');
	my $session = $block->();

	poll_until(sub { sql(q(SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND backend_xid IS NOT NULL AND backend_type = 's3export current')) > 0 }, 'a transaction that waits');
	sql('SELECT pg_current_xact_id()');
	is(sql(q(SELECT bool_or(pg_visible_in_snapshot(backend_xid::text::xid8, pg_current_snapshot())) FROM pg_stat_activity WHERE backend_type = 's3export current')), 'f', "the transaction of a $what is not taken for one that has ended");
	sql('SELECT count(*) FROM s3export.current_state WHERE events_sent >= 0');
	finish_psql($lock);
	return finish_psql($session);
}

sql('INSERT INTO h DEFAULT VALUES');
$s3->call('add_fault', do => 'stall', when => 'before', seconds => 2, match => { operation => 'PutObject', key => $folder{hammer} }, times => 1);
my $held = start_psql($node, q(SELECT events FROM s3export.deliver('hammer')));
poll_until(sub { sql('SELECT count(*) FROM s3export.current_batch') > 0 }, 'a batch that has begun');
is((read_meanwhile('delivery', sub { return $held; }))[1], '1', 'which delivers');
is(current_of($node, 'hammer', 'events_sent'), sql('SELECT count(*) FROM h'), 'and counts what it has delivered');
flow('read', tables => '{h}');
is((read_meanwhile('launch', sub { return start_psql($node, q(SELECT s3export.launch('read'))); }))[0], 0, 'which launches');
is(current_of($node, 'read', 'state'), 'running', 'and says so');

# ---- the extension's own tables are written anew while there are changes to be sent
sql('CREATE TABLE other (v text); CREATE PUBLICATION others FOR TABLE other');
sql(q(SELECT pg_create_logical_replication_slot('another', 'pgoutput')));

# An event, a change of the extension's rows that is decoded with it, much WAL without events, the statements, an event.
sub rewritten
{
	my ($name, $megabytes, @statements) = @_;

	flow($name, tables => '{h}');
	launch($node, $name);
	sql('INSERT INTO h DEFAULT VALUES');
	$s3->call('add_fault', do => 'stall', when => 'before', seconds => 1, match => { operation => 'PutObject', key => $folder{$name} }, times => 1);
	my $first = start_psql($node, "SELECT events FROM s3export.deliver('$name')");
	poll_until(sub { sql('SELECT count(*) FROM s3export.current_batch') > 0 }, 'a batch that has begun');
	sql(q(INSERT INTO other VALUES ('meanwhile')));
	is((finish_psql($first))[1], '1', "$name: a delivery");
	sql('INSERT INTO h DEFAULT VALUES');
	sql("SELECT count(pg_logical_emit_message(false, 'quiet', repeat('x', 1000000))) FROM generate_series(1, $megabytes)");
	sql($_) foreach @statements;
	sql('INSERT INTO h DEFAULT VALUES');
	return;
}

foreach my $case ([ 'state', 7, 'VACUUM FULL s3export.current_state' ], [ 'batch', 70, 'VACUUM FULL s3export.current_batch' ], [ 'whole', 70, 'VACUUM FULL' ])
{
	my ($name, @rest) = @$case;

	rewritten($name, @rest);
	is((deliver_loudly($name))[0], '2', "$name: the next, which sends what was owed");
	is(current_of($node, $name, 'state, failures, events_sent'), 'running|0|3', 'and is recorded');
}
rewritten('refused', 70, 'VACUUM FULL s3export.current_batch');
refusing('refused', sub { like((deliver_loudly('refused'))[0], qr/could not upload/, 'S3 refuses what is sent, and a table of the extension has been written anew'); });
is(sql(q(SELECT count(*) FROM s3export.current_batch)), 1, 'the batch that has begun is recorded');
sql(q(SELECT s3export.resume('refused')));
is((deliver_loudly('refused'))[0], '2', 'and written again');
is(current_of($node, 'refused', 'state, events_sent'), 'running|3', 'once');
is(sql(q(SELECT count(*) FROM pg_logical_slot_get_binary_changes('another', NULL, NULL, 'proto_version', '1', 'publication_names', 'others') WHERE get_byte(data, 0) = ascii('I'))), 4, 'other slots read all of that WAL');
sql(q(SELECT pg_drop_replication_slot('another'); DROP PUBLICATION others));
sql(qq(SELECT s3export.drop_connector('$_'))) foreach 'state', 'batch', 'whole', 'refused';

# ---- a publication that is replaced beyond the first batch
sql('CREATE PUBLICATION beyond FOR TABLE h');
flow('beyond', publication => 'beyond');
launch($node, 'beyond');
sql('INSERT INTO h DEFAULT VALUES');
sql(q(SELECT count(pg_logical_emit_message(false, 'quiet', repeat('x', 1000000))) FROM generate_series(1, 70)));
sql($_) foreach 'DROP PUBLICATION beyond', 'CREATE PUBLICATION beyond FOR TABLE h', 'INSERT INTO h DEFAULT VALUES';
is((deliver_loudly('beyond'))[0], '2', 'a publication that is replaced after much WAL without events');
is(events_of('beyond'), 'launched publication_replaced gap', 'of which no table has come or gone, though one was in neither for a moment');
sql(q(SELECT s3export.drop_connector('beyond'); DROP PUBLICATION beyond));

# ---- rows that the publication's owner may not send
sql(<<'SQL');
CREATE ROLE alice LOGIN REPLICATION; CREATE ROLE dba SUPERUSER; CREATE ROLE nobody LOGIN;
GRANT CREATE ON DATABASE postgres TO alice; GRANT CREATE ON SCHEMA public TO alice;
CREATE TABLE mine (id int PRIMARY KEY); ALTER TABLE mine OWNER TO alice;
CREATE TABLE secret (id int PRIMARY KEY, s text);
CREATE TABLE noise (v text);
CREATE TABLE k (id int PRIMARY KEY);
CREATE PUBLICATION owned FOR TABLE k; ALTER TABLE k OWNER TO dba; ALTER PUBLICATION owned OWNER TO dba;
SQL
said('CREATE PUBLICATION borrowed FOR TABLE mine', 'alice');
flow('borrowed', publication => 'borrowed');
sql(q(SELECT s3export.alter_connector('borrowed', owner => 'alice', validate => false)));
launch($node, 'borrowed');
said('DROP PUBLICATION borrowed', 'alice');
sql($_) foreach 'CREATE PUBLICATION borrowed FOR ALL TABLES', q(INSERT INTO secret VALUES (1, 'launch codes')), 'DROP PUBLICATION borrowed';
said('CREATE PUBLICATION borrowed FOR TABLE mine; INSERT INTO mine VALUES (1)', 'alice');
($out, $err) = deliver_loudly('borrowed', 'alice');
is($out, '1', "a publication of another owner under the same name for a while: the owner's own");
is(short('borrowed'), 'insert 1', 'is all that is sent');
like($err, qr/WARNING: .*changes of table public.secret were not sent/, 'which is told');
like(events_of('borrowed'), qr/\bwithheld\b/, 'as an event');

# ---- a superuser who was none for a while
sql('CREATE TABLE v (id int PRIMARY KEY); CREATE PUBLICATION super FOR ALL TABLES; ALTER PUBLICATION super OWNER TO dba');
flow('super', publication => 'super');
launch($node, 'super');
deliver($node, 'super');
sql($_) foreach 'INSERT INTO v VALUES (1)', 'ALTER ROLE dba NOSUPERUSER', 'INSERT INTO v VALUES (2)', 'ALTER ROLE dba SUPERUSER', 'INSERT INTO v VALUES (3)';
($out, $err) = deliver_loudly('super');
is(short('super', 'public.v'), 'insert 1, insert 3', 'what an owner who was no superuser for a while did not own is not sent');
like($err, qr/WARNING: .*changes of table public.v were not sent/, 'which is told');
is(sql(q(SELECT detail->>'events' FROM s3export.current_events WHERE connector = 'super' AND event = 'withheld')), 1, 'with its number');
sql(q(SELECT s3export.drop_connector('super'); DROP PUBLICATION super));

# ---- withheld, and then only WAL without events; or a delivery that fails
sql('CREATE PUBLICATION quiet FOR TABLE mine, k; ALTER TABLE mine OWNER TO dba; ALTER PUBLICATION quiet OWNER TO dba; ALTER ROLE dba NOSUPERUSER');
flow('quiet', publication => 'quiet');
launch($node, 'quiet');
sql($_) foreach 'ALTER TABLE mine OWNER TO alice', 'INSERT INTO mine VALUES (2), (3)', 'ALTER TABLE mine OWNER TO dba', 'INSERT INTO noise SELECT repeat(md5(i::text), 30) FROM generate_series(1, 9000) i';
($out, $err) = deliver_loudly('quiet');
is($out, '0', 'rows that are withheld, and much WAL without events');
like($err, qr/WARNING: .*changes of table public.mine were not sent/, 'are told');
is(() = events_of('quiet') =~ /withheld/g, 1, 'once');
sql($_) foreach 'ALTER TABLE mine OWNER TO alice', 'INSERT INTO mine VALUES (4)', 'ALTER TABLE mine OWNER TO dba', 'INSERT INTO noise SELECT repeat(md5(i::text), 30) FROM generate_series(1, 9000) i', 'INSERT INTO k VALUES (1)';
refusing('quiet', sub { (undef, $err) = deliver_loudly('quiet') });
like($err, qr/WARNING: .*changes of table public.mine were not sent/, 'also where the delivery fails');
sql(q(SELECT s3export.resume('quiet')));
is((deliver_loudly('quiet'))[0], '1', 'which goes on');
is(short('quiet'), 'insert 1', 'with what may be sent');

# ---- a delete whose old row the WAL lacks
sql('CREATE TABLE nk (id int); INSERT INTO nk SELECT generate_series(1, 3); CREATE TABLE o (id int PRIMARY KEY); CREATE PUBLICATION pn FOR TABLE o');
flow('keyless', publication => 'pn');
launch($node, 'keyless');
# The statement was allowed before the table joined, and has found its row afterwards.
$open = start_psql($node, 'DELETE FROM nk WHERE id = 1 AND pg_sleep(1) IS NOT NULL');
poll_until(sub { sql(q(SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND query LIKE 'DELETE FROM nk%')) > 0 }, 'a delete that takes long');
sql($_) foreach 'ALTER PUBLICATION pn ADD TABLE nk', 'INSERT INTO nk VALUES (9)';
finish_psql($open);
sql($_) foreach 'ALTER TABLE nk REPLICA IDENTITY FULL', 'INSERT INTO o VALUES (1)';
($out, $err) = deliver_loudly('keyless');
is($out, '3', 'a delete whose row the WAL lacks is passed over');
like($err, qr/WARNING: .*changes of table public.nk were not sent/, 'and told');
is(in_full('keyless'), 'insert 9, alter -, insert 1', 'all else is sent, another replica identity as well');
is(current_of($node, 'keyless', 'state'), 'running', 'and it goes on');

# ---- tables that come and go
sql(q(CREATE PUBLICATION coming FOR ALL TABLES WITH (publish = 'delete')));
flow('coming', publication => 'coming');
launch($node, 'coming');
sql(<<'SQL');
DO $$ BEGIN FOR i IN 1..100 LOOP
	FOR j IN 1..30 LOOP
		EXECUTE format('CREATE TABLE stage_%s_%s (id int, a int, b int)', i, j);
		EXECUTE format('INSERT INTO stage_%s_%s VALUES (1)', i, j);
	END LOOP;
	COMMIT;
	FOR j IN 1..30 LOOP EXECUTE format('DROP TABLE stage_%s_%s', i, j); END LOOP;
	COMMIT;
END LOOP; END $$
SQL
my $delivery = start_psql($node, q(SELECT events FROM s3export.deliver('coming')));
my $pid = worker_pid($node, undef, $delivery);
my $most = 0;
while (-d "/proc/$pid")
{
	my $status = eval { slurp_file("/proc/$pid/status") } // '';

	$most = $1 if $status =~ /RssAnon:\s+(\d+)/ && $1 > $most;
	sleep 0.02;
}
is((finish_psql($delivery))[1], '0', 'thousands of tables that come and go without an event');
cmp_ok($most, '>', 0, 'the memory of the worker is seen');
cmp_ok($most, '<', 18_000, "and does not grow with them ($most kB)");
sql(q(SELECT s3export.drop_connector('coming'); DROP PUBLICATION coming));

# ---- transaction blocks
sql('CREATE TABLE m (id int PRIMARY KEY)');
flow('block', tables => '{m}');
my %in_block = (sqlstate => '25001', hint => qr/statement of its own/);
error_like($node, q(BEGIN; SELECT s3export.launch('block')), { %in_block, message => qr/launch\(\) cannot run inside a transaction block/ }, 'launch() in a transaction block');
launch($node, 'block');
error_like($node, q(BEGIN; SELECT s3export.add_table('block', 'o')), { %in_block, message => qr/add_table\(\) with copy_existing cannot run/ }, 'add_table() in a transaction block');
is(sql(q(BEGIN; SELECT s3export.add_table('block', 'o', copy_existing => false); COMMIT)), 0, 'add_table() without its rows');
is(current_of($node, 'block', 'tables'), '{public.m,public.o}', 'works in it');

# ---- all tables by their roots, and a partition that is not in the WAL
sql('CREATE UNLOGGED TABLE q2 PARTITION OF q FOR VALUES FROM (10) TO (20); CREATE UNLOGGED TABLE loose (id int PRIMARY KEY)');
sql('CREATE PUBLICATION roots FOR ALL TABLES WITH (publish_via_partition_root = true); CREATE PUBLICATION leaves FOR ALL TABLES');
error_like($node, 'SELECT ' . connector_sql('roots', at_endpoint($s3), %keys, kind => 'currents', validate => \'false', publication => 'roots'), { sqlstate => '55000', message => qr/public.q2/, detail => qr/unlogged/ }, 'an unlogged partition of a root that is published with all tables');
flow('leaves', publication => 'leaves');
is(current_of($node, 'leaves', 'state'), 'created', 'is no matter where partitions are sent by themselves');
sql('DROP TABLE q2');
flow('roots', publication => 'roots');
launch($node, 'roots');
sql('CREATE UNLOGGED TABLE q2 PARTITION OF q FOR VALUES FROM (10) TO (20)');
like((deliver_loudly('roots'))[1], qr/WARNING:  55000: .*cannot send changes of table public.q2/, 'and is found before each batch');
sql(q(DROP TABLE q2; SELECT s3export.drop_connector(name) FROM unnest('{roots,leaves}'::text[]) name; DROP PUBLICATION roots, leaves));

# ---- its own publication
sql(q(SELECT s3export.alter_connector('block', publication => 's3export_block', validate => false)));
is(current_of($node, 'block', 'publication, tables, state'), 's3export_block|{public.m,public.o}|running', 'the publication that it has already changes nothing');
sql(q(SELECT s3export.alter_connector('block', operations => '{insert}', validate => false)));
is(current_of($node, 'block', 'operations'), '{insert}', 'which is still its own');

# ---- deliveries that are cancelled
sub stalled
{
	$s3->call('clear_faults');
	$s3->call('add_fault', do => 'stall', when => 'before', seconds => 20, match => { operation => 'PutObject', key => $folder{block} }, times => 1);
	sql('INSERT INTO m SELECT coalesce(max(id), 0) + 1 FROM m');
	return;
}
foreach my $case ([ '', q('block') ], [ ' without raise', q('block', "raise" => false) ])
{
	my ($what, $arguments) = @$case;

	stalled();
	($out, $err) = said(<<"SQL");
\\set ON_ERROR_STOP off
SET statement_timeout = '700ms';
SELECT * FROM s3export.deliver($arguments);
RESET statement_timeout;
SELECT 'usable ' || count(*) FROM s3export.currents WHERE name = 'block' AND state = 'running';
SQL
	is($out, 'usable 1', "a delivery$what that takes too long leaves the session usable");
	like($err, qr/ERROR:  57014/, "a delivery$what that takes too long: the error");

	stalled();
	($out, $err) = said(<<"SQL");
SET statement_timeout = '700ms';
DO \$\$ BEGIN
	BEGIN
		PERFORM s3export.deliver($arguments);
	EXCEPTION WHEN query_canceled THEN
		RAISE NOTICE 'cancelled';
	END;
	PERFORM count(*) FROM s3export.currents;
	RAISE NOTICE 'goes on';
END \$\$;
RESET statement_timeout;
SELECT 'usable';
SQL
	is($out, 'usable', "a delivery$what that a DO block catches leaves the session usable") or diag($err);
	like($err, qr/cancelled.*goes on/s, "a delivery$what that a DO block catches: it goes on");

	stalled();
	my $session = start_psql($node, qq(DO \$\$ BEGIN PERFORM s3export.deliver($arguments); EXCEPTION WHEN query_canceled THEN PERFORM count(*) FROM s3export.currents; END \$\$), q(SELECT 'usable'));
	worker_pid($node, undef, $session);
	sleep 0.3;
	sql(q(SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE query LIKE 'DO %s3export.deliver%' AND pid <> pg_backend_pid()));
	my ($exit, $rows, $messages) = finish_psql($session);
	is("$exit $rows", '0 usable', "a delivery$what that somebody cancels leaves the session usable") or diag($messages);
}
$s3->call('clear_faults');
unlike((deliver_loudly('block'))[1], qr/WARNING/, 'the next delivery warns of nothing');
is(() = events_of('block') =~ /gap/g, 1, 'as it was told once that a table came without its rows');
is(current_of($node, 'block', 'state, failures, events_sent'), 'running|0|6', 'has all of it');
is(short('block', 'public.m'), join(', ', map { "insert $_" } 1 .. 6), 'each event once');
is(join(' ', wrong_files(files('block'))), '', 'in files as they should be');

# ---- who has none
($out, $err) = said('SELECT * FROM s3export.deliver()', 'nobody');
is($out, '', 'a role without connectors has nothing to deliver');
like($err, qr/WARNING:  \w+: there is no connector to deliver.*"nobody"/s, 'and is told');

# ---- a slot that goes while a connector is not tried
sql('CREATE PUBLICATION gone FOR TABLE m');
flow('gone', publication => 'gone');
launch($node, 'gone');
sql('DROP PUBLICATION gone; INSERT INTO m VALUES (100)');
deliver_loudly('gone');
like((said(q(SELECT error FROM s3export.deliver("raise" => false) WHERE connector = 'gone')))[0], qr/not tried again yet/, 'a connector that failed is left alone for a while');
sql(q(SELECT pg_drop_replication_slot(slot_name) FROM s3export.currents WHERE name = 'gone'));
($out, $err) = said(q(SELECT state, error FROM s3export.deliver("raise" => false) WHERE connector = 'gone'));
like($out, qr/^lost\|.*has lost its place/, 'but is told to be lost at once when its slot is gone');
like($err, qr/WARNING:  55000: .*"gone".* has lost its place in the WAL/, 'with a warning');
like(events_of('gone'), qr/ lost$/, 'and an event');

# ---- tables that do not exist, or no longer
sql(q(SELECT s3export.drop_connector(name) FROM s3export.currents WHERE name IN ('filter', 'leaf', 'type', 'column', 'generated', 'gone', 'hammer', 'read')));
sql('CREATE TABLE joined (id int PRIMARY KEY, v int); CREATE TABLE joined0 (id int PRIMARY KEY); CREATE TABLE joined_p (id int PRIMARY KEY) PARTITION BY RANGE (id)');
flow('join', tables => '{joined0}');
launch($node, 'join');
my $started = sql('SELECT pg_postmaster_start_time()');
error_like($node, "SELECT s3export.add_table('join', 999999, $_)", { sqlstate => '42P01' }, "a table that does not exist is not added, copy_existing $_") foreach 'true', 'false';
sql(q(SELECT s3export.add_table('join', 'joined_p')));
like(current_of($node, 'join', 'tables::text'), qr/public\.joined0/, 'a partitioned table without partitions is added');
{
	my $open = open_transaction(4, 'INSERT INTO joined0 VALUES (0)');
	my $add = start_psql($node, q(SET statement_timeout = '2s'), q(SELECT s3export.add_table('join', 'joined')));

	poll_until(sub { sql(q(SELECT count(*) FROM pg_publication_tables WHERE pubname = 's3export_join' AND tablename = 'joined')) > 0 }, 'the table is in the publication');
	sql('DROP TABLE joined');
	like(join(' ', finish_psql($add)), qr/statement timeout/, 'a table that is dropped while it is added, and a cancel');
	finish_psql($open);
}
{
	sql('CREATE TABLE joined (id int PRIMARY KEY, v int); INSERT INTO joined VALUES (1, 0)');
	my $open = open_transaction(3, 'INSERT INTO joined0 VALUES (1)');
	my $add = start_psql($node, q(SELECT s3export.add_table('join', 'joined')));

	poll_until(sub { sql(q(SELECT count(*) FROM pg_publication_tables WHERE pubname = 's3export_join' AND tablename = 'joined')) > 0 }, 'the table is in the publication');
	sql('ALTER PUBLICATION s3export_join DROP TABLE joined');
	finish_psql($open);
	like(join(' ', finish_psql($add)), qr/has left the publication as its copy began/, 'a table that leaves the publication while it is added');
}
is((deliver_loudly('join'))[0], '1', 'what else was published is sent');
is(short('join', 'public.joined0'), 'insert 0, insert 1', 'some of it before the other table could be added');
is(sql('SELECT pg_postmaster_start_time()'), $started, 'and nothing has crashed');

# ---- a table that is added twice
sql(q(SELECT s3export.add_table('join', 'joined'); UPDATE joined SET v = 1; ALTER PUBLICATION s3export_join DROP TABLE joined));
error_like($node, q(SELECT s3export.add_table('join', 'joined')), { sqlstate => '55000', hint => qr/deliver/ }, 'a table whose changes are still owed is not added again');
is((deliver_loudly('join'))[0], '1', 'before they are sent');
sql(q(SELECT s3export.add_table('join', 'joined'); UPDATE joined SET v = 2));
is((deliver_loudly('join'))[0], '1', 'and then it is');
is(short('join', 'public.joined', 'id', 'v'), 'copy 1/0, update 1/1, copy 1/1, update 1/2', 'with each change once');

# ---- version numbers of a batch that is yet to be sent
sql('CREATE TABLE v1 (id int PRIMARY KEY, a text); CREATE TABLE v2 (id int PRIMARY KEY, b int); INSERT INTO v2 VALUES (1, 1)');
flow('version', tables => '{v1}');
launch($node, 'version');
sql(q(INSERT INTO v1 VALUES (1, 'a')));
$s3->call('add_fault', do => 'error', code => 'InvalidRequest', status => 400, match => { operation => 'PutObject', key => $folder{version} }, times => undef);
deliver_loudly('version');
$s3->call('clear_faults');
sql(q(SELECT s3export.add_table('version', 'v2')));
deliver_loudly('version');
my %version = map { $_->{type} => $_->{file}{version} } events(files('version'));
isnt($version{'public.v1'}, $version{'public.v2'}, 'are not given again to a table that is added meanwhile');

# ---- a publication that is replaced while S3 refuses, and others after it
sql('CREATE TABLE replaced (id int PRIMARY KEY); CREATE PUBLICATION qa FOR TABLE replaced; CREATE PUBLICATION qb FOR TABLE replaced');
flow('renamed', publication => 'qa');
launch($node, 'renamed');
sql($_) foreach 'INSERT INTO replaced VALUES (1)', 'DROP PUBLICATION qa', 'INSERT INTO replaced VALUES (2)', 'ALTER PUBLICATION qb RENAME TO qa', 'INSERT INTO replaced VALUES (3)';
refusing('renamed', sub { deliver_loudly('renamed') });
sql(q(SELECT s3export.resume('renamed')));
is((deliver_loudly('renamed'))[0], '3', 'a replaced publication, and a batch that is sent again');
is(short('renamed'), 'insert 1, insert 2, insert 3', 'each event once');

# ---- another owner, with changes that are owed
sql('CREATE ROLE ann LOGIN REPLICATION; CREATE ROLE ben LOGIN REPLICATION; GRANT CREATE ON DATABASE postgres TO ann, ben; GRANT CREATE ON SCHEMA public TO ann, ben; CREATE TABLE o2 (id int PRIMARY KEY)');
flow('owed', tables => '{o2}');
sql(q(ALTER TABLE o2 OWNER TO ann; SELECT s3export.alter_connector('owed', owner => 'ann', validate => false)));
launch($node, 'owed');
sql($_) foreach 'INSERT INTO o2 VALUES (1), (2)', 'REASSIGN OWNED BY ann TO ben', q(SELECT s3export.alter_connector('owed', owner => 'ben', validate => false)), 'INSERT INTO o2 VALUES (3)';
is_deeply([ deliver_loudly('owed') ], [ '3', '' ], 'a connector, publication and table of another owner: nothing is withheld');
is(short('owed'), 'insert 1, insert 2, insert 3', 'of what is owed');

# ---- and a batch that was interrupted, of which a table is gone by then
sql('CREATE TABLE o3 (id int PRIMARY KEY); CREATE TABLE o4 (id int PRIMARY KEY)');
flow('handed', tables => '{o3, o4}');
sql(q(ALTER TABLE o3 OWNER TO ann; ALTER TABLE o4 OWNER TO ann; SELECT s3export.alter_connector('handed', owner => 'ann', validate => false)));
launch($node, 'handed');
sql($_) foreach 'INSERT INTO o3 VALUES (1)', 'INSERT INTO o4 VALUES (1)';
refusing('handed', sub { deliver_loudly('handed') });
sql($_) foreach 'DROP TABLE o4', 'REASSIGN OWNED BY ann TO ben', q(SELECT s3export.alter_connector('handed', owner => 'ben', validate => false); SELECT s3export.resume('handed'));
is((deliver_loudly('handed'))[0], '2', 'an interrupted batch is written again as the rights were when it began');

# ---- a cluster with another system identifier, as after pg_upgrade
sql(q(UPDATE s3export.current_state s SET system_identifier = system_identifier + 1 FROM s3export.connector c WHERE (c.connector_id, c.name) = (s.connector_id, 'renamed')));
deliver_loudly('renamed');
sql($_) foreach 'INSERT INTO replaced VALUES (4)', 'ALTER PUBLICATION qa RENAME TO qz', 'INSERT INTO replaced VALUES (5)';
is((deliver_loudly('renamed'))[0], '2', 'a publication that is renamed later');
is(current_of($node, 'renamed', 'publication'), 'qz', 'is found by its new name');

# ---- a catalog that cannot be read between two batches
{
	$s3->call('add_fault', do => 'stall', when => 'before', seconds => 2, match => { operation => 'PutObject', key => $folder{renamed} }, times => 1);
	sql('INSERT INTO replaced VALUES (6)');
	my $deliver = start_psql($node, q(SELECT events FROM s3export.deliver('renamed')));

	sleep 1;
	my $lock = open_transaction(14, 'LOCK TABLE s3export.connector IN ACCESS EXCLUSIVE MODE');

	unlike(join(' ', finish_psql($deliver)), qr/server closed the connection/, 'a delivery that waits for a lock too long');
	finish_psql($lock);
	$s3->call('clear_faults');
	deliver_loudly('renamed');
	is(short('renamed'), join(', ', map { "insert $_" } 1 .. 6), 'sends each event once');
	is(sql('SELECT pg_postmaster_start_time()'), $started, 'and no process has crashed');
}

# ---- a copy that fails while transactions run that have written to the table
sql('CREATE TABLE jj (id int PRIMARY KEY); CREATE TABLE aside (id int)');
flow('joined', tables => '{h}');
launch($node, 'joined');
{
	my $aside = $node->background_psql('postgres');
	my $writer = $node->background_psql('postgres');

	$aside->query_safe('BEGIN; INSERT INTO aside VALUES (1)');
	my $add = start_psql($node, q(SELECT s3export.add_table('joined', 'jj')));
	poll_until(sub { sql(q(SELECT count(*) FROM pg_replication_slots WHERE slot_name LIKE '%_copy')) > 0 }, 'a copy that waits');
	$writer->query_safe('BEGIN; INSERT INTO jj VALUES (1)');
	sql(q(SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE query LIKE '%add_table%' AND backend_type = 'client backend' AND pid <> pg_backend_pid()));
	isnt((finish_psql($add))[0], 0, 'a copy that is cancelled');
	poll_until(sub { sql(q(SELECT count(*) FROM pg_stat_activity WHERE backend_type = 's3export current')) == 0 }, 'its end, which waits for nobody');
	like((said(q(SELECT s3export.add_table('joined', 'jj'))))[1], qr/HINT: .*when all transactions have ended that ran when its copy failed/, 'the table cannot be added again yet');
	$_->query_safe('COMMIT') foreach $writer, $aside;
	$_->quit foreach $writer, $aside;
	deliver_loudly('joined') foreach 1 .. 2;
	is(sql(q(SELECT s3export.add_table('joined', 'jj'))), 1, 'but later');
	is(short('joined', 'public.jj'), 'copy 1', 'with what was written meanwhile, once');
}

# ---- a launch that the server ends
sql('CREATE TABLE big AS SELECT g AS id FROM generate_series(1, 1000) g; ALTER TABLE big ADD PRIMARY KEY (id)');
$node->append_conf('postgresql.conf', "max_slot_wal_keep_size = 32MB\nmax_wal_size = 64MB\nmin_wal_size = 32MB");
$node->restart;
flow('behind', tables => '{big}');
$s3->call('add_fault', do => 'stall', when => 'before', seconds => 6, match => { operation => 'PutObject', key => $folder{behind} }, times => 1);
my $behind = start_psql($node, q(SELECT s3export.launch('behind', copy_existing => true)));
poll_until(sub { current_of($node, 'behind', 'state') eq 'launching' }, 'a launch');
sql($_) foreach (q(SELECT count(pg_logical_emit_message(false, 'quiet', repeat('x', 1000000))) FROM generate_series(1, 20)), 'SELECT pg_switch_wal()') x 5, 'CHECKPOINT';
like((finish_psql($behind))[2], qr/55000: the launch needs more WAL than the server may keep/, 'a launch whose slot the server invalidates');
like(sql(q(SELECT detail FROM s3export.current_events WHERE connector = 'behind' AND event = 'launch_failed')), qr/more WAL/, 'which the event says too');

# ---- a shutdown, while a copy waits for a prepared transaction
sql('CREATE TABLE p9 (id int PRIMARY KEY)');
flow('waiting', tables => '{h}');
launch($node, 'waiting');
sql(q(BEGIN; INSERT INTO aside VALUES (2); PREPARE TRANSACTION 'aside'));
my $waits = start_psql($node, q(SELECT s3export.add_table('waiting', 'p9')));
poll_until(sub { sql(q(SELECT count(*) FROM pg_replication_slots WHERE slot_name LIKE '%_copy')) > 0 }, 'a copy that waits for a prepared transaction');
$node->stop('fast', fail_ok => 1);
finish_psql($waits);
ok(!-e $node->data_dir . '/postmaster.pid', 'does not keep the server from its shutdown');

keep_secrets($s3);
$s3->stop;
done_testing();
