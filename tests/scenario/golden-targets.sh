#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What I/O on the targets gave and did on a real kernel, and what they said, line by line.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/golden_transcripts.sh"
golden_transcripts targets flush
