// SPDX-License-Identifier: Apache-2.0
#include "cli/usage.h"

#include <fmt/format.h>

namespace dmfs::cli {
namespace {

constexpr std::string_view kUsage = R"(Usage:

{0} [OPTION]... COMMAND [WORD]...

The daemon
	mount [MOUNTPOINT] [--store FILE] [--socket PATH] [-o OPT,...] [-f|--foreground]
	umount [MOUNTPOINT]
Devices
	create NAME [-u|--uuid UUID] [-j|--major MAJOR -m|--minor MINOR] [-r|--readonly]
	       [--ordered] [--readahead {{[+]SECTORS|auto|none}}]
	       [-n|--notable | --table TABLE | FILE]
	create --concise [DEVICES]
	remove [-f|--force] [--deferred] [--retry] DEVICE...
	remove_all [-f|--force] [--deferred]
	rename DEVICE NEW_NAME
	rename DEVICE --setuuid NEW_UUID
Tables
	load|reload DEVICE [-r|--readonly] [--ordered] [--table TABLE | FILE]
	clear DEVICE...
	suspend [--noflush] [--nolockfs] [--timeout SECONDS] DEVICE...
	resume [--noflush] [--nolockfs] [--readahead {{[+]SECTORS|auto|none}}] DEVICE...
	wipe_table [--noflush] [--nolockfs] DEVICE...
Queries
	table [--inactive] [--target TYPE] [--concise] [--showkeys] [DEVICE...]
	status [--inactive] [--target TYPE] [--noflush] [DEVICE...]
	info [-c|-C|--columns [-o|--options FIELDS] [-O|--sort FIELDS] [--separator TEXT]
	     [--noheadings] [--rows] [--nameprefixes [--unquoted]]] [DEVICE...]
	deps [--inactive] [-o devno|devname|blkdevname] [DEVICE...]
	ls [--target TYPE] [-o devno|devname|blkdevname]
	ls --tree [-o TREE_OPTIONS]
	targets
	target-version TYPE...
	version
	why DEVICE...
	fail-held DEVICE [ERRNO]
	paths [DEVICE...]
	fail-path|reinstate-path DEVICE PATH
Arrays to try multipath with
	lab array NAME [--paths N] [--controllers N] [--alua|--implicit|--emc|--rdac|--hp_sw]
	    [--size SIZE] [--file FILE] [--slow MS] [--create]
	lab set PATH STATE...
	lab show NAME
	lab remove NAME
Events and messages
	wait DEVICE [EVENT_NR]
	wait --synced [--timeout SECONDS] DEVICE
	message DEVICE SECTOR MESSAGE
	setgeometry DEVICE CYLINDERS HEADS SECTORS START
	mknodes [DEVICE...]
	help [-c]

DEVICE is NAME, MOUNT/NAME, /dev/mapper/NAME, /dev/dm-MINOR, or instead of a word
  -u UUID or -j MAJOR -m MINOR.
TABLE and FILE have a line "START LENGTH TYPE [PARAMS]" for each target, in sectors of 512
  bytes. Without them the table is read from standard input.
DEVICES is NAME,UUID,MINOR,{{ro|rw}},TABLE_LINE[,TABLE_LINE]...[;...]
TREE_OPTIONS are ascii, utf, vt100, compact, inverted, notrunc, blkdevname, [no]device,
  active, open, rw, uuid.
Every command: [--socket PATH] [--json] [-v|--verbose] [--manglename {{auto|hex|none}}]
  [-h|--help] [--version]
Ignored, for dmsetup's sake: -y|--yes, -U|--uid, -G|--gid, -M|--mode, --checks,
  --noopencount, --addnodeoncreate, --addnodeonresume, --udevcookie COOKIE,
  --noudevrules, --noudevsync, --verifyudev.
)";

}  // namespace

std::string usage_text(std::string_view program) {
  return fmt::format(kUsage, program);
}

}  // namespace dmfs::cli
