# SPDX-License-Identifier: Apache-2.0
"""Where dmfs differs from the recorder's kernel and dmsetup, each with its reason; for replay.py"""

# Parts of commands that are not replayed: they need block devices. What the other parts do to the
# state of the devices is done all the same.
NOT_REPLAYED = [
    (r"^blockdev --(get|set)r[ow]", "ioctls of block devices"),
    (r"^cat /sys/block/", "queue limits of block devices"),
    (r"^ls -l /dev/", "nodes of block devices"),
]
# The same for commands that are nothing without the part that cannot be replayed.
NOT_REPLAYED_WHOLE = [
    (r"^blockdev --getsz --get", "what only block devices have"),
    (r"^mknod ", "nodes of block devices"),
    (r"^for i in \$\(seq 1 60\); do dmsetup status", "progress, by the time of day"),
    (r"^for d in loop0 loop1 .*queue/write_cache", "queue limits of block devices"),
]

# Sections that are skipped, aloud, while dmctl lacks a target: (pattern of the title, target).
NEEDS = [
    (r"^== delay", "delay"),
    (r"\(delay\)|while a delayed write", "delay"),
    (r"^== switch", "switch"),
]


# Where dmfs differs on purpose: (pattern of the command, what is printed instead). Each with its
# reason; a command that is not here has to print what dmsetup printed.
DIFFERENCES = [
    (r"^dmsetup version$", {"out": ["Library version:   0.1.0 (dmfs)",
                                    "Driver version:    4.47.0"]}),
    (r"^dmsetup targets$", {"out": [
        "delay            v1.4.0", "dust             v1.0.0", "error            v1.5.0",
        "flakey           v1.5.0", "hang             v1.0.0", "lab              v1.0.0", "linear           v1.4.0",
        "mirror           v1.14.0", "multipath        v1.14.0", "striped          v1.6.0",
        "throttle         v1.0.0", "unstriped        v1.1.0", "zero             v1.1.0"]}),
    # Linux 6.12 refuses these names, and so does dmfs.
    (r"create (\.|\.\.|control) ", {"status": 1, "err": [
        r"device-mapper: create ioctl on \1  failed: Invalid argument", "Command failed."]}),
    # Refused at once instead of when the device has been made.
    (r"create m3 -j 99", {"out": [], "status": 1, "err": [
        "device-mapper: create ioctl on m3 (99:5) failed: No such device or address",
        "Command failed.", "Device does not exist.", "Command failed."]}),
    # Linux 6.12 says ENOENT; other things that are not a device have an errno of their own.
    (r"'[^']*(linear|striped|flakey) .*\bnosuch 0", {"err": [
        "device-mapper: reload ioctl on x (253:0) failed: No such file or directory",
        "Command failed."]}),
    (r"linear /dev/null 0", {"err": [
        "device-mapper: reload ioctl on x (253:0) failed: Block device required",
        "Command failed."]}),
    (r"linear /tmp 0", {"err": [
        "device-mapper: reload ioctl on x (253:0) failed: Is a directory", "Command failed."]}),
    # A table on its own device is refused (Linux 6.12), and so is a longer cycle.
    (r"reload a --table .*/(a|loop1) 0\"", {"err": [
        "device-mapper: reload ioctl on a  failed: Too many levels of symbolic links",
        "Command failed."]}),
    (r"reload a --table .*/a 0\"$", {"status": 1}),
    # Here a device without a table has a file too, and there is no control node.
    (r"^ls /dev/mapper; dmsetup info lin2new", {"rules": [(r"^control$", "empty")]}),
    (r"^exec 9</dev/mapper/lin; dmsetup remove_all", {"rules": [(r"^control\n", "")]}),
    (r"blkdevname,blkdevs_used$", {"status": 0, "err": [], "rules": [
        (r"^lin ", "empty ---w None Active Writeable 253:9 dm-9 \nlin ")]}),
    # dmsetup cannot do this: it asks the kernel for a device with an empty name.
    (r"^dmsetup rename -u NEW-UUID lin2$", {"status": 0, "err": []}),
    (r"^dmsetup rename lin2new lin2$", {"status": 1, "err": [
        "device-mapper: rename ioctl on lin2new  failed: No such device or address",
        "Command failed."]}),
    # Linux 6.12 has this feature of flakey, and so does dmfs.
    (r"create (\w+) --table '0 \d+ flakey .* error_reads", {
        "status": 0, "err": [], "then": r"dmsetup remove \1"}),
    # Reads are not rounded to pages: the good sectors before a bad one are read.
    (r"^dd if=/dev/mapper/l of=/dev/null bs=512; dd .* bs=9216 iflag=direct$", {"err": [
        "dd: error reading '/dev/mapper/l': Input/output error", "13+0 records in",
        "13+0 records out", "6656 bytes (6.7 kB, 6.5 KiB) copied",
        "dd: error reading '/dev/mapper/l': Input/output error", "0+0 records in",
        "0+0 records out", "0 bytes copied"]}),
    (r"linear /dev/nosuch 0\"; dmsetup info -c --noheadings -o attr hi$", {"err": [
        "device-mapper: reload ioctl on hi  failed: No such file or directory",
        "Command failed."]}),
    # The attempts of --retry, which the replay adds.
    (r"^dmsetup remove hi; dmsetup remove -f hi;", {"got_rules": [
        (r"(Command failed\.\n)(device-mapper: remove ioctl on hi  failed: .*\n)+", r"\1")]}),
    # See JOB_DIFFERENCES: three jobs hold it open.
    (r"^dmsetup info d; dmsetup table d; dmsetup table --inactive d", {"rules": [
        (r"^(Open count:        )2$", r"\g<1>3"), (r":Suspended:2:0$", ":Suspended:3:0")]}),
    # A ram disk has no write cache, so that no flush reaches a target over it; a file has one.
    (r"bio w /dev/mapper/f 4 4 W; bio f ", {"rules": [
        (r"^(write 4\+4: (.*)\n)fsync: ok$", r"\1fsync: \2")]}),
    # A write that has to be durable is that on the device where it lies. The recorder's loop devices
    # cannot do that, so that all of the volume is flushed, also the leg that fails.
    (r"bio w /dev/mapper/mt 0 8 A fua; bio w /dev/mapper/mt 1024 8 A fua", {"rules": [
        (r"^write 0\+8: .*(?=\nwrite 1024)", "write 0+8 tag A fua: 4096 bytes")]}),
    (r"bio f /dev/mapper/s; .*bio w /dev/mapper/s 0 8 A fua", {"rules": [
        (r"^write 0\+8: .*", "write 0+8 tag A fua: 4096 bytes")]}),
    # The third dd: the same. The second one, where writes fail: no page cache takes them first.
    (r"of=/dev/mapper/mt bs=512 count=8 oflag=sync,direct", {
        "rules": [(r"^(dd-rc=1\n){4}", "dd-rc=1\ndd-rc=1\ndd-rc=0\ndd-rc=1\n")],
        "err_rules": [
            (r"(?<=copied\n)(dd: fsync failed for ('.*'):.*\n)8\+0 .*\n8\+0 .*\n4096 .*\n"
             r"(?=dd: error)",
             r"dd: error writing \2: Input/output error\n\g<1>1+0 records in\n0+0 records out\n"
             r"0 bytes copied\n"),
            (r"dd: error writing .*\n1\+0 .*\n0\+0 .*\n0 bytes .*\n(?=dd: fdatasync)",
             "8+0 records in\n8+0 records out\n4096 bytes (4.1 kB, 4.0 KiB) copied\n")]}),
    # A ram disk cannot discard, a file can.
    (r"^bio d /dev/mapper/m 0 16; bio z", {"rules": [
        (r"^discard 0\+16: .*", "discard 0+16: ok")]}),
    # What only block devices have.
    (r"blockdev --get(ss|iomin)", {"rules": [(r"^\d+\n", "")]}),
    # The kernel lets 2^64 wrap to 0.
    (r"linear /dev/ram0 18446744073709551616", {"status": 1, "err": [
        "device-mapper: reload ioctl on x (253:0) failed: Invalid argument", "Command failed."],
        "kernel": ["device-mapper: table: 253:0: linear: Invalid device sector (-EINVAL)"]}),
]
# By the kernel's log: (part of a line, pattern of the command, what is printed instead).
KERNEL_DIFFERENCES = [
    # The default queue_mode of multipath goes with all devices.
    ("including non-request-stackable devices", r"create (\w+) ", {
        "status": 0, "err": [], "kernel": [], "then": r"dmsetup remove \1"}),
    # There is no handler of that name; the kernel's finds no SCSI device first.
    ("multipath: error attaching hardware handler (-ENODEV)", r"create (\w+) ", {"err": [
        r"device-mapper: reload ioctl on \1 (253:0) failed: Invalid argument", "Command failed."]}),
    # But those of the kernel's names there are; what is no array fails its paths, not the table.
    ("multipath: error attaching hardware handler (-ENODEV)",
     r"create (\w+) .* \d (?:alua|emc|hp_sw|rdac) ", {
         "status": 0, "err": [], "kernel": [], "then": r"dmsetup remove \1"}),
    # Linux 6.12 says ENOENT.
    ("multipath: error getting device (-ENODEV)", r"create (\w+) ", {"err": [
        r"device-mapper: reload ioctl on \1 (253:0) failed: No such file or directory",
        "Command failed."]}),
    ("multipath: message: error getting device nosuch", r"message (\w+) ", {"err": [
        r"device-mapper: message ioctl on \1  failed: No such file or directory",
        "Command failed."]}),
    # The recorder had one CPU. Here a mask may have 1024 on every machine.
    ("multipath: io-affinity ps: invalid cpumask", r"create (\w+) .* io-affinity .* [0-9a-f]+'$", {
        "status": 0, "err": [], "kernel": [], "then": r"dmsetup remove \1"}),
]
# By the name of the transcript: what the recorder called some devices, and what they are here, first in
# commands, then in what they print.
NAMES = {
    # A copy had got that far when it was asked; here that is waited for.
    "mirror": ([(r"dmsetup status m(?=;|$)", r"steady dmsetup status m; dmsetup status m")],
               [(r"253:0( 0)? 253:1\b", r"l0\1 l1")]),
    "multipath": (
        [(r"(fail|reinstate)_path 7:([12])$", r"\1_path /dev/loop\2"),
         (r"fail_path 1:0$", "fail_path /dev/ram0")],
        [(r"\b7:([12]) ", r"p\1 ")] +
        [(r"(?<= )253:%d " % i, "p%d " % (i + 1)) for i in range(4)]),
}
# Of jobs: (what was recorded, what is here).
JOB_DIFFERENCES = [
    # A ram disk has no write cache, so that fsync had nothing to wait for.
    (r"^fs: finished: fsync: ok;bg-rc=0;$", "fs: still running (blocked)"),
]
# The same for what follows from a difference: rules for what is expected from then on.
CONSEQUENCES = [
    # The three devices that were refused are not listed, and the next ones get their numbers.
    (r"create control ", [
        (r"^(\.|\.\.|control)(\t|: ).*\n?", ""), (r"^control\n?", ""),
        (r"253(:|, )4\b", r"253\g<1>1"), (r"253(:|, )5\b", r"253\g<1>2")]),
]
# What `dmctl info` says and dmsetup does not: how many requests wait.
SAID_BESIDES = r"^Held: .*\n"
# dmsetup opens the node of a device to learn its read-ahead; dmctl asks the daemon.
NOT_SAID = r"^.*: open failed: No such .*\n?"
