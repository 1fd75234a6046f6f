# The life of a current: what is delivered, in which files, from which position on,
# and what its tables, its settings and other sessions may do meanwhile.
use strict;
use warnings;
use lib 'test/lib';
use JSON::PP ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use S3Currents;
use S3Export;
use Test::More;
use Time::HiRes qw(sleep time);

s3_or_skip();
my $node = currents_node('main', 'max_worker_processes = 16', 'max_prepared_transactions = 5', 'track_commit_timestamp = on',
	'log_min_messages = debug1', "timezone = 'America/New_York'", "datestyle = 'sql, dmy'", 'max_wal_size = 1GB');
my $folder = unique_folder();
my $utc = q(SET TimeZone = 'UTC'; SET DateStyle = 'ISO, MDY');

# What is in the bucket, as long as nothing happens.
my %files;

sub sql
{
	%files = ();
	return $node->safe_psql('postgres', @_);
}

sub send_changes
{
	%files = ();
	return deliver($node, @_);
}

# The row that deliver() has for a connector, and all that it says.
sub meet
{
	my ($name) = @_;
	my ($rows, $messages) = deliver_and_listen($node);

	%files = ();
	return ((grep { $_->{connector} eq $name } @$rows)[0], $messages);
}

# A row of deliver() for a connector to which nothing is delivered.
sub idle
{
	my ($name, $state, $error) = @_;

	return { connector => $name, state => $state, events => 0, files => 0, bytes => 0, events_dropped => 0, batch => undef, error => $error };
}

# A current with a folder of its own below the test's.
sub flow
{
	my ($name, $tables, %more) = @_;

	create_connector($node, $name, kind => 'currents', tables => $tables, folder_path => "$folder/$name", validate => \'false', %more);
	return;
}

