#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Mirrors as on a real kernel: what they said, what they did to their legs, and their disk logs byte
# for byte.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/golden_transcripts.sh"
requires hexdump sha256sum
golden_transcripts mirror
