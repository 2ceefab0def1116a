# Sourced by cli/quickstart and tests/run: the Debian packages that they need, and how to get them.

BUILD_PACKAGES=(g++ cmake ninja-build pkg-config libfuse3-dev fuse3 libsqlite3-dev liburing-dev liblua5.4-dev libcli11-dev
  libspdlog-dev libfmt-dev nlohmann-json3-dev)
TEST_PACKAGES=(libgtest-dev libgmock-dev fio qemu-utils e2fsprogs xfsprogs btrfs-progs mandoc
  util-linux mount procps sqlite3 python3)
# qemu-storage-daemon lies in qemu-system-common, nbdfuse in libnbd-bin.
BENCH_PACKAGES=(libbenchmark-dev fio python3 e2fsprogs util-linux mount)
BENCH_PEER_PACKAGES=(qemu-system-common nbdkit libnbd-bin)
DEMO_PACKAGES=(e2fsprogs util-linux mount)

# install_packages PACKAGE...: those that are missing; as root, or through sudo; else names them.
install_packages() {
  local missing=() p sudo=()
  for p; do
    dpkg-query -W -f='${Status}\n' "$p" 2>/dev/null | grep -q 'ok installed' || missing+=("$p")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  if [ "$(id -u)" != 0 ]; then
    if command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
      sudo=(sudo -n)
    else
      echo "These Debian packages are missing, and neither root nor sudo is at hand to install them:" >&2
      echo "  ${missing[*]}" >&2
      echo "Have them installed, then run this again." >&2
      return 1
    fi
  fi
  echo "Installing: ${missing[*]}"
  "${sudo[@]}" apt-get update -qq
  DEBIAN_FRONTEND=noninteractive "${sudo[@]}" apt-get install -y -qq --no-install-recommends \
    "${missing[@]}" >/dev/null
}
