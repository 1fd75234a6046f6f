"""CRC-32C of bytes, by a few lines of C compiled when the server starts.

Whoever runs these tests has just built a C extension, so a compiler is there.
The library is unlinked as soon as it is loaded.
"""
import ctypes
import os
import subprocess
import sys
import tempfile

_SOURCE = os.path.join(os.path.dirname(__file__), "crc32c.c")


def _load():
    with tempfile.TemporaryDirectory() as directory:
        library = os.path.join(directory, "crc32c.so")
        command = [os.environ.get("CC", "cc"), "-O2", "-shared", "-fPIC", "-o", library, _SOURCE]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True)
        except (OSError, subprocess.CalledProcessError) as error:
            sys.exit("s3_server: could not compile %s: %s\n%s"
                     % (_SOURCE, error, getattr(error, "stderr", "") or ""))
        loaded = ctypes.CDLL(library)
    loaded.crc32c_update.restype = ctypes.c_uint32
    loaded.crc32c_update.argtypes = [ctypes.c_uint32, ctypes.c_char_p, ctypes.c_size_t]
    loaded.crc32c_init()
    return loaded


_library = _load()


def crc32c(data, crc=0):
    """The CRC of data, going on from crc (that of what came before)."""
    return _library.crc32c_update(crc, bytes(data), len(data))
