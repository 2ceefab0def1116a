#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What suspend, and multipath with what waits in it, gave and did on a real kernel, line by line.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/golden_transcripts.sh"
golden_transcripts suspend multipath
