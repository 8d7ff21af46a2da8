#!/bin/busybox sh
# The first program of the machine: it puts this machine's files below what is written, and runs the script.
b=/bin/busybox
$b mount -t proc proc /proc
$b mount -t sysfs sys /sys
$b mount -t devtmpfs dev /dev
for module in $($b cat /order); do $b insmod "/lib/$module"; done
share=trans=virtio,version=9p2000.L,msize=524288
$b mount -t 9p -o "$share,ro,cache=loose" root /lower
$b mount -t tmpfs -o size=4g tmpfs /upper
$b mkdir -p /upper/files /upper/work
$b mount -t overlay -o lowerdir=/lower,upperdir=/upper/files,workdir=/upper/work root /root
$b mkdir -p /root/vm /root/lib/modules
$b mount -t 9p -o "$share" share /root/vm
$b mount --bind "/lower$($b sed -n 's/.*tree=\([^ ]*\).*/\1/p' /proc/cmdline)/lib/modules" /root/lib/modules
for tree in tmp run var/lib/docker; do $b mkdir -p "/root/$tree" && $b mount -t tmpfs tmpfs "/root/$tree"; done
$b rm -rf /root/var/lib/drawbridge
for tree in proc sys dev; do $b mount --move "/$tree" "/root/$tree"; done
exec $b switch_root /root /bin/bash -c '
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/go/bin HOME=/root
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t cgroup2 cgroup2 /sys/fs/cgroup
echo "+cpu +memory +pids +io" >/sys/fs/cgroup/cgroup.subtree_control
ip link set lo up
bash /vm/script >/vm/out 2>&1
echo $? >/vm/code
sync
echo o >/proc/sysrq-trigger
sleep 60'
