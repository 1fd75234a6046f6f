# The feed of a current: where its objects are, what they are called, and what they say.
use strict;
use warnings;
use lib 'test/lib';
use JSON::PP ();
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
my $node = currents_node('main', 'max_slot_wal_keep_size = 10GB', 'autovacuum = off', q(s3export.retry_timeout = '0'));

share_scripted($node, $s3, %keys);

# ---- what every feed is like
sub names { return map { $_->{batch} } batches(objects($_[0])); }

# An object's key below the feed.
sub in_feed { return $_[0] =~ s{^.*?/(?=_table=|_schema/|_batches/)}{}r; }

# What wrong_batches() does not look at: names of batches without events, and how schemas follow one another.
sub wrong_documents
{
	my (%version, @wrong);

	foreach my $batch (batches(@_))
	{
		push @wrong, "$batch->{key}: first_id" if $batch->{events} ? ($batch->{first_id} // '') ne $batch->{batch} : defined $batch->{first_id} || $batch->{batch} !~ /-0{10}$/;
	}
	foreach my $schema (schemas(@_))
	{
		my ($number, $previous) = (sprintf('%04d', $schema->{version}), $schema->{previous});

		push @wrong, "$schema->{key}: name" if $schema->{key} !~ m{/_schema/\Q$schema->{table}\E/$number\.json$};
		push @wrong, "$schema->{key}: path" if $schema->{path} ne "_table=$schema->{table}/_version=$number/";
		push @wrong, "$schema->{key}: no file" unless grep { $_->[0] =~ m{/\Q$schema->{path}\E_hour=[^/]*/\Q$schema->{from_id}\E\.csv} } @_;
		$version{ $schema->{key} =~ s{_schema/.*}{}r . "$schema->{table} $schema->{version}" }++;
		push @wrong, "$schema->{key}: follows one that is not there" if $previous && !grep { $_->{table} eq $previous->{table} && $_->{version} == $previous->{version} } schemas(@_);
	}
	push @wrong, map { "$_ twice" } grep { $version{$_} > 1 } keys %version;
	return @wrong;
}

sub is_fine
{
	my ($name, $what) = @_;
	my @objects = objects($name);
	my @files = files($name);

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is_deeply([ wrong_batches(@objects), wrong_documents(@objects), wrong_files(@files), wrong_events(all_events(@files)) ], [], "$what: the feed is in order");
	return;
}

# The last one of a table.
sub schema_of { my ($name, $table) = @_; return (map { $_->{document} } grep { $_->{table} eq $table } schemas(objects($name)))[-1]; }

my $launched = 'all: it was launched without the rows that were there';

# ---- its place, and its name
sql('CREATE TABLE t (id int PRIMARY KEY, v text)');
flow('named', tables => '{t}', feed => 'shop feed');
is(current_of($node, 'named', 'uri'), "s3://exports/$folder{named}/shop feed/", 'a feed has the name that it is given');
foreach my $case ([ '', 'not empty' ], [ 'a/b', 'slashes' ], [ '/', 'slashes' ], [ '{a}', 'braces' ], [ 'a}', 'braces' ])
{
	my ($feed, $detail) = @$case;
	my %refusal = (sqlstate => '22023', message => qq(invalid value for argument "feed": "$feed"), detail => qr/$detail/);

	error_like($node, 'SELECT ' . connector_sql('x', at_endpoint($s3), %keys, kind => 'currents', validate => \'false', tables => '{t}', feed => $feed), \%refusal, "a feed that is called \"$feed\" is refused");
	error_like($node, "SELECT s3export.alter_connector('named', validate => false, feed => '$feed')", \%refusal, "also by alter_connector(): \"$feed\"");
}
error_like($node, 'SELECT ' . connector_sql('x', at_endpoint($s3), %keys, feed => 'a'), { sqlstate => '22023', message => qr/requires a connector of kind "currents"/ }, 'a feed of an export is refused');

launch($node, 'named');
sql(q(INSERT INTO t VALUES (1, 'one')));
my $delivered = deliver($node, 'named');
my ($batch) = names('named');
is($delivered->{batch}, "s3://exports/$folder{named}/shop feed/_batches/$batch.json", 'deliver() says which batch it has written');
is(current_of($node, 'named', 'last_batch'), $batch, 'and so does the view');
is_deeply([ map { $_->[0] =~ s{^\Q$folder{named}\E/}{}r } objects('named') ],
	[ "shop feed/_batches/$batch.json", 'shop feed/_schema/public.t/0001.json', 'shop feed/_table=public.t/_version=0001/_hour=' . (files('named'))[0][0] =~ s{.*_hour=}{}r ], 'all of it is below the name');
deliver($node, 'named');
is(deliver($node, 'named')->{batch}, undef, 'a delivery without a batch says none');
is(current_of($node, 'named', 'last_batch'), $batch, 'and the last one stays');
is_fine('named', 'named');

# ---- another place: not while a batch is unfinished
# Each object is in place but that of the batch.
sub without_batch
{
	my ($name, $block) = @_;

	$s3->call('add_fault', do => 'error', code => 'AccessDenied', match => { key => "$folder{$name}/.*/_batches/" }, times => undef);
	$block->();
	$s3->call('clear_faults');
	return;
}

$s3->call('add_bucket', name => 'others');
my %elsewhere = (feed => 'shop', folder_path => unique_folder(), bucket => 'others');
foreach my $argument (qw(feed folder_path bucket))
{
	my $change = qq(SELECT s3export.alter_connector('named', validate => false, $argument => '$elsewhere{$argument}'));
	my $id = sql('SELECT max(id) + 1 FROM t');

	sql("INSERT INTO t VALUES ($id)");
	without_batch('named', sub { like((deliver_loudly('named'))[0], qr/could not/, "$argument: S3 refuses the batch object") });
	error_like($node, $change, { sqlstate => '55000', message => 'cannot give connector "named" another place while a batch is unfinished', hint => qr/deliver.*stop/s }, "$argument cannot be changed while a batch is unfinished");
	sql(q(SELECT s3export.resume('named')));
	is((deliver_loudly('named'))[0], '1', "$argument: the batch is written again");
	is_fine('named', "$argument: before the change");
	my @before = objects('named');
	sql($change);
	$folder{named} = $elsewhere{folder_path} if $argument eq 'folder_path';
	my ($bucket, $place) = ($argument eq 'bucket' ? 'others' : 'exports', "$folder{named}/shop/");
	is(current_of($node, 'named', 'uri, last_batch'), "s3://$bucket/$place|", "$argument: another place, without batches");
	sql("UPDATE t SET v = 'changed' WHERE id = $id");
	deliver($node, 'named');
	my @objects = grep { index($_->[0], $place) == 0 } objects_in_scripted($s3, $folder{named}, $bucket);
	my ($first, @more) = batches(@objects);
	is(scalar @more, 0, "$argument: one batch is there");
	is($first->{previous}, undef, "$argument: which begins another chain");
	my ($schema) = schemas(@objects);
	is($schema->{previous}, undef, "$argument: with a schema object of its own");
	is($first->{files}[0]{schema}, in_feed($schema->{key}), "$argument: that its file has");
	cmp_ok($schema->{version}, '>', 1, "$argument: under a new number");
	is(short_of(@objects), "update $id", "$argument: and the event");
	if ($argument eq 'feed')
	{
		is_deeply([ map { $_->[0] } grep { index($_->[0], $place) != 0 } objects('named') ], [ map { $_->[0] } @before ], 'feed: what was written before stays as it was');
	}
}
sub short_of { return join ', ', map { "$_->{op} $_->{values}{id}" } events(grep { $_->[0] =~ /_table=/ } @_); }
sql(q(SELECT s3export.drop_connector('named')));

# ---- names that a batch keeps: of the database, and of the connector
sql('CREATE DATABASE shop');
sub in_shop { return $node->safe_psql('shop', @_); }
in_shop('CREATE EXTENSION s3export; CREATE TABLE t (id int PRIMARY KEY)');
$folder{sales} = unique_folder();
in_shop('SELECT ' . connector_sql('sales', at_endpoint($s3), %keys, kind => 'currents', validate => \'false', tables => '{t}', folder_path => $folder{sales}, max_events_per_file => \1));
my $sales = in_shop(q(SELECT connector_id FROM s3export.currents));
is(in_shop(q(SELECT uri FROM s3export.currents)), "s3://exports/$folder{sales}/s3export.shop.$sales/", 'without a name a feed has those of database and connector');
launch($node, 'sales', dbname => 'shop');
in_shop('INSERT INTO t VALUES (1), (2), (3)');
without_batch('sales', sub { $node->psql('shop', q(SELECT * FROM s3export.deliver('sales'))) });
my @before = objects('sales');
is(scalar @before, 4, 'a batch that is interrupted: its files are in place');
is(in_shop(q(SELECT last_batch FROM s3export.currents)), '', 'but it is not');
in_shop(q(SELECT s3export.alter_connector('sales', validate => false, new_name => 'orders', "null" => 'none')));
poll_until(sub { $node->psql('postgres', 'ALTER DATABASE shop RENAME TO store') == 0 }, 'the database to have another name');
$node->safe_psql('store', q(SELECT s3export.resume('orders')));
is($node->safe_psql('store', q(SELECT events FROM s3export.deliver('orders'))), 3, 'with other names of database and connector it is written again');
my ($again) = batches(objects('sales'));
is_deeply([ grep { $_->[0] !~ m{/_batches/} } objects('sales') ], \@before, 'under the same names, with the same bytes');
is("$again->{connector} $again->{connector_id} $again->{database}", "orders $sales store", 'and says whose it is');
is($node->safe_psql('store', q(SELECT last_batch FROM s3export.currents)), $again->{batch}, 'the view has it');
is_fine('sales', 'other names');
$node->safe_psql('store', 'INSERT INTO t VALUES (4)');
$node->safe_psql('store', q(SELECT events FROM s3export.deliver('orders')));
is_deeply([ map { $_->{previous} } batches(objects('sales')) ], [ undef, $again->{batch} ], 'the chain goes on');
is(schema_of('sales', 'public.t')->{csv}{null}, 'none', 'with the settings of now');
is_fine('sales', 'other names, and the next batch');
$node->safe_psql('store', q(SELECT s3export.drop_connector('orders')));

# ---- what was replicated from elsewhere
flow("origin_$_", tables => '{t}', origin => $_) foreach 'any', 'none';
is(current_of($node, "origin_$_", 'origin'), $_, "origin $_ is in the view") foreach 'any', 'none';
error_like($node, q(SELECT s3export.alter_connector('origin_any', validate => false, origin => 'all')), { sqlstate => '22023', message => qr/"origin"/ }, 'another origin is refused');
launch($node, "origin_$_") foreach 'any', 'none';
sql(q(SELECT pg_replication_origin_create('elsewhere')));
sql(<<'SQL');
SELECT pg_replication_origin_session_setup('elsewhere');
BEGIN;
SELECT pg_replication_origin_xact_setup('0/10', '2001-02-03 04:05:06+00');
INSERT INTO t VALUES (100, 'from elsewhere');
COMMIT;
SQL
is((deliver_loudly('origin_any'))[0], '1', 'with any origin what was replicated is sent');
is((deliver_loudly('origin_none'))[0], '0', 'with none it is not');
my ($event) = events(files('origin_any'));
cmp_ok($event->{at}, 'gt', '2026', 'with the time of its commit here');
is(substr($event->{at}, 0, 13) =~ tr/ /T/r, $event->{file}{date}, 'in the file of that hour');
is(sql(qq(SELECT timestamptz '$event->{at}' BETWEEN now() - interval '1 minute' AND now())), 't', 'which was just now');
sql(q(INSERT INTO t VALUES (101, 'from here')));
deliver($node, "origin_$_") foreach 'any', 'none';
is(short('origin_any', undef, 'id'), 'insert 100, insert 101', 'any: both');
is(short('origin_none', undef, 'id'), 'insert 101', 'none: what was written here');
sql(q(SELECT s3export.alter_connector('origin_none', validate => false, origin => 'any')));
is(current_of($node, 'origin_none', 'origin'), 'any', 'it can be changed');
is_fine("origin_$_", "origin $_") foreach 'any', 'none';
sql(q(SELECT s3export.drop_connector('origin_any'), s3export.drop_connector('origin_none'), pg_replication_origin_drop('elsewhere')));

# ---- how values are written
sql('CREATE TABLE written (id int PRIMARY KEY, v text, n int)');
flow('csv', tables => '{written}', '"null"' => '\N', force_quote => '{*}', header => \'false');
is(current_of($node, 'csv', '"null", force_quote, header'), '\N|t|f', 'null, force_quote and header are in the view');
error_like($node, q(SELECT s3export.alter_connector('csv', validate => false, force_quote => '{v}')), { sqlstate => '22023', message => qr/"force_quote"/ }, 'force_quote of single columns is refused');
error_like($node, q(SELECT s3export.alter_connector('csv', validate => false, "null" => E'a\nb')), { sqlstate => qr/^(?:22023|0A000)$/ }, 'a null that COPY refuses is refused');
launch($node, 'csv');
sql(q(INSERT INTO written VALUES (1, '', NULL), (2, '\N', 3); DELETE FROM written WHERE id = 1));
deliver($node, 'csv');
my ($file) = files('csv');
my $own = qr/"[0-9A-F-]+","(?:insert|delete)","[^"]+"/;
like($file->[1], qr/\A$own,"1","",\\N,\\N\n$own,"2","\\N","3",\\N\n$own,"1",\\N,\\N,\\N\n\z/, 'null, force_quote and no header');
is_deeply(schema_of('csv', 'public.written')->{csv},
	{ delimiter => ',', quote => '"', escape => '"', null => '\N', force_quote => JSON::PP::true, header => JSON::PP::false, encoding => 'UTF8',
		datestyle => 'ISO', timezone => 'UTC', intervalstyle => 'postgres', bytea_output => 'hex' }, 'of which the schema object tells');
