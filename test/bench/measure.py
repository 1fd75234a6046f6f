"""What the parts of the benchmark share: sessions, processes, results.

A Session is a psql that stays, so that what is measured is a statement and not
a start.  A Watch charges CPU time and memory to processes by their roles, while
something runs.  A Results file has one JSON object a line.
"""
import json
import os
import resource
import subprocess
import sys
import threading
import time

INTERVAL = 0.02
TICK = 1.0 / os.sysconf("SC_CLK_TCK")


def setting(name, default=None):
    value = os.environ.get(name, default)
    if value is None:
        sys.exit("%s is not set: these programs are run by run.sh" % name)
    return value


def say(text):
    print(text, file=sys.stderr, flush=True)


# ------------------------------------------------------------------- sessions

class Session:
    """One psql, one backend; self.pid is the backend's."""

    def __init__(self, *statements):
        self.psql = subprocess.Popen(
            [setting("PG_BIN") + "/psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
        self.psql.stdin.write("\\timing on\n")
        self.pid = int(self.value("SELECT pg_backend_pid()"))
        for statement in ("SET client_min_messages = warning",) + statements:
            self.run(statement)

    def run(self, sql):
        """Runs one statement; returns its lines and its seconds, as psql measures them."""
        lines = []
        # psql writes out what it has printed with the next result.
        self.psql.stdin.write(sql + ";\n\\timing off\nSELECT 'end of answer';\n\\timing on\n")
        while True:
            line = self.psql.stdout.readline()
            if line == "":
                sys.exit("psql ended at: %s" % sql)
            if line == "end of answer\n":
                break
            lines.append(line.rstrip("\n"))
        times = [line for line in lines if line.startswith("Time: ")]
        return ([line for line in lines if not line.startswith(("Time: ", "Timing is "))],
                float(times[-1].split()[1]) / 1e3)

    def value(self, sql):
        return self.run(sql)[0][0]

    def close(self):
        self.psql.stdin.close()
        self.psql.wait()
        # The postmaster is charged for it when it has ended, which takes a moment longer.
        while os.path.exists("/proc/%d" % self.pid):
            time.sleep(0.005)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def literal(text):
    return "'" + text.replace("'", "''") + "'"


def has_argument(session, name):
    """Whether copy_to has it, in the build that runs."""
    return session.value("SELECT count(*) FROM pg_proc WHERE proname = 'copy_to' AND"
                         " pronamespace = 's3export'::regnamespace AND %s = ANY (proargnames)"
                         % literal(name)) != "0"


# ------------------------------------------------------------------ processes

def read(path):
    try:
        with open(path) as file:
            return file.read()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def children(pid):
    return [int(child) for child in read("/proc/%d/task/%d/children" % (pid, pid)).split()]


def descendants(pid):
    found = []
    for child in children(pid):
        found.append(child)
        found.extend(descendants(child))
    return found


def cpu(pid):
    """Seconds of a process, and those of its children that have ended and been waited for."""
    fields = read("/proc/%d/stat" % pid).rpartition(")")[2].split()
    if not fields:
        return 0.0, 0.0
    return ((int(fields[11]) + int(fields[12])) * TICK,
            (int(fields[13]) + int(fields[14])) * TICK)


def private_memory(pid):
    """kB of RssAnon: what is shared, buffers and program text, is no process's own."""
    for line in read("/proc/%d/status" % pid).splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1])
    return 0


def role(pid, parent):
    """Its name; none for the copy of a server process that is about to run a program."""
    name = read("/proc/%d/comm" % pid).strip()
    if name != "postgres":
        return name
    if parent != "postmaster":
        return ""
    title = read("/proc/%d/cmdline" % pid)
    if "s3export uploader" in title:
        return "uploader"
    return "worker" if "parallel worker" in title else "backend"


