#!/bin/sh
# Runs a user's systemd (uid 65534, no root's rights) in namespaces of its own, and sigward.service in it. tests/deploy/test_systemd.py calls,
# as root. Arguments: the repository, the interpreter's prefix, its version (3.13), a front. Prints what it finds, a line each.
set -eu

case "${1-}" in
inside) shift ;;
*)
    # A cgroup that the user's systemd may fill; the root of what it sees.
    mount --make-rprivate /
    mount -t cgroup2 none /sys/fs/cgroup
    group=/sys/fs/cgroup/sigward-test-$$
    mkdir "$group"
    chown -R 65534:65534 "$group"
    echo $$ > "$group/cgroup.procs"
    status=0
    # Before pytest's time is up: what it ends would leave the namespaces running.
    timeout --signal=KILL 100 unshare --mount --pid --cgroup --net --fork --mount-proc --kill-child sh "$0" inside "$@" || status=$?
    echo $$ > /sys/fs/cgroup/cgroup.procs
    find "$group" -depth -type d -exec rmdir {} +
    exit $status
    ;;
esac

umount /sys/fs/cgroup
mount -t cgroup2 none /sys/fs/cgroup
ip link set lo up
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /home
# systemd asks whether the machine runs it, and mounts what a unit sees below unit-root.
mkdir -p /run/systemd/system /run/systemd/unit-root /run/clone /run/python /run/user /home/user/.local/bin /home/user/.config/systemd/user/sigward.service.d /home/user/.aws
# Wherever they lie: a user may not be able to look into root's home.
mount --bind "$1" /run/clone
mount --bind "$2" /run/python
mount -t tmpfs -o mode=1777 tmpfs /tmp
mount -t tmpfs -o mode=1777 tmpfs /var/tmp
home=/home/user
packages="/run/clone/python:/run/clone/.venv/lib/python$3/site-packages"

cp /run/clone/deploy/systemd/sigward.service $home/.config/systemd/user/
cat > $home/.config/systemd/user/sigward.service.d/test.conf <<EOF
[Service]
Environment=SIGWARD_FRONT=$4 AWS_REGION=us-east-1 AWS_EC2_METADATA_DISABLED=true
StandardError=file:$home/log
EOF
cat > $home/.local/bin/sigward <<EOF
#!/bin/sh
PYTHONHOME=/run/python PYTHONPATH=$packages LD_LIBRARY_PATH=/run/python/lib exec /run/python/bin/python$3 -m sigward "\$@"
EOF
# Its writes show what the sandbox lets through; it is asked once more at each reload.
cat > $home/.local/bin/keys <<EOF
#!/bin/sh
for place in $home/.aws/written $home/.config/sigward/written /run/user/sigward/written $home/written /run/user/written; do
    touch "\$place" 2>/dev/null && echo "\$place" >> $home/.aws/places
done
echo '{"Version": 1, "AccessKeyId": "AKIDTESTS", "SecretAccessKey": "a-secret-that-must-not-leak"}'
EOF
chmod +x $home/.local/bin/*
printf '[default]\ncredential_process = %s/.local/bin/keys\n' $home > $home/.aws/config
chown -R 65534:65534 $home /run/user

cd /
export HOME=$home XDG_RUNTIME_DIR=/run/user
user() {
    setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=-all "$@"
}

user /lib/systemd/systemd --user --log-target=console > $home/systemd.log 2>&1 &
manager=$!
until user systemctl --user show-environment > /dev/null 2>&1; do
    kill -0 $manager || { cat $home/systemd.log >&2; exit 1; }
done
user systemctl --user start sigward || { user systemctl --user status sigward >&2 || true; cat $home/systemd.log $home/log >&2; exit 1; }
pid=$(user systemctl --user show --property=MainPID --value sigward)
echo "state $(user systemctl --user show --property=ActiveState --value sigward)"
user $home/.local/bin/sigward healthcheck
awk '$1 == "NoNewPrivs:" || $1 == "Seccomp:" { print $1, $2 }' "/proc/$pid/status"
user systemctl --user reload sigward
until grep -q 'read anew' $home/log; do
    kill -0 "$pid"
done
echo reloaded
user systemctl --user stop sigward
echo "result $(user systemctl --user show --property=Result --value sigward)"
sort -u $home/.aws/places | sed 's/^/written /'
sed 's/^/log /' $home/log
