# What tests/systemd/vm.py runs as root in its machine: /mnt is what it brought. Each outcome is a line of JSON.
exec 2>&1
say() { echo "vm: $*" | tr "\n" " " >/dev/console; echo >/dev/console; }
is() { if "$@" >/dev/null 2>&1; then echo true; else echo false; fi; }
get() { curl --silent --fail --max-time 20 --output /dev/null "$@"; }

say "{\"versions\": {\"systemd\": \"$(systemctl --version | sed -n '1s/[^ ]* //; 1s/ .*//p')\", \"linux\": \"$(uname -r)\"}}"

# -- as a package does it --
mkdir -p /usr/share/pyserver /etc/pyserver /var/www
cp -r /mnt/service /mnt/systemd /usr/share/pyserver/
cp -r /mnt/www /var/www/pyserver
install -m 755 /mnt/launcher /usr/bin/pyserver
cp /mnt/pyserver.toml /etc/pyserver/
sh -e /mnt/install

# Enough to fill a cache with.
for number in $(seq 200); do head -c 250000 /dev/urandom >/var/www/pyserver/$number.bin; done
chmod -R a+rX /var/www/pyserver
drop_in=/run/systemd/system/pyserver.service.d
mkdir -p $drop_in

told() { journalctl --sync; journalctl --unit=pyserver --since="@$since" --grep="$1" >/dev/null 2>&1; }

# There is room for what it has, and for little more; then the workers fill their caches, and hold more than the master.
short_of_memory() {
    since=$(date +%s)
    systemctl start pyserver
    get http://localhost/
    master=$(systemctl show --value --property=MainPID pyserver)
    group=/sys/fs/cgroup$(systemctl show --value --property=ControlGroup pyserver)
    systemctl set-property --runtime pyserver MemorySwapMax=0 MemoryMax=$(($(cat "$group/memory.current") + 25000000))
    for _ in $(seq 40); do
        get 'http://localhost/[1-200].bin'
        ! told 'killed by the OOM killer' || break
    done
    killed=$(sed -n 's/^oom_kill //p' "$group/memory.events")
    systemctl set-property --runtime pyserver MemoryMax=infinity
    get http://localhost/
}

short_of_memory
say "{\"continue\": {\"oom_kill\": ${killed:-0}, \"told_by_systemd\": $(is told 'killed by the OOM killer'),
 \"told_by_us\": $(is told 'worker [0-9]* .* killed by SIGKILL'),
 \"same_master\": $(is test "$master" = "$(systemctl show --value --property=MainPID pyserver)"),
 \"active\": $(is systemctl is-active pyserver), \"served\": $(is get http://localhost/)}}"
systemctl stop pyserver.socket pyserver.service

# -- what the default would be; the next client starts the service again --
printf '[Service]\nOOMPolicy=stop\n' >$drop_in/oom.conf
systemctl daemon-reload
short_of_memory
say "{\"stop\": {\"told_by_systemd\": $(is told 'killed by the OOM killer'),
 \"stopped\": $(is told "Failed with result 'oom-kill'")}}"
systemctl stop pyserver.socket pyserver.service
rm $drop_in/oom.conf

# -- the examples --
systemctl revert pyserver.service
mkdir -p $drop_in
cp /mnt/systemd/examples/limits.conf $drop_in/
systemctl daemon-reload
systemctl start pyserver
group=/sys/fs/cgroup$(systemctl show --value --property=ControlGroup pyserver)
say "{\"limits\": {\"memory_max\": $(is test "$(cat "$group/memory.max")" = $((512 << 20)))}}"
systemctl stop pyserver.socket pyserver.service

mkdir -p /run/systemd/system/pyserver.socket.d
cp /mnt/systemd/examples/addresses.conf /run/systemd/system/pyserver.socket.d/
systemctl daemon-reload
ip address add 192.0.2.1/32 dev lo
ip address add 198.51.100.1/32 dev lo
systemctl start pyserver.socket
systemctl start pyserver.service
say "{\"addresses\": {\"allowed\": $(is get --interface 192.0.2.1 http://192.0.2.1/),
 \"refused\": $(if get --max-time 3 --interface 198.51.100.1 http://192.0.2.1/; then echo false; else echo true; fi),
 \"counted\": $(is test "$(systemctl show --value --property=IPIngressBytes pyserver.socket)" -gt 0)}}"