class Watch:
    """CPU seconds and peak private memory, by role, of what runs inside "with".

    Counted are the session's backend, if there is a session, the processes it
    starts, those that the postmaster starts, and this program's own children.
    The last sample of a process misses up to INTERVAL of its life, but its
    parent is charged for all of it: the samples of a parent's children are
    scaled to that.  The sink's processes live on, and have a sum of their own.
    Looking costs one or two hundredths of a core, in all cases alike.
    """

    def __init__(self, postmaster, session=None, sink=()):
        self.postmaster = postmaster
        self.session = session.pid if session else None
        self.sink = sink
        self.cpu = {}
        self.memory = {}
        self.sink_cpu = 0.0

    def __enter__(self):
        self.resident = set(children(self.postmaster))
        self.mine = set(children(os.getpid()))
        self.samples = {}
        self.before = self.charged()
        self.backend_before = cpu(self.session)[0] if self.session else 0.0
        self.sink_before = self.sink_seconds()
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.loop)
        self.thread.start()
        return self

    def __exit__(self, kind, *_):
        self.ended.set()
        self.thread.join()
        if kind is None:
            self.settle()

    def sink_seconds(self):
        return sum(cpu(pid)[0] for root in self.sink for pid in [root] + descendants(root))

    def charged(self):
        """What each parent has been charged for children that ended."""
        own = resource.getrusage(resource.RUSAGE_CHILDREN)
        return {"postmaster": cpu(self.postmaster)[1],
                "session": cpu(self.session)[1] if self.session else 0.0,
                "own": own.ru_utime + own.ru_stime}

    def passing(self):
        """Processes that came after the beginning, with the parent that will wait for them."""
        for pid in set(children(self.postmaster)) - self.resident:
            yield pid, "postmaster"
        for pid in descendants(self.session) if self.session else ():
            yield pid, "session"
        for child in set(children(os.getpid())) - self.mine:
            for pid in [child] + descendants(child):
                yield pid, "own"

    def sample(self):
        memory = {"backend": private_memory(self.session)} if self.session else {}
        for pid, parent in self.passing():
            name = role(pid, parent)
            if not name:
                continue
            self.samples[pid] = (name, parent, cpu(pid)[0])
            memory[name] = memory.get(name, 0) + private_memory(pid)
        memory["all"] = sum(memory.values())
        for name, size in memory.items():
            self.memory[name] = max(size, self.memory.get(name, 0))

    def loop(self):
        self.sample()
        while not self.ended.wait(INTERVAL):
            self.sample()

    def settle(self):
        deadline = time.monotonic() + 5
        while any(True for _ in self.passing()):
            if time.monotonic() > deadline:
                sys.exit("processes of an export have not ended: %s" % list(self.passing()))
            time.sleep(0.005)
        if self.session:
            self.cpu["backend"] = cpu(self.session)[0] - self.backend_before
        self.sink_cpu = self.sink_seconds() - self.sink_before
        for parent, seconds in self.charged().items():
            seconds -= self.before[parent]
            seen = [(name, s) for name, of, s in self.samples.values() if of == parent]
            total = sum(s for _, s in seen)
            if not seen and seconds > 0:
                seen = [("too short to be seen", 0.0)]
            for name, s in seen:
                share = s / total if total > 0 else 1 / len(seen)
                self.cpu[name] = self.cpu.get(name, 0.0) + seconds * share


# -------------------------------------------------------------------- results

class Results:
    def __init__(self, part):
        self.part = part
        self.path = os.path.join(setting("BENCH_RESULTS"), part + ".jsonl")
        self.file = open(self.path, "w", buffering=1)

    def add(self, **fields):
        self.file.write(json.dumps(fields) + "\n")
        say("%s: %s" % (self.part, ", ".join(
            "%.4g" % value + " " + name if isinstance(value, float) else str(value)
            for name, value in fields.items() if not isinstance(value, dict))))


def interleaved(cases):
    """(round, case) of all rounds; those up to 0 only warm up."""
    first = 1 - int(setting("BENCH_WARM_UP"))
    for number in range(first, int(setting("BENCH_ROUNDS")) + 1):
        for case in cases:
            yield number, case