sub objects
{
	my ($name) = @_;

	return @{ $files{$name} //= [ objects_in_bucket("$folder/$name") ] };
}

sub files
{
	my ($name) = @_;

	return grep { $_->[0] !~ m{/_(?:batches|schema)/[^=]*\.json$} } objects($name);
}

# Events of a connector in short: operation and one column.
sub short
{
	my ($name, $column, $type) = @_;

	return join ' ', map { "$_->{op} " . ($_->{values}{$column} // '-') } grep { !defined $type || $_->{type} eq $type } events(files($name));
}

# What _meta of an event says; undef: nothing.
sub meta
{
	my ($event) = @_;

	return defined $event->{values}{_meta} ? JSON::PP->new->decode($event->{values}{_meta}) : undef;
}

sub fine
{
	my ($name, $what) = @_;
	my @files = files($name);

	is_deeply([ wrong_files(@files) ], [], "$what: names and contents agree");
	is_deeply([ wrong_events(all_events(@files)) ], [], "$what: each event once, in order");
	is_deeply([ wrong_batches(objects($name)) ], [], "$what: batches have all of them");
	return;
}

sub slot_count
{
	my ($name) = @_;

	return sql("SELECT count(*) FROM pg_replication_slots r JOIN s3export.currents c USING (slot_name) WHERE c.name = '$name'");
}

# ---- arguments
sql(<<'SQL');
CREATE TABLE events (id int PRIMARY KEY, what text);
CREATE TABLE keyless (id int);
CREATE TABLE half_logged (id int PRIMARY KEY) PARTITION BY RANGE (id);
CREATE UNLOGGED TABLE half_logged_1 PARTITION OF half_logged FOR VALUES FROM (0) TO (10);
CREATE UNLOGGED TABLE unlogged_table (id int PRIMARY KEY);
CREATE VIEW a_view AS SELECT 1 AS id;
CREATE ROLE alice LOGIN;
CREATE ROLE bob LOGIN REPLICATION;
GRANT CREATE ON SCHEMA public TO alice, bob;
GRANT EXECUTE ON FUNCTION s3export.create_connector TO alice, bob;
CREATE PUBLICATION nothing;
SQL
$node->safe_psql('postgres', "LOAD 's3export'; ALTER SYSTEM SET s3export.allowed_endpoints = '$S3{ENDPOINT}'");
$node->reload;

foreach my $case (
	[ 'a publication of an export', '22023', kind => 'data_export', publication => 'nothing' ],
	[ 'tables of an export', '22023', kind => 'data_export', tables => '{events}' ],
	[ 'operations of an export', '22023', kind => 'data_export', operations => '{insert}' ],
	[ 'compression of an export', '22023', kind => 'data_export', compression => 'gzip' ],
	[ 'max_events_per_file of an export', '22023', kind => 'data_export', max_events_per_file => \'10' ],
	[ 'drop_after of an export', '22023', kind => 'data_export', drop_after => '1 day' ],
	[ 'a publication that is not there', '42704', publication => 'nowhere' ],
	[ 'a publication, and tables', '22023', publication => 'nothing', tables => '{events}' ],
	[ 'a publication, and operations', '22023', publication => 'nothing', operations => '{insert}' ],
	[ 'a table that is not there', '42P01', tables => '{nowhere}' ],
	[ 'an unlogged table', '22023', tables => '{unlogged_table}' ],
	[ 'a view', '22023', tables => '{a_view}' ],
	[ 'a catalog', '22023', tables => '{pg_catalog.pg_class}' ],
	[ "a table of the extension's", '55000', tables => '{s3export.job}' ],
	[ 'updates of a table without a key', '55000', tables => '{keyless}', operations => '{insert,update}' ],
	[ 'deletes of a table without a key', '55000', tables => '{keyless}', operations => '{delete}' ],
	[ 'all operations of a table without a key', '55000', tables => '{keyless}' ],
	[ 'an unlogged partition', '55000', tables => '{half_logged}' ],
	[ 'an unknown operation', '22023', tables => '{events}', operations => '{insert,upsert}' ],
	[ 'no operation', '22023', tables => '{events}', operations => '{}' ],
	[ 'an unknown compression', '22023', tables => '{events}', compression => 'zip' ],
	[ 'no events in a file', '22023', tables => '{events}', max_events_per_file => \'0' ],
	[ 'too many events in a file', '22023', tables => '{events}', max_events_per_file => \'10000001' ],
	[ 'a drop_after that is no interval', '22007', tables => '{events}', drop_after => 'soon' ],
	[ 'a drop_after below zero', '22023', tables => '{events}', drop_after => '-1 day' ])
{
	my ($what, $sqlstate, %arguments) = @$case;

	error_like($node, 'SELECT ' . connector_sql('wrong', kind => 'currents', folder_path => "$folder/wrong", validate => \'false', %arguments), { sqlstate => $sqlstate }, "refused: $what");
}
error_like($node, 'CREATE TEMP TABLE mine (id int PRIMARY KEY); SELECT ' . connector_sql('wrong', kind => 'currents', tables => '{mine}', folder_path => "$folder/wrong", validate => \'false'),
	{ sqlstate => '22023' }, 'refused: a temporary table');
is(sql('SELECT (SELECT count(*) FROM s3export.connectors), (SELECT count(*) FROM pg_publication WHERE pubname <> $$nothing$$)'), '0|0', 'nothing of that was saved');

# ---- before it is launched
flow('first', '{events,public.events}', operations => '{insert}');
is(current_of($node, 'first', 'owner, state, publication, tables, operations, compression, max_events_per_file, drop_after::interval = interval $$48 hours$$, slot_name, position, lag_bytes, lag_seconds, events_sent, events_dropped, files_sent, bytes_sent, launched_at'),
	'postgres|created|s3export_first|{public.events}|{insert}|none|15000|t|||||0|0|0|0|', 'a connector of kind currents, as the view shows it');
is(sql(q(SELECT puballtables, pubinsert, pubupdate, pubdelete, pubtruncate, pubviaroot, pg_get_userbyid(pubowner) FROM pg_publication WHERE pubname = 's3export_first')), 'f|t|f|f|f|t|postgres', 'it has made a publication');
error_like($node, q(SELECT s3export.deliver('first')), { sqlstate => '55000', message => 'connector "first" has not been launched', hint => qr/launch/ }, 'nothing is delivered before it is launched');
error_like($node, qq(SELECT s3export.$_('first')), { sqlstate => '55000', message => qq(cannot $_ connector "first"), detail => 'It has not been launched.', $_ eq 'stop' ? () : (hint => qr/launch/) }, "nor is there anything to $_") foreach 'pause', 'resume', 'stop';
foreach my $time (1, 2)
{
	my ($row, $messages) = meet('first');

	is_deeply($row, idle('first', 'created'), "deliver() goes past it, time $time");
	like($messages, qr/WARNING:  55000: nothing is delivered to connector "first": it is not launched\nHINT:  Launch it/, "and says so, time $time");
}
is(sql(q(SELECT event, detail, repeats, last_at > at FROM s3export.current_events WHERE connector = 'first')), 'skipped|{"state": "created"}|2|t', 'which is one event');
create_connector($node, 'export', folder_path => "$folder/export", validate => \'false');
error_like($node, q(SELECT s3export.launch('export')), { sqlstate => '42809', message => qr/"export"/ }, 'one for exports cannot be launched');
error_like($node, q(SELECT s3export.launch('nobody')), { sqlstate => '42704' }, 'nor can one that is not there');
error_like($node, q(BEGIN; INSERT INTO events VALUES (0); SELECT s3export.launch('first')), { sqlstate => '25001', hint => qr/statement of its own/ }, 'nor within a transaction that has written');
is(slot_count('first'), 0, 'there is no slot yet');

# ---- a publication without tables
flow('bare', undef);
{
	my ($status, $out, $err) = $node->psql('postgres', q(SELECT s3export.launch('bare')));

	is($status, 0, 'one without tables can be launched');
	like($err, qr/WARNING:  publication "s3export_bare" of connector "bare" has no tables\n.*HINT:  Add some with ALTER PUBLICATION s3export_bare ADD TABLE/s, 'and is warned of');
	is(current_of($node, 'bare', 'state, tables, operations'), 'running|{}|{insert,update,delete,truncate}', 'it runs');
	sql(q(INSERT INTO keyless VALUES (1); ALTER TABLE keyless REPLICA IDENTITY FULL; ALTER PUBLICATION s3export_bare ADD TABLE keyless; INSERT INTO keyless VALUES (2)));
	is(send_changes('bare')->{events}, 1, 'and sends what is added');
	is(short('bare', 'id'), 'insert 2', 'from then on');
	sql(q(SELECT s3export.drop_connector('bare')));
	is(sql(q(SELECT count(*) FROM pg_publication WHERE pubname = 's3export_bare')), 0, 'its publication goes with it');
}

# ---- the first events, to the byte
{
	my $start = launch($node, 'first');

	like($start, qr/^[0-9A-F]+\/[0-9A-F]+$/, 'launch tells the position');
	is(sql(q(SELECT plugin, slot_type, database, active FROM pg_replication_slots JOIN s3export.currents USING (slot_name))), 's3export|logical|postgres|f', 'it has a slot');
	is(current_of($node, 'first', "state, position >= '$start', lag_bytes >= 0, launched_at <= now()"), 'running|t|t|t', 'and is running');
	error_like($node, q(SELECT s3export.launch('first')), { sqlstate => '55000', message => qr/already launched/ }, 'it is launched once');
	my $nothing = send_changes('first');
	my @batches = batches(objects('first'));
	is_deeply({ %$nothing, batch => undef }, idle('first', 'running'), 'nothing has happened: an empty delivery');
	is(scalar(files('first')), 0, 'writes no file');
	is($nothing->{batch}, "s3://$S3{BUCKET}/$batches[0]{key}", 'but a batch');
	is_deeply([ scalar @batches, @{ $batches[0] }{qw(previous events files first_id last_id committed_at)} ], [ 1, undef, 0, [], undef, undef, undef ], 'without events');
	is_deeply([ map { $_->{table} } @{ $batches[0]{gaps} } ], [undef], 'that tells of the rows that are not copied');
	like($batches[0]{batch}, qr/-0{10}$/, 'and is called by its position');
	is_deeply(send_changes('first'), idle('first', 'running'), 'then there is not even that');

	sql(q(INSERT INTO events VALUES (1, 'one'), (2, E'quoted "two",\nnext line')));
	sql(q(INSERT INTO events VALUES (3, NULL), (4, '')));
	my $row = send_changes('first');
	my @files = files('first');

	is(scalar(@files), 1, 'two transactions: one file');
	is_deeply($row, { connector => 'first', state => 'running', events => 4, files => 1, bytes => length $files[0][1], events_dropped => 0, batch => "s3://$S3{BUCKET}/" . (batches(objects('first')))[-1]{key}, error => undef }, 'deliver says what it did');
	sql('CREATE EXTENSION pg_walinspect');
	my $oracle = sub {
		my ($before) = @_;
		return copy_oracle($node, qq(SELECT format('%s-%s-%s', '00000001', upper(lpad(to_hex((r.start_lsn - '0/0')::bigint), 16, '0')), upper(lpad(to_hex(row_number() OVER (PARTITION BY r.xid::text ORDER BY e.id)), 10, '0'))) AS _id, 'insert' AS _op,
			pg_xact_commit_timestamp(e.xmin) AS _committed_at, e.*, NULL AS _meta FROM events e JOIN pg_get_wal_records_info('$start', pg_current_wal_lsn()) r ON r.xid = e.xmin
			WHERE r.resource_manager = 'Transaction' AND r.record_type = 'COMMIT' ORDER BY 1), 'HEADER', $utc);
	};
	is($files[0][1], $oracle->(), 'the file is as it is to be, _id, time and all');
	fine('first', 'the first file');
	my $id = current_of($node, 'first', 'connector_id');
	my ($first) = events(@files);
	like($files[0][0], qr{^\Q$folder/first/s3export.postgres.$id/_table=public.events/_version=0001/_hour=\E[-0-9]{10}T[0-9]{2}/\Q$first->{id}\E\.csv$}, 'its name');
	is(current_of($node, 'first', 'last_file, events_sent, files_sent, bytes_sent, events_dropped, failures, error_code'), join('|', "s3://$S3{BUCKET}/$files[0][0]", 4, 1, length $files[0][1], 0, 0, ''), 'the view has it');
	is(sql("SELECT state, rows, files, bytes FROM s3export.jobs WHERE connector = 'first' AND rows > 0"), join('|', 'succeeded', 4, 1, length $files[0][1]), 'there is a job');
	is(s3_head($files[0][0])->{'content-type'}, 'text/csv', 'Content-Type');

	is(send_changes('first')->{events}, 0, 'nothing comes twice');
	is(scalar(files('first')), 1, 'and no file for nothing');
	sql(q(UPDATE events SET what = 'other' WHERE id = 1; DELETE FROM events WHERE id = 2; CREATE TABLE noise AS SELECT generate_series(1, 1000)));
	my $before = current_of($node, 'first', 'position');
	is(send_changes('first')->{events}, 0, 'what is not wanted is no event');
	is(current_of($node, 'first', "position > '$before', lag_seconds"), 't|0', 'but passed');
	is(sql(q(SELECT confirmed_flush_lsn >= c.position FROM pg_replication_slots JOIN s3export.currents c USING (slot_name) WHERE c.name = 'first')), 't', 'the slot follows');
}

# ---- transactions: in the order of their commits, and only those
{
	my $slow = start_psql($node, q(BEGIN), q(INSERT INTO events VALUES (100, 'slow')), q(SELECT pg_sleep(600)));

	poll_until(sub { sql(q(SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(600)')) }, 'the slow transaction');
	sql(q(INSERT INTO events VALUES (101, 'fast')));
	sql(q(BEGIN; INSERT INTO events VALUES (102, 'rolled back'); ROLLBACK));
	sql(q(BEGIN; INSERT INTO events VALUES (103, 'kept'); SAVEPOINT a; INSERT INTO events VALUES (104, 'rolled back'); ROLLBACK TO a; SAVEPOINT b; INSERT INTO events VALUES (105, 'released'); RELEASE b;
		SAVEPOINT c; INSERT INTO events VALUES (106, 'x'); SAVEPOINT d; INSERT INTO events VALUES (107, 'y'); ROLLBACK TO c; INSERT INTO events VALUES (108, 'kept'); COMMIT));
	sql(q(BEGIN; INSERT INTO events VALUES (109, 'prepared, kept'); PREPARE TRANSACTION 'kept'));
	sql(q(BEGIN; INSERT INTO events VALUES (110, 'prepared, rolled back'); PREPARE TRANSACTION 'gone'));
	send_changes('first');
	is(short('first', 'id'), 'insert 1 insert 2 insert 3 insert 4 insert 101 insert 103 insert 105 insert 108', 'what has committed, without what was rolled back');
	sql(q(SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(600)'));
	finish_psql($slow);
	sql(q(ROLLBACK PREPARED 'gone'));
	$slow = start_psql($node, q(BEGIN; INSERT INTO events VALUES (111, 'late'); SELECT pg_sleep(1); COMMIT));
	sleep 0.3;
	sql(q(INSERT INTO events VALUES (112, 'early')));
	sql(q(COMMIT PREPARED 'kept'));
	finish_psql($slow);
	send_changes('first');
	is(short('first', 'id') =~ s/.* 108 //r, 'insert 112 insert 109 insert 111', 'in the order of the commits, those of prepared transactions too');
	fine('first', 'transactions');
}

# ---- what was there before: no gap, no overlap
{
	sql(q(CREATE TABLE busy (id bigserial PRIMARY KEY, note text); INSERT INTO busy (note) SELECT 'old ' || i FROM generate_series(1, 20000) i));
	flow('copied', '{busy}');
	my $script = $node->basedir . '/busy.sql';

	append_to_file($script, "INSERT INTO busy (note) VALUES ('new');\n");
	my $load = IPC::Run::start([ 'pgbench', '-n', '-c', '3', '-T', '600', '-R', '300', '-f', $script, $node->connstr('postgres') ], '>', \my $out, '2>', \my $err);
	poll_until(sub { sql('SELECT max(id) > 20050 FROM busy') eq 't' }, 'the load');
	my $open = start_psql($node, q(BEGIN; INSERT INTO busy (note) VALUES ('open'); SELECT pg_sleep(2); INSERT INTO busy (note) VALUES ('open'); COMMIT));
	sleep 0.2;
	my $start = launch($node, 'copied', copy_existing => 1);
	finish_psql($open);
	poll_until(sub { sql('SELECT count(*) > 21000 FROM busy') eq 't' }, 'more of the load');
	$load->kill_kill;
	poll_until(sub { sql(q(SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pgbench')) == 0 }, 'the end of the load');
	send_changes('copied');
	my @events = events(files('copied'));
	my ($copied, $sent) = (scalar(grep { $_->{op} eq 'copy' } @events), scalar(grep { $_->{op} eq 'insert' } @events));

	cmp_ok($copied, '>', 20050, "what was there is copied ($copied rows, then $sent)");
	cmp_ok($sent, '>', 100, 'what came then is sent');
	is(join(' ', sort { $a <=> $b } map { $_->{values}{id} } @events), sql(q(SELECT string_agg(id::text, ' ' ORDER BY id) FROM busy)), 'each row once, and all');
	fine('copied', 'a copy, and what follows');
	my ($at) = grep { $_->{op} eq 'copy' } @events;
	cmp_ok(hex substr($at->{id}, 9, 16), '==', sql("SELECT ('$start'::pg_lsn - '0/0') - 1"), 'rows that are copied come before the first position');
}

# ---- all operations
{
	sql(<<'SQL');
CREATE TABLE account (id int PRIMARY KEY, balance int, body text);
ALTER TABLE account ALTER body SET STORAGE EXTERNAL;
CREATE TABLE whole (id int, note text, body text);
ALTER TABLE whole REPLICA IDENTITY FULL, ALTER body SET STORAGE EXTERNAL;
CREATE TABLE by_index (a int NOT NULL, b int NOT NULL, note text);
CREATE UNIQUE INDEX by_index_key ON by_index (b);
ALTER TABLE by_index REPLICA IDENTITY USING INDEX by_index_key;
SQL
	flow('all', '{account,whole,by_index}', operations => '{insert,update,delete,truncate}');
	launch($node, 'all');
	sql(q(INSERT INTO account SELECT i, 0, repeat(md5(i::text), 400) FROM generate_series(1, 4) i));
	sql(q(UPDATE account SET balance = 5 WHERE id = 1));
	sql(q(UPDATE account SET body = repeat('new ', 4000) WHERE id = 2));
	sql(q(UPDATE account SET id = 30 WHERE id = 3));
	sql(q(DELETE FROM account WHERE id = 4));
	send_changes('all');
	my @events = events(files('all'));
	my $body = join '', map { 'new ' } 1 .. 4000;

	is(short('all', 'id', 'public.account'), 'insert 1 insert 2 insert 3 insert 4 update 1 update 2 update 30 delete 4', 'inserts, updates, deletes');
	is_deeply($events[0]{file}{header}, [qw(_id _op _committed_at id balance body _meta)], 'the columns, and _meta');
	is_deeply([ @{ $events[4]{values} }{qw(balance body)}, meta($events[4]) ], [ 5, undef, { unchanged => ['body'] } ], 'a value that is out of line and was not changed is named');
	is_deeply([ @{ $events[5]{values} }{qw(balance body)}, meta($events[5]) ], [ 0, $body, undef ], 'one that was changed is there');
	is_deeply([ @{ $events[6]{values} }{qw(balance body)}, meta($events[6]) ], [ 0, undef, { unchanged => ['body'], old_key => { id => '3' } } ], 'a row with another key whose values are not all there tells the one before');
	is_deeply([ @{ $events[7]{values} }{qw(balance body)}, meta($events[7]) ], [ undef, undef, undef ], 'a delete has the key alone');

	sql(q(INSERT INTO whole SELECT i, 'w' || i, repeat(md5(i::text), 400) FROM generate_series(1, 3) i; UPDATE whole SET note = 'changed' WHERE id = 2; DELETE FROM whole WHERE id = 1));
	sql(q(INSERT INTO by_index VALUES (1, 1, 'a'), (2, 2, 'b'), (3, 3, 'c'); UPDATE by_index SET a = 10 WHERE a = 1; UPDATE by_index SET b = 20 WHERE b = 2; DELETE FROM by_index WHERE b = 3));
	send_changes('all');
	is(short('all', 'id', 'public.whole') =~ s/insert 1 insert 2 insert 3 //r, 'delete 2 insert 2 delete 1', 'a table whose whole row is its identity: an update is a delete and an insert');
	my @whole = grep { $_->{type} eq 'public.whole' } events(files('all'));
	my $unchanged = sql('SELECT body FROM whole WHERE id = 2');
	is_deeply([ @{ $whole[3]{values} }{qw(note body)}, meta($whole[3]) ], [ 'w2', $unchanged, undef ], 'the delete has the old row');
	is_deeply([ @{ $whole[4]{values} }{qw(note body)}, meta($whole[4]) ], [ 'changed', $unchanged, undef ], 'and the insert what was not changed');
	is_deeply([ @{ $whole[5]{values} }{qw(note body)}, meta($whole[5]) ], [ 'w1', sql('SELECT repeat(md5($$1$$), 400)'), undef ], 'a delete has the whole row, too');
	is(short('all', 'b', 'public.by_index'), 'insert 1 insert 2 insert 3 update 1 delete 2 insert 20 delete 3', 'a table whose identity is an index; a change of the key is a delete and an insert');
	is(join(' ', map { "$_->{table} $_->{replica_identity} " . ($_->{document}{key} ? "@{$_->{document}{key}}" : '-') } schemas(objects('all'))), 'public.account default id public.by_index index b public.whole full -', 'schemas tell the keys');

	sql('TRUNCATE account, by_index');
	sql(q(INSERT INTO account VALUES (9, 9, 'after')));
	send_changes('all');
	like(short('all', 'id', 'public.account'), qr/delete 4 truncate - insert 9$/, 'a truncation is an event');
	like(short('all', 'b', 'public.by_index'), qr/delete 3 truncate -$/, 'of each table');
	fine('all', 'all operations');

	# A reader who replays the files has the table.
	sql(q(DO $$BEGIN FOR i IN 1 .. 300 LOOP CASE (random() * 3)::int
		WHEN 0 THEN INSERT INTO account VALUES (100 + i, i, repeat('x', (random() * 5000)::int));
		WHEN 1 THEN UPDATE account SET balance = balance + 1 WHERE id = (SELECT id FROM account ORDER BY random() LIMIT 1);
		WHEN 2 THEN UPDATE account SET id = id + 10000 WHERE id = (SELECT id FROM account ORDER BY random() LIMIT 1);
		ELSE DELETE FROM account WHERE id = (SELECT id FROM account WHERE id <> 9 ORDER BY random() LIMIT 1); END CASE; COMMIT; END LOOP; END$$));
	send_changes('all');
	my $rows = replay('id', grep { $_->{type} eq 'public.account' } events(files('all')));
	is(join(' ', map { "$_:$rows->{$_}{balance}:" . length($rows->{$_}{body} // '') } sort { $a <=> $b } keys %$rows), sql(q(SELECT string_agg(concat_ws(':', id, balance, coalesce(length(body), 0)), ' ' ORDER BY id) FROM account)), 'whoever replays the events has the table');
	fine('all', 'many operations');

	flow('some', '{account}', operations => '{delete,truncate}', folder_path => "$folder/some");
	launch($node, 'some');
	sql(q(INSERT INTO account VALUES (-1, 0, ''), (-2, 0, ''); UPDATE account SET balance = 1 WHERE id = -1; DELETE FROM account WHERE id = -2));
	sql('TRUNCATE account');
	send_changes('some');
	is(short('some', 'id'), 'delete -2 truncate -', 'only the operations that are wanted');
	is_deeply((events(files('some')))[0]{file}{header}, [qw(_id _op _committed_at id balance body _meta)], 'the columns are the same without updates');
}

# ---- partitions
{
	sql(<<'SQL');
CREATE TABLE measure (id int, at date NOT NULL, v text, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
CREATE TABLE measure_1 PARTITION OF measure FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
CREATE TABLE measure_2 (v text, gone int, at date NOT NULL, id int NOT NULL);
ALTER TABLE measure_2 DROP COLUMN gone;
ALTER TABLE measure ATTACH PARTITION measure_2 FOR VALUES FROM ('2026-02-01') TO ('2026-03-01');
SQL
	flow('parted', '{measure}', operations => '{insert,update,delete,truncate}');
	launch($node, 'parted');
	sql(q(INSERT INTO measure VALUES (1, '2026-01-05', 'a'), (2, '2026-02-05', 'b')));
	sql(q(UPDATE measure SET v = 'c' WHERE id = 2));
	sql(q(UPDATE measure SET at = '2026-02-06' WHERE id = 1));
	sql(q(CREATE TABLE measure_3 PARTITION OF measure FOR VALUES FROM ('2026-03-01') TO ('2026-04-01') PARTITION BY RANGE (id); CREATE TABLE measure_3a PARTITION OF measure_3 FOR VALUES FROM (0) TO (100)));
	sql(q(INSERT INTO measure VALUES (3, '2026-03-05', 'd')));
	sql(q(INSERT INTO measure_3a VALUES (4, '2026-03-06', 'e')));
	send_changes('parted');
	is(join(' ', map { join ':', $_->{op}, map { $_ // '-' } @{ $_->{values} }{qw(id at v)} } events(files('parted'))),
		'insert:1:2026-01-05:a insert:2:2026-02-05:b update:2:2026-02-05:c delete:1:2026-01-05:- insert:1:2026-02-06:a insert:3:2026-03-05:d insert:4:2026-03-06:e', 'changes of partitions, as they are of the table that they are part of');
	is(join(' ', map { "$_->{type} $_->{version} @{$_->{header}}" } map { parse_file(@$_) } files('parted')), 'public.measure 0001 _id _op _committed_at id at v _meta', 'with its columns');
	sql('TRUNCATE measure');
	sql(q(ALTER TABLE measure DETACH PARTITION measure_1; INSERT INTO measure_1 VALUES (5, '2026-01-05', 'no more')));
	send_changes('parted');
	is((short('parted', 'id') =~ s/.*insert 4 ?//r), 'truncate -', 'a truncation of it is one event, and a partition that is detached is another table');
	fine('parted', 'partitions');

	flow('twice', '{measure,measure_2}');
	is(current_of($node, 'twice', 'tables'), '{public.measure}', 'a table and its partition are one');
	sql(q(INSERT INTO measure VALUES (6, '2026-02-07', 'copied')));
	launch($node, 'twice', copy_existing => 1);
	sql(q(INSERT INTO measure VALUES (7, '2026-02-08', 'sent'); INSERT INTO measure_2 (id, at, v) VALUES (8, '2026-02-09', 'sent')));
	send_changes('twice');
	is(join(' ', map { join ':', $_->{type}, $_->{op}, $_->{values}{id} // '-' } all_events(files('twice'))), 'public.measure:snapshot:- public.measure:copy:6 public.measure:insert:7 public.measure:insert:8', 'each row comes once');
	fine('twice', 'a table and its partition');
}

# ---- columns come and go
{
	sql('CREATE TABLE shape (id int PRIMARY KEY, a text)');
	flow('shape', '{shape}');
	launch($node, 'shape');
	sql(q(INSERT INTO shape VALUES (1, 'x')));
	sql(q(ALTER TABLE shape ADD b int DEFAULT 7));
	sql(q(INSERT INTO shape VALUES (2, 'y', 8)));
	send_changes('shape');
	sql(q(CREATE INDEX ON shape (b); COMMENT ON TABLE shape IS 'the same'; ALTER TABLE shape ALTER b SET DEFAULT 9; ANALYZE shape));
	sql(q(INSERT INTO shape VALUES (3, 'z', 9)));
	send_changes('shape');
	sql(q(BEGIN; INSERT INTO shape VALUES (4, 'before', 1); ALTER TABLE shape DROP COLUMN a; INSERT INTO shape VALUES (5, 2); COMMIT));
	sql(q(ALTER TABLE shape RENAME b TO c));
	sql(q(INSERT INTO shape VALUES (6, 3)));
	sql(q(ALTER TABLE shape ALTER c TYPE text));
	sql(q(INSERT INTO shape VALUES (7, 'text')));
	send_changes('shape');
	is(join("\n", map { my $event = $_; join ' ', $event->{file}{version}, $event->{op}, map { "$_=" . ($event->{values}{$_} // '') } grep { !/^_/ } @{ $event->{file}{header} } } all_events(files('shape'))), <<'TEXT' =~ s/\n\z//r, 'each version of the columns has its number, and its rows; a table that is rewritten comes anew');
0001 insert id=1 a=x
0002 alter id= a= b=
0002 insert id=2 a=y b=8
0002 insert id=3 a=z b=9
0002 insert id=4 a=before b=1
0003 insert id=5 b=2
0004 alter id= c=
0004 insert id=6 c=3
0005 snapshot id= c=
0005 copy id=1 c=7
0005 copy id=2 c=8
0005 copy id=3 c=9
0005 copy id=4 c=1
0005 copy id=5 c=2
0005 copy id=6 c=3
0005 insert id=7 c=text
TEXT
	is(join("\n", map { my $schema = $_; join ' ', $schema->{version}, $schema->{previous} ? $schema->{previous}{version} : '-', map { "$_->{number}:$_->{name}:$_->{type}:" . ($_->{missing} // '') } @{ $schema->{columns} } } schemas(objects('shape'))), <<'TEXT' =~ s/\n\z//r, 'schemas tell how they follow one another, and what older rows have');
1 - 1:id:integer: 2:a:text:
2 1 1:id:integer: 2:a:text: 3:b:integer:7
3 2 1:id:integer: 3:b:integer:7
4 3 1:id:integer: 3:c:integer:7
5 4 1:id:integer: 3:c:text:
TEXT
	fine('shape', 'columns');
}

# ---- tables come and go
{
	sql('CREATE TABLE one (id int PRIMARY KEY); CREATE TABLE two (id int PRIMARY KEY); CREATE TABLE three (id int PRIMARY KEY)');
	flow('several', '{one,two}');
	launch($node, 'several');
	sql('INSERT INTO one VALUES (1); INSERT INTO two VALUES (1); INSERT INTO three VALUES (1)');
	my $row = send_changes('several');
	is("$row->{events} $row->{files}", '2 2', 'several tables: a file for each');
	sql('INSERT INTO two VALUES (2)');
	sql(q(SELECT s3export.alter_connector('several', tables => '{one,three}', validate => false)));
	sql('INSERT INTO one VALUES (3); INSERT INTO two VALUES (3); INSERT INTO three VALUES (3)');
	is(current_of($node, 'several', 'tables'), '{public.one,public.three}', 'tables are replaced');
	send_changes('several');
	is(short('several', 'id', 'public.one') . ', ' . short('several', 'id', 'public.two') . ', ' . short('several', 'id', 'public.three'),
		'insert 1 insert 3, insert 1 insert 2, insert 3', 'one that was removed has no events from then on, and one that was added has');
	sql(q(ALTER TABLE two ADD a int; SELECT s3export.alter_connector('several', tables => '{one,two,three}', validate => false)));
	sql('INSERT INTO two VALUES (4)');
	send_changes('several');
	is(join(' ', map { "$_->{file}{version}:$_->{values}{id}" } grep { $_->{type} eq 'public.two' } events(files('several'))), '0002:1 0002:2 0004:4', 'one that is added again has another version of its columns');
	is(join(' ', sort map { "$_->{type}:$_->{version}" } map { parse_file(@$_) } files('several')), 'public.one:0001 public.one:0001 public.three:0003 public.two:0002 public.two:0002 public.two:0004', 'no two tables have a version in common');
	sql(q(ALTER TABLE one RENAME TO uno; INSERT INTO uno VALUES (5)));
	send_changes('several');
	is(short('several', 'id', 'public.uno'), 'insert 5', 'a table that is renamed has its new name');
	is_deeply([ map { $_->{previous} } grep { $_->{table} eq 'public.uno' } schemas(objects('several')) ], [ { table => 'public.one', version => 1 } ], 'and its schema the one before');
	sql('INSERT INTO three VALUES (6); DROP TABLE three; INSERT INTO uno VALUES (6)');
	my ($status, $out, $err) = $node->psql('postgres', q(SELECT events FROM s3export.deliver('several')));
	is($out, 2, 'a table that is dropped does not stop the others, and has its last events') or diag($err);
	sql(q(SELECT s3export.alter_connector('several', tables => '{uno,two}', validate => false)));
	send_changes('several');
	fine('several', 'tables');
	is(sql(q(SELECT count(*) > 0 FROM s3export.current_events WHERE connector = 'several' AND event = 'tables_changed')), 't', 'changes of the tables are among the events of the connector');
	sql(q(SELECT s3export.alter_connector('several', tables => '{uno}', validate => false)));
	sql(q(SELECT pg_drop_replication_slot(slot_name) FROM s3export.currents WHERE name = 'several'));
	sql('DROP TABLE two');
	launch($node, 'several', copy_existing => 1);
	is_deeply([ sort map { "$_->{type} $_->{values}{id}" } grep { $_->{op} eq 'copy' } events(files('several')) ], [ map { "public.uno $_" } 1, 3, 5, 6 ],
		'one that was removed is not copied by another launch');
}

# ---- a publication that changes while a transaction is open
{
	my $around = sub {
		my ($before, $change, $after) = @_;
		my $session = start_psql($node, 'BEGIN', "INSERT INTO meanwhile VALUES ($before)", 'SELECT pg_sleep(1.5)', "INSERT INTO meanwhile VALUES ($after)", 'COMMIT');

		poll_until(sub { sql(q(SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(1.5)' AND wait_event = 'PgSleep')) }, 'an open transaction');
		sql("ALTER PUBLICATION s3export_meanwhile $change TABLE meanwhile");
		# One that begins and ends after the change, before the other ends.
		sql('INSERT INTO keyless VALUES (0)');
		is((finish_psql($session))[0], 0, "$change: the transaction is not disturbed");
		return;
	};

	sql('CREATE TABLE meanwhile (id int PRIMARY KEY)');
	flow('meanwhile', '{meanwhile}');
	launch($node, 'meanwhile');
	sql('INSERT INTO meanwhile VALUES (1)');
	send_changes('meanwhile');
	$around->(2, 'DROP', 3);
	$around->(4, 'ADD', 5);
	send_changes('meanwhile');
	is(short('meanwhile', 'id'), 'insert 1 insert 2 insert 5', 'a transaction sends what it has changed while the publication had the table');
	fine('meanwhile', 'a publication that changes');
}

# ---- the size of files
{
	sql('CREATE TABLE many (id int PRIMARY KEY, note text)');
	flow('many', '{many}', max_events_per_file => \'10');
	launch($node, 'many');
	sql(q(INSERT INTO many SELECT i, 'a' FROM generate_series(1, 45) i));
	my $row = send_changes('many');
	is("$row->{events} $row->{files}", '45 5', 'max_events_per_file');
	is(join(' ', map { scalar @{ $_->{events} } } sort { $a->{first} cmp $b->{first} } map { parse_file(@$_) } files('many')), '10 10 10 10 5', 'files are full but for the last');
	sql(q(SELECT s3export.alter_connector('many', max_events_per_file => 1000, validate => false)));
	sql(q(INSERT INTO many SELECT i, 'b' FROM generate_series(46, 90) i));
	is(send_changes('many')->{files}, 1, 'it may be altered');
	fine('many', 'files of few events');
	foreach my $case ([ 'gzip', '.gz' ], [ 'zstd', '.zst' ], [ 'lz4', '.lz4' ])
	{
		my ($compression, $suffix) = @$case;

		sql("TRUNCATE many; SELECT s3export.alter_connector('many', compression => '$compression', validate => false)");
		sql(q(INSERT INTO many SELECT i, 'c' FROM generate_series(1, 500) i));
		$row = send_changes('many');
		my ($file) = grep { $_->{suffix} eq $suffix } map { parse_file(@$_) } files('many');
		is(join(' ', map { "$_->{op} " . ($_->{values}{id} // '-') } @{ $file->{events} }), join(' ', 'truncate -', map { "insert $_" } 1 .. 500), "$compression: the file");
		is($row->{bytes}, s3_head($file->{key})->{'content-length'}, "$compression: bytes as stored");
		cmp_ok($row->{bytes}, '<', length($file->{csv}) / 2, "$compression: is smaller");
	}
	fine('many', 'compression');
}

# ---- a transaction larger than any memory for it
{
	my ($peak, $pid) = (0);

	sql('CREATE TABLE large (id int, note text)');
	flow('large', '{large}', operations => '{insert}');
	launch($node, 'large');
	sql(q(INSERT INTO large SELECT i, repeat(md5(i::text), 6) FROM generate_series(1, 300000) i));
	my $delivery = start_psql($node, q(SELECT events, files FROM s3export.deliver('large')));
	while ($delivery->{handle}->pumpable)
	{
		$pid ||= sql(q(SELECT min(pid) FROM pg_stat_activity WHERE backend_type = 's3export current'));
		if ($pid && open my $status, '<', "/proc/$pid/status")
		{
			my ($size) = join('', <$status>) =~ /^RssAnon:\s+(\d+)/m;
			$peak = $size if defined $size && $size > $peak;
		}
		$delivery->{handle}->pump_nb;
		sleep 0.02;
	}
	my (undef, $out, $err) = finish_psql($delivery);
	like($out, qr/^300000\|\d+$/, "a transaction of 300,000 rows ($out)") or diag($err);
	cmp_ok($peak, '>', 0, 'its worker was seen');
	cmp_ok($peak, '<', 160 * 1024, "its memory is bounded ($peak kB)");
	# Rows of two columns without a quote.
	my (@ids, $rows, $wrong);
	foreach my $file (sort { $a->[0] cmp $b->[0] } files('large'))
	{
		my ($header, @lines) = split /\n/, $file->[1];

		foreach my $line (@lines)
		{
			my ($id, undef, undef, $row) = split /,/, $line, 5;

			$wrong //= $line if $row != ++$rows || ($rows > 1 && $id le $ids[-1]);
			push @ids, $id;
		}
	}
	is($rows, 300000, 'all rows are there');
	is($wrong, undef, 'in the order of the transaction');
}

# ---- at a time, by whom, and how it ends
{
	sql('CREATE TABLE held (id int, note text)');
	flow('held', '{held}', operations => '{insert}');
	launch($node, 'held');
	sql(q(INSERT INTO held SELECT i, repeat('y', 100) FROM generate_series(1, 200000) i));
	my $delivery = start_psql($node, q(SELECT events FROM s3export.deliver('held')));
	my $uploader = worker_pid($node, 's3export uploader', $delivery);

	kill 'STOP', $uploader;
	error_like($node, q(SELECT s3export.deliver('held')), { sqlstate => '55006', message => 'connector "held" is being delivered or launched' }, 'a connector that is being delivered is not delivered twice');
	error_like($node, q(SELECT s3export.drop_connector('held')), { sqlstate => '55006' }, 'nor dropped');
	error_like($node, q(SELECT s3export.stop('held')), { sqlstate => '55006' }, 'nor stopped');
	error_like($node, q(SELECT s3export.launch('held')), { sqlstate => '55000' }, 'nor launched');
	my ($row, $messages) = meet('held');
	is_deeply($row, idle('held', 'running', 'connector "held" is being delivered or launched'), 'deliver() goes past it, and says so');
	unlike($messages, qr/WARNING:[^\n]*"held"/, 'without a warning, as there is nothing wrong');
	is(sql(q(SELECT count(*) FROM s3export.current_events WHERE connector = 'held' AND event <> 'launched')), 0, 'nor an event');
	sql(q(SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE query ~ 'deliver' AND pid <> pg_backend_pid() AND backend_type = 'client backend'));
	my ($status, $out, $err) = finish_psql($delivery);
	like($err, qr/ERROR:  57014: canceling statement/, 'a delivery can be cancelled');
	kill 'CONT', $uploader;
	poll_until(sub { sql(q(SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 's3export%')) == 0 }, 'the end of its processes');
	is(current_of($node, 'held', 'state, suspended_at, error_code'), 'running||', 'which is no failure');
	is(send_changes('held')->{state}, 'running', 'the next one goes on');
	my @events = events(files('held'));
	is(scalar(@events), 200000, 'with every event');
	fine('held', 'a delivery after one that was cancelled');
}

# ---- launches at the same time
{
	my (%errors, @both);

	flow('race', '{account}');
	foreach my $round (1 .. 20)
	{
		my @sessions = map { start_psql($node, "SELECT pg_sleep($_)", q(SELECT s3export.launch('race'))) } 0, 0.002 * $round;
		my @results = map { [ finish_psql($_) ] } @sessions;

		push @both, $round if grep({ $_->[0] == 0 } @results) != 1;
		$errors{$_} = 1 foreach map { $_->[2] =~ /ERROR:  (.*)/g } @results;
		# What has ended is in nobody's way.
		is(send_changes('race')->{events}, 0, "launched in round $round");
		sql(q(SELECT s3export.stop('race')));
	}
	is_deeply(\@both, [], 'of two launches at the same time one succeeds');
	is_deeply([ grep { $_ !~ /^55(?:006: connector "race" is being delivered or launched|000: connector "race" is already launched)$/ } keys %errors ], [], 'and the other says why not');
	sql(q(SELECT s3export.drop_connector('race')));
}

# ---- all that are due
{
	# Served before 'first', as long as it does not fail.
	flow('broken', '{events}');
	launch($node, 'broken');
	sql(qq(SELECT s3export.alter_connector('broken', bucket => 'no-such-bucket', validate => false)));
	sql(q(INSERT INTO events VALUES (200, 'for two')));
	my $connectors = sql(q(SELECT count(*) FROM s3export.currents));
	my ($rows, $messages) = deliver_and_listen($node);
	%files = ();
	my %row = map { $_->{connector} => $_ } @$rows;

	is_deeply({ %{ $row{broken} }, error => undef }, idle('broken', 'running'), 'one that fails delivers nothing');
	like($row{broken}{error}, qr/no-such-bucket|bucket/, 'and has its error in its row');
	like($messages, qr/WARNING:  [0-9A-Z]{5}: could not deliver the changes of connector "broken": \Q$row{broken}{error}\E/, 'which is a warning');
	is($row{first}{events}, 1, 'the others go on');
	is(scalar(@$rows), $connectors, 'there is a row for each');
	is(join(' ', map { $_->{connector} } @$rows), join(' ', sort map { $_->{connector} } @$rows), 'in the order of their names');
	is(current_of($node, 'broken', q(state, failures, suspended_at, next_try_at - now() BETWEEN '20 s' AND '30 s', error_message IS NOT NULL)), 'running|1||t|t', 'a failure that is not of the credentials suspends nothing');
	is(sql(q(SELECT event, detail - '{code,message}'::text[], detail ?& '{code,message}', repeats FROM s3export.current_events WHERE connector = 'broken' AND event <> 'launched')), 'failed|{"state": "running"}|t|1', 'and is an event');

	sql(q(INSERT INTO events VALUES (201, 'for two')));
	($rows, $messages) = deliver_and_listen($node);
	%files = ();
	%row = map { $_->{connector} => $_ } @$rows;
	like($row{broken}{error}, qr/^it is not tried again yet after: .*bucket/, 'it is not tried at once again');
	like($messages, qr/WARNING:  55000: nothing is delivered to connector "broken": it is not tried again yet after: .*\nHINT:  s3export.deliver\('broken'\) has it tried at once/, 'which is a warning, too');
	is("$rows->[-1]{connector} $row{first}{events}", 'broken 1', 'others are served first');
	is(current_of($node, 'broken', 'failures'), 1, 'that was no failure');
	error_like($node, q(SELECT s3export.deliver()), { sqlstate => '55000', message => "could not deliver the changes of 1 of $connectors connectors", detail => qr/^connector "broken": it is not tried/, hint => qr/s3export\.currents/ }, 'deliver() ends with an error');
	error_like($node, q(SELECT s3export.deliver('broken')), { message => qr/no-such-bucket|bucket/ }, 'by its name it is tried, and its error is raised');
	is(current_of($node, 'broken', q(failures, next_try_at - now() BETWEEN '50 s' AND '60 s')), '2|t', 'the pause is doubled');
	my $sent = current_of($node, 'first', 'events_sent');
	sql(q(UPDATE s3export.current_state SET next_try_at = now() - interval '1 s' WHERE failures > 0; INSERT INTO events VALUES (202, 'for two')));
	error_like($node, q(SELECT s3export.deliver()), { message => "could not deliver the changes of 1 of $connectors connectors", detail => qr/^connector "broken": .*bucket/ }, 'when it is over it is tried again, and deliver() fails as it does');
	is(current_of($node, 'first', 'events_sent'), $sent + 1, 'what was delivered before the error stays');
	is(send_changes('first')->{events}, 0, 'and does not come again');
	like(short('first', 'id'), qr/insert 200 insert 201 insert 202$/, 'nothing is missing');
	is(current_of($node, 'broken', 'failures'), 3, 'failures are counted');
	sql(qq(SELECT s3export.alter_connector('broken', bucket => '$S3{BUCKET}', validate => false)));
	is(send_changes('broken')->{events}, 3, 'mended, it delivers all');
	is(current_of($node, 'broken', 'state, failures, next_try_at, error_code, error_message'), 'running|0|||', 'and all is forgotten');
	is(sql(q(SELECT event FROM s3export.current_events WHERE connector = 'broken' ORDER BY at DESC LIMIT 1)), 'recovered', 'which is an event');
	sql(q(SELECT s3export.drop_connector('broken')));
}

# ---- pause, resume, stop, drop
{
	my ($status, $out, $err) = $node->psql('postgres', q(INSERT INTO events VALUES (300, 'before the pause'); SELECT s3export.pause('first')));
	like($err, qr/NOTICE:  the server keeps WAL for connector "first" while it is paused\n.*HINT:  .*s3export\.stop/s, 'a pause keeps WAL, which is said');
	is(current_of($node, 'first', 'state'), 'paused', 'paused');
	foreach my $how ([ 'deliver()', $node ], [ 'by its name', $node, name => 'first' ])
	{
		my ($what, @arguments) = @$how;
		my ($rows, $messages) = deliver_and_listen(@arguments);

		is_deeply([ grep { $_->{connector} eq 'first' } @$rows ], [ idle('first', 'paused') ], "$what: nothing is delivered");
		like($messages, qr/WARNING:  55000: nothing is delivered to connector "first": it is paused\nHINT:  Continue it with s3export.resume\(\)/, "$what: which is a warning");
	}
	($status, $out, $err) = $node->psql('postgres', q(SELECT state, events, error FROM s3export.deliver('first')));
	is("$status $out", '0 paused|0|', 'what a person has paused is no error');
	sql(q(INSERT INTO events VALUES (301, 'in the pause')));
	sql(q(SELECT s3export.resume('first')));
	is(current_of($node, 'first', 'state'), 'running', 'resumed');
	send_changes('first');
	like(short('first', 'id'), qr/insert 300 insert 301$/, 'nothing is missing');

	my ($slot, $id) = split /\|/, current_of($node, 'first', 'slot_name, connector_id');
	my $slots = sub { return sql("SELECT count(*) FROM pg_replication_slots WHERE slot_name = '$slot'"); };
	sql(q(BEGIN; SELECT s3export.stop('first'); ROLLBACK));
	is($slots->() . ' ' . current_of($node, 'first', 'state'), '1 running', 'a stop that is rolled back leaves the slot');
	sql(q(SELECT s3export.stop('first')));
	is($slots->() . ' ' . current_of($node, 'first', 'state, slot_name, position, lag_bytes, lag_seconds, tables'), '0 stopped|||||{public.events}', 'a stop gives the slot back');
	error_like($node, q(SELECT s3export.deliver('first')), { sqlstate => '55000', message => 'connector "first" is stopped', hint => qr/launch/ }, 'nothing is delivered');
	my ($row, $messages) = meet('first');
	is_deeply($row, idle('first', 'stopped'), 'deliver() goes past it');
	like($messages, qr/WARNING:  55000: nothing is delivered to connector "first": it is stopped\nHINT:  Launch it/, 'and says so');
	error_like($node, qq(SELECT s3export.$_('first')), { sqlstate => '55000', detail => 'It is stopped.' }, "there is nothing to $_") foreach 'pause', 'resume', 'stop';
	sql(q(INSERT INTO events VALUES (302, 'while it is stopped')));
	launch($node, 'first');
	sql(q(INSERT INTO events VALUES (303, 'launched again')));
	send_changes('first');
	like(short('first', 'id'), qr/insert 301 insert 303$/, 'launched again it sends what comes');
	is(current_of($node, 'first', 'connector_id, events_sent > 10'), "$id|t", 'with its folder and its totals');
	fine('first', 'launched again');
	is(sql(q(SELECT string_agg(event, ' ' ORDER BY at) FROM s3export.current_events WHERE connector = 'first' AND at > (SELECT max(at) FROM s3export.current_events WHERE connector = 'first' AND event = 'paused'))), 'skipped resumed stopped skipped launched', 'events tell all of it');

	sql(q(BEGIN; SELECT s3export.drop_connector('first'); ROLLBACK));
	sql(q(BEGIN; SAVEPOINT a; SELECT s3export.drop_connector('first'); ROLLBACK TO a; COMMIT));
	is($slots->() . ' ' . current_of($node, 'first', 'state'), '1 running', 'a drop that is rolled back leaves the slot');
	error_like($node, q(BEGIN; SELECT s3export.drop_connector('first'); PREPARE TRANSACTION 'x'), { sqlstate => '0A000' }, 'a drop cannot be prepared');
	my $before = () = files('first');
	sql(q(BEGIN; SELECT s3export.drop_connector('first'); COMMIT));
	is($slots->() . ' ' . sql(q(SELECT count(*) FROM s3export.currents WHERE name = 'first')), '0 0', 'a drop takes the slot along');
	is(scalar(() = files('first')), $before, 'and leaves the files');
	is(sql(q(SELECT (SELECT count(*) FROM s3export.current c) - (SELECT count(*) FROM s3export.connector WHERE kind = 'currents'))), 0, 'and its row');
	is(sql("SELECT count(*) FROM s3export.$_ WHERE connector_id NOT IN (SELECT connector_id FROM s3export.connector)"), 0, "none of its rows stays: $_") foreach 'current_state', 'current_table', 'current_batch', 'current_event', 'current_gap';
	is(sql(q(SELECT count(*) FROM pg_publication WHERE pubname = 's3export_first')), 0, 'nor its publication');
}

# ---- names
{
	sql(<<'SQL');
CREATE SCHEMA "Ünï cöde";
CREATE TABLE "Ünï cöde"."a/b=c%d+é ""q""" (id int PRIMARY KEY, "sp ace" text, "co,mma" text, "qu""ote" text);
SQL
	flow('Odd "näme"', q({"\"Ünï cöde\".\"a/b=c%d+é \"\"q\"\"\""}));
	launch($node, 'Odd "näme"');
	sql(q(INSERT INTO "Ünï cöde"."a/b=c%d+é ""q""" VALUES (1, 'ä', ',', '"')));
	is(send_changes('Odd "näme"')->{events}, 1, 'names of all kinds');
	my @objects = files('Odd "näme"');
	my ($event) = events(@objects);
	note($objects[0][0]);
	is_deeply([ @{ $event->{file}{header} }[ 3 .. 6 ] ], [ 'id', 'sp ace', 'co,mma', 'qu"ote' ], 'columns are named as they are');
	is($event->{file}{type} =~ s/%([0-9A-F]{2})/chr hex $1/ger, qq(Ünï cöde.a/b=c%d+é "q"), 'tables are encoded in the name');
	my ($schema) = schemas(objects('Odd "näme"'));
	is(join(' ', @{$schema}{qw(schema_name table_name)}), qq(Ünï cöde a/b=c%d+é "q"), 'and told by the schema');
	is_deeply([ @{ $schema->{document} }{qw(table key)}, map { "$_->{column} $_->{number} $_->{type} $_->{nullable}" } @{ $schema->{columns} } ],
		[ $event->{file}{type}, ['id'], 'id 1 integer 0', 'sp ace 2 text 1', 'co,mma 3 text 1', 'qu"ote 4 text 1' ], 'with its columns');
	fine('Odd "näme"', 'names');
}

# ---- another encoding
{
	sql(q(CREATE DATABASE "latin_one" ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0));
	my %there = (dbname => 'latin_one');

	local $ENV{PGCLIENTENCODING} = 'UTF8';
	$node->safe_psql('latin_one', q(CREATE EXTENSION s3export; CREATE TABLE wörter (id int PRIMARY KEY, größe text)));
	$node->safe_psql('latin_one', 'SELECT ' . connector_sql('latin', kind => 'currents', tables => '{wörter}', folder_path => "$folder/latin", validate => \'false'));
	launch($node, 'latin', %there);
	$node->safe_psql('latin_one', q(INSERT INTO wörter VALUES (1, 'größer: äöü')));
	is(send_changes('latin', %there)->{events}, 1, 'a database in LATIN1');
	my ($event) = events(files('latin'));
	is($event->{values}{'größe'}, 'größer: äöü', 'files are in UTF-8');
	is($event->{file}{type} =~ s/%([0-9A-F]{2})/chr hex $1/ger, 'public.wörter', 'as are their names');
	fine('latin', 'LATIN1');
	$node->safe_psql('latin_one', q(SELECT s3export.drop_connector('latin')));
}

# ---- who may do what
{
	sql('CREATE TABLE of_alice (id int PRIMARY KEY); ALTER TABLE of_alice OWNER TO alice; CREATE TABLE of_bob (id int PRIMARY KEY); ALTER TABLE of_bob OWNER TO bob');
	my $create = sub { my ($name, $table) = @_; return 'SELECT ' . connector_sql($name, kind => 'currents', tables => "{$table}", folder_path => "$folder/$name", validate => \'false'); };

	error_like($node, $create->('bobs', 'of_bob'), { sqlstate => '42501', message => 'permission denied for database postgres' }, 'a publication takes the right to create one', user => 'bob');
	sql('GRANT CREATE ON DATABASE postgres TO alice, bob');
	error_like($node, $create->('bobs', 'of_alice'), { sqlstate => '42501', message => 'must be owner of table of_alice' }, "somebody else's table", user => 'bob');
	$node->safe_psql('postgres', $create->('alices', 'of_alice'), extra_params => [ '-U', 'alice' ]);
	$node->safe_psql('postgres', $create->('bobs', 'of_bob'), extra_params => [ '-U', 'bob' ]);
	is(sql(q(SELECT pg_get_userbyid(pubowner) FROM pg_publication WHERE pubname = 's3export_bobs')), 'bob', 'the publication is his who makes the connector');
	error_like($node, 'SELECT ' . connector_sql('theirs', kind => 'currents', publication => 's3export_alices', folder_path => "$folder/theirs", validate => \'false'),
		{ sqlstate => '42501', message => 'permission denied for publication "s3export_alices"', detail => qr/"bob".*"alice"/ }, "somebody else's publication", user => 'bob');
	error_like($node, q(SELECT s3export.launch('alices')), { sqlstate => '42501', hint => qr/ALTER ROLE alice REPLICATION/ }, 'a role without REPLICATION may not launch', user => 'alice');
	error_like($node, q(SELECT s3export.launch('alices')), { sqlstate => '42501' }, "nor a superuser for it", user => 'postgres');
	foreach my $function ('launch', 'deliver', 'pause', 'resume', 'stop')
	{
		like(sql_error($node, "SELECT s3export.$function('bobs')", user => 'alice')->{sqlstate}, qr/^42(501|704)$/, "$function: not by others");
	}
	like(sql_error($node, q(SELECT s3export.add_table('bobs', 'of_alice')), user => 'alice')->{sqlstate}, qr/^42(501|704)$/, 'add_table: not by others');
	$node->safe_psql('postgres', q(SELECT s3export.launch('bobs')), extra_params => [ '-U', 'bob' ]);
	sql('INSERT INTO of_bob VALUES (1)');
	is($node->safe_psql('postgres', 'SELECT connector, state, events FROM s3export.deliver()', extra_params => [ '-U', 'alice' ]), 'alices|created|0', 'deliver() is for those of the caller');
	is($node->safe_psql('postgres', 'SELECT connector, state, events FROM s3export.deliver()', extra_params => [ '-U', 'bob' ]), 'bobs|running|1', 'the owner delivers');
	is($node->safe_psql('postgres', 'SELECT name, tables FROM s3export.currents ORDER BY 1', extra_params => [ '-U', 'bob' ]), 'bobs|{public.of_bob}', 'the view shows what one may see');
	is($node->safe_psql('postgres', 'SELECT DISTINCT connector FROM s3export.current_events ORDER BY 1', extra_params => [ '-U', 'bob' ]), 'bobs', 'as does that of the events');
	error_like($node, "SELECT * FROM s3export.$_", { sqlstate => '42501' }, "$_: tables are for nobody", user => 'bob') foreach 'current', 'current_state', 'current_table', 'current_batch', 'current_event', 'current_gap';

	# A table that the owner of publication and connector has lost.
	sql('INSERT INTO of_bob VALUES (2)');
	sql('ALTER TABLE of_bob OWNER TO alice');
	sql('INSERT INTO of_bob VALUES (3)');
	error_like($node, q(SELECT s3export.deliver('bobs')), { sqlstate => '42501', message => 'must be owner of table public.of_bob', hint => qr/DROP TABLE/ }, 'a table that the owner of the connector does not own any more', user => 'bob');
	is(current_of($node, 'bobs', 'state, failures, error_code, error_message'), 'running|1|42501|must be owner of table public.of_bob', 'which the view has');
	sql('ALTER TABLE of_bob OWNER TO bob');
	sql('INSERT INTO of_bob VALUES (4)');
	my ($status, $out, $err) = $node->psql('postgres', q(SELECT events FROM s3export.deliver('bobs')), extra_params => [ '-U', 'bob' ]);
	is($out, 2, 'is delivered when he does again');
	is(short('bobs', 'id'), 'insert 1 insert 2 insert 4', 'without what was written while it was not his');
	like($err, qr/WARNING:  changes of table public\.of_bob were not sent to connector "bobs"\nDETAIL:  .*did not own the table.*Changes: 1\./, 'of which he is warned');
	is(sql(q(SELECT detail FROM s3export.current_events WHERE connector = 'bobs' AND event = 'withheld')), '{"state": "running", "events": 1, "tables": "public.of_bob"}', 'an event in the table');

	# REPLICATION, and a new owner.
	sql('ALTER ROLE bob NOREPLICATION; INSERT INTO of_bob VALUES (5)');
	error_like($node, q(SELECT s3export.deliver('bobs')), { sqlstate => '42501', message => 'permission denied to send changes to connector "bobs"', hint => qr/ALTER ROLE bob REPLICATION/ }, 'one who has lost REPLICATION', user => 'bob');
	sql('ALTER ROLE bob REPLICATION');
	is($node->safe_psql('postgres', q(SELECT events FROM s3export.deliver('bobs')), extra_params => [ '-U', 'bob' ]), 1, 'goes on with it');
	error_like($node, q(SELECT s3export.alter_connector('bobs', owner => 'alice', validate => false)), { sqlstate => '42501', message => 'must be owner of table public.of_bob' }, 'a new owner has to own the tables, too', before => 'GRANT EXECUTE ON FUNCTION s3export.create_connector TO alice;');
	sql('CREATE ROLE carol LOGIN; GRANT bob TO carol; GRANT EXECUTE ON FUNCTION s3export.create_connector TO carol; GRANT CREATE ON DATABASE postgres TO carol');
	sql(q(SELECT s3export.alter_connector('bobs', owner => 'carol', validate => false)));
	is(sql(q(SELECT pg_get_userbyid(pubowner) FROM pg_publication WHERE pubname = 's3export_bobs')), 'carol', 'the publication follows the connector');
	error_like($node, q(SELECT s3export.deliver('bobs')), { sqlstate => '42501', hint => qr/ALTER ROLE carol REPLICATION/ }, 'the new owner needs REPLICATION');
	sql('ALTER ROLE carol REPLICATION; INSERT INTO of_bob VALUES (6)');
	is($node->safe_psql('postgres', q(SELECT events FROM s3export.deliver('bobs')), extra_params => [ '-U', 'carol' ]), 1, 'and delivers');
	is(short('bobs', 'id'), 'insert 1 insert 2 insert 4 insert 5 insert 6', 'nothing else is missing');
	fine('bobs', 'owners');
}

# ---- folders
foreach my $case ([ "$folder/all", 'the same' ], [ "$folder/all/below", 'one below' ], [ $folder, 'one above' ], [ '', 'the root' ])
{
	my ($path, $what) = @$case;

	error_like($node, 'SELECT ' . connector_sql('nested', kind => $what eq 'one below' ? 'data_export' : 'currents', folder_path => $path, validate => \'false'), { sqlstate => '42710' }, "no folder may be within another: $what");
}
create_connector($node, 'beside', kind => 'currents', folder_path => "$folder/all2", validate => \'false');
pass('one beside may begin alike');
# Of two sessions at the same time the second waits for the first, and then sees what that has saved.
foreach my $case ([ 'currents', 'data_export', '' ], [ 'data_export', 'currents', '' ], [ 'currents', 'data_export', 'BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM s3export.connectors;' ])
{
	my ($first, $second, $before) = @$case;
	my $locks = q(SELECT %s FROM pg_locks WHERE relation = 's3export.connector'::regclass AND %s);
	my $session = start_psql($node, 'BEGIN', 'SELECT ' . connector_sql('first', kind => $first, folder_path => "$folder/race/below", validate => \'false'),
		'DO $$ BEGIN FOR i IN 1 .. 500 LOOP EXIT WHEN (' . sprintf($locks, 'count(*) > 0', 'NOT granted') . '); PERFORM pg_sleep(0.02); END LOOP; END $$', 'COMMIT');

	poll_until(sub { sql(sprintf $locks, 'count(*) > 0', q(mode IN ('RowExclusiveLock', 'ShareRowExclusiveLock'))) eq 't' }, 'the first connector');
	error_like($node, 'SELECT ' . connector_sql('second', kind => $second, folder_path => "$folder/race", validate => \'false'), { sqlstate => '42710' },
		"folders within one another are not made at the same time: $first, then $second", before => $before);
	ok((finish_psql($session))[0] == 0, 'the first one is');
	sql(q(SELECT s3export.drop_connector('first')));
}

# ---- where there is no logical decoding
{
	my $plain = s3export_node('plain', 'wal_level = replica', 'max_wal_senders = 0');

	$plain->safe_psql('postgres', 'CREATE TABLE events (id int PRIMARY KEY)');
	create_connector($plain, 'flow', kind => 'currents', tables => '{events}', folder_path => "$folder/plain", validate => \'false');
	error_like($plain, q(SELECT s3export.launch('flow')), { sqlstate => '55000', message => qr/wal_level = logical/, hint => qr/restart/ }, 'wal_level has to be logical');
	$plain->stop;
}

is(sql(q(SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 's3export%')), 0, 'no worker stays');
is(sql(q(SELECT s3export.drop_connector(name) FROM s3export.connectors) . '; SELECT count(*) FROM pg_replication_slots') =~ s/^\n*//r, 0, 'no slot stays when the connectors are dropped');
$node->stop;
s3_clear($folder);
done_testing();
