# SPDX-License-Identifier: Apache-2.0
"""What serves a file (or several) through FUSE: the floor, the peers, and dmfs. Each is a context
manager; inside it, paths[i] is the FUSE file of the i-th backing file."""
import contextlib
import os
import stat
import subprocess

from control import Control
from processes import BenchError, end, mounts_below, run, start, wait_for


class Server:
    name = ""
    programs = ()  # that must be installed

    def __init__(self, env, files):
        self.env = env
        self.files = files
        self.work = env.work / self.name
        self.process = None
        self.paths = []

    @classmethod
    def missing(cls, env):
        return [p for p in cls.programs if not env.program(p)]

    def __enter__(self):
        self.work.mkdir(exist_ok=True)
        self.log = open(self.work / "log", "w+")
        try:
            self.begin()
            for path, file in zip(self.paths, self.files):
                wait_for(f"{self.name} to serve {path}", lambda: self.serves(path, file))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.stop()
        self.log.close()

    def stop(self):
        for mount in mounts_below(self.work):
            with contextlib.suppress(subprocess.TimeoutExpired):
                run(["umount", mount], timeout=10, check=False)
        if self.process:
            end(self.process)
            self.process = None
        for mount in mounts_below(self.work):
            run(["umount", "-l", mount], timeout=10)

    def check_alive(self):
        if self.process.poll() is not None:
            self.log.seek(0)
            raise BenchError(f"{self.name} ended: {self.log.read().strip()[-500:]}")

    def serves(self, path, file):
        self.check_alive()
        try:
            st = os.stat(path)
        except OSError:
            return False
        mounted = st.st_dev != os.stat(self.env.work).st_dev
        return mounted and stat.S_ISREG(st.st_mode) and st.st_size == os.stat(file).st_size

    def mountpoint(self, name):
        mount = self.work / name
        mount.mkdir(exist_ok=True)
        return mount

    def launch(self, argv):
        self.process = start(argv, stdout=self.log, stderr=self.log)

    def program(self, name):
        return self.env.program(name)


class Floor(Server):
    name = "floor"
    programs = ("floor",)

    def begin(self):
        mount = self.mountpoint("mnt")
        self.paths = [mount / f"disk{i}" for i in range(len(self.files))]
        self.launch([self.program("floor"), mount, *self.files])


class QemuStorageDaemon(Server):
    name = "qemu-storage-daemon"
    programs = ("qemu-storage-daemon",)

    def begin(self):
        argv = [self.program("qemu-storage-daemon")]
        for i, file in enumerate(self.files):
            mount = self.work / f"disk{i}"  # it mounts on a regular file
            mount.touch()
            self.paths.append(mount)
            # Without discard=unmap it answers "done" to PUNCH_HOLE and does nothing, and what a
            # loop device wants zeroed is not.
            argv += ["--blockdev", f"driver=file,node-name=file{i},filename={file},discard=unmap",
                     "--export", f"type=fuse,id=export{i},node-name=file{i},mountpoint={mount},"
                                 "writable=on"]
        self.launch(argv)


class NbdFuse(Server):
    name = "nbdfuse"
    programs = ("nbdfuse", "nbdkit")

    def begin(self):
        if len(self.files) != 1:
            raise BenchError("nbdfuse serves one file")
        mount = self.mountpoint("mnt")
        self.paths = [mount / "nbd"]
        self.launch([self.program("nbdfuse"), mount, "[", self.program("nbdkit"), "file",
                     self.files[0], "]"])


class Dmfs(Server):
    """A linear volume over each file, named disk0, disk1, ..."""
    name = "dmfs"
    programs = ("dmfs",)
    runs = 0

    def __init__(self, env, files, options=()):
        super().__init__(env, files)
        self.options = options
        self.control = None
        self.suspended = set()

    def begin(self):
        Dmfs.runs += 1
        self.store = self.work / f"store{Dmfs.runs}"  # a new one: no volumes of an earlier run
        self.socket = self.work / "socket"
        self.launch_daemon()
        for i, file in enumerate(self.files):
            sectors = os.stat(file).st_size // 512
            self.paths.append(self.volume(f"disk{i}", [(0, sectors, "linear", f"{file} 0")]))

    def launch_daemon(self):
        self.mount = self.mountpoint("mnt")
        options = [word for option in (*self.options, *self.env.dmfs_options)
                   for word in ("-o", option)]
        self.launch([self.program("dmfs"), "-f", self.store, self.mount, "--socket", self.socket,
                     *options])
        wait_for("dmfs to listen", self.connect)

    def connect(self):
        self.check_alive()
        with contextlib.suppress(OSError):
            control = Control(self.socket)
            control.call("version")
            self.control = control
        return self.control is not None

    def volume(self, name, targets):
        """A further volume; returns its path."""
        self.control.make(name, targets)
        return self.mount / name

    def suspend(self, name):
        self.control.call("suspend", name=name)
        self.suspended.add(name)

    def resume(self, name):
        self.control.call("resume", name=name)
        self.suspended.discard(name)

    def stop(self):
        if self.control:
            for name in list(self.suspended):
                with contextlib.suppress(BenchError, OSError):
                    self.resume(name)
            self.control.close()
            self.control = None
        super().stop()


ALL = (Floor, QemuStorageDaemon, NbdFuse, Dmfs)
