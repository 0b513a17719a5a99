#!/usr/bin/env bash
# A Docker Engine for the drills on a Linux machine that has none: Debian 13's packages, in namespaces of their own.
#
#   engine.sh run COMMAND…    start it if no engine answers, run COMMAND with it, stop what was started
#   engine.sh start | in COMMAND… | stop | remove      the same in steps
#
# Everything is in .containers/ of the checkout. Nothing is installed, and the host's network, mounts and firewall stay
# as they are: COMMAND runs in the engine's network namespace, where published ports are on the loopback.
set -euo pipefail
cd "$(dirname "$0")/../.."
checkout=$(pwd -P) D=$(pwd -P)/.containers
R=$D/root socket=unix://$D/docker.sock
PACKAGES=docker.io,docker-cli,docker-compose,docker-buildx,iptables,iproute2,slirp4netns,ca-certificates,kmod,procps

fail() { echo "containers: $1" >&2; exit 1; }
running() { [ -s "$D/$1.pid" ] && kill -0 "$(cat "$D/$1.pid")" 2>/dev/null; }
until_true() { for _ in $(seq "$1"); do "${@:2}" && return; sleep 0.2; done; return 1; }
holder() { cat "$D/holder.pid"; }
# In the engine's files and the host's network; with --net in the engine's.
beside() { nsenter --target "$(holder)" --mount --root --wd=/ "$@"; }
# In the place of a background shell, without the files that this inherited: one may be a lock, held as long as it is open.
daemon() {
  for fd in /proc/"$BASHPID"/fd/*; do
    fd=${fd##*/}
    if [ "$fd" -gt 2 ]; then eval "exec $fd>&-"; fi
  done
  exec "$@"
}
answers() { beside --net docker --host "$socket" version >/dev/null 2>&1; }
has_network() { beside --net ip -4 -brief address show tap0 2>/dev/null | grep -q '10\.0\.2\.'; }

# mmdebstrap is a script, so that it runs from its unpacked package. One suite, or a tar of it for `docker import`.
bootstrap() {
  if ! command -v mmdebstrap >/dev/null && ! [ -x "$D/tools/usr/bin/mmdebstrap" ]; then
    command -v apt-get >/dev/null || fail "no Docker Engine answers, and this machine has no apt to fetch one with: install Docker Engine 25 or newer"
    mkdir -p "$D/tools"
    (cd "$D/tools" && apt-get --quiet=2 --option=APT::Sandbox::User=root download mmdebstrap && dpkg -x mmdebstrap_*.deb .)
  fi
  local checks  # a mirror that is behind is good enough where this machine's own apt says so
  checks=$(apt-config dump Acquire | grep -E '::Check-(Valid-Until|Date) ' || true)
  PATH=$D/tools/usr/bin:$PATH mmdebstrap --quiet --variant=minbase --aptopt='APT::Install-Recommends "false"' \
    ${checks:+"--aptopt=$checks"} "$@"
}

install() {
  [ -e "$D/installed" ] && return
  [ "$(uname -s)" = Linux ] && [ "$(id -u)" = 0 ] || fail "no Docker Engine answers, and setting one up needs Linux and root: start Docker, or run as root"
  echo "no Docker Engine answers: setting one up in $D"
  rm -rf --one-file-system "$R"
  mkdir -p "$D/data" "$D/bin"
  bootstrap --include="$PACKAGES" trixie "$R"
  touch "$D/installed"
}

# A root of its own: Debian 13, this machine's devices and cgroups, and the checkout at its own path. The engine may not
# change the kernel's settings, but for those of its own network.
hold() {
  daemon unshare --net --mount --propagation slave bash -euc '
    R=$1 checkout=$2 D=$3
    mount --bind "$R" "$R"
    mount -t tmpfs tmpfs "$R/run"
    mount -t tmpfs tmpfs "$R/tmp"  # before the checkout, which may be in there
    for shared in /dev /sys "$checkout"; do mkdir -p "$R$shared"; mount --rbind "$shared" "$R$shared"; done
    mount -t proc proc "$R/proc"
    mount --bind "$R/proc/sys/kernel" "$R/proc/sys/kernel"
    mount -o remount,bind,ro "$R/proc/sys/kernel"
    cp --dereference /etc/resolv.conf "$R/etc/resolv.conf"
    cd "$R"; mkdir -p .old; pivot_root . .old; umount -l /.old
    echo $$ >"$D/holder.pid"; exec sleep infinity' - "$R" "$checkout" "$D" >"$D/holder.log" 2>&1 </dev/null &
  until_true 50 running holder || fail "no namespaces for the engine: $(cat "$D/holder.log")"
  beside --net ip link set lo up
}

start() {
  install
  answers && return
  stop
  hold
  # The containers' way out: a network in user space, without an address or a route of the host.
  daemon nsenter --target "$(holder)" --mount --root --wd=/ \
    slirp4netns --configure --mtu=65520 --disable-host-loopback "$(holder)" tap0 \
    >"$D/slirp.log" 2>&1 </dev/null &
  echo $! >"$D/slirp.pid"
  until_true 50 has_network || fail "the engine has no network: $(cat "$D/slirp.log")"
  daemon nsenter --target "$(holder)" --mount --root --wd=/ --net \
    dockerd --host "$socket" --data-root "$D/data" --cgroup-parent eventpush-containers \
    --pidfile "$D/dockerd.pid" >"$D/dockerd.log" 2>&1 </dev/null &
  until_true 150 answers || { tail -n 20 "$D/dockerd.log" >&2; fail "the engine does not start: see $D/dockerd.log"; }
  cat >"$D/bin/docker" <<-END
	#!/bin/sh
	exec nsenter --target $(holder) --mount --net --root --wd="\$PWD" /usr/bin/docker "\$@"
	END
  chmod +x "$D/bin/docker"
}

stop() {
  if running dockerd; then
    kill "$(cat "$D/dockerd.pid")"
    until_true 300 eval '! running dockerd' || fail "dockerd does not stop: see $D/dockerd.log"
  fi
  for part in slirp holder; do
    if running "$part"; then kill "$(cat "$D/$part.pid")"; fi
  done
  rm -f "$D"/*.pid
  find /sys/fs/cgroup -depth -type d -path '*/eventpush-containers*' -exec rmdir {} + 2>/dev/null || true
}

in_engine() {
  running holder || fail "the engine is not running: start it with tests/containers/engine.sh start"
  export DOCKER_HOST=$socket PATH=$D/bin:$PATH STAND_INS_DIR=$D/stand-ins TESTCONTAINERS_RYUK_DISABLED=true
  exec nsenter --target "$(holder)" --net -- "$@"
}

command=${1:?run, start, in, stop or remove}
shift
case $command in
  run)
    if docker version >/dev/null 2>&1; then exec "$@"; fi
    trap stop EXIT
    start
    (in_engine "$@")
    ;;
  start) start ;;
  in) in_engine "$@" ;;
  bootstrap) bootstrap "$@" ;;
  stop) stop ;;
  remove) stop; rm -rf --one-file-system "$D" ;;
  *) fail "unknown command $command" ;;
esac
