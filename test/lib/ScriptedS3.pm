# Runs the scripted S3 and STS server (s3_server.py, whose head describes the
# calls) for a TAP test:
#
#     my $s3 = ScriptedS3->start(cert => $cert, key => $key);    # both optional
#     $s3->call('add_bucket', name => 'exports', region => 'eu-west-1');
#     $s3->call('add_fault', do => 'slow_down', match => { operation => 'UploadPart' }, times => 3);
#     ... $s3->url ...
#     is($s3->object('exports', 'a.csv'), $wanted);
#     $s3->stop;
#
# A call that the server refuses dies with its reason.  Numbers and booleans in
# arguments go as JSON sees them: use 0 + $n, ScriptedS3::true, ScriptedS3::false.

package ScriptedS3;

use strict;
use warnings;

use Cwd qw(abs_path);
use File::Basename qw(dirname);
use File::Temp qw(tempdir);
use HTTP::Tiny;
use JSON::PP ();
use POSIX qw(WNOHANG);
use Time::HiRes qw(sleep time);

my $json = JSON::PP->new->utf8->canonical;

sub true  { return JSON::PP::true }
sub false { return JSON::PP::false }

# Arguments: port, control_port, imds_port, container_port, host, cert, key,
# log (a file for the server's own complaints; otherwise they go to stderr).
sub start
{
    my ($class, %argument) = @_;
    my $script = dirname(abs_path(__FILE__)) . '/s3_server.py';
    my $directory = tempdir('scripted_s3_XXXXXX', TMPDIR => 1, CLEANUP => 1);
    my $ready = "$directory/ready";
    my $log = delete $argument{log};
    my @command = ($ENV{PYTHON} // 'python3', $script, '--ready', $ready, '--parent', $$);

    foreach my $name (sort keys %argument)
    {
        (my $option = $name) =~ tr/_/-/;
        push @command, "--$option", $argument{$name};
    }

    my $pid = fork() // die "could not fork: $!";
    if ($pid == 0)
    {
        open(STDIN, '<', '/dev/null');
        open(STDOUT, '>&', \*STDERR);
        if (defined $log)
        {
            open(STDERR, '>>', $log) or POSIX::_exit(126);
            open(STDOUT, '>&', \*STDERR);
        }
        { no warnings 'exec'; exec(@command) }
        print STDERR "could not run $command[0]: $!\n";
        POSIX::_exit(127);
    }

    my $self = bless {
        pid   => $pid,
        owner => $$,
        host  => $argument{host} // '127.0.0.1',
        http  => HTTP::Tiny->new(timeout => 120, proxy => undef, http_proxy => undef, https_proxy => undef)
    }, $class;
    my $deadline = time() + 30;
    while (!-e $ready)
    {
        if (waitpid($pid, WNOHANG) == $pid)
        {
            delete $self->{pid};
            die "the scripted S3 server did not start; its reason is above\n";
        }
        die "the scripted S3 server was not ready in time\n" if time() > $deadline;
        sleep(0.05);
    }
    open(my $file, '<', $ready) or die "could not read $ready: $!";
    $self->{ports} = $json->decode(scalar readline($file));
    close($file);
    return $self;
}

# "s3", "control", "imds" or "container"
sub port
{
    my ($self, $service) = @_;
    return $self->{ports}{ $service // 's3' };
}

# For endpoint_url; "https" needs a certificate.
sub url
{
    my ($self, $scheme, $host) = @_;
    $host //= $self->{host} =~ /:/ ? "[$self->{host}]" : $self->{host};
    return ($scheme // 'http') . "://$host:" . $self->port;
}

# The answer as a hash; dies when the server says no.
sub call
{
    my ($self, $name, %argument) = @_;
    my $response = $self->{http}->post(
        'http://127.0.0.1:' . $self->port('control') . "/$name",
        { content => $json->encode(\%argument), headers => { 'content-type' => 'application/json' } });
    my $answer = eval { $json->decode($response->{content}) };
    die "scripted S3 server: $name: $response->{status} $response->{content}\n" unless $answer && $answer->{ok};
    return $answer;
}

# An object's bytes; undef when there is none.
sub object
{
    my ($self, $bucket, $key) = @_;
    my $response = $self->{http}->get('http://127.0.0.1:' . $self->port('control') . '/object?'
          . $self->{http}->www_form_urlencode([ bucket => $bucket, key => $key ]));
    return $response->{content} if $response->{status} == 200;
    die "scripted S3 server: object: $response->{status} $response->{content}\n" unless $response->{status} == 404;
    return undef;
}

# The keys in a bucket, sorted.
sub keys_of
{
    my ($self, $bucket) = @_;
    return map { $_->{key} } @{ $self->call('objects', bucket => $bucket)->{objects} };
}

# The uploads of a bucket that are neither completed nor aborted.
sub uploads
{
    my ($self, $bucket) = @_;
    return @{ $self->call('uploads', bucket => $bucket)->{uploads} };
}

# Log entries; arguments: since, operation, service.
sub log
{
    my ($self, %argument) = @_;
    return @{ $self->call('log', %argument)->{log} };
}

# Ends the server, the one process that start() made, and waits for it.
sub stop
{
    my ($self) = @_;
    my $pid = delete $self->{pid};
    return unless defined $pid && $self->{owner} == $$;
    kill('TERM', $pid);
    my $deadline = time() + 10;
    while (waitpid($pid, WNOHANG) == 0)
    {
        if (time() > $deadline)
        {
            kill('KILL', $pid);
            waitpid($pid, 0);
            last;
        }
        sleep(0.02);
    }
    return;
}

sub DESTROY
{
    my ($self) = @_;
    local ($?, $@, $!);
    $self->stop;
    return;
}

1;
