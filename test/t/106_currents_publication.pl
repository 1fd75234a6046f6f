# What a current sends is what its publication publishes, at each place of the WAL.
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
my $node = currents_node('main', 'log_min_messages = debug1', 'max_slot_wal_keep_size = 10GB');

share_scripted($node, $s3, %keys);

# ---- a publication of the connector's own
sql('CREATE TABLE a (id int PRIMARY KEY, v text); CREATE TABLE b (id int PRIMARY KEY, v text)');
flow('own', tables => '{a}');
is(current_of($node, 'own', 'publication, tables, operations'), 's3export_own|{public.a}|{insert,update,delete,truncate}', 'tables make a publication, with all operations');
launch($node, 'own');
sql(q(INSERT INTO a VALUES (1, 'x'); UPDATE a SET v = 'y'; DELETE FROM a; INSERT INTO b VALUES (1, 'not yet')));
sql(q(ALTER PUBLICATION s3export_own ADD TABLE b));
sql(q(INSERT INTO b VALUES (2, 'now')));
sql(q(ALTER PUBLICATION s3export_own DROP TABLE a));
sql(q(INSERT INTO a VALUES (3, 'no more'); INSERT INTO b VALUES (4, 'and'); ALTER PUBLICATION s3export_own SET (publish = 'insert')));
sql(q(DELETE FROM b WHERE id = 2; INSERT INTO b VALUES (5, 'last')));
is((deliver($node, 'own') // {})->{events}, 7, 'changes of the publication take effect where they are in the WAL');
is(short('own', 'public.a'), 'insert 1, update 1, delete 1', 'a table that is dropped from it');
is(short('own', 'public.b'), 'insert 2, insert 4, insert 5', 'and one that is added');
fine('own', 'own');

sub last_event
{
	my ($name, $event) = @_;

	return sql("SELECT detail FROM s3export.current_events WHERE connector = '$name' AND event = '$event' ORDER BY at DESC LIMIT 1");
}

# ---- a publication that is there: column list and row filter
sql(<<'SQL');
CREATE TABLE c (id int PRIMARY KEY, region text NOT NULL, secret text, v text);
CREATE UNIQUE INDEX c_key ON c (id, region);
ALTER TABLE c REPLICA IDENTITY USING INDEX c_key;
CREATE PUBLICATION shop FOR TABLE c (id, region, v) WHERE (region = 'eu') WITH (publish = 'insert, update, delete');
INSERT INTO c VALUES (1, 'eu', 's', 'copied'), (2, 'us', 's', 'not copied');
SQL
error_like($node, 'SELECT ' . connector_sql('x', at_endpoint($s3), %keys, kind => 'currents', validate => \'false', publication => 'nowhere'), { sqlstate => '42704' }, 'a publication that is not there');
error_like($node, 'SELECT ' . connector_sql('x', at_endpoint($s3), %keys, kind => 'currents', validate => \'false', publication => 'shop', tables => '{c}'), { sqlstate => '22023' }, 'a publication and tables');
flow('shop', publication => 'shop');
is(current_of($node, 'shop', 'publication, tables, operations'), 'shop|{public.c}|{insert,update,delete}', 'a publication that is there');
error_like($node, q(SELECT s3export.alter_connector('shop', operations => '{insert}')), { sqlstate => '55000', hint => qr/ALTER PUBLICATION/ }, 'is not changed by alter_connector()');
launch($node, 'shop', copy_existing => 1);
sql(<<'SQL');
INSERT INTO c VALUES (3, 'eu', 's', 'a'), (4, 'us', 's', 'b');
UPDATE c SET v = 'c' WHERE id IN (3, 4);
UPDATE c SET region = 'us' WHERE id = 3;
UPDATE c SET region = 'eu' WHERE id = 4;
DELETE FROM c WHERE id IN (2, 4);
TRUNCATE c;
SQL
deliver($node, 'shop');
is(short('shop'), 'copy 1, insert 3, update 3, delete 3, insert 4, delete 4', 'the row filter decides, also of copies; updates across it are inserts and deletes');
is(join(' ', @{ (events(files('shop')))[0]{file}{header} }), '_id _op _committed_at id region v _meta', 'the column list decides');
sql(q(ALTER PUBLICATION shop SET TABLE c WHERE (region = 'us'); INSERT INTO c VALUES (5, 'eu', 's', ''), (6, 'us', 's', '')));
deliver($node, 'shop');
like(short('shop'), qr/delete 4, insert 6$/, 'another filter');
my @versions = map { $_->{file}{version} } events(files('shop'));
cmp_ok($versions[-1], '>', $versions[0], 'other columns are another version');
sql(q(ALTER PUBLICATION shop RENAME TO shop2; INSERT INTO c VALUES (7, 'us', 's', '')));
is(deliver($node, 'shop')->{events}, 1, 'a publication that is renamed');
is(current_of($node, 'shop', 'publication, tables'), 'shop2|{public.c}', 'is shown by its new name');
sql(q(INSERT INTO c VALUES (8, 'us', 's', ''); DROP PUBLICATION shop2));
my ($out, $err) = deliver_loudly('shop');
like($out, qr/publication "shop2" of connector "shop" does not exist/, 'a publication that is gone: the row');
like($err, qr/WARNING:  42704: .*HINT:  Make it again with CREATE PUBLICATION/s, 'a publication that is gone: the warning');
is(current_of($node, 'shop', 'state, failures, error_code'), 'running|1|42704', 'a publication that is gone: the view');
sql(q(CREATE PUBLICATION shop2 FOR TABLE c; INSERT INTO c VALUES (9, 'us', 's', '')));
is(deliver($node, 'shop')->{events}, 3, 'made again under its name, nothing is missing');
like(short('shop'), qr/insert 7, insert 8, insert 9$/, 'not even what was published by the old one');
fine('shop', 'shop');
sql(q(SELECT s3export.stop('shop'); CREATE PUBLICATION other FOR TABLE a));
sql(q(SELECT s3export.alter_connector('shop', publication => 'other')));
is(current_of($node, 'shop', 'publication, tables, state'), 'other|{public.a}|stopped', 'another publication, while it is stopped');
launch($node, 'shop');
error_like($node, q(SELECT s3export.alter_connector('shop', publication => 'shop2')), { sqlstate => '55000', hint => qr/stop/ }, 'but not while it is launched');

# ---- all tables: the extension's own among them
sql('CREATE PUBLICATION everything FOR ALL TABLES');
flow('all', publication => 'everything');
launch($node, 'all');
sql(q(INSERT INTO a VALUES (10, 'all'); CREATE TABLE fresh (id int PRIMARY KEY); INSERT INTO fresh VALUES (1)));
sql(q(CREATE UNLOGGED TABLE quick (id int PRIMARY KEY); INSERT INTO quick VALUES (1); CREATE SCHEMA app; CREATE TABLE app.t (id int PRIMARY KEY); INSERT INTO app.t VALUES (1)));
is(deliver($node, 'all')->{events}, 3, 'a publication of all tables, and of those that come');
is(deliver($node, 'all')->{events}, 0, 'the tables of the extension are not sent');
is(deliver($node, 'own')->{error}, undef, 'nor do they stop anything');
is(deliver($node, 'shop')->{events}, 1, 'of any current');
sql(q(SELECT s3export.alter_connector('own', max_events_per_file => 10); SELECT s3export.pause('own'); SELECT s3export.resume('own'); SELECT s3export.stop('own')));
sql(q(SELECT s3export.drop_connector('own')));
is(sql(q(SELECT count(*) FROM pg_publication WHERE pubname = 's3export_own')), 0, 'a publication of its own goes with the connector');
is(sql(q(SELECT string_agg(relname, ' ') FROM pg_class c WHERE relnamespace = 's3export'::regnamespace AND relkind = 'r' AND relreplident <> 'f' AND NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary))), '', 'each table of the extension has a replica identity');
sql(q(INSERT INTO fresh VALUES (2); ALTER TABLE fresh SET UNLOGGED; INSERT INTO fresh VALUES (3)));
($out, $err) = deliver_loudly('all');
like($err, qr/WARNING: .*table public.fresh of connector "all" is unlogged now/, 'a table that is set unlogged is told');
like(last_event('all', 'tables_changed'), qr/"unlogged": "public.fresh"/, 'as an event');
fine('all', 'all');
sql(q(SELECT s3export.drop_connector('all')));
is(sql(q(SELECT count(*) FROM pg_publication WHERE pubname = 'everything')), 1, 'a publication that was there stays');
sql('DROP PUBLICATION everything');

# ---- a schema
sql('CREATE PUBLICATION app FOR TABLES IN SCHEMA app');
flow('app', publication => 'app');
launch($node, 'app');
sql(q(INSERT INTO app.t VALUES (2); CREATE TABLE app.u (id int PRIMARY KEY); INSERT INTO app.u VALUES (1); INSERT INTO a VALUES (11, 'not')));
is(deliver($node, 'app')->{events}, 2, 'a publication of a schema');

# ---- partitions
sql(<<'SQL');
CREATE TABLE p (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10);
CREATE TABLE p2 (v text, id int PRIMARY KEY);
ALTER TABLE p ATTACH PARTITION p2 FOR VALUES FROM (10) TO (20);
CREATE PUBLICATION leaves FOR TABLE p;
CREATE TABLE lone (LIKE p INCLUDING ALL);
INSERT INTO lone VALUES (21, 'before');
SQL
flow('root', tables => '{p}');
flow('leaves', publication => 'leaves');
launch($node, $_) foreach 'root', 'leaves';
sql(q(INSERT INTO p VALUES (1, 'a'), (11, 'b'); UPDATE p SET id = 12 WHERE id = 1; CREATE TABLE p3 PARTITION OF p FOR VALUES FROM (30) TO (40); INSERT INTO p VALUES (31, 'c')));
unlike((deliver_loudly('root'))[1], qr/WARNING/, 'a partition that is created is no matter to warn of');
deliver($node, 'leaves');
is(short('root', 'public.p'), 'insert 1, insert 11, delete 1, insert 12, insert 31', 'partitions by their root');
is(short('root', 'public.p', 'v'), 'insert a, insert b, delete -, insert a, insert c', 'whatever the order of their columns');
is(join('|', map { short('leaves', "public.$_") } 'p1', 'p2', 'p3'), 'insert 1, delete 1|insert 11, insert 12|insert 31', 'or by themselves, as the publication says');
sql(q(ALTER TABLE p ATTACH PARTITION lone FOR VALUES FROM (20) TO (30); INSERT INTO p VALUES (22, 'after')));
($out, $err) = deliver_loudly('root');
like($err, qr/WARNING: .*readers of connector "root" miss changes of table public\.p\n.*partition public\.lone has joined without the rows that it had/, 'rows that come with a partition are warned of');
like(last_event('root', 'gap'), qr/"table": "public\.p", "reason": "partition public\.lone has joined/, 'as an event');
sql(q(BEGIN; CREATE TABLE loaded (LIKE p INCLUDING ALL); INSERT INTO loaded VALUES (41, 'x'); ALTER TABLE p ATTACH PARTITION loaded FOR VALUES FROM (40) TO (50); COMMIT));
like((deliver_loudly('root'))[1], qr/partition public\.loaded has joined without the rows/, 'also when all of it was one transaction');
sql(q(TRUNCATE p1; TRUNCATE p));
deliver($node, 'root');
like(short('root', 'public.p'), qr/, truncate -$/, 'a truncation of the root is one of its events, that of a partition is none');
is(() = short('root', 'public.p') =~ /truncate/g, 1, 'once');
foreach my $case ([ 'unlogged', 'CREATE UNLOGGED TABLE bad PARTITION OF p FOR VALUES FROM (90) TO (91)' ],
	[ 'foreign', 'CREATE EXTENSION IF NOT EXISTS file_fdw; CREATE SERVER IF NOT EXISTS s FOREIGN DATA WRAPPER file_fdw; CREATE FOREIGN TABLE bad PARTITION OF p FOR VALUES FROM (90) TO (91) SERVER s OPTIONS (filename $$/dev/null$$)' ])
{
	my ($kind, $statement) = @$case;

	sql('ALTER TABLE p DROP CONSTRAINT p_pkey; ALTER PUBLICATION s3export_root SET (publish = $$insert$$)') if $kind eq 'foreign';
	sql($statement);
	($out, $err) = deliver_loudly('root');
	like($err, qr/WARNING:  55000: .*cannot send changes of table public.bad.*DETAIL:  It is (?:a foreign table|unlogged)/s, "a partition that is $kind is found before each batch");
	error_like($node, 'SELECT ' . connector_sql('x', at_endpoint($s3), %keys, kind => 'currents', validate => \'false', tables => '{p}', operations => '{insert}'), { sqlstate => '55000' }, "and refused: $kind");
	sql($kind eq 'foreign' ? 'DROP FOREIGN TABLE bad' : 'DROP TABLE bad');
	is(deliver($node, 'root')->{error}, undef, 'when it is gone the current goes on');
}
fine('root', 'root');

# ---- names of columns that events have, too
sql('CREATE TABLE odd (_id text PRIMARY KEY, _op int, __id int, _meta text, v text)');
flow('odd', tables => '{odd}');
launch($node, 'odd');
sql(q(INSERT INTO odd VALUES ('x', 1, 2, 'u', 'v')));
deliver($node, 'odd');
my ($event) = events(files('odd'));
is(join(' ', @{ $event->{file}{header} }), '_id _op _committed_at __id __op ___id __meta v _meta', 'columns called as those of events get another underscore');
is(join(' ', @{ $event->{values} }{qw(__id __op ___id __meta v)}), 'x 1 2 u v', 'and keep their values');

# ---- tables that are swapped, dropped and made again
sql('CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE t_new (id int PRIMARY KEY); CREATE TABLE d (id int PRIMARY KEY)');
flow('swap', tables => '{t,d}');
launch($node, 'swap');
deliver($node, 'swap');
sql(q(INSERT INTO d VALUES (1); BEGIN; ALTER TABLE t RENAME TO t_old; ALTER TABLE t_new RENAME TO t; COMMIT; INSERT INTO t VALUES (1); DROP TABLE d; CREATE TABLE d (id int PRIMARY KEY); INSERT INTO d VALUES (2)));
($out, $err) = deliver_loudly('swap');
is($out, '1', 'what was committed before is delivered');
like($err, qr/WARNING: .*table public.t of connector "swap" is called public.t_old now.*DETAIL:  Another table has the name public.t now, and is not in publication "s3export_swap".*HINT:  Add it with ALTER PUBLICATION s3export_swap ADD TABLE public.t/s, 'a swap by rename is told');
like($err, qr/WARNING: .*table public.d of connector "swap" has been dropped.*DETAIL:  Another table has its name now/s, 'a table that is dropped and made again is told');
like(last_event('swap', 'tables_changed'), qr/"dropped": "public.d".*"renamed": "public.t to public.t_old"/, 'as an event with the names');
unlike((deliver_loudly('swap'))[1], qr/WARNING/, 'once');

# ---- whose tables
sql(<<'SQL');
CREATE ROLE alice LOGIN REPLICATION; CREATE ROLE bob LOGIN;
GRANT CREATE ON SCHEMA public TO alice, bob;
GRANT EXECUTE ON FUNCTION s3export.create_connector TO alice;
CREATE TABLE h1 (id int PRIMARY KEY, v text); CREATE TABLE h2 (id int PRIMARY KEY);
ALTER TABLE h1 OWNER TO alice; ALTER TABLE h2 OWNER TO alice;
SQL
$node->safe_psql('postgres', "LOAD 's3export'; ALTER SYSTEM SET s3export.allowed_endpoints = '*'");
$node->reload;
$folder{alice} = unique_folder();
my $alice = 'SELECT ' . connector_sql('alice', at_endpoint($s3), %keys, folder_path => $folder{alice}, kind => 'currents', validate => \'false', tables => '{h1,h2}');
error_like($node, $alice, { sqlstate => '42501', message => qr/database/ }, 'a publication takes the right to create in the database', user => 'alice');
sql('GRANT CREATE ON DATABASE postgres TO alice');
$node->safe_psql('postgres', $alice, extra_params => [ '-U', 'alice' ]);
is(sql(q(SELECT pubowner::regrole FROM pg_publication WHERE pubname = 's3export_alice')), 'alice', "the connector's owner owns the publication");
launch($node, 'alice');
sql(q(INSERT INTO h1 VALUES (1, 'of alice'); ALTER TABLE h1 OWNER TO bob; INSERT INTO h1 VALUES (2, 'of bob')));
($out, $err) = deliver_loudly('alice');
like($out, qr/must be owner of table public.h1/, 'a table that the owner does not own any more');
is(short('alice'), '', 'nothing is sent');
$node->safe_psql('postgres', q(SELECT s3export.alter_connector('alice', tables => '{h2}', validate => false)), extra_params => [ '-U', 'alice' ]);
($out, $err) = deliver_loudly('alice');
is($out, '1', 'without the table what was her own is sent');
is(short('alice', undef, 'v'), 'insert of alice', 'and nothing that was written when it was not');
like($err, qr/WARNING: .*changes of table public.h1 were not sent.*DETAIL:  .*did not own the table.*Changes: 1\./s, 'which is told');
like(last_event('alice', 'withheld'), qr/"tables": "public.h1"/, 'as an event');
sql('ALTER ROLE alice NOREPLICATION; INSERT INTO h2 VALUES (1)');
like((deliver_loudly('alice'))[0], qr/permission denied to send changes/, 'an owner without REPLICATION any more');
sql('ALTER ROLE alice REPLICATION');
is(deliver($node, 'alice')->{events}, 1, 'goes on when it is given back');
sql('CREATE PUBLICATION of_postgres FOR TABLE h2');
error_like($node, 'SELECT ' . connector_sql('x', at_endpoint($s3), %keys, kind => 'currents', validate => \'false', publication => 'of_postgres'), { sqlstate => '42501', message => qr/publication "of_postgres"/ }, "somebody else's publication", user => 'alice');
sql('DROP PUBLICATION of_postgres; REASSIGN OWNED BY alice TO bob; DROP OWNED BY alice; DROP ROLE alice');
($out, $err) = deliver_loudly('alice');
like($out, qr/owner of connector "alice" does not exist/, 'an owner who is gone: the row');
like($err, qr/WARNING:  42704: .*HINT:  Give the connector an owner with s3export.alter_connector/s, 'an owner who is gone: the warning');
is(current_of($node, 'alice', 'state'), 'orphaned', 'an owner who is gone: the view');
is(sql(q(SELECT detail->>'state' FROM s3export.current_events WHERE connector = 'alice' ORDER BY at DESC LIMIT 1)), 'orphaned', 'an owner who is gone: an event');
sql(q(ALTER ROLE bob REPLICATION; GRANT CREATE ON DATABASE postgres TO bob; SELECT s3export.alter_connector('alice', owner => 'bob', validate => false); INSERT INTO h2 VALUES (2)));
$s3->call('add_fault', do => 'stall', when => 'before', seconds => 2, match => { operation => 'PutObject', key => $folder{alice} });
my $stalled = start_psql($node, q(SELECT events FROM s3export.deliver('alice')));
poll_until(sub { $node->safe_psql('postgres', 'SELECT count(*) FROM s3export.progress', extra_params => [ '-U', 'bob' ]) eq '1' }, 'the delivery in the view of its owner');
is((finish_psql($stalled))[1], '1', 'with another owner it goes on, who sees its progress');

# ---- a table that joins with its rows
sql(q(CREATE TABLE j (id int PRIMARY KEY, v text); INSERT INTO j SELECT i, 'old' FROM generate_series(1, 20) i; CREATE TABLE jx (id int PRIMARY KEY)));
flow('join', tables => '{jx}');
error_like($node, q(SELECT s3export.add_table('join', 'j')), { sqlstate => '55000', hint => qr/launch/ }, 'a table joins with its rows only when there is a slot');
launch($node, 'join');
sql(q(INSERT INTO jx VALUES (1); INSERT INTO j VALUES (21, 'before')));
# A transaction that has changed the table, and goes on to do so, when it joins.
my $writer = start_psql($node, 'BEGIN', q(INSERT INTO j VALUES (22, 'open')), q(SELECT pg_sleep(2)), q(INSERT INTO j VALUES (23, 'still')), 'COMMIT');
poll_until(sub { sql(q(SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(2)%' AND pid <> pg_backend_pid())) > 0 }, 'the writer');
my $adder = start_psql($node, q(SELECT s3export.add_table('join', 'j')));
foreach my $i (100 .. 130) { sql("INSERT INTO j VALUES ($i, 'meanwhile'); UPDATE j SET v = 'changed' WHERE id = $i - 80"); }
is((finish_psql($writer))[0], 0, 'the writer ends');
my ($status, $copied, $messages) = finish_psql($adder);
is($status, 0, 'the table joins') or diag($messages);
sql(q(INSERT INTO j VALUES (200, 'after'); DELETE FROM j WHERE id = 1));
deliver($node, 'join');
my @events = grep { $_->{type} eq 'public.j' } events(files('join'));
is(scalar(grep { $_->{op} eq 'copy' } @events), $copied, "$copied rows are copied");
my $rows = replay('id', @events);
is(join(' ', map { "$_:$rows->{$_}{v}" } sort { $a <=> $b } keys %$rows), sql(q(SELECT string_agg(id || ':' || v, ' ' ORDER BY id) FROM j)), 'copy and changes together are the table: no gap, no overlap');
fine('join', 'join');
is(sql(q(SELECT count(*) FROM pg_replication_slots WHERE slot_name LIKE '%copy%')), 0, 'no slot is left of it');
like(last_event('join', 'table_added'), qr/"table": "public.j"/, 'an event tells of it');
sql(q(CREATE TABLE k (id int PRIMARY KEY); INSERT INTO k SELECT generate_series(1, 10)));
$s3->call('add_fault', do => 'error', code => 'AccessDenied', match => { key => $folder{join} }, times => undef);
isnt(sql_error($node, q(SELECT s3export.add_table('join', 'k')))->{sqlstate}, '', 'a copy that fails');
$s3->call('clear_faults');
is(current_of($node, 'join', 'tables'), '{public.j,public.jx}', 'leaves the table out');
sql(q(INSERT INTO k VALUES (11)));
deliver($node, 'join');
is(sql(q(SELECT s3export.add_table('join', 'k'))), 11, 'and it can be added again');
sql(q(INSERT INTO k VALUES (12)));
deliver($node, 'join');
is(short('join', 'public.k'), join(', ', (map { "copy $_" } 1 .. 11), 'insert 12'), 'each row once');

# ---- tables of Citus, by what its catalog says
sql('CREATE TABLE sharded (id int PRIMARY KEY)');
flow('sharded', tables => '{sharded}');
launch($node, 'sharded');
sql(q(SET allow_system_table_mods = on; CREATE TABLE pg_catalog.pg_dist_partition (logicalrelid regclass); INSERT INTO pg_catalog.pg_dist_partition VALUES ('sharded')));
like((deliver_loudly('sharded'))[1], qr/WARNING:  55000: .*cannot send changes of table public.sharded.*DETAIL:  It is a table of Citus/s, 'a table that has become one of Citus is found before each batch');
error_like($node, 'SELECT ' . connector_sql('x', at_endpoint($s3), %keys, kind => 'currents', validate => \'false', tables => '{sharded}'), { sqlstate => '55000', message => qr/public.sharded/ }, 'and refused');
sql(q(SET allow_system_table_mods = on; DROP TABLE pg_catalog.pg_dist_partition));
is(deliver($node, 'sharded')->{error}, undef, 'an ordinary table again');

# ---- files of others
sql('CREATE TABLE f (id int PRIMARY KEY)');
flow('folder', tables => '{f}');
$s3->call('put_object', bucket => 'exports', key => "$folder{folder}/theirs.csv", body => 'x');
(undef, undef, $err) = $node->psql('postgres', q(SELECT s3export.launch('folder')));
like($err, qr/WARNING: .*folder of connector "folder" has objects that are not its own.*theirs.csv/s, 'a folder that is in use is warned of');
sql(q(SELECT s3export.stop('folder')));
(undef, undef, $err) = $node->psql('postgres', q(SELECT s3export.launch('folder')));
like($err, qr/WARNING: .*theirs.csv/s, 'until it has files of its own');
sql('INSERT INTO f VALUES (1)');
deliver($node, 'folder');
sql(q(SELECT s3export.stop('folder')));
(undef, undef, $err) = $node->psql('postgres', q(SELECT s3export.launch('folder')));
unlike($err, qr/WARNING/, 'then no more');

# ---- identity
sql('CREATE TABLE keyless (id int)');
error_like($node, 'SELECT ' . connector_sql('x', at_endpoint($s3), %keys, kind => 'currents', validate => \'false', tables => '{keyless}'), { sqlstate => '55000', hint => qr/operations/ }, 'a table whose updates PostgreSQL would refuse');
is(sql('INSERT INTO keyless VALUES (1); UPDATE keyless SET id = 2 RETURNING id'), 2, 'none of which happens');
sql('ALTER TABLE jx DROP CONSTRAINT jx_pkey');
error_like($node, 'DELETE FROM jx', { sqlstate => '55000', message => qr/replica identity/ }, 'PostgreSQL guards those that are sent');

keep_secrets($s3);
$node->stop;
$s3->stop;
done_testing();
