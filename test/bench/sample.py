#!/usr/bin/python3
"""Peak private memory of an export's two processes, until standard input ends.

usage: sample.py POSTMASTER BACKEND

Prints one line, in kB: uploader's peak, backend's at the start, backend's peak.
Private memory is RssAnon of /proc/PID/status: what is shared, buffers and
program text, is counted once for the server and not here.  An uploader is a
child of the postmaster with "s3export" in its title.
"""
import os
import select
import sys

INTERVAL = 0.01


def rss_anon(pid):
    try:
        with open("/proc/%s/status" % pid) as status:
            for line in status:
                if line.startswith("RssAnon:"):
                    return int(line.split()[1])
    except (FileNotFoundError, ProcessLookupError):
        pass
    return 0


def is_uploader(pid):
    try:
        with open("/proc/%s/cmdline" % pid) as title:
            return "s3export" in title.read()
    except (FileNotFoundError, ProcessLookupError):
        return False


def main():
    postmaster, backend = sys.argv[1:]
    first = last = rss_anon(backend)
    uploader = 0
    known = {}
    print("ready", flush=True)
    while not select.select([sys.stdin], [], [], INTERVAL)[0]:
        last = max(last, rss_anon(backend))
        with open("/proc/%s/task/%s/children" % (postmaster, postmaster)) as children:
            for pid in children.read().split():
                # A child has the postmaster's title until it sets its own.
                if not known.get(pid):
                    known[pid] = pid != backend and is_uploader(pid)
                if known[pid]:
                    uploader = max(uploader, rss_anon(pid))
    print(uploader, first, last)
    return 0


if __name__ == "__main__":
    if len(sys.argv) != 3 or not os.path.isdir("/proc/" + sys.argv[1]):
        sys.exit(__doc__)
    sys.exit(main())