foreach my $case ([ 'header => true', header => JSON::PP::true ], [ q("null" => ''), null => '' ], [ q(force_quote => '{}'), force_quote => JSON::PP::false ])
{
	my ($argument, $member, $value) = @$case;
	my $before = schema_of('csv', 'public.written');

	sql("SELECT s3export.alter_connector('csv', validate => false, $argument); INSERT INTO written SELECT max(id) + 1 FROM written");
	is((deliver_loudly('csv'))[0], '1', "$argument: the next event");
	my $schema = schema_of('csv', 'public.written');
	is($schema->{version}, $before->{version} + 1, "$argument: is of a new version");
	is_deeply($schema->{previous}, { table => 'public.written', version => $before->{version} }, "$argument: which follows the one before");
	is_deeply($schema->{csv}, { %{ $before->{csv} }, $member => $value }, "$argument: and tells of it");
	is_deeply($schema->{columns}, $before->{columns}, "$argument: the columns are the same");
}
like((files('csv'))[-1][1], qr/\A_id,_op,_committed_at,id,v,n,_meta\n[0-9A-F-]+,insert,[^,"]+,5,,,\n\z/, 'and the file is as it says');
sql(q(SELECT s3export.drop_connector('csv')));

# ---- a heartbeat
flow('heart', tables => '{t}', heartbeat => '1 second');
is(current_of($node, 'heart', 'heartbeat'), '00:00:01', 'a heartbeat is in the view');
error_like($node, "SELECT s3export.alter_connector('heart', validate => false, heartbeat => '$_')", { sqlstate => qr/^22/ }, "a heartbeat of $_ is refused") foreach '0 s', '-1 s', 'often';
launch($node, 'heart');
sql('INSERT INTO t VALUES (200)');
deliver($node, 'heart');
is(deliver($node, 'heart')->{batch}, undef, 'soon after a batch there is no heartbeat');
sleep 1.1;
my $beat = deliver($node, 'heart');
is(join(' ', @{$beat}{qw(events files)}), '0 0', 'a heartbeat has neither events nor files');
sql('INSERT INTO t VALUES (201)');
deliver($node, 'heart');
sleep 1.1;
deliver($node, 'heart');
sleep 1.1;
deliver($node, 'heart');
my @beats = batches(objects('heart'));
is(join(' ', map { $_->{events} } @beats), '1 0 1 0 0', 'batches with events and without');
is($beat->{batch}, "s3://exports/$beats[1]{key}", 'deliver() says its name');
is(current_of($node, 'heart', 'last_batch'), $beats[-1]{batch}, 'the view has the last one');
is_fine('heart', 'heartbeats');
is(scalar(grep { $_->[0] =~ /_table=/ } objects('heart')), 2, 'heartbeats have no files');
sql(q(SELECT s3export.alter_connector('heart', validate => false, heartbeat => 'infinity')));
is(current_of($node, 'heart', 'heartbeat'), '', 'it can be turned off');
sleep 1.1;
is(deliver($node, 'heart')->{batch}, undef, 'and then there is none');
sql(q(SELECT s3export.drop_connector('heart')));

# ---- what readers miss
sql(<<'SQL');
CREATE TABLE p (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10);
CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (10) TO (20);
CREATE TABLE p3 (LIKE p INCLUDING ALL);
INSERT INTO p VALUES (1, 'a'), (11, 'b');
INSERT INTO p3 VALUES (21, 'c');
SQL
flow('gaps', tables => '{p}');
launch($node, 'gaps');
is((deliver_loudly('gaps'))[0], '0', 'a launch without a copy: nothing to send');
my @batches = batches(objects('gaps'));
is(gaps(@batches), $launched, 'but a batch that tells of it');
deliver_loudly('gaps');
is(scalar(names('gaps')), 1, 'once');
my (undef, $err) = do { sql('TRUNCATE p1'); deliver_loudly('gaps') };
like($err, qr/WARNING: .*"gaps".*partition public\.p1 was truncated/s, 'a partition that is truncated is told');
like(sql(q(SELECT detail FROM s3export.current_events WHERE connector = 'gaps' AND event = 'gap')), qr/"table": "public\.p", "reason": "partition public\.p1 was truncated"/, 'as an event');
is(gaps((batches(objects('gaps')))[-1]), 'public.p: partition public.p1 was truncated', 'and by a batch without events');
is((batches(objects('gaps')))[-1]{events}, 0, 'which has none');
sql(q(INSERT INTO p VALUES (2, 'd'); TRUNCATE p1, p2));
deliver_loudly('gaps');
is(gaps((batches(objects('gaps')))[-1]), 'public.p: partition public.p1 was truncated|public.p: partition public.p2 was truncated', 'or by a batch with events');
sql('TRUNCATE p');
deliver_loudly('gaps');
is(gaps((batches(objects('gaps')))[-1]), '', 'a root that is truncated is none');
is(short('gaps'), 'insert 2, truncate -', 'but an event');
foreach my $case (
	[ 'ALTER TABLE p ATTACH PARTITION p3 FOR VALUES FROM (20) TO (30)', 'partition public.p3 has joined without the rows that it had' ],
	[ 'ALTER TABLE p DETACH PARTITION p3', 'partition public.p3 was detached' ],
	[ 'DROP TABLE p2', 'partition public.p2 was dropped' ],
	[ 'CREATE TABLE p4 PARTITION OF p FOR VALUES FROM (30) TO (40)', undef ])
{
	my ($statement, $reason) = @$case;
	my $count = names('gaps');

	sql($statement);
	deliver_loudly('gaps');
	my @more = (batches(objects('gaps')))[ $count .. $#{ [ names('gaps') ] } ];
	is(gaps(@more), defined $reason ? "public.p: $reason" : '', "$statement: the gap");
}
# Of other rows than those of the partition that would say nothing: they are still there.
sql(q(CREATE ACCESS METHOD heap2 TYPE TABLE HANDLER heap_tableam_handler; INSERT INTO p VALUES (5, 'e')));
is((deliver_loudly('gaps'))[0], '1', 'an event before another format');
sql(q(SELECT s3export.alter_connector('gaps', validate => false, "null" => 'none')));
sql('ALTER TABLE p1 SET ACCESS METHOD heap2');
is((deliver_loudly('gaps'))[0], '0', 'a partition that is moved, and another format: no event');
is(gaps((batches(objects('gaps')))[-1]), '', 'and no gap');
is_fine('gaps', 'gaps');
sql('CREATE TABLE kt (id int, r int, v text, PRIMARY KEY (id, r)) PARTITION BY LIST (r); CREATE TABLE kt1 PARTITION OF kt FOR VALUES IN (1); CREATE TABLE kt2 PARTITION OF kt FOR VALUES IN (2)');
flow('rekeyed', tables => '{kt}');
launch($node, 'rekeyed');
sql(q(INSERT INTO kt VALUES (1, 1, 'a'), (2, 1, 'b'), (3, 2, 'c'), (4, 2, 'd')));
deliver_loudly('rekeyed');
sql('ALTER TABLE kt ALTER id TYPE bigint USING id * 10');
is((deliver_loudly('rekeyed'))[0], '5', 'a key that changes with the rewrite of all partitions');
is(join(' ', map { "$_->{op}/" . ($_->{values}{id} // '-') } (all_events(files('rekeyed')))[ -5 .. -1 ]), 'snapshot/- copy/10 copy/20 copy/30 copy/40', 'is a snapshot with all rows');
sql($_) foreach q(BEGIN; ALTER TABLE kt ALTER id TYPE int; ALTER TABLE kt ALTER v TYPE text USING upper(v); COMMIT), 'ALTER TABLE kt ALTER id TYPE int USING id + 10', 'BEGIN; ALTER TABLE kt RENAME v TO w; ALTER TABLE kt1 SET ACCESS METHOD heap2; COMMIT', 'UPDATE kt SET w = w WHERE id = 20';
deliver_loudly('rekeyed');
is(join(' ', map { "$_->{op}/" . ($_->{values}{id} // '-') } (all_events(files('rekeyed')))[ -17 .. -1 ]), join(' ', ('snapshot/- copy/10 copy/20 copy/30 copy/40') x 2, 'snapshot/- copy/20 copy/30 copy/40 copy/50', 'alter/- update/20'), 'each rewrite is a snapshot of its own; one partition that is moved is none');
is_fine('rekeyed', 'a key that changes');

# ---- keys of partitions that are not that of their table
sql(<<'SQL');
CREATE TABLE lk (id int, r int, v text) PARTITION BY LIST (r);
CREATE TABLE lk1 PARTITION OF lk (PRIMARY KEY (id)) FOR VALUES IN (1); CREATE TABLE lk2 PARTITION OF lk (PRIMARY KEY (id)) FOR VALUES IN (2); CREATE TABLE lk3 PARTITION OF lk (PRIMARY KEY (v)) FOR VALUES IN (3);
SQL
flow('leaves', tables => '{lk}');
launch($node, 'leaves');
sql($_) foreach q(INSERT INTO lk VALUES (1, 1, 'a'), (2, 2, 'b'), (3, 3, 'c')), q(UPDATE lk SET v = 'x' WHERE id = 1), 'DELETE FROM lk WHERE id = 2';
deliver_loudly('leaves');
is(join(' ', @{ schema_of('leaves', 'public.lk')->{key} }), 'id', 'a table without a key has that of its partitions');
is(short('leaves'), 'insert 1, insert 2, insert 3, update 1, delete 2', 'by which its rows are known');
sql('DELETE FROM lk WHERE id = 3');
(undef, $err) = deliver_loudly('leaves');
like($err, qr/WARNING: .*changes of table public\.lk3 were not sent/, 'a change that does not say of which row it is');
is(gaps((batches(objects('leaves')))[-1]), 'public.lk: changes were withheld', 'is a gap');

# ---- what is published of a table changes, and changes back, between two deliveries
sql('CREATE TABLE back (id int PRIMARY KEY, v text, t timestamptz); CREATE TABLE pu (id int PRIMARY KEY) PARTITION BY RANGE (id); CREATE TABLE pu1 PARTITION OF pu FOR VALUES FROM (0) TO (10); CREATE PUBLICATION back FOR TABLE back, pu WITH (publish_via_partition_root = true)');
flow('back', publication => 'back');
launch($node, 'back', copy_existing => 1);
sql($_) foreach q(INSERT INTO back VALUES (1, 'a', now())), 'INSERT INTO pu VALUES (1)';
deliver_loudly('back');
foreach my $case (
	[ 'public.back: the table has joined the publication without the rows that it had|public.back: the table has left the publication', 'ALTER PUBLICATION back DROP TABLE back', 'ALTER PUBLICATION back ADD TABLE back' ],
	[ 'public.back: some operations are not published any more|public.pu: some operations are not published any more', q(ALTER PUBLICATION back SET (publish = 'insert')), q(ALTER PUBLICATION back SET (publish = 'insert, update, delete, truncate')) ],
	[ 'public.back: the row filter has changed', 'ALTER PUBLICATION back SET TABLE back WHERE (id > 5), pu', 'ALTER PUBLICATION back SET TABLE back, pu' ],
	[ 'public.back: columns have joined the column list', 'ALTER PUBLICATION back SET TABLE back (id, v), pu', 'ALTER PUBLICATION back SET TABLE back, pu' ],
	[ "public.back: a column's type has changed, and no row was written anew", q(SET timezone = 'UTC'; ALTER TABLE back ALTER t TYPE timestamp) ],
	[ 'public.pu: partition public.pu1 has joined without the rows that it had|public.pu: public.pu1 is unlogged', 'ALTER TABLE pu1 SET UNLOGGED', 'INSERT INTO pu VALUES (2)', 'ALTER TABLE pu1 SET LOGGED' ],
	[ '', 'CREATE TABLE pu2 (LIKE pu INCLUDING ALL)', 'ALTER TABLE pu ATTACH PARTITION pu2 FOR VALUES FROM (10) TO (20)', 'INSERT INTO pu VALUES (11)' ],
	[ 'public.pu: partition public.pu2 was detached', 'ALTER TABLE pu DETACH PARTITION pu2' ],
	[ 'public.pu: partition public.pu2 has joined without the rows that it had|public.pu: partition public.pu2 was detached', 'ALTER TABLE pu ATTACH PARTITION pu2 FOR VALUES FROM (10) TO (20)', 'ALTER TABLE pu DETACH PARTITION pu2', 'DELETE FROM pu2', 'DROP TABLE pu2' ],
	[ '', 'CREATE TABLE pu2 PARTITION OF pu FOR VALUES FROM (10) TO (20)' ],
	[ '', 'BEGIN; ALTER TABLE pu DETACH PARTITION pu2; ALTER TABLE pu ATTACH PARTITION pu2 FOR VALUES FROM (10) TO (20); COMMIT' ],
	[ 'public.pu: partition public.pu2 has joined without the rows that it had', 'BEGIN; ALTER TABLE pu DETACH PARTITION pu2; INSERT INTO pu2 VALUES (12); ALTER TABLE pu ATTACH PARTITION pu2 FOR VALUES FROM (10) TO (20); COMMIT' ],
	[ 'public.pu: partition public.pu3 was dropped', 'CREATE TABLE pu3 PARTITION OF pu FOR VALUES FROM (20) TO (30)', 'INSERT INTO pu VALUES (21)', 'DROP TABLE pu3' ],
	[ 'public.pu: partition public.tree1 has joined without the rows that it had', 'CREATE TABLE tree (id int PRIMARY KEY) PARTITION BY RANGE (id); CREATE TABLE tree1 PARTITION OF tree FOR VALUES FROM (30) TO (35); CREATE TABLE tree2 PARTITION OF tree FOR VALUES FROM (35) TO (40); INSERT INTO tree VALUES (31)', 'ALTER TABLE pu ATTACH PARTITION tree FOR VALUES FROM (30) TO (40)', 'INSERT INTO pu VALUES (36)' ],
	[ 'public.pu: partition public.tree1 was detached|public.pu: partition public.tree2 was detached', 'ALTER TABLE pu DETACH PARTITION tree' ],
	[ 'public.back: the table has joined the publication without the rows that it had', 'BEGIN; ALTER PUBLICATION back DROP TABLE back; UPDATE back SET v = v; ALTER PUBLICATION back ADD TABLE back; COMMIT' ],
	[ join('|', sort map { ("public.$_: the table has joined the publication without the rows that it had", "public.$_: the table has left the publication") } 'pu', 'pu1', 'pu2'), 'ALTER PUBLICATION back SET (publish_via_partition_root = false)', 'INSERT INTO pu VALUES (3), (13)', 'ALTER PUBLICATION back SET (publish_via_partition_root = true)' ])
{
	my ($gaps, @statements) = @$case;
	my $count = names('back');

	sql($_) foreach @statements;
	deliver_loudly('back');
	is(join('|', sort split /\|/, gaps((batches(objects('back')))[ $count .. $#{ [ names('back') ] } ])), $gaps, "$statements[0]: the gap");
}
# A transaction whose first change was before a partition was made, and that changes it.
my $before = names('back');
my $early = start_psql($node, q(BEGIN), q(INSERT INTO back VALUES (99)), q(SELECT pg_sleep(1)), q(ALTER TABLE pu ADD n int), q(COMMIT));
poll_until(sub { sql(q(SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep')) }, 'the open transaction');
sql($_) foreach 'CREATE TABLE pu9 PARTITION OF pu FOR VALUES FROM (90) TO (100)', 'INSERT INTO pu VALUES (91)';
is((finish_psql($early))[0], 0, 'a partition is made while a transaction is open that changes it');
deliver_loudly('back');
is(gaps((batches(objects('back')))[ $before .. $#{ [ names('back') ] } ]), '', 'its rows were events');
is((grep { defined $_->{missing} } @{ schema_of('back', 'public.back')->{columns} }), 0, 'columns that join a list have no value that rows lack');
is_fine('back', 'back');
# Tables that move into a schema that is published, and out of it.
sql('CREATE SCHEMA pubs; CREATE PUBLICATION schemas FOR TABLES IN SCHEMA pubs; CREATE TABLE moved (id int PRIMARY KEY); INSERT INTO moved VALUES (1)');
flow('schemas', publication => 'schemas');
launch($node, 'schemas');
sql($_) foreach 'CREATE TABLE hollow (id int PRIMARY KEY)', 'ALTER TABLE moved SET (fillfactor = 90)', 'ALTER TABLE moved SET SCHEMA pubs', 'ALTER TABLE hollow SET SCHEMA pubs', 'INSERT INTO pubs.moved VALUES (2)', 'INSERT INTO pubs.hollow VALUES (1)', 'ALTER TABLE pubs.hollow SET SCHEMA public';
deliver_loudly('schemas');
is(join('|', sort split /\|/, gaps(batches(objects('schemas')))), "$launched|pubs.hollow: the table has left the publication|pubs.moved: the table has joined the publication without the rows that it had", 'tables that move into a schema that is published, and out of it');
is_fine('schemas', 'schemas');
# All that was owed is unknown when it is launched anew.
sql(q(SELECT s3export.stop('gaps')));
sql(q(INSERT INTO p VALUES (3, 'missed')));
launch($node, 'gaps');
sql(q(INSERT INTO p VALUES (4, 'new')));
deliver_loudly('gaps');
is(gaps((batches(objects('gaps')))[-1]), $launched, 'launched anew without a copy: a gap');
sql(q(SELECT s3export.stop('gaps')));
launch($node, 'gaps', copy_existing => 1);
@batches = batches(objects('gaps'));
is(gaps($batches[-1]), '', 'launched anew with a copy: none');
is($batches[-1]{events}, 4, 'but all rows');
is((all_events(files('gaps')))[-4]{op}, 'snapshot', 'after a snapshot');
is_fine('gaps', 'launched anew');
sql(q(SELECT s3export.drop_connector('gaps')));

# ---- of a row filter, and of rights
sql(<<'SQL');
CREATE TABLE region (id int, k text, big text, PRIMARY KEY (id, k));
ALTER TABLE region ALTER big SET STORAGE EXTERNAL;
CREATE PUBLICATION eu FOR TABLE region WHERE (k = 'eu');
CREATE ROLE ann LOGIN REPLICATION; GRANT CREATE ON DATABASE postgres TO ann; GRANT CREATE ON SCHEMA public TO ann;
CREATE TABLE hers (id int PRIMARY KEY); CREATE TABLE hers_too (id int PRIMARY KEY);
ALTER TABLE hers OWNER TO ann; ALTER TABLE hers_too OWNER TO ann;
SQL
flow('filter', publication => 'eu');
launch($node, 'filter', copy_existing => 1);
sql(q(INSERT INTO region VALUES (1, 'us', repeat('x', 10000)), (2, 'eu', repeat('y', 10000)); UPDATE region SET k = 'eu' WHERE id = 1; UPDATE region SET id = 3 WHERE id = 2));
(undef, $err) = deliver_loudly('filter');
is(gaps(batches(objects('filter'))), 'public.region: the row filter let in a row of which the WAL does not have all values', 'a row that comes to fulfil the filter without all of its values');
like($err, qr/WARNING: .*row filter let in a row/s, 'is warned of');
is(short('filter', undef, 'id', '_meta'), 'insert 2/-, insert 1/{"unchanged":["big"]}, update 3/{"unchanged":["big"],"old_key":{"id":"2","k":"eu"}}', 'and says what it lacks; a row that is there already is an update');
is_fine('filter', 'filter');
sql(q(SELECT s3export.drop_connector('filter')));

flow('rights', tables => '{hers,hers_too}');
sql(q(SELECT s3export.alter_connector('rights', owner => 'ann', validate => false)));
launch($node, 'rights');
sql($_) foreach 'ALTER TABLE hers OWNER TO postgres', 'INSERT INTO hers VALUES (1), (2)', 'ALTER TABLE hers OWNER TO ann', 'INSERT INTO hers VALUES (3)';
sql('ALTER PUBLICATION s3export_rights DROP TABLE hers');
(undef, $err) = deliver_loudly('rights', 'ann');
is(join('|', sort split /\|/, gaps(batches(objects('rights')))), "$launched|public.hers: changes were withheld|public.hers: the table has left the publication", 'changes that are withheld');
like($err, qr/WARNING: .*changes of table public\.hers were not sent/, 'are warned of');
is(() = $err =~ /were not sent|miss/g, 1, 'once');
is(sql(q(SELECT string_agg(event, ' ') FROM s3export.current_events WHERE connector = 'rights' AND event IN ('gap', 'withheld'))), 'withheld', 'with one event');
is_fine('rights', 'rights');
sql(q(SELECT s3export.drop_connector('rights')));

# ---- a batch object is there when all of its files are
sql('CREATE TABLE many (id int PRIMARY KEY, v text)');
flow('many', tables => '{many}', max_events_per_file => \1);
launch($node, 'many');
sql('INSERT INTO many SELECT i FROM generate_series(1, 400) i');
$s3->call('clear_log');
my $held = $s3->call('add_fault', do => 'hold', match => { key => "$folder{many}/.*-00000000C8\\.csv\$", operation => [ 'PutObject', 'CompleteMultipartUpload' ] }, times => 1)->{id};
my $delivery = start_psql($node, q(SELECT events, files, batch IS NOT NULL FROM s3export.deliver('many')));
poll_until(sub { grep { $_->{id} == $held && $_->{used} } @{ $s3->call('list_faults')->{faults} } }, 'a file that waits');
poll_until(sub { my $count = files('many'); sleep 0.5; $count > 0 && files('many') == $count }, 'the others');
my $others = files('many');
cmp_ok($others, '<', 400, "while one file of 400 is written, and $others are in place");
is(scalar(names('many')), 0, 'there is no batch object');
is(scalar(schemas(objects('many'))), 1, 'but that of the schema');
is(current_of($node, 'many', 'last_batch, events_sent'), '|0', 'nor one in the view');
$s3->call('release', id => $held);
is((finish_psql($delivery))[1], '400|400|t', 'then all are sent');
is(join(' ', map { "$_->{events} $_->{totals}{files}" } batches(objects('many'))), '400 400', 'and the batch object has them');
is_fine('many', '400 files');
my @puts = map { in_feed($_->{key}) =~ s{[/=].*}{}r } grep { $_->{operation} =~ /^(?:PutObject|CompleteMultipartUpload)$/ && $_->{key} =~ /^\Q$folder{many}\E/ } $s3->log;
is("$puts[0] $puts[-1]", '_schema _batches', 'the schema was first, the batch last');

# ---- versions in the order of their numbers
sql($_) foreach map { ("ALTER TABLE many ADD c$_ int DEFAULT $_", "INSERT INTO many (id) VALUES (1000 + $_)") } 2 .. 11;
is((deliver_loudly('many'))[0], '20', 'ten times another column, and an event: each is an alter as well');
my @files = map { in_feed($_->[0]) } grep { $_->[0] =~ /_version=00(?:09|1\d)/ } files('many');
is(join(' ', map { (split m{/})[1] } @files), join(' ', map { ("_version=$_") x 2 } qw(0009 0010 0011)), 'the names of versions 9 to 11 sort');
is(join(' ', @files), join(' ', sort { (split m{/}, $a)[-1] cmp(split m{/}, $b)[-1] } @files), 'as their events do');
is(join(' ', map { $_->{version} . ':' . ($_->{previous} ? $_->{previous}{version} : '-') } schemas(objects('many'))), join(' ', '1:-', map { "$_:" . ($_ - 1) } 2 .. 11), 'and each follows the one before');
is_deeply((schemas(objects('many')))[-1]{columns}[-1], { name => 'c11', column => 'c11', number => 12, type => 'integer', nullable => JSON::PP::true, missing => '11' }, 'a column that was added, with what older rows have');
is_fine('many', 'versions');

# ---- a table that is renamed goes on in another folder
sql('ALTER TABLE many RENAME TO "more.of"');
sql('ALTER SCHEMA public RENAME TO "p.q"; ALTER SCHEMA "p.q" RENAME TO public');
is((deliver_loudly('many'))[0], '1', 'a table that is renamed: an alter');
my $renamed = schema_of('many', 'public.more%2Eof');
is_deeply([ @{$renamed}{qw(previous path schema_name table_name)} ], [ { table => 'public.many', version => 11 }, '_table=public.more%2Eof/_version=0012/', 'public', 'more.of' ], 'the schema object says what it was called');
is_fine('many', 'a table that is renamed');
sql(q(SELECT s3export.drop_connector('many')));

# ---- rows that no file in UTF-8 can have
foreach my $case ([ 'SQL_ASCII', 'C', q(E'caf\xe9'), '636166e9', q(E'caf\xc3\xa9') ], [ 'WIN1252', 'C', q(E'a\x81'), '6181', q(E'caf\xe9') ])
{
	my ($encoding, $locale, $bad, $hex, $good) = @$case;
	my $database = lc $encoding;
	my $in = sub { return $node->safe_psql($database, @_); };

	sql("CREATE DATABASE $database ENCODING '$encoding' LC_COLLATE '$locale' LC_CTYPE '$locale' TEMPLATE template0");
	$in->("CREATE EXTENSION s3export; CREATE TABLE b (id int PRIMARY KEY, _meta text, w text); INSERT INTO b VALUES (1, $bad, $good), (2, $good, $bad), (3, NULL, '')");
	$folder{$database} = unique_folder();
	$in->('SELECT ' . connector_sql('bytes', at_endpoint($s3), %keys, kind => 'currents', validate => \'false', tables => '{b}', folder_path => $folder{$database}));
	launch($node, 'bytes', dbname => $database, copy_existing => 1);
	$in->("INSERT INTO b VALUES (4, $bad, $bad), (5, $good, 'x'); UPDATE b SET w = $bad WHERE id = 5; DELETE FROM b WHERE id = 1; INSERT INTO b VALUES (6, '', '')");
	is(deliver($node, 'bytes', dbname => $database)->{events}, 5, "$encoding: rows that cannot be sent keep nothing from being sent");
	my ($e, @sent) = ("caf\xc3\xa9", events(files($database)));
	my $row = sub { my $values = $_[0]{values}; return join '/', $_[0]{op}, map { $_ // '-' } @{$values}{qw(id __meta w _meta)}; };
	my ($m, $w) = (qq("__meta":"$hex"), qq("w":"$hex"));
	is_deeply([ map { $row->($_) } @sent ],
		[ "copy/1/-/$e/{\"bytes\":{$m}}", "copy/2/$e/-/{\"bytes\":{$w}}", 'copy/3/-//-', "insert/4/-/-/{\"bytes\":{$m,$w}}", "insert/5/$e/x/-", "update/5/$e/-/{\"bytes\":{$w}}", 'delete/1/-/-/-', 'insert/6///-' ],
		"$encoding: their bytes are in _meta, the other values are as ever");
	is(gaps(batches(objects($database))), '', "$encoding: nothing is missing");
	is_fine($database, $encoding);
	# The key of a row whose values the WAL does not have.
	$in->(q(CREATE TABLE k (k text PRIMARY KEY, big text); ALTER TABLE k ALTER big SET STORAGE EXTERNAL; SELECT s3export.alter_connector('bytes', validate => false, tables => '{k}')));
	$in->("INSERT INTO k VALUES ($bad, repeat('x', 10000)); UPDATE k SET k = 'new'; UPDATE k SET k = $bad");
	is(deliver($node, 'bytes', dbname => $database)->{events}, 3, "$encoding: keys that cannot be sent");
	is(join("\n", map { join '/', $_->{op}, map { $_ // '-' } @{ $_->{values} }{qw(k _meta)} } grep { $_->{type} eq 'public.k' } events(files($database))), <<"TEXT" =~ s/\n\z//r, "$encoding: are told by their bytes, too");
insert/-/{"bytes":{"k":"$hex"}}
update/new/{"unchanged":["big"],"old_key":{"k":{"bytes":"$hex"}}}
update/-/{"unchanged":["big"],"old_key":{"k":"new"},"bytes":{"k":"$hex"}}
TEXT
	is_fine($database, "$encoding, keys");
	$in->(q(SELECT s3export.drop_connector('bytes')));
}

# ---- a value that is too large for any file
sql('CREATE TABLE big (id int PRIMARY KEY, v text, w text)');
flow('big', tables => '{big}');
launch($node, 'big');
sql($_) foreach q(INSERT INTO big VALUES (1, repeat('x', 270000000), 'kept')), q(INSERT INTO big VALUES (2, 'small', 'kept'));
my ($big_out, $big_err) = deliver_loudly('big');
is($big_out, '2', 'a value that is too large: the others flow');
like($big_err, qr/WARNING: .*readers of connector "big" miss changes of table public.big\nDETAIL: .*a value of column v was too large to be sent/, 'which is told');
is(join('|', map { join '/', map { $_ // '-' } @{ $_->{values} }{qw(id v w _meta)} } events(files('big'))), '1/-/kept/{"unsent":["v"]}|2/small/kept/-', 'by the row');
is(gaps((batches(objects('big')))[-1]), 'all: it was launched without the rows that were there|public.big: a value of column v was too large to be sent', 'and by the batch');

# ---- commits of a delivery wait for a standby where those of users do
$node->append_conf('postgresql.conf', q(synchronous_standby_names = 'nobody'));
$node->reload;
sql(q(SET synchronous_commit = local; INSERT INTO big VALUES (3, 'three', 'kept')));
my $waiting = start_psql($node, q(SELECT events FROM s3export.deliver('big')));
poll_until(sub { sql(q(SELECT count(*) FROM pg_stat_activity WHERE backend_type = 's3export current' AND wait_event = 'SyncRep')) == 1 }, 'a delivery that waits for a standby');
is((grep { $_->{values}{id} == 3 } events(files('big'))), 0, 'before any file of the batch is there');
$node->append_conf('postgresql.conf', q(synchronous_standby_names = ''));
$node->reload;
is((finish_psql($waiting))[1], '1', 'and goes on when it need not');

# ---- names with dots
sql('CREATE SCHEMA "s.t"; CREATE TABLE "s.t".u (id int PRIMARY KEY); CREATE SCHEMA s; CREATE TABLE s."t.u" (id int PRIMARY KEY)');
flow('dots', tables => '{"\"s.t\".u","s.\"t.u\""}');
launch($node, 'dots');
sql('INSERT INTO "s.t".u VALUES (1); INSERT INTO s."t.u" VALUES (2)');
deliver($node, 'dots');
is(short('dots', 's%2Et.u') . '|' . short('dots', 's.t%2Eu'), 'insert 1|insert 2', 'dots within names: two folders');
is(join(' ', map { "$_->{table}=$_->{schema_name}+$_->{table_name}" } schemas(objects('dots'))), 's%2Et.u=s.t+u s.t%2Eu=s+t.u', 'with the names as they are');
is_fine('dots', 'dots');
sql(q(SELECT s3export.drop_connector('dots')));

# ---- what the schema says of columns and of the key
sql(<<'SQL');
CREATE TABLE odd (_id int, gone text, _meta text NOT NULL, __id varchar(10), double_id int GENERATED ALWAYS AS (_id * 2) STORED, PRIMARY KEY (_id));
ALTER TABLE odd DROP gone;
CREATE UNIQUE INDEX odd_key ON odd (_meta, _id) INCLUDE (__id);
ALTER TABLE odd REPLICA IDENTITY USING INDEX odd_key;
SQL
flow('odd', tables => '{odd}');
launch($node, 'odd');
sql(q(INSERT INTO odd VALUES (1, 'm', 'i'); UPDATE odd SET __id = 'j'; UPDATE odd SET _meta = 'n'; DELETE FROM odd));
is((deliver_loudly('odd'))[0], '5', 'columns called as those of events');
my $odd = schema_of('odd', 'public.odd');
my ($true, $false) = (JSON::PP::true, JSON::PP::false);
is_deeply($odd->{columns}, [
		{ name => '__id', column => '_id', number => 1, type => 'integer', nullable => $false, missing => undef },
		{ name => '__meta', column => '_meta', number => 3, type => 'text', nullable => $false, missing => undef },
		{ name => '___id', column => '__id', number => 4, type => 'character varying(10)', nullable => $true, missing => undef },
		{ name => 'double_id', column => 'double_id', number => 5, type => 'integer', nullable => $true, missing => undef } ], 'each column of the table, a generated one as well, and what it is called in the header');
is_deeply([ @{$odd}{qw(format table version replica_identity key path previous)} ], [ 1, 'public.odd', 1, 'index', [ '__id', '__meta' ], '_table=public.odd/_version=0001/', undef ], 'the key of the replica identity');
is($odd->{from_id}, (names('odd'))[0], 'from its first event on');
is(join(' ', @{ (all_events(files('odd')))[0]{file}{header} }), '_id _op _committed_at __id __meta ___id double_id _meta', 'the header has these names');
is(short('odd', undef, qw(__id __meta ___id double_id)), 'insert 1/m/i/2, update 1/m/j/2, delete 1/m/-/-, insert 1/n/j/2, delete 1/n/-/-', 'and the events the values');
is_fine('odd', 'odd');
foreach my $case (
	[ 'ALTER TABLE odd REPLICA IDENTITY DEFAULT', 'default', ['__id'] ],
	[ 'ALTER TABLE odd REPLICA IDENTITY FULL', 'full', ['__id'] ],
	[ 'ALTER TABLE odd DROP CONSTRAINT odd_pkey', 'full', undef ])
{
	my ($statement, $identity, $key) = @$case;

	sql($statement);
	is((deliver_loudly('odd'))[0], '1', "$statement: an alter");
	$odd = schema_of('odd', 'public.odd');
	is_deeply([ @{$odd}{qw(replica_identity key)} ], [ $identity, $key ], "$statement: another key");
}
sql(q(INSERT INTO odd VALUES (2, 'm', 'i'); UPDATE odd SET __id = 'j'; UPDATE odd SET __id = 'j'; DELETE FROM odd));
is((deliver_loudly('odd'))[0], '6', 'without a key each update names the row as it was');
like(in_full('odd', qw(__id __meta ___id double_id)), qr{alter -/-/-/-, insert 2/m/i/4, delete 2/m/i/4, insert 2/m/j/4, delete 2/m/j/4, insert 2/m/j/4, delete 2/m/j/4$}, 'with all columns');
is_fine('odd', 'other keys');
sql(q(SELECT s3export.drop_connector('odd')));

# ---- a table that joins comes between the batches before and after
sql('CREATE TABLE j0 (id int PRIMARY KEY); CREATE TABLE j (id int PRIMARY KEY); INSERT INTO j VALUES (1), (2); CREATE TABLE j2 (id int PRIMARY KEY)');
flow('join', tables => '{j0}');
launch($node, 'join');
is(sql(q(SELECT s3export.add_table('join', 'j2'))), 0, 'a table joins at once after the launch: it is empty');
is_fine('join', 'a table that joins at once');
sql('INSERT INTO j0 VALUES (1), (2)');
is(sql(q(SELECT s3export.add_table('join', 'j'))), 2, 'a table joins while events of others are owed');
sql('INSERT INTO j0 VALUES (3); INSERT INTO j VALUES (3)');
deliver($node, 'join');
is(in_full('join'), 'snapshot -, copy 1, copy 2, insert 3, insert 1, insert 2, insert 3, snapshot -', 'all is sent');
@batches = batches(objects('join'));
is(join(' ', map { join '+', map { $_->{table} } @{ $_->{files} } } grep { $_->{events} } @batches), 'public.j2 public.j0 public.j public.j0+public.j', 'in the order in which it was written');
is_fine('join', 'a table that joins');
# A partition that is truncated makes a batch without events, at the place that the copy has.
sql(q(CREATE TABLE jp (id int PRIMARY KEY) PARTITION BY RANGE (id); CREATE TABLE jp1 PARTITION OF jp FOR VALUES FROM (0) TO (9); CREATE TABLE j4 (id int PRIMARY KEY); INSERT INTO j4 VALUES (4)));
is(sql(q(SELECT s3export.add_table('join', 'jp'))), 0, 'a partitioned table joins');
sql('TRUNCATE jp1');
is(sql(q(SELECT s3export.add_table('join', 'j4'))), 1, 'a table joins while a gap is owed');
sql('INSERT INTO j4 VALUES (5)');
deliver($node, 'join');
is(short('join', 'public.j4'), 'copy 4, insert 5', 'all of it is sent');
is(gaps(batches(objects('join'))), "$launched|public.jp: partition public.jp1 was truncated", 'and the gaps are told once');
is_fine('join', 'a table that joins while a gap is owed');
sql(q(SELECT s3export.drop_connector('join')));

# ---- an interrupted batch has the same names when it is written again
sql('CREATE TABLE i1 (id int PRIMARY KEY, v text); CREATE TABLE i2 (id int PRIMARY KEY)');
flow('again', tables => '{i1,i2}', max_events_per_file => \2, '"null"' => 'NULL');
launch($node, 'again');
sql($_) foreach 'INSERT INTO i1 SELECT generate_series(1, 5)', 'INSERT INTO i2 VALUES (1)', 'ALTER TABLE i1 ADD w int', 'INSERT INTO i1 VALUES (6)', 'INSERT INTO i2 VALUES (2)';
$s3->call('add_fault', do => 'error', code => 'AccessDenied', match => { key => "$folder{again}/.*_table=public\\.i2/" }, times => undef);
like((deliver_loudly('again'))[0], qr/could not/, 'S3 refuses some files of a batch');
$s3->call('clear_faults');
is(scalar(names('again')), 0, 'there is no batch object');
without_batch('again', sub { sql(q(SELECT s3export.resume('again'))); deliver_loudly('again') });
@before = objects('again');
is(scalar(names('again')), 0, 'nor when it is refused itself');
# None of this may change what is owed.
sql($_) foreach 'INSERT INTO i1 VALUES (7)', 'ALTER TABLE i2 ADD v text', q(SELECT s3export.alter_connector('again', validate => false, "null" => '', max_events_per_file => 1000, compression => 'gzip'));
without_batch('again', sub { sql(q(SELECT s3export.resume('again'))); deliver_loudly('again') });
is_deeply([ objects('again') ], \@before, 'written again, it has the same names and the same bytes');
sql(q(SELECT s3export.resume('again')));
deliver_loudly('again');
my %after = map { @$_ } objects('again');
is_deeply([ grep { ($after{ $_->[0] } // '') ne $_->[1] } @before ], [], 'also when it succeeds');
is(join(' ', map { scalar @{ $_->{files} } } batches(objects('again'))), '5 2', 'and what follows is a batch of its own');
is(in_full('again'), join(', ', (map { "insert $_" } 1 .. 5), 'alter NULL', 'insert 6', 'insert 7', 'insert 1', 'insert 2', 'alter -'), 'each event once');
is_fine('again', 'an interrupted batch');

keep_secrets($s3);
$node->stop;
$s3->stop;
done_testing();
