"""Hostile Python, run as it stands inside a confined process: what each piece returns has got out.

`FACTS` names what is outside: a secret file, a file to overwrite, the parent with a secret variable and a secret in its
memory, a listening port. A piece that is stopped raises OSError, MemoryError or the like.
"""

from __future__ import annotations

PRELUDE = """
import ctypes, json, mmap, os, signal, socket, struct, sys, threading, time
LIBC = ctypes.CDLL(None, use_errno=True)

def called(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result

def read_memory(pid, address, size):
    data = ctypes.create_string_buffer(size)
    ours = struct.pack("=QQ", ctypes.addressof(data), size)
    theirs = struct.pack("=QQ", address, size)
    called(LIBC.process_vm_readv(pid, ours, ctypes.c_ulong(1), theirs, ctypes.c_ulong(1), ctypes.c_ulong(0)))
    return data.raw

def tried(attack):
    scope = dict(globals())
    try:
        exec("def attack():\\n" + "\\n".join("    " + line for line in attack.splitlines()), scope)
        return "open: " + str(scope["attack"]())
    except BaseException as error:
        return "shut: " + type(error).__name__ + ": " + str(error)
"""

ATTACKS = {
    "read a file": 'return open(FACTS["secret_file"]).read()',
    "list a folder": 'return os.listdir(os.path.dirname(FACTS["secret_file"]))',
    "overwrite a file": 'return open(FACTS["victim"], "w").write("gone")',
    "truncate a file": 'return os.truncate(FACTS["victim"], 0)',
    "remove a file": 'return os.unlink(FACTS["victim"])',
    "make a file": 'return open(FACTS["victim"] + ".new", "x").write("here")',
    "change a file's mode": 'return os.chmod(FACTS["victim"], 0o777)',
    "change a file's times": 'return os.utime(FACTS["victim"], (1, 1))',
    "read the parent's variables": 'return open(f"/proc/{FACTS[\'parent\']}/environ", "rb").read()',
    "read the parent's memory file": (
        'file = open(f"/proc/{FACTS[\'parent\']}/mem", "rb", buffering=0)\nfile.seek(FACTS["address"])\n'
        'return file.read(FACTS["size"])'
    ),
    "read the parent's memory": 'return read_memory(FACTS["parent"], FACTS["address"], FACTS["size"])',
    "trace the parent": 'return called(LIBC.ptrace(0x4206, FACTS["parent"], None, None))',
    "signal the parent": 'return os.kill(FACTS["parent"], signal.SIGURG)',
    "signal the parent's thread": 'return called(LIBC.tgkill(FACTS["parent"], FACTS["parent"], int(signal.SIGURG)))',
    "signal the parent by a file": (
        'import fcntl\nreading, writing = os.pipe()\nreturn fcntl.fcntl(reading, fcntl.F_SETOWN, FACTS["parent"])'
    ),
    "limit the parent": 'import resource\nreturn resource.prlimit(FACTS["parent"], resource.RLIMIT_NOFILE)',
    "connect": 'return socket.create_connection(("127.0.0.1", FACTS["port"]), 5)',
    "bind": 'return socket.create_server(("127.0.0.1", 0))',
    "send without a connection": (
        'return socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.1", 9))'
    ),
    "open a local socket": "return socket.socket(socket.AF_UNIX)",
    "fork": "pid = os.fork()\nif pid == 0:\n    os._exit(0)\nreturn pid",
    "run a program": 'return os.posix_spawn("/bin/true", ["true"], {})',
    "become a program": 'os.execv("/bin/echo", ["echo", \'{"outcome": "open: echo"}\'])',
    "use io_uring": "return called(LIBC.syscall(425, 8, ctypes.create_string_buffer(120)))",
    "make shared memory": "return called(LIBC.shmget(0, 4096, 0o1600))",
    "use the keyring": "return called(LIBC.syscall({'x86_64': 250, 'aarch64': 219}[os.uname().machine], 0, -3, 0))",
    "open a device": 'return os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)',
    "outlive the parent": "return called(LIBC.prctl(1, 0, 0, 0, 0))",
    "take much memory": "return len(mmap.mmap(-1, 9 << 30, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))",
    "open many files": "return [os.dup(0) for _ in range(200)]",
}  # fmt: skip
